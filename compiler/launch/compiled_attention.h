// The kernels of one layer on a device, with their tables, and their launches. What is decided
// about them is their plan's (compiler/plan/layer_plan.h).
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "compiler/launch/jit_kernel.h"
#include "compiler/launch/kernel_launch.h"
#include "compiler/launch/walk_tables.h"
#include "compiler/planned_program.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/tile_program.h"
#include "kernels/attention_arguments.h"
#include "runtime/device.h"

namespace spion {

// Memory of launches that follow each other on the device's own stream.
class LaunchRoom {
  public:
    // Grows when a batch is larger than those before.
    LaunchMemory of(const LaunchBytes& bytes, Device& device);

  private:
    Buffer counters_, dq_semaphore_;
};

// The three kernels of one layer with their tables on the device, or baked.
class CompiledAttention {
  public:
    // kernels: of `programs`, one each.
    CompiledAttention(Attention attention, HeadPatterns patterns, LayerPrograms programs,
                      std::span<const JitKernel> kernels, Device& device);
    const Attention& attention() const { return attention_; }
    const HeadPatterns& patterns() const { return patterns_; }
    // The one that all heads share, or the first.
    const BlockPattern& pattern() const { return patterns_.front(); }

    // args' tensors, lse, lengths and batch are the caller's; tables are filled in here.
    // B >= 1. Throws UserError when lengths is null although key_padding is set, or the reverse.
    void forward(const SpionAttentionArguments& args);
    // dQ (which also writes delta) and then dK, dV; or delta and then all of them. Then the
    // gradients of the sinks and of the bias by relative position, where args have room for them.
    void backward(const SpionAttentionArguments& args);

    struct Part {  // one of the three
        TileProgram program;
        PlannedKernel planned;
        JitKernel jit;
        KernelLaunch launch;
        WorkHints hints;
        WalkTables tables;
        Buffer walk;  // `tables`; none where they are baked
        std::unique_ptr<LaunchRoom> room;
    };
    // The kernel of the gradient of the sinks, for an attention that has them.
    void set_sink_gradient(JitKernel kernel) { sink_gradient_ = std::move(kernel); }
    // The same of the bias by relative position.
    void set_bias_gradient(JitKernel kernel) { bias_gradient_ = std::move(kernel); }
    // The part that does what `role` does: dQ and dK, dV may also be delta and all gradients.
    const Part& part(KernelRole role) const { return parts_[launch_of(role)]; }

    // Goes on with another's kernels for the same operation and pattern, from the next call on:
    // between two steps of training. Waits for the calls before. Throws InternalError when the
    // operation or the pattern is another.
    void hand_over_to(CompiledAttention&& other);

  private:
    void launch(std::size_t which, SpionAttentionArguments args);
    Attention attention_;
    HeadPatterns patterns_;
    Device* device_;
    Part parts_[3];
    JitKernel sink_gradient_, bias_gradient_;
};

// A program's kernel with its tables on the device, and its launch: tables and geometry are filled
// in, the rest of args is the caller's.
CompiledAttention::Part load_part(PlannedProgram planned, JitKernel jit, Device& device);
void launch_part(const CompiledAttention::Part& part, const SpionAttentionArguments& args,
                 Device& device);

}  // namespace spion
