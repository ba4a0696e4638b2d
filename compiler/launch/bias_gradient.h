// The gradient of a bias by relative position (docs/ir.md), from the sums that dQ's kernel has left.
#pragma once

#include <cstdint>

#include "compiler/launch/jit_kernel.h"
#include "ir/attention.h"
#include "kernels/attention_arguments.h"
#include "runtime/device.h"

namespace spion {

// Floats at args.d_relative_bias: the gradient [H, 2R + 1], and behind it the sums of SPION_BIAS_ROWS
// query rows each, [B, H, ceil(L / SPION_BIAS_ROWS), 2R + 1].
std::int64_t bias_gradient_floats(const Attention& attention, std::int64_t batch);

KernelSource bias_gradient_source(const Attention& attention, const Target& target);

// Of its launch: a thread block for some entries of a head.
LaunchGeometry bias_gradient_geometry(const Attention& attention);

// The sums behind args.d_relative_bias, starts and batch -> args.d_relative_bias [H, 2R + 1].
void launch_bias_gradient(const JitKernel& jit, const Attention& attention,
                          const SpionAttentionArguments& args, Device& device);

}  // namespace spion
