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

// Its arguments, after a backward pass with `args`, which had room for the sums: args.bias_sums, starts
// and batch -> args.d_relative_bias, here `gradient` [H, 2R + 1].
SpionAttentionArguments bias_gradient_arguments(const Attention& attention,
                                                SpionAttentionArguments args, float* gradient);

// After a backward pass: from the sums behind args.d_relative_bias to args.d_relative_bias.
void launch_bias_gradient(const JitKernel& jit, const Attention& attention,
                          const SpionAttentionArguments& args, Device& device);

}  // namespace spion
