// The order in which the key tiles of one (batch, head) add their partial dQs, for the fused
// backward (kernels/cuda/sm90/wgmma_attention_gradients.cuh).
#pragma once

#include <cstdint>
#include <vector>

#include "ir/tile_program.h"

namespace spion {

// Set in a ticket: no partial of the gather block comes after it.
constexpr std::int32_t kLastTicket = 1 << 30;

struct DqSchedule {
    // [program.gather_blocks.size()], offsets as the program's: each work item's gather blocks in
    // the order of its steps.
    std::vector<std::int32_t> gather_blocks;
    // [same]: how many partials of the gather block are added before this one, with kLastTicket or
    // without. Every gather block's partials are added in this order, whatever the speed of the
    // thread blocks, so the sum is a function of the program and the number of SMs.
    std::vector<std::int32_t> tickets;
    // Work items of so many batch-heads are handed out side by side.
    int batch_heads_at_once = 1;
};

// DqSchedule::batch_heads_at_once of every program with `sequence` gather blocks in its sequence.
int batch_heads_at_once(int sequence, int sm_count);

// A list schedule of the steps: the thread blocks of a (batch, head) take a step each at a time, of
// gather blocks that no other has just added to, so that the semaphore comes to a ticket when it is
// expected and nobody waits. program: kGradients, one gather block a step.
//
// Nobody waits forever either, if `sm_count` thread blocks run at once and take items in order.
// A partial waits only for partials of the same `sm_count` consecutive work items that the schedule
// has put at earlier steps, or for those of earlier work items.
DqSchedule schedule_dq(const TileProgram& program, int sm_count);

}  // namespace spion
