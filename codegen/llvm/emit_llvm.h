// Emission for the host: constants as LLVM IR next to a body compiled to bitcode (kernels/host/).
#pragma once

#include <string_view>
#include <vector>

#include "codegen/emit.h"

namespace spion {

// codegen/emit.h's specialise and emit for targets of BackEnd::kHost.
KernelSource specialise_host(const Target& target, std::string_view name, std::string_view body,
                             std::string_view entry, const std::vector<Constant>& constants,
                             std::string_view ir);
KernelSource emit_host(const TileProgram& program, const PlannedKernel& kernel,
                       const Target& target);
KernelSource emit_host(const ScoreSummaryProgram& program, const Target& target);

}  // namespace spion
