// The orchestrator: from patterns to kernels that can be launched. The body of compile_attention is
// the table of contents. Without a device tools/compile.cpp goes the same way up to the binary:
// plan_layer, lower_launch, emit, compile.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "codegen/kernel_families.h"
#include "compiler/launch/compiled_attention.h"
#include "compiler/plan/layer_plan.h"

namespace spion {

// What compile_attention does beyond planning as the cost model says.
struct CompileOptions : PlanOptions {
    bool autotune = false;  // take the tile shapes that are fastest when measured on the device
    // The kernels are to be those of every pattern of the length and block: full ones are not cut.
    bool shared = false;
};

// One CompiledAttention a pattern (a layer each), all their kernels compiled in parallel on worker
// threads. Equal kernels are compiled once: with the pattern passed as tables, layers whose tile
// shapes agree share one binary. Autotuning compiles, and measures on the device.
std::vector<std::unique_ptr<CompiledAttention>> compile_attention(
    const Attention& attention, std::span<const BlockPattern> patterns, Device& device,
    KernelCache& cache, const CompileOptions& options = {},
    KernelFamilies families = kernel_families());
// The same of layers whose heads may have patterns of their own.
std::vector<std::unique_ptr<CompiledAttention>> compile_attention(
    const Attention& attention, std::span<const HeadPatterns> layers, Device& device,
    KernelCache& cache, const CompileOptions& options = {},
    KernelFamilies families = kernel_families());

}  // namespace spion
