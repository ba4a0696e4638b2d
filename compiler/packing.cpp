#include "compiler/packing.h"

#include <algorithm>

#include "ir/error.h"

namespace spion {
namespace {

constexpr int kMostStationaryRows = 128;  // of a thread block: 16 a warp, 8 warps
constexpr int kRowsOfFourWarps = 64;
constexpr int kMostHostBlock = 64;  // kernels/host/tile.h

// Calls visit(first, union) for every group of `rows` block rows: the first of them, and which
// blocks at least one uses, [nb].
template <typename Visit>
void for_each_group(const BlockPattern& walked, int rows, const Visit& visit) {
    for (int first = 0; first < walked.rows(); first += rows) {
        std::vector<bool> used(static_cast<std::size_t>(walked.rows()));
        for (int row = first; row < std::min(first + rows, walked.rows()); ++row) {
            for (const std::int32_t block : walked.row(row)) {
                used[static_cast<std::size_t>(block)] = true;
            }
        }
        visit(first, used);
    }
}

}  // namespace

double streamed_share(const BlockPattern& walked, int rows) {
    std::int64_t streamed = 0;
    for_each_group(walked, rows, [&](int, const std::vector<bool>& used) {
        streamed += std::count(used.begin(), used.end(), true);
    });
    const std::int64_t alone = walked.block_count();
    return alone == 0 ? 1 : static_cast<double>(streamed) / static_cast<double>(alone);
}

int rows_worth_packing(const BlockPattern& walked) {
    for (const int rows : {4, 2}) {
        if (rows * walked.block() <= kRowsOfFourWarps &&
            streamed_share(walked, rows) <= kMostSharePacked) {
            return rows;
        }
    }
    return 1;
}

TileShape packed_shape(const TileShape& shape, int block, int rows, const Target& target) {
    const bool host = target.back_end == BackEnd::kHost;
    const int most = host ? (block <= kMostHostBlock ? 32 : 1) : kMostStationaryRows / block;
    if (most < 2) {
        throw UserError("blocks of {} cannot share a tile on {}: leave packing out", block,
                        target.arch);
    }
    if (rows < 2 || rows > most) {
        throw UserError("{} block rows a tile: give 2 to {} for blocks of {} on {}", rows, most,
                        block, target.arch);
    }
    TileShape packed = shape;
    packed.stationary_rows = rows * block;
    packed.wgmma = false;
    packed.warps = host ? 1 : rows * block / 16;
    return packed;
}

StreamedRows packed_streamed_rows(const BlockPattern& pattern, KernelRole role, int rows) {
    const BlockPattern walked =
        role == KernelRole::kKeyValueGradient ? pattern.transpose() : pattern;
    StreamedRows result{
        .stationary = {}, .streamed = {}, .distinct = streamed_rows(pattern, role).distinct};
    for_each_group(walked, rows, [&](int first, const std::vector<bool>& used) {
        std::int64_t stationary = 0, streamed = 0;
        for (int row = first; row < std::min(first + rows, walked.rows()); ++row) {
            stationary += walked.block_rows(row);
        }
        for (int block = 0; block < walked.rows(); ++block) {
            streamed += used[static_cast<std::size_t>(block)] ? walked.block_rows(block) : 0;
        }
        result.stationary.push_back(stationary);
        result.streamed.push_back(streamed);
    });
    return result;
}

}  // namespace spion
