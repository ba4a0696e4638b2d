#include "compiler/lower.h"

#include <algorithm>

#include "compiler/tile_candidates.h"
#include "ir/error.h"

namespace spion {
namespace {

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

void check_operands(const Attention& attention, const BlockPattern& pattern) {
    check(attention);
    if (pattern.length() != attention.length) {
        throw UserError(
            "the pattern is for length {} and the attention for length {}: make them equal",
            pattern.length(), attention.length);
    }
}

}  // namespace

TileProgram seed_program(const Attention& attention, const BlockPattern& pattern, KernelRole role) {
    return TileProgram{.role = role,
                       .attention = attention,
                       .block = pattern.block(),
                       .stationary_rows = 0,
                       .streamed_rows = 0,
                       .granule = 0,
                       .warps = 0,
                       .stages = 0,
                       .order = {},
                       .offsets = {},
                       .granules = {}};
}

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
                  const Target& target, const LowerOptions& options) {
    check_operands(attention, pattern);
    const bool by_columns = role == KernelRole::kKeyValueGradient;
    const BlockPattern walked = by_columns ? pattern.transpose() : pattern;
    const PassContext context{
        .pattern = pattern,
        .walked = walked,
        .target = target,
        .shape = options.shape ? *options.shape : choose_tiles(attention, pattern, role, target),
        .tables = options.tables};
    return run_passes(pipeline(), seed_program(attention, pattern, role), context, options.observer,
                      options.verify_passes);
}

TileProgram lower(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                  const Target& target, const TileShape& shape) {
    LowerOptions options;
    options.shape = shape;
    return lower(attention, pattern, role, target, options);
}

}  // namespace spion
