#include "compiler/lower.h"

#include "compiler/packing.h"
#include "compiler/tile_candidates.h"
#include "ir/error.h"

namespace spion {
namespace {

void check_operands(const Attention& attention, const BlockPattern& pattern) {
    check(attention);
    if (pattern.length() != attention.length) {
        throw UserError(
            "the pattern is for length {} and the attention for length {}: make them equal",
            pattern.length(), attention.length);
    }
}

TileShape shape_for(const Attention& attention, int block, KernelRole role, const Target& target,
                    const LowerOptions& options) {
    const TileShape shape =
        options.shape ? *options.shape : choose_tiles(attention, block, role, target);
    if (options.packed_rows == 1) {
        return shape;
    }
    const TileShape packed = packed_shape(shape, block, options.packed_rows, target);
    const Residency resident = residency(attention, role, packed, target, rates_of(target));
    if (resident.blocks == 0) {
        throw UserError(
            "{} block rows of {} in a tile of {} for D={} do not fit {}: its shared memory ({} "
            "bytes a block, {} are needed) or its registers are too few; pack fewer rows",
            options.packed_rows, block, to_string(role), attention.head_dim, target.arch,
            target.shared_bytes_per_block, resident.shared);
    }
    return packed;
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
    const PassContext context{.pattern = pattern,
                              .walked = walked,
                              .target = target,
                              .shape = shape_for(attention, pattern.block(), role, target, options),
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
