// Persistent thread blocks whose warpgroups multiply with wgmma what another fetches by TMA: sm_90a
// (kernels/cuda/sm90/wgmma_pipeline.cuh).
#pragma once

#include "codegen/kernel_family.h"

namespace spion {

extern const KernelFamily kWgmma;

// Of all kernels with wgmma, for their families.

// How much of the products' and of the scores' time does not hide behind the other.
struct WgmmaExposed {
    double products, scores;
};
SmTime time_of_wgmma(const KernelLoad& load, const WgmmaExposed& exposed);
KernelPlan plan_of_wgmma(const KernelCase& launch, const TileShape& shape);
std::vector<Constant> wgmma_constants(const TileProgram& program, const KernelPlan& plan);
std::string why_not_wgmma_tile(const TileProgram& program, const Target& target);

}  // namespace spion
