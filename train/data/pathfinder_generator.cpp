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

constexpr double kPi = std::numbers::pi;
constexpr int kLength = 2, kMargin = 1;  // of a dash, in pixels
constexpr int kContour = 14, kDistractor = 4, kDistractors = 5;
constexpr int kTriesOfDash = 3, kTriesOfDistractor = 5;
constexpr int kSeedDistance = 7;
constexpr double kTargetContrast = 1.5, kDistractorContrast = 2.0;
constexpr float kOverlap = 1.8F;     // mask and footprint together stay below
constexpr float kOccupied = 0.3F;    // above it a seed finds no place
constexpr double kLeastFree = 0.01;  // of the pixels, for a distractor
constexpr double kDeadEnd = 1e-4;    // a sum of weights below it
constexpr std::uint64_t kStream = 4000;

using namespace dashes;

Point step(Point from, double distance, double angle) {
    return {static_cast<int>(std::ceil(from.row + distance * std::sin(angle))),
            static_cast<int>(std::ceil(from.column + distance * std::cos(angle)))};
}
double reversed(double angle) {
    return angle < 0 ? angle + kPi : angle - kPi;
}

// A contour as it grows. The last dash's footprint is not in the mask: the next one touches it.
struct Contour {
    Point start, end;  // where discs may lie
    Point pivot;       // the next pivot is beyond it, by a dash and two margins
    double angle = 0;  // of the last dash, in radians
    Point last_from;   // its first point
    const Dash* last = nullptr;
};

// Where the next dash may begin, on a circle round a pivot.
struct Candidate {
    Point point;
    double angle = 0;   // from the pivot
    double weight = 0;  // the likelier the straighter on and the freer
};

class Picture {
  public:
    explicit Picture(SplitMix random) : random_(random) {}
    PathfinderPicture make();

  private:
    bool targets();
    bool distractor();
    bool fits(Point from, const Dash& dash) const;
    float mask_around(Point point) const;
    static std::vector<Point> places(double angle, const Plane& taken);
    static std::optional<Contour> contour_at(Point tail, double angle);
    std::optional<Contour> seed_in(const Plane& taken);
    std::optional<Contour> seed_beside(Point first);
    std::vector<Candidate> candidates(Point pivot, double angle) const;
    bool grow(Contour& contour, double contrast);
    void join(const Contour& contour);
    void paint(Point from, const Dash& dash, double contrast);
    void paint(const Plane& plane);
    double any_angle() { return (static_cast<double>(random_.below(360)) - 180) * kPi / 180; }

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

// The most of the mask that lies within the margin of a point.
float Picture::mask_around(Point point) const {
    float most = 0;
    for (int row = -kMargin; row <= kMargin; ++row) {
        for (int column = -kMargin; column <= kMargin; ++column) {
            const Point near{point.row + row, point.column + column};
            if (row * row + column * column <= kMargin * kMargin && inside(near)) {
                most = std::max(most, mask_[at(near)]);
            }
        }
    }
    return most;
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

// Where a dash may begin so that the inner part of its footprint lies on nothing that is taken. As in
// the published code, whose square of 7 around the footprint has its middle a pixel off, that part is
// shifted by a row and a column and cut beyond the second. And as there, an angle has no place at all
// when from some pixel, a corner, the whole shifted part lies outside: the published code's dilation has
// no value at such a pixel, and it gives up. That holds for most angles, and is why only 1.1 of the five
// distractors find room; without it 4.6 do.
std::vector<Point> Picture::places(double angle, const Plane& taken) {
    constexpr int kShift = 1, kCut = 2;
    std::vector<Point> inner;
    for (const Cell& cell : dash_towards(angle)) {
        if (cell.footprint == 1 && cell.row <= kCut && cell.column <= kCut) {
            inner.push_back({cell.row + kShift, cell.column + kShift});
        }
    }
    std::vector<Point> free;
    for (int row = 0; row < kEdge; ++row) {
        for (int column = 0; column < kEdge; ++column) {
            bool reached = false, taken_here = false;
            for (const Point offset : inner) {
                const Point point{row + offset.row, column + offset.column};
                if (!inside(point)) continue;
                reached = true;
                taken_here = taken_here || taken[at(point)] > kOccupied;
            }
            if (!reached) return {};
            if (!taken_here) free.push_back({row, column});
        }
    }
    return free;
}

std::optional<Contour> Picture::contour_at(Point tail, double angle) {
    const Point head = step(tail, kLength, angle);
    const Point pivot = step(head, kLength + kMargin, reversed(angle));
    if (!inside(head) || !inside(pivot)) return std::nullopt;
    return Contour{.start = tail,
                   .end = head,
                   .pivot = pivot,
                   .angle = angle,
                   .last_from = tail,
                   .last = &dash_towards(angle)};
}

std::optional<Contour> Picture::seed_in(const Plane& taken) {
    for (int attempt = 0; attempt < kTriesOfDash; ++attempt) {
        const double angle = any_angle();
        const std::vector<Point> free = places(angle, taken);
        if (free.empty()) return std::nullopt;
        const Point tail = free[random_.below(static_cast<std::uint32_t>(free.size()))];
        if (auto contour = contour_at(tail, angle)) return contour;
    }
    return std::nullopt;
}

// The second target's: nothing is asked but that it lies inside.
std::optional<Contour> Picture::seed_beside(Point first) {
    for (int attempt = 0; attempt < kTriesOfDash; ++attempt) {
        const double angle = any_angle(), towards = any_angle();
        const Point tail{
            static_cast<int>(std::nearbyint(first.row + kSeedDistance * std::sin(towards))),
            static_cast<int>(std::nearbyint(first.column + kSeedDistance * std::cos(towards)))};
        if (auto contour = contour_at(tail, angle)) return contour;
    }
    return std::nullopt;
}

// Points on a circle round the pivot, one a pixel of arc, each pixel once.
std::vector<Candidate> Picture::candidates(Point pivot, double angle) const {
    constexpr double kRadius = kLength + kMargin;
    std::vector<Candidate> all;
    for (int i = 0; i < 2 * kPi * kRadius; ++i) {
        const double row = pivot.row + kRadius * std::sin(i / kRadius);
        const double column = pivot.column + kRadius * std::cos(i / kRadius);
        if (row < 0 || row >= kEdge || column < 0 || column >= kEdge) continue;
        const Point point{static_cast<int>(row), static_cast<int>(column)};
        const bool known = std::any_of(all.begin(), all.end(), [&](const Candidate& other) {
            return other.point.row == point.row && other.point.column == point.column;
        });
        if (known) continue;
        const double own = std::atan2(point.row - pivot.row, point.column - pivot.column);
        const double apart = std::abs(own - angle);
        const double turn = std::min({apart, 2 * kPi - apart, kPi / 2});
        const double straight = std::max(std::cos(turn), 0.0);
        all.push_back({point, own, (1.0 - double{mask_around(point)}) * straight * straight});
    }
    return all;
}

// Another dash: from a point on the circle round the new pivot back towards it.
bool Picture::grow(Contour& contour, double contrast) {
    const Point pivot = step(contour.pivot, kLength + 2 * kMargin, contour.angle);
    const std::vector<Candidate> all = candidates(pivot, contour.angle);
    double sum = 0;
    for (const Candidate& candidate : all) sum += candidate.weight;
    if (sum < kDeadEnd) return false;
    for (int attempt = 0; attempt < kTriesOfDash; ++attempt) {
        double left = random_.uniform() * sum;
        std::size_t drawn = 0;
        while (drawn + 1 < all.size() && left >= all[drawn].weight) left -= all[drawn++].weight;
        const Point from = all[drawn].point;
        const Dash& dash = dash_towards(reversed(all[drawn].angle));
        if (!fits(from, dash)) continue;
        paint(from, dash, contrast);
        join(contour);
        contour.last_from = contour.end = from;
        contour.last = &dash;
        contour.pivot = pivot;
        contour.angle = all[drawn].angle;
        return true;
    }
    return false;
}

// Sides that nothing may come near, as wide as `band`.
void close_sides(Plane& mask, int band) {
    for (int row = 0; row < kEdge; ++row) {
        for (int column = 0; column < kEdge; ++column) {
            const int side = std::min({row, column, kEdge - 1 - row, kEdge - 1 - column});
            if (side < band) mask[at({row, column})] = 1;
        }
    }
}

bool Picture::targets() {
    image_.fill(0);
    mask_.fill(0);
    close_sides(mask_, 1);
    Plane taken = mask_;
    close_sides(taken, 2 * kSeedDistance);
    const auto one = seed_in(taken);
    const auto other = one ? seed_beside(one->start) : std::nullopt;
    if (!other) return false;
    contours_[0] = *one;
    contours_[1] = *other;
    for (const Contour& contour : contours_) {
        paint(contour.start, *contour.last, kTargetContrast);
    }
    for (int dash = 1; dash < kContour; ++dash) {
        for (Contour& contour : contours_) {
            if (!grow(contour, kTargetContrast)) return false;
        }
    }
    join(contours_[1]);  // of the first, the published code leaves the last dash out
    return true;
}

bool Picture::distractor() {
    const auto free =
        std::count_if(mask_.begin(), mask_.end(), [](float value) { return value <= kOccupied; });
    if (static_cast<double>(free) < kLeastFree * kEdge * kEdge) return false;
    const Plane image = image_, mask = mask_;
    for (int attempt = 0; attempt < kTriesOfDistractor; ++attempt) {
        auto contour = seed_in(mask_);  // whose sides are closed already
        bool whole = contour.has_value();
        if (whole) paint(contour->start, *contour->last, kDistractorContrast);
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
    while (!targets()) ++picture.restarts;
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
