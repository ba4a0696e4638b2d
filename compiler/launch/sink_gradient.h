// The gradient of attention's sinks (docs/ir.md), from what the backward pass has left: LSE, delta.
#pragma once

#include "compiler/launch/jit_kernel.h"
#include "ir/attention.h"
#include "kernels/attention_arguments.h"
#include "runtime/device.h"

namespace spion {

KernelSource sink_gradient_source(const Attention& attention, const Target& target);

// Of its launch: a thread block a head.
LaunchGeometry sink_gradient_geometry(const Attention& attention);

// args.lse, delta, sinks and batch -> args.d_sinks [H].
void launch_sink_gradient(const JitKernel& jit, const Attention& attention,
                          const SpionAttentionArguments& args, Device& device);

}  // namespace spion
