#include "compiler/discovery/discover.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

#include "ir/ceil_div.h"
#include "ir/error.h"

namespace spion {
namespace {

// Sum of at most 128 numbers in numpy's order: eight interleaved partial sums, then the rest.
double sum_as_numpy(std::span<const double> values) {
    std::array<double, 8> partial{};
    const std::size_t whole = values.size() / 8 * 8;
    for (std::size_t i = 0; i < whole; ++i) {
        partial[i % 8] += values[i];
    }
    double sum = ((partial[0] + partial[1]) + (partial[2] + partial[3])) +
                 ((partial[4] + partial[5]) + (partial[6] + partial[7]));
    for (std::size_t i = whole; i < values.size(); ++i) {
        sum += values[i];
    }
    return sum;
}

// The rows of a map that one row of the convolution needs, with 0 for masked scores.
class RowWindow {
  public:
    RowWindow(const ScoreRows& rows, std::int64_t length, int filter)
        : rows_(rows),
          length_(length),
          kept_(std::min<std::int64_t>(filter, length)),
          scores_(static_cast<std::size_t>(kept_ * length)),
          masks_(scores_.size()) {}

    // Reads up to and including `row`.
    void advance(std::int64_t row) {
        for (; next_ <= row; ++next_) {
            const std::span<double> scores(scores_.data() + place(next_),
                                           static_cast<std::size_t>(length_));
            rows_(next_, scores);
            for (std::size_t j = 0; j < scores.size(); ++j) {
                const bool masked = scores[j] == -std::numeric_limits<double>::infinity();
                masks_[static_cast<std::size_t>(place(next_)) + j] = masked ? 1 : 0;
                scores[j] = masked ? 0.0 : scores[j];
            }
        }
    }
    const double* scores(std::int64_t row) const { return scores_.data() + place(row); }
    const std::uint8_t* mask(std::int64_t row) const { return masks_.data() + place(row); }

  private:
    std::int64_t place(std::int64_t row) const { return row % kept_ * length_; }

    const ScoreRows& rows_;
    std::int64_t length_, kept_, next_ = 0;
    std::vector<double> scores_;       // [kept, L]
    std::vector<std::uint8_t> masks_;  // [kept, L]: 1 where masked
};

// out[j] = sum over f of scores[row + f, j + f], f ascending, zero padded.
void convolve_row(RowWindow& window, std::int64_t length, std::int64_t row, int filter,
                  std::span<double> out) {
    const std::int64_t half = filter / 2;
    const std::int64_t first = std::max(-half, -row);
    const std::int64_t last = std::min(filter - 1 - half, length - 1 - row);
    window.advance(row + std::max<std::int64_t>(last, 0));
    std::fill(out.begin(), out.end(), 0.0);
    for (std::int64_t f = first; f <= last; ++f) {
        const double* scores = window.scores(row + f);
        const std::int64_t end = std::min(length, length - f);
        for (std::int64_t j = std::max<std::int64_t>(0, -f); j < end; ++j) {
            out[static_cast<std::size_t>(j)] += scores[j + f];
        }
    }
}

// The k largest, earlier cells first among equals.
std::vector<std::uint8_t> mark_largest(std::span<const double> pooled, std::int64_t k) {
    std::vector<std::uint8_t> marks(pooled.size(), 0);
    std::vector<std::size_t> order(pooled.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
        return pooled[left] > pooled[right];
    });
    for (std::int64_t i = 0; i < k; ++i) {
        marks[order[static_cast<std::size_t>(i)]] = 1;
    }
    return marks;
}

}  // namespace

std::string_view to_string(Variant variant) {
    switch (variant) {
        case Variant::kCF:
            return "cf";
        case Variant::kF:
            return "f";
        case Variant::kC:
            return "c";
    }
    throw InternalError("variant {} has no name", static_cast<int>(variant));
}

Variant parse_variant(std::string_view name) {
    for (Variant variant : {Variant::kCF, Variant::kF, Variant::kC}) {
        if (name == to_string(variant)) {
            return variant;
        }
    }
    throw UserError("variant '{}' is not known: use cf, f or c", name);
}

void check(const DiscoverySettings& settings) {
    const int block = settings.block;
    if (block != 16 && block != 32 && block != 64 && block != 128) {
        throw UserError("block {} is not allowed: use 16, 32, 64 or 128", block);
    }
    if (settings.filter < 1) {
        throw UserError("filter {} is not allowed: use an edge of 1 or more", settings.filter);
    }
    if (!(settings.quantile >= 0.0 && settings.quantile <= 1.0)) {
        throw UserError("quantile {} is not allowed: use a number from 0 to 1", settings.quantile);
    }
    if (!(settings.density >= 0.0 && settings.density <= 1.0)) {
        throw UserError("density {} is not allowed: use a number from 0 to 1", settings.density);
    }
}

int effective_filter(const DiscoverySettings& settings) {
    return settings.variant == Variant::kF ? 1 : settings.filter;
}

std::vector<double> pool_scores(std::span<const double> scores, std::int64_t length,
                                const DiscoverySettings& settings) {
    if (length < 1 || static_cast<std::int64_t>(scores.size()) != length * length) {
        throw UserError("a score map of {} elements was given: length {} needs {} x {}",
                        scores.size(), length, length, length);
    }
    const auto rows = [&](std::int64_t row, std::span<double> out) {
        const auto begin = static_cast<std::size_t>(row) * out.size();
        for (std::size_t j = 0; j < out.size(); ++j) {
            const double score = scores[begin + j];  // nothing is masked here: infinity is a fault
            out[j] = std::isfinite(score) ? score : std::numeric_limits<double>::quiet_NaN();
        }
    };
    return pool_masked_scores(rows, length, settings);
}

// Convolved and pooled row by row, in the order of the reference specification (shifts ascending, a
// block's rows one after the other): equal blocks get equal bits, so that the ties of flood_fill
// are ties here too. Running sums would cost less and break them.
std::vector<double> pool_masked_scores(const ScoreRows& rows, std::int64_t length,
                                       const DiscoverySettings& settings) {
    check(settings);
    const std::int64_t block = settings.block;
    const std::int64_t nb = ceil_div(length, block);
    const int filter = effective_filter(settings);
    RowWindow window(rows, length, filter);
    std::vector<double> pooled(static_cast<std::size_t>(nb * nb), 0.0);
    std::vector<std::int64_t> counts(pooled.size(), 0);  // of elements that are not masked
    std::vector<double> row(static_cast<std::size_t>(length));
    for (std::int64_t i = 0; i < length; ++i) {
        convolve_row(window, length, i, filter, row);
        const std::uint8_t* mask = window.mask(i);
        for (std::int64_t column = 0; column < nb; ++column) {
            const std::int64_t begin = column * block;
            const std::int64_t width = std::min(block, length - begin);
            std::int64_t present = width;
            for (std::int64_t j = begin; j < begin + width; ++j) {
                if (mask[j] != 0) {
                    row[static_cast<std::size_t>(j)] = 0.0;
                    --present;
                }
            }
            const auto cell = static_cast<std::size_t>(i / block * nb + column);
            counts[cell] += present;
            pooled[cell] += sum_as_numpy(std::span<const double>(row).subspan(
                static_cast<std::size_t>(begin), static_cast<std::size_t>(width)));
        }
    }
    for (std::size_t cell = 0; cell < pooled.size(); ++cell) {
        pooled[cell] = counts[cell] == 0 ? -std::numeric_limits<double>::infinity()
                                         : pooled[cell] / static_cast<double>(counts[cell]);
    }
    return pooled;
}

double quantile(std::span<const double> values, double q) {
    if (values.empty() || !(q >= 0.0 && q <= 1.0)) {
        throw InternalError("quantile {} of {} values", q, values.size());
    }
    const double position = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const double fraction = position - static_cast<double>(below);
    std::vector<double> sorted(values.begin(), values.end());
    const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(below);
    std::nth_element(sorted.begin(), at, sorted.end());
    const double low = *at;
    const double high = at + 1 == sorted.end() ? low : *std::min_element(at + 1, sorted.end());
    // From the nearer end, as numpy does: exact at both.
    return fraction < 0.5 ? low + (high - low) * fraction : high - (high - low) * (1.0 - fraction);
}

std::vector<std::uint8_t> flood_fill(std::span<const double> pooled, int blocks, double threshold) {
    const auto cell = [blocks](int row, int column) {
        return static_cast<std::size_t>(row) * static_cast<std::size_t>(blocks) +
               static_cast<std::size_t>(column);
    };
    const auto value = [&](int row, int column) {  // one row and column of zeros close the grid
        return row < blocks && column < blocks ? pooled[cell(row, column)] : 0.0;
    };
    std::vector<std::uint8_t> marks(pooled.size(), 0);
    const auto walk = [&](int row, int column) {
        while (row < blocks && column < blocks) {
            const double below = value(row + 1, column);
            const double right = value(row, column + 1);
            const double diagonal = value(row + 1, column + 1);
            const bool down = below > right;
            if ((down ? below : right) > diagonal) {
                (down ? row : column) += 1;
            } else {
                row += 1;
                column += 1;
            }
            if (row < blocks && column < blocks && value(row, column) > threshold) {
                marks[cell(row, column)] = 1;
            }
        }
    };
    for (int k = 0; k < blocks; ++k) {
        walk(0, k);
        walk(k, 0);
    }
    return marks;
}

[[noreturn]] void refuse_not_finite() {
    throw UserError(
        "the pooled map holds values that are not finite: scores are NaN or infinite, or so large "
        "that their sums overflow; give smaller ones");
}

double masked_quantile(std::span<const double> pooled, double q) {
    std::vector<double> present;
    std::copy_if(pooled.begin(), pooled.end(), std::back_inserter(present),
                 [](double x) { return x != -std::numeric_limits<double>::infinity(); });
    if (present.empty()) {
        throw UserError("every score is masked (-inf): give a map with scores that are not");
    }
    return quantile(present, q);
}

BlockPattern discover_masked(std::span<const double> pooled, std::int64_t length,
                             const DiscoverySettings& settings) {
    check(settings);
    const std::int64_t nb = (length + settings.block - 1) / settings.block;
    if (length < 1 || static_cast<std::int64_t>(pooled.size()) != nb * nb) {
        throw UserError(
            "a pooled map of {} values was given: length {} in blocks of {} needs {} x {}",
            pooled.size(), length, settings.block, nb, nb);
    }
    constexpr double kMasked = -std::numeric_limits<double>::infinity();
    if (!std::all_of(pooled.begin(), pooled.end(),
                     [](double x) { return x == kMasked || std::isfinite(x); })) {
        refuse_not_finite();
    }
    const double threshold = masked_quantile(pooled, settings.quantile);
    std::vector<std::uint8_t> marks;  // [nb, nb]
    if (settings.variant == Variant::kC) {
        const double side = static_cast<double>(nb);
        const double keep = side * side * settings.density - side;
        const auto present =
            std::count_if(pooled.begin(), pooled.end(), [](double x) { return x != kMasked; });
        marks = mark_largest(
            pooled,
            std::min<std::int64_t>(keep > 0.0 ? static_cast<std::int64_t>(keep) : 0, present));
    } else {
        marks = flood_fill(pooled, static_cast<int>(nb), threshold);
    }
    for (std::int64_t i = 0; i < nb; ++i) {
        marks[static_cast<std::size_t>(i * nb + i)] = 1;
    }
    return BlockPattern(length, settings.block, std::move(marks));
}

BlockPattern discover(std::span<const double> pooled, std::int64_t length,
                      const DiscoverySettings& settings) {
    if (!std::all_of(pooled.begin(), pooled.end(), [](double x) { return std::isfinite(x); })) {
        refuse_not_finite();
    }
    return discover_masked(pooled, length, settings);
}

}  // namespace spion
