// The only orchestrator: from a pattern to kernels that can be launched.
//     pattern --lower--> TileProgram --emit--> KernelSource --cache, compile--> KernelBinary
//     --load-->
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/attention.h"
#include "ir/block_pattern.h"
#include "ir/tile_program.h"
#include "kernels/attention_arguments.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

// Compiles (or fetches) and loads one emitted kernel. Used for attention and for train's kernels.
struct JitKernel {
    std::shared_ptr<const LoadedKernel> kernel;  // shared by equal kernels
    KernelSource source;
    CachedKernel cached;
    std::string rebuild = {};  // the shell line of runtime/offline.h; "" on the host
};
JitKernel compile_kernel(const KernelSource& source, Device& device, KernelCache& cache);
// The same for several, in parallel on worker threads; in the order of `sources`. Equal ones are
// compiled and loaded once, and count as found in memory from the second on. Throws what the first
// that failed has thrown.
std::vector<JitKernel> compile_kernels(std::span<const KernelSource> sources, Device& device,
                                       KernelCache& cache);

// The three kernels of one layer with their tables on the device.
class CompiledAttention {
  public:
    CompiledAttention(Attention attention, BlockPattern pattern, Device& device);
    const Attention& attention() const { return attention_; }
    const BlockPattern& pattern() const { return pattern_; }

    // args' tensors, lse, lengths and batch are the caller's; tables are filled in here.
    // B >= 1. Throws UserError when lengths is null although key_padding is set, or the reverse.
    void forward(const SpionAttentionArguments& args);
    // dQ (which also writes delta) and then dK, dV.
    void backward(const SpionAttentionArguments& args);

    struct Part {  // one of the three
        TileProgram program;
        JitKernel jit;
        Buffer order, offsets, granules;
        LaunchGeometry geometry;  // work_items of one (b, h): tiles
    };
    const Part& part(KernelRole role) const { return parts_[static_cast<int>(role)]; }

  private:
    friend std::vector<std::unique_ptr<CompiledAttention>> compile_attention(
        const Attention&, std::span<const BlockPattern>, Device&, KernelCache&);
    void launch(KernelRole role, SpionAttentionArguments args);
    Attention attention_;
    BlockPattern pattern_;
    Device* device_;
    Part parts_[3];
};

// One CompiledAttention a pattern (a layer each), all their kernels compiled in parallel on worker
// threads. Equal kernels are compiled once: with the pattern passed as tables, layers whose tile
// shapes agree share one binary.
std::vector<std::unique_ptr<CompiledAttention>> compile_attention(
    const Attention& attention, std::span<const BlockPattern> patterns, Device& device,
    KernelCache& cache);

}  // namespace spion
