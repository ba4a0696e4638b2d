// What the tiles of all families for GPUs have in common.
#pragma once

#include <string>
#include <vector>

#include "codegen/cuda/sm_limits.h"
#include "codegen/cuda/tile_width.h"
#include "codegen/kernel_family.h"

namespace spion {

constexpr int kRowsOfWarp = 16;  // that a warp multiplies with mma.sync, or a quarter of wgmma's
constexpr int kMostWarps = 8;    // of a thread block that multiply
constexpr int kMostGatherBlocks = 32;  // of a step: a warp keeps the index of one in each lane

// Of a tile of mma.sync.
inline std::int64_t row_bytes(const Attention& attention) {
    return std::int64_t{mma_tile_width(attention)} * storage_bytes(attention.dtype);
}

// Whether the target has what the bodies of kernels/cuda/sm90 are made of: TMA, wgmma and, which
// goes with it, setmaxnreg.
bool has_sm90_instructions(const Target& target);

// Why a gather block, or a step of them, is none of a GPU's, as a clause; "" when it is.
std::string why_not_gather_blocks(const TileProgram& program);
// Why the program has not a warp for every 16 stationary rows, or more than `most`, as a clause; ""
// when it has.
std::string why_not_warps(const TileProgram& program, int most = kMostWarps);
// The problem of the program's plan, as a sentence's clause; "" when it has none.
std::string why_not_planned(KernelPlan (*plan)(const KernelCase&, const TileShape&),
                            const TileProgram& program, const Target& target);

// Why a family whose items have one walk cannot compute the launch, as a clause: dK and dV of a
// pattern a query head where heads of K and V are shared; "".
std::string why_not_item_walks(const Attention& attention, KernelRole role);

// Why a shape's step has too many gather blocks; "".
std::string why_not_step(const TileShape& shape);

// Why the target's NVRTC makes no good kernel of such a tile, as a clause (ir/nvrtc_rules.h); "".
// tile_width: columns of its tiles.
std::string why_not_nvrtc(const Attention& attention, KernelRole role, int tile_width,
                          const TileShape& shape, const Target& target);
// The same of a program, with what to take instead.
std::string why_not_nvrtc(const TileProgram& program, int tile_width, const Target& target);

// Block rows of a tile of at most `rows` rows: 1 where there is room for one alone.
int block_rows_in(int rows, int block);

}  // namespace spion
