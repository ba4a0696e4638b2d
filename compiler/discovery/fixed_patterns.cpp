#include "compiler/discovery/fixed_patterns.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "ir/ceil_div.h"
#include "ir/error.h"

namespace spion {
namespace {

// Block rows and columns, and which are set.
class Grid {
  public:
    explicit Grid(int rows)
        : rows_(rows), bits_(static_cast<std::size_t>(rows) * static_cast<std::size_t>(rows)) {}

    template <typename Holds>
    void set_where(Holds holds) {
        for (int row = 0; row < rows_; ++row) {
            for (int column = 0; column < rows_; ++column) {
                if (holds(row, column)) bit(row, column) = 1;
            }
        }
    }
    std::uint8_t& bit(int row, int column) {
        return bits_[static_cast<std::size_t>(row) * static_cast<std::size_t>(rows_) +
                     static_cast<std::size_t>(column)];
    }
    std::int64_t count() const {
        return std::accumulate(bits_.begin(), bits_.end(), std::int64_t{0});
    }
    std::vector<std::uint8_t> take() && { return std::move(bits_); }

  private:
    int rows_;
    std::vector<std::uint8_t> bits_;
};

// Diagonals by their distance from the main one, as long as there are blocks left to set.
void set_band(Grid& grid, int rows, std::int64_t blocks) {
    grid.set_where([](int row, int column) { return row == column; });
    for (int distance = 1; distance < rows && grid.count() < blocks; ++distance) {
        const std::int64_t left = blocks - grid.count();
        // Half of a pair of diagonals is more than nothing only when it is nearer to what is left.
        if (left < rows - distance) return;
        grid.set_where([&](int row, int column) { return std::abs(row - column) == distance; });
    }
}

// Squares round the diagonal, the largest that leave no more than so many blocks set.
void set_segments(Grid& grid, int rows, std::int64_t blocks) {
    for (int edge = rows; edge > 1; --edge) {
        Grid larger = grid;
        larger.set_where([&](int row, int column) { return row / edge == column / edge; });
        if (larger.count() <= blocks) {
            grid = std::move(larger);
            return;
        }
    }
}

// Random blocks, equally many in each row, as long as there are some left to set.
void set_random(Grid& grid, int rows, std::int64_t blocks, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::vector<int>> free(static_cast<std::size_t>(rows));
    for (int row = 0; row < rows; ++row) {
        auto& columns = free[static_cast<std::size_t>(row)];
        for (int column = 0; column < rows; ++column) {
            if (grid.bit(row, column) == 0) columns.push_back(column);
        }
        for (std::size_t i = columns.size(); i > 1; --i)
            std::swap(columns[i - 1], columns[random() % i]);
    }
    for (std::int64_t left = blocks - grid.count(); left > 0;) {
        const std::int64_t before = left;
        for (int row = 0; row < rows && left > 0; ++row) {
            auto& columns = free[static_cast<std::size_t>(row)];
            if (columns.empty()) continue;
            grid.bit(row, columns.back()) = 1;
            columns.pop_back();
            --left;
        }
        if (left == before) return;
    }
}

}  // namespace

std::optional<FixedPattern> parse_fixed_pattern(std::string_view name) {
    const auto* found = std::find(kFixedPatternNames.begin(), kFixedPatternNames.end(), name);
    if (found == kFixedPatternNames.end()) return std::nullopt;
    return static_cast<FixedPattern>(found - kFixedPatternNames.begin());
}

BlockPattern fixed_pattern(FixedPattern kind, std::int64_t length, int block, double density,
                           std::uint64_t seed) {
    if (!(density > 0 && density <= 1)) {
        throw UserError("a density of {} is not allowed: choose one above 0 and up to 1", density);
    }
    const auto rows = static_cast<int>(ceil_div(length, block));
    const auto blocks = static_cast<std::int64_t>(std::llround(density * rows * rows));
    const double a_row = density * rows;  // blocks
    // Every s-th, so that half of a row's blocks are those.
    const int stride = std::clamp(static_cast<int>(std::lround(2 * rows / a_row)), 1, rows);
    Grid grid(rows);
    switch (kind) {
        case FixedPattern::kWindow:
            set_band(grid, rows, blocks);
            break;
        case FixedPattern::kBigBird: {
            set_band(grid, rows, blocks / 2);
            const int global =
                static_cast<int>(std::lround(a_row / 12));  // a row and a column each
            grid.set_where([&](int row, int column) { return row < global || column < global; });
            set_random(grid, rows, blocks, seed);
            break;
        }
        case FixedPattern::kStrided:
            grid.set_where([&](int row, int column) { return (row - column) % stride == 0; });
            set_band(grid, rows, blocks);
            break;
        case FixedPattern::kFixed:
            grid.set_where([&](int row, int column) {
                return row == column || column % stride == stride - 1;
            });
            set_segments(grid, rows, blocks);
            break;
    }
    return {length, block, std::move(grid).take()};
}

}  // namespace spion
