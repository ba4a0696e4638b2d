// The launch of an attention kernel as a function of its arguments: nothing is kept from one launch
// to the next, so any number of threads and streams may share a KernelLaunch. The pattern is in the
// arguments' tables alone; what the launch needs of it beforehand is a hint (WorkHints).
#pragma once

#include <cstddef>
#include <cstdint>

#include "codegen/emit.h"
#include "compiler/launch/walk_tables.h"
#include "ir/tile_program.h"
#include "kernels/sm90_arguments.h"
#include "runtime/device.h"

namespace spion {

// What the order in which work items are handed out is made from. It changes how long a launch
// takes, never what it computes: hints of another pattern are allowed.
struct WorkHints {
    std::int64_t listed = 0;   // gather blocks of all walks
    std::int64_t longest = 0;  // gather blocks of the longest walk
    unsigned long_tiles = 0;   // at the start of the program's order; less than all
};
WorkHints work_hints(const TileProgram& program);

// Memory of a launch besides tensors and tables. None of it where a kernel asks for 0 bytes.
struct LaunchMemory {
    unsigned* counters = nullptr;      // [2], zeros; every launch leaves zeros
    unsigned* dq_semaphore = nullptr;  // zeros, likewise
    float* dq_accum = nullptr;         // not initialised
};

struct LaunchBytes {
    std::size_t counters = 0, dq_semaphore = 0, dq_accum = 0;
};

// What Device::launch is given. The kernel's parameter is at data().
struct PreparedLaunch {
    LaunchGeometry geometry;
    SpionSm90Arguments arguments;
    bool fetches_by_tma = false;

    const void* data() const {
        return fetches_by_tma ? static_cast<const void*>(&arguments) : &arguments.attention;
    }
    std::size_t bytes() const {
        return fetches_by_tma ? sizeof(arguments) : sizeof(arguments.attention);
    }
};

class KernelLaunch {
  public:
    KernelLaunch() = default;
    KernelLaunch(const TileProgram& program, const EmittedGeometry& emitted, const Target& target);

    LaunchBytes bytes(std::int64_t batch) const;  // B
    // Threads and shared memory of a thread block; work_items is 0.
    LaunchGeometry geometry() const { return geometry_; }

    // args: tensors, lengths, batch and the tables that `tables` says the places of (null `block`:
    // they are in the kernel's source). `device` only describes tensors to the copy engine. Throws
    // UserError when a tensor's address or strides are not multiples of 16 bytes, or the launch has
    // more work items than 32 bits count.
    PreparedLaunch prepare(SpionAttentionArguments args, const std::int32_t* block,
                           const WalkTables& tables, const LaunchMemory& memory,
                           const WorkHints& hints, const Device& device) const;

  private:
    // How many heads' items to hand out side by side at the end, when `blocks` thread blocks
    // compute `heads` heads: as many as keep the other blocks busy for what the longest walk has
    // more steps than the average, and the L2 holds the tensors of.
    unsigned lpt_heads(std::int64_t heads, std::int64_t blocks, const WorkHints& hints) const;
    unsigned lpt_tiles(std::int64_t items, std::int64_t workers, const WorkHints& hints) const;
    SpionTensorMap describe(const SpionTensor& tensor, const SpionAttentionArguments& launched,
                            bool of_keys, int width, int rows, const Device& device) const;
    void describe_tensors(SpionSm90Arguments& arguments, const Device& device) const;
    std::int64_t query_tiles(std::int64_t batch) const;  // whose dQ is summed by tickets

    KernelRole role_ = KernelRole::kForward;
    Attention attention_;
    LaunchGeometry geometry_;
    bool fetches_by_tma_ = false;
    int stationary_rows_ = 0;  // of a tile
    int stationary_box_rows_ = 0, streamed_box_rows_ = 0;
    int resident_blocks_ = 0, items_at_once_ = 1, sm_count_ = 1;
    int tile_width_ = 0;  // columns of a tile: D and Dv, padded
    int batch_heads_at_once_ = 1;
    std::int64_t tiles_ = 0;  // work items of one head, or of a head of each pattern
    std::int64_t query_blocks_ = 0;
};

}  // namespace spion
