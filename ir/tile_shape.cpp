#include "ir/tile_shape.h"

#include "ir/names.h"

namespace spion {
namespace {

constexpr Names<MatrixUnit, 5> kUnits = {{{MatrixUnit::kVector, "vector"},
                                          {MatrixUnit::kFma, "fma"},
                                          {MatrixUnit::kMmaSync, "mma_sync"},
                                          {MatrixUnit::kMmaSyncTma, "mma_sync_tma"},
                                          {MatrixUnit::kWgmma, "wgmma"}}};

}  // namespace

std::string_view to_string(MatrixUnit unit) {
    return name_of(kUnits, unit, "matrix unit");
}

MatrixUnit parse_matrix_unit(std::string_view name) {
    return value_of(kUnits, name, "matrix unit");
}

}  // namespace spion
