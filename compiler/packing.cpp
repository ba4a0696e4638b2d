#include "compiler/packing.h"

#include <algorithm>

#include "ir/error.h"

namespace spion {
namespace {

constexpr int kMostStationaryRows = 128;  // of a thread block: 16 a warp, 8 warps
constexpr int kMostHostBlock = 64;        // kernels/host/tile.h
constexpr int kMostHostRows = 32;         // bits of TileProgram::uses

int most_rows(int block, const Target& target) {
    if (target.back_end == BackEnd::kHost) {
        return block <= kMostHostBlock ? kMostHostRows : 1;
    }
    return kMostStationaryRows / block;
}

}  // namespace

double streamed_share(const BlockPattern& walked, int rows) {
    std::int64_t streamed = 0;
    for (int first = 0; first < walked.rows(); first += rows) {
        std::vector<bool> used(static_cast<std::size_t>(walked.rows()));
        for (int row = first; row < std::min(first + rows, walked.rows()); ++row) {
            for (const std::int32_t block : walked.row(row)) {
                used[static_cast<std::size_t>(block)] = true;
            }
        }
        streamed += std::count(used.begin(), used.end(), true);
    }
    const std::int64_t alone = walked.block_count();
    return alone == 0 ? 1 : static_cast<double>(streamed) / static_cast<double>(alone);
}

std::vector<int> packings(int block, const Target& target) {
    std::vector<int> rows;
    if (target.back_end == BackEnd::kCuda) {
        for (int count = 2; count <= most_rows(block, target); count *= 2) {
            rows.push_back(count);
        }
    }
    return rows;
}

TileShape packed_shape(const TileShape& shape, int block, int rows, const Target& target) {
    const int most = most_rows(block, target);
    if (most < 2) {
        throw UserError("blocks of {} cannot share a tile on {}: leave packing out", block,
                        target.arch);
    }
    if (rows < 2 || rows > most) {
        throw UserError("{} block rows a tile: give 2 to {} for blocks of {} on {}, or 1 for none",
                        rows, most, block, target.arch);
    }
    TileShape packed = shape;
    packed.stationary_rows = rows * block;
    packed.wgmma = packed.warp_items = false;
    packed.warps = target.back_end == BackEnd::kHost ? 1 : rows * block / 16;
    packed.packed_rows = rows;
    return packed;
}

double packing_overhead(KernelRole role, int head_dim, const TileShape& shape,
                        const Target& target) {
    constexpr double kWarps = 1.08;      // warps of mma.sync wait for one another
    constexpr double kWarpgroup = 1.08;  // scores are dropped, boxes are small
    constexpr double kColumns = 1.2;     // of dK and dV up to D = 64: columns are of unequal length
    constexpr double kSmallBoxes = 1.3;  // more, for granules of 16
    if (shape.packed_rows == 1 || target.back_end == BackEnd::kHost) {
        return 1;
    }
    if (!shape.wgmma) {
        return kWarps;
    }
    double overhead = kWarpgroup;
    if (role == KernelRole::kKeyValueGradient) {
        // At D = 128 the kernels that are not packed exceed their terms by as much.
        overhead = head_dim <= 64 ? kColumns : 1;
    }
    return overhead * (shape.granule < 32 ? kSmallBoxes : 1);
}

}  // namespace spion
