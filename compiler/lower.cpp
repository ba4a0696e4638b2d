#include "compiler/lower.h"

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
    const bool by_columns = walks_columns(role);
    const BlockPattern walked = by_columns ? pattern.transpose() : pattern;
    const PassContext context{.pattern = pattern,
                              .walked = walked,
                              .target = target,
                              .shape = options.shape
                                           ? *options.shape
                                           : choose_tiles_for(attention, pattern, role, target,
                                                              options.packed_rows, options.batch),
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
