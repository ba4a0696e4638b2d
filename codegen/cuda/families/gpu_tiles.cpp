#include "codegen/cuda/families/gpu_tiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "ir/nvrtc_rules.h"

namespace spion {

bool has_sm90_instructions(const Target& target) {
    return target.gpu.tma && target.gpu.wgmma;
}

std::string why_not_warps(const TileProgram& program, int most) {
    if (program.warps <= most &&
        program.stationary_rows == std::int64_t{kRowsOfWarp} * program.warps) {
        return "";
    }
    return fmt::format(
        "it has stationary_rows={} warps={}: take {} rows a warp and at most {} warps",
        program.stationary_rows, program.warps, kRowsOfWarp, most);
}

std::string why_not_gather_blocks(const TileProgram& program) {
    const int gather_blocks = program.streamed_rows / program.gather_rows;
    const auto power_of_2 = [](int value) {
        return std::has_single_bit(static_cast<unsigned>(value));
    };
    if (program.gather_rows >= kRowsOfWarp && power_of_2(program.gather_rows) &&
        gather_blocks <= kMostGatherBlocks && power_of_2(gather_blocks) &&
        program.streamed_rows % program.gather_rows == 0) {
        return "";
    }
    return fmt::format(
        "it has streamed_rows={} gather_rows={}: take gather blocks of {} rows or twice, four "
        "times .. as many, and 1, 2, 4, 8, 16 or {} of them",
        program.streamed_rows, program.gather_rows, kRowsOfWarp, kMostGatherBlocks);
}

std::string why_not_step(const TileShape& shape) {
    const int gather_blocks = shape.streamed_rows / shape.gather_rows;
    return gather_blocks > kMostGatherBlocks ? fmt::format("{} gather blocks a step, at most {}",
                                                           gather_blocks, kMostGatherBlocks)
                                             : "";
}

std::string why_not_item_walks(const Attention& attention, KernelRole role) {
    return item_walks(attention, role) == 1
               ? ""
               : fmt::format(
                     "its items have one walk, and not one for each of the {} query heads of "
                     "patterns of their own that read a head of K and V",
                     item_walks(attention, role));
}

std::string why_not_planned(KernelPlan (*plan)(const KernelCase&, const TileShape&),
                            const TileProgram& program, const Target& target) {
    const Rates rates = rates_of(target);
    const std::string problem = plan(case_of(program, target, rates), shape_of(program)).problem;
    return problem.empty()
               ? ""
               : fmt::format("the program does not fit {}: {}; take fewer stages or rows",
                             target.arch, problem);
}

std::string why_not_nvrtc(const Attention& attention, KernelRole role, int tile_width,
                          const TileShape& shape, const Target& target) {
    return why_nvrtc_refuses(target.compiler, {.compute_capability = target.compute_capability,
                                               .unit = shape.unit,
                                               .role = role,
                                               .head_dim = tile_width,
                                               .stationary_rows = shape.stationary_rows,
                                               .streamed_rows = shape.streamed_rows,
                                               .packed = shape.packed_rows > 1,
                                               .dropout = attention.dropout > 0,
                                               .spans = attention.mask == ElementMask::kSpans});
}

std::string why_not_nvrtc(const TileProgram& program, int tile_width, const Target& target) {
    const std::string reason =
        why_not_nvrtc(program.attention, program.role, tile_width, shape_of(program), target);
    return reason.empty() ? ""
                          : fmt::format("{}: take fewer streamed_rows, or another unit", reason);
}

int block_rows_in(int rows, int block) {
    return std::max(1, rows / block);
}

}  // namespace spion
