#include "compiler/discovery/score_summary.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "ir/ceil_div.h"
#include "ir/error.h"

namespace spion {

int weight(int r, int c, int rows, int columns, int filter) {
    const int half = filter / 2;
    const int first = std::max({-half, r - rows + 1, c - columns + 1});
    const int last = std::min({filter - 1 - half, r, c});
    return std::max(0, last - first + 1);
}

std::vector<double> combine_summary(std::span<const float> summary, std::int64_t length, int block,
                                    int tile) {
    if (tile < 1 || block % tile != 0) {
        throw InternalError("score summary: tile {} does not divide block {}", tile, block);
    }
    const std::int64_t tiles = (length + tile - 1) / tile;
    const std::int64_t nb = ceil_div(length, block);
    if (static_cast<std::int64_t>(summary.size()) != tiles * tiles * 7) {
        throw InternalError("score summary: {} sums, {} x {} tiles have 7 each", summary.size(),
                            tiles, tiles);
    }
    std::vector<double> pooled(static_cast<std::size_t>(nb * nb), 0.0);
    for (std::int64_t t = 0; t < tiles * tiles; ++t) {
        const std::int64_t row = t / tiles * tile / block;
        const std::int64_t column = t % tiles * tile / block;
        for (std::size_t n = 0; n < kNeighbours.size(); ++n) {
            const std::int64_t to_row = row + kNeighbours[n].row;
            const std::int64_t to_column = column + kNeighbours[n].column;
            if (to_row >= 0 && to_row < nb && to_column >= 0 && to_column < nb) {
                pooled[static_cast<std::size_t>(to_row * nb + to_column)] +=
                    static_cast<double>(summary[static_cast<std::size_t>(t * 7) + n]);
            }
        }
    }
    const auto rows_of = [&](std::int64_t index) {
        return static_cast<double>(std::min<std::int64_t>(block, length - index * block));
    };
    for (std::int64_t row = 0; row < nb; ++row) {
        for (std::int64_t column = 0; column < nb; ++column) {
            pooled[static_cast<std::size_t>(row * nb + column)] /= rows_of(row) * rows_of(column);
        }
    }
    return pooled;
}

BlockPattern discover_layer(std::vector<double> pooled, const Attention& attention,
                            const DiscoverySettings& settings) {
    if (attention.mask != ElementMask::kCausal) {
        return discover(pooled, attention.length, settings);
    }
    const std::int64_t length = attention.length, block = settings.block;
    const std::int64_t nb = ceil_div(length, block);
    for (std::int64_t row = 0; row < nb; ++row) {
        const auto rows = static_cast<double>(std::min(block, length - row * block));
        pooled.at(static_cast<std::size_t>(row * nb + row)) *= 2 * rows / (rows + 1);
        for (std::int64_t column = row + 1; column < nb; ++column) {
            pooled.at(static_cast<std::size_t>(row * nb + column)) =
                -std::numeric_limits<double>::infinity();
        }
    }
    return discover_masked(pooled, length, settings);
}

}  // namespace spion
