#include "train/data/pathfinder_generator.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <optional>
#include <thread>
#include <vector>

#include "runtime/threads.h"
#include "train/data/dashes.h"
#include "train/random.h"

namespace spion {
namespace {

constexpr double kLength = 2, kMargin = 1;  // of a dash, in pixels
constexpr int kContour = 14, kDistractor = 4, kDistractors = 5;
constexpr int kTriesOfDash = 3, kTriesOfDistractor = 5;
constexpr double kSeedDistance = 7;
constexpr double kTargetContrast = 1.5, kDistractorContrast = 2.0;
constexpr float kTouch = 0.05F;      // of a footprint
constexpr float kOverlap = 1.8F;     // mask and footprint together stay below
constexpr double kLeastFree = 0.01;  // of the pixels, for a distractor
constexpr std::uint64_t kStream = 4000;

using namespace dashes;

double radians(double degrees) {
    return degrees * std::numbers::pi / 180;
}
Point step(Point from, double distance, double angle) {
    return {static_cast<int>(std::ceil(from.row + distance * std::sin(radians(angle)))),
            static_cast<int>(std::ceil(from.column + distance * std::cos(radians(angle))))};
}
double angle_between(Point from, Point to) {
    return std::atan2(to.row - from.row, to.column - from.column) * 180 / std::numbers::pi;
}

// A contour as it grows. The last dash's footprint is not in the mask: the next one touches it.
struct Contour {
    Point start, end;  // where discs may lie
    Point pivot;       // the next dash begins kMargin beyond it
    double angle = 0;  // of the last dash, in degrees
    Point last_from;   // its first point
    const Dash* last = nullptr;
};

class Picture {
  public:
    explicit Picture(SplitMix random) : random_(random) {}
    PathfinderPicture make();

  private:
    bool targets();
    bool distractor();
    bool fits(Point from, const Dash& dash) const;
    double free_of_others(Point from, const Dash& dash) const;
    std::optional<Contour> seed(Point tail, double angle, double contrast);
    bool grow(Contour& contour, double contrast);
    void join(const Contour& contour);
    void paint(Point from, const Dash& dash, double contrast);
    void paint(const Plane& plane);
    double any_angle() { return static_cast<double>(random_.below(360)) - 180; }

    SplitMix random_;
    Plane image_{}, mask_{};
    Contour contours_[2];
};

bool Picture::fits(Point from, const Dash& dash) const {
    return std::all_of(dash.begin(), dash.end(), [&](const Cell& cell) {
        const Point point{from.row + cell.row, from.column + cell.column};
        return !inside(point) || mask_[at(point)] + cell.footprint < kOverlap;
    });
}

// 1 where the dash would touch no other, 0 where it would lie on one.
double Picture::free_of_others(Point from, const Dash& dash) const {
    float touched = 0;
    for (const Cell& cell : dash) {
        const Point point{from.row + cell.row, from.column + cell.column};
        if (inside(point) && cell.footprint > kTouch) touched = std::max(touched, mask_[at(point)]);
    }
    return 1.0 - double{touched};
}

void Picture::join(const Contour& contour) {
    for (const Cell& cell : *contour.last) {
        const Point point{contour.last_from.row + cell.row, contour.last_from.column + cell.column};
        if (inside(point)) mask_[at(point)] = std::max(mask_[at(point)], cell.footprint);
    }
}

void Picture::paint(Point from, const Dash& dash, double contrast) {
    for (const Cell& cell : dash) {
        const Point point{from.row + cell.row, from.column + cell.column};
        if (!inside(point)) continue;
        float& pixel = image_[at(point)];
        pixel = std::max(pixel, cell.ink * static_cast<float>(contrast));
    }
}

void Picture::paint(const Plane& plane) {
    for (std::size_t i = 0; i < image_.size(); ++i) image_[i] = std::max(image_[i], plane[i]);
}

std::optional<Contour> Picture::seed(Point tail, double angle, double contrast) {
    const Point head = step(tail, kLength, angle);
    if (!inside(tail) || !inside(head)) return std::nullopt;
    const Dash& dash = dash_between(tail, head);
    if (!fits(tail, dash)) return std::nullopt;
    paint(tail, dash, contrast);
    return Contour{.start = tail,
                   .end = head,
                   .pivot = step(tail, -kMargin, angle),
                   .angle = angle,
                   .last_from = tail,
                   .last = &dash};
}

// Another dash: from a point on the circle round the new pivot back towards it, the likelier the
// straighter on.
bool Picture::grow(Contour& contour, double contrast) {
    const Point pivot = step(contour.pivot, kLength + 2 * kMargin, contour.angle);
    constexpr double kRadius = kLength + kMargin;
    const int points = static_cast<int>(2 * std::numbers::pi * kRadius);
    std::vector<Point> candidates;
    std::vector<double> weights;
    double sum = 0;
    for (int i = 0; i < points; ++i) {
        const double turn = 2 * std::numbers::pi * i / points;
        const Point point{static_cast<int>(pivot.row + kRadius * std::sin(turn)),
                          static_cast<int>(pivot.column + kRadius * std::cos(turn))};
        const bool known = std::any_of(candidates.begin(), candidates.end(), [&](Point other) {
            return other.row == point.row && other.column == point.column;
        });
        if (known || !inside(point)) continue;
        double bend = std::abs(angle_between(pivot, point) - contour.angle);
        bend = std::fmod(bend, 360);
        bend = std::min(bend, 360 - bend);
        const double straight = std::max(0.0, std::cos(radians(std::min(bend, 90.0))));
        const Point tail = step(point, -kLength, angle_between(pivot, point));
        candidates.push_back(point);
        const Point beyond = step(point, kLength, angle_between(pivot, point));
        const double room = std::min(free_of_others(point, dash_between(point, tail)),
                                     free_of_others(point, dash_between(point, beyond)));
        weights.push_back(room * straight * straight);
        sum += weights.back();
    }
    if (sum < 1e-9) return false;
    for (int attempt = 0; attempt < kTriesOfDash; ++attempt) {
        double left = random_.uniform() * sum;
        std::size_t drawn = 0;
        while (drawn + 1 < candidates.size() && left >= weights[drawn]) left -= weights[drawn++];
        const Point head = candidates[drawn];
        const double angle = angle_between(pivot, head);
        const Point tail = step(head, -kLength, angle);
        if (!inside(tail)) continue;
        const Dash& dash = dash_between(head, tail);
        if (!fits(head, dash)) continue;
        paint(head, dash, contrast);
        join(contour);
        contour.last_from = head;
        contour.last = &dash;
        contour.pivot = pivot;
        contour.angle = angle;
        contour.end = head;
        return true;
    }
    return false;
}

bool Picture::targets() {
    image_.fill(0);
    mask_.fill(0);
    // Far enough from every side: rows and columns 14 to 16.
    const Point first{14 + static_cast<int>(random_.below(3)),
                      14 + static_cast<int>(random_.below(3))};
    const double towards = radians(any_angle());
    const Point second{
        first.row + static_cast<int>(std::lround(kSeedDistance * std::sin(towards))),
        first.column + static_cast<int>(std::lround(kSeedDistance * std::cos(towards)))};
    const auto one = seed(first, any_angle(), kTargetContrast);
    const auto other = one ? seed(second, any_angle(), kTargetContrast) : std::nullopt;
    if (!other) return false;
    contours_[0] = *one;
    contours_[1] = *other;
    for (int dash = 1; dash < kContour; ++dash) {
        for (Contour& contour : contours_) {
            if (!grow(contour, kTargetContrast)) return false;
        }
    }
    join(contours_[0]);
    join(contours_[1]);
    return true;
}

bool Picture::distractor() {
    const double angle = any_angle();
    std::vector<Point> free;
    for (int row = 0; row < kEdge; ++row) {
        for (int column = 0; column < kEdge; ++column) {
            const Point tail{row, column}, head = step(tail, kLength, angle);
            if (inside(head) && free_of_others(tail, dash_between(tail, head)) > 0.5) {
                const Point behind = step(tail, -kLength, angle);
                if (free_of_others(tail, dash_between(tail, behind)) > 0.5) free.push_back(tail);
            }
        }
    }
    if (static_cast<double>(free.size()) < kLeastFree * kEdge * kEdge) return false;
    const Plane image = image_, mask = mask_;
    for (int attempt = 0; attempt < kTriesOfDistractor; ++attempt) {
        const Point tail = free[random_.below(static_cast<std::uint32_t>(free.size()))];
        auto contour = seed(tail, angle, kDistractorContrast);
        bool whole = contour.has_value();
        for (int dash = 1; whole && dash < kDistractor; ++dash) {
            whole = grow(*contour, kDistractorContrast);
        }
        if (whole) {
            join(*contour);
            return true;
        }
        image_ = image;
        mask_ = mask;
    }
    return false;
}

PathfinderPicture Picture::make() {
    PathfinderPicture picture{};
    picture.label = static_cast<int>(random_.below(2));
    while (!targets()) {
    }
    for (int i = 0; i < kDistractors; ++i) picture.distractors += distractor() ? 1 : 0;
    const std::uint32_t marked = random_.below(2);
    const Contour& from = contours_[marked];
    const Contour& to = contours_[picture.label == 1 ? marked : 1 - marked];
    for (const Point point : {from.start, to.end}) {
        paint(disc_at(point));
    }
    for (const Contour& contour : contours_) {
        picture.reach += 0.5 * std::hypot(contour.end.row - contour.start.row,
                                          contour.end.column - contour.start.column);
    }
    const float most = *std::max_element(image_.begin(), image_.end());
    for (std::size_t i = 0; i < image_.size(); ++i) {
        picture.pixels[i] = static_cast<std::uint8_t>(std::lround(255 * image_[i] / most));
    }
    return picture;
}

}  // namespace

PathfinderPicture generate_pathfinder(std::uint64_t seed, int split, std::int64_t index) {
    return Picture(SplitMix(seed, kStream + static_cast<std::uint64_t>(split),
                            static_cast<std::uint64_t>(index)))
        .make();
}

PictureSamples generate_pathfinder_split(std::uint64_t seed, int split, std::int64_t count,
                                         int threads) {
    constexpr std::size_t kPixels = kEdge * kEdge;
    PictureSamples samples;
    samples.rows = samples.columns = kEdge;
    samples.pixels.resize(static_cast<std::size_t>(count) * kPixels);
    samples.labels.resize(static_cast<std::size_t>(count));
    std::vector<std::thread> workers;
    for (int worker = 0; worker < threads; ++worker) {
        workers.push_back(start_thread(
            [&, worker] {
                for (std::int64_t i = worker; i < count; i += threads) {
                    const PathfinderPicture picture = generate_pathfinder(seed, split, i);
                    const auto place = static_cast<std::size_t>(i);
                    std::memcpy(samples.pixels.data() + place * kPixels, picture.pixels, kPixels);
                    samples.labels[place] = static_cast<std::uint16_t>(picture.label);
                }
            },
            "generating pictures"));
    }
    for (std::thread& worker : workers) worker.join();
    return samples;
}

}  // namespace spion
