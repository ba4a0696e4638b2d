// The tile of one kernel: how many rows, how they are fetched, and what multiplies them.
#pragma once

#include <array>
#include <string_view>

namespace spion {

// What multiplies the tiles. fp32 operands need exact products: kVector or kFma.
enum class MatrixUnit {
    kVector,      // host: SIMD lanes
    kFma,         // CUDA: fp32 units
    kMmaSync,     // CUDA: tensor cores, one warp a product
    kMmaSyncTma,  // CUDA sm_90a: the same with a work item a warp, fetched by TMA
    kWgmma,       // CUDA sm_90a: tensor cores, four warps (64 stationary rows) a product, by TMA
};

inline constexpr std::array kMatrixUnits = {MatrixUnit::kVector, MatrixUnit::kFma,
                                            MatrixUnit::kMmaSync, MatrixUnit::kMmaSyncTma,
                                            MatrixUnit::kWgmma};

// Whether the unit's kernels take work items from a counter and fetch their rows by TMA.
constexpr bool fetches_by_tma(MatrixUnit unit) {
    return unit == MatrixUnit::kMmaSyncTma || unit == MatrixUnit::kWgmma;
}

// "vector", "fma", "mma_sync", "mma_sync_tma", "wgmma"
std::string_view to_string(MatrixUnit unit);
// The inverse. Throws UserError that lists the names.
MatrixUnit parse_matrix_unit(std::string_view name);

// The fields are those of TileProgram (ir/tile_program.h).
struct TileShape {
    int stationary_rows;
    int streamed_rows;
    int gather_rows;
    int warps;
    int stages;
    MatrixUnit unit = MatrixUnit::kMmaSync;
    int packed_rows = 1;  // block rows that stationary_rows has: more in a packed tile
    friend bool operator==(const TileShape&, const TileShape&) = default;
};

}  // namespace spion
