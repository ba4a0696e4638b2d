// The launch of a kernel of kernels/cuda/sm90: its tensors as the copy engine
// wants them described, and the counters by which its thread blocks share the work.
#pragma once

#include "codegen/emit.h"
#include "ir/tile_program.h"
#include "kernels/hopper_arguments.h"
#include "runtime/device.h"

namespace spion {

class HopperLaunch {
  public:
    HopperLaunch(const TileProgram& program, const EmittedGeometry& emitted, Device& device);

    // `geometry`: threads and shared_bytes of the kernel, work_items of the whole launch. Launches
    // of one HopperLaunch must not overlap: they are on the device's one stream. Throws UserError
    // when a tensor's address or strides are not multiples of 16 bytes.
    void launch(const LoadedKernel& kernel, LaunchGeometry geometry,
                const SpionAttentionArguments& attention, Device& device);

  private:
    // How many heads' items to hand out side by side at the end, when `blocks` thread blocks
    // compute `heads` heads: as many as keep the other blocks busy for what the longest walk has
    // more steps than the average, and the L2 holds the tensors of.
    unsigned heads_together(std::int64_t heads, std::int64_t blocks) const;
    SpionTensorMap describe(const SpionTensor& tensor, int rows, Device& device) const;
    unsigned early_tiles(std::int64_t items, std::int64_t workers) const;
    void describe_tensors(const SpionAttentionArguments& attention, Device& device);
    void make_room_for_sums(std::int64_t batch, Device& device);

    KernelRole role_;
    Attention attention_;
    int stationary_box_rows_, streamed_box_rows_;
    int resident_blocks_, items_at_once_;
    unsigned long_tiles_;   // at the start of the program's order
    std::int64_t tiles_;    // walks
    std::int64_t listed_;   // granules of all walks
    std::int64_t longest_;  // granules of the longest
    Buffer counters_;       // [2]
    // Of kGradients: SpionHopperArguments::ranks, turns, and the granules in the order of steps.
    Buffer granules_, ranks_, turns_;
    std::int64_t query_granules_ = 0;
    // What was launched last. A training step comes back with the same tensors, whose maps are
    // kept.
    SpionHopperArguments arguments_ = {};
};

}  // namespace spion
