#include "compiler/lower.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include "compiler/tile_candidates.h"
#include "ir/error.h"

namespace spion {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

// Most streamed rows whose products stay in registers. A thread of a warp of 16 stationary rows
// holds, in 4-byte registers: the result (D / 2; D for dK and dV together), a row of S and, going
// backward, of dP (streamed_rows / 2 each), and fragments of the stationary operands, twice as
// many of them for 4-byte elements.
int rows_in_registers(KernelRole role, DType dtype, int head_dim) {
    const bool wide_result = role != KernelRole::kForward && head_dim >= 128;
    const bool wide_elements = storage_bytes(dtype) == 4 && head_dim >= 64;
    return wide_result || wide_elements ? 32 : 64;
}

TileShape cuda_tile_shape(KernelRole role, DType dtype, int head_dim, int block,
                          const Target& target) {
    const int stationary_rows = std::min(block, 64);
    constexpr int kFewestRows = 16;  // one k-step of mma.sync on 16-bit operands
    TileShape shape{};
    for (int rows = rows_in_registers(role, dtype, head_dim); rows >= kFewestRows; rows /= 2) {
        for (int stages : {2, 1}) {
            shape = TileShape{.stationary_rows = stationary_rows,
                              .streamed_rows = rows,
                              .granule = std::min(block, rows),
                              .warps = stationary_rows / 16,
                              .stages = stages};
            if (shared_bytes(role, dtype, head_dim, shape) <= target.shared_bytes_per_block) {
                return shape;
            }
        }
    }
    throw UserError(
        "no {} tile for D={} {} fits: the smallest needs {} bytes of shared memory and {} offers "
        "{} a block, so use a smaller head dimension, block or dtype",
        to_string(role), head_dim, to_string(dtype), shared_bytes(role, dtype, head_dim, shape),
        target.arch, target.shared_bytes_per_block);
}

// Granules of every stationary tile in ascending tile order, as CSR; `pattern` as the role walks
// it.
struct Walk {
    std::vector<std::int32_t> offsets;   // [tiles + 1]
    std::vector<std::int32_t> granules;  // [offsets.back()]
};

Walk walk_tiles(const BlockPattern& pattern, const TileShape& shape) {
    const std::int64_t tiles = ceil_div(pattern.length(), shape.stationary_rows);
    const int granules_a_block = pattern.block() / shape.granule;
    Walk walk{.offsets = {0}, .granules = {}};
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
        const auto row = static_cast<int>(tile * shape.stationary_rows / pattern.block());
        for (std::int32_t column : pattern.row(row)) {
            const int first = column * granules_a_block;
            const auto count =
                static_cast<int>(ceil_div(pattern.block_rows(column), shape.granule));
            for (int granule = first; granule < first + count; ++granule) {
                walk.granules.push_back(granule);
            }
        }
        if (walk.granules.size() > std::numeric_limits<std::int32_t>::max()) {
            throw UserError(
                "the pattern of length {} in blocks of {} makes too many pieces to number with 32 "
                "bits: use a sparser pattern or a shorter sequence",
                pattern.length(), pattern.block());
        }
        walk.offsets.push_back(static_cast<std::int32_t>(walk.granules.size()));
    }
    return walk;
}

// Longest first, so that the last work items to start are the short ones; equal lengths keep
// ascending tile order, in which neighbours share streamed rows in cache.
std::vector<std::int32_t> longest_first(const Walk& walk) {
    std::vector<std::int32_t> order(walk.offsets.size() - 1);
    std::iota(order.begin(), order.end(), 0);
    const auto length = [&](std::int32_t tile) {
        return walk.offsets[static_cast<std::size_t>(tile) + 1] -
               walk.offsets[static_cast<std::size_t>(tile)];
    };
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t left, std::int32_t right) {
        return length(left) > length(right);
    });
    return order;
}

void fill_walk(TileProgram& program, const Walk& walk) {
    program.order = longest_first(walk);
    program.offsets = {0};
    program.granules.reserve(walk.granules.size());
    for (std::int32_t tile : program.order) {
        const auto begin = walk.granules.begin() + walk.offsets[static_cast<std::size_t>(tile)];
        const auto end = walk.granules.begin() + walk.offsets[static_cast<std::size_t>(tile) + 1];
        program.granules.insert(program.granules.end(), begin, end);
        program.offsets.push_back(static_cast<std::int32_t>(program.granules.size()));
    }
}

void check_operands(const Attention& attention, const BlockPattern& pattern) {
    check(attention);
    if (pattern.length() != attention.length) {
        throw UserError(
            "the pattern is for length {} and the attention for length {}: make them equal",
            pattern.length(), attention.length);
    }
}

}  // namespace

std::int64_t shared_bytes(KernelRole role, DType dtype, int head_dim, const TileShape& shape) {
    const std::int64_t row_bytes = std::int64_t{head_dim} * storage_bytes(dtype) + 16;
    constexpr std::int64_t kStatisticsBytes = 2 * sizeof(float);  // LSE and delta of a query row
    std::int64_t stationary = shape.stationary_rows;
    std::int64_t streamed = std::int64_t{shape.stages} * shape.streamed_rows;
    switch (role) {
        case KernelRole::kForward:  // Q | K, V
            return (stationary + 2 * streamed) * row_bytes;
        case KernelRole::kQueryGradient:  // Q, dO | K, V
            return (2 * stationary + 2 * streamed) * row_bytes + stationary * kStatisticsBytes;
        case KernelRole::kKeyValueGradient:  // K, V | Q, dO
            return (2 * stationary + 2 * streamed) * row_bytes + streamed * kStatisticsBytes;
    }
    throw InternalError("kernel role {} has no tiles", static_cast<int>(role));
}

TileShape choose_tile_shape(KernelRole role, DType dtype, int head_dim, int block,
                            const Target& target) {
    if (target.back_end == BackEnd::kCuda) {
        return cuda_tile_shape(role, dtype, head_dim, block, target);
    }
    const int rows = std::min(block, 64);
    return TileShape{
        .stationary_rows = rows, .streamed_rows = rows, .granule = rows, .warps = 1, .stages = 1};
}

MatrixUnit matrix_unit(DType dtype, const Target& target) {
    if (target.back_end == BackEnd::kHost) {
        return MatrixUnit::kVector;
    }
    return dtype == DType::kFp32 ? MatrixUnit::kFma : MatrixUnit::kMmaSync;
}

TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const Target& target) {
    check_operands(attention, pattern);
    return lower(attention, pattern, role, choose_tiles(attention, pattern, role, target));
}

TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const TileShape& shape) {
    check_operands(attention, pattern);
    TileProgram program{.role = role,
                        .attention = attention,
                        .block = pattern.block(),
                        .stationary_rows = shape.stationary_rows,
                        .streamed_rows = shape.streamed_rows,
                        .granule = shape.granule,
                        .warps = shape.warps,
                        .stages = shape.stages,
                        .unit = matrix_unit(attention.dtype, target),
                        .order = {},
                        .offsets = {},
                        .granules = {}};
    const bool walks_columns = role == KernelRole::kKeyValueGradient;
    fill_walk(program, walk_tiles(walks_columns ? pattern.transpose() : pattern, shape));
    return program;
}

}  // namespace spion
