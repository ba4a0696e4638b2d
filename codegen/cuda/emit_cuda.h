// Emission for CUDA: constants as constexpr lines before one include of a body (kernels/cuda/).
#pragma once

#include <string_view>
#include <vector>

#include "codegen/emit.h"

namespace spion {

// codegen/emit.h's specialise, emit and geometry for targets of BackEnd::kCuda.
KernelSource specialise_cuda(const Target& target, std::string_view name, std::string_view body,
                             std::string_view entry, const std::vector<Constant>& constants,
                             std::string_view ir);
KernelSource emit_cuda(const TileProgram& program, const PlannedKernel& kernel,
                       const Target& target);
KernelSource emit_cuda(const ScoreSummaryProgram& program, const Target& target);
EmittedGeometry geometry_cuda(const ScoreSummaryProgram& program, const Target& target);

}  // namespace spion
