// The order in which the key tiles of one (batch, head) add their shares of dQ, for kernels that
// sum all gradients together (kernels/cuda/sm90/wgmma_attention_gradients.cuh).
#pragma once

#include <cstdint>
#include <vector>

#include "ir/tile_program.h"

namespace spion {

// Set in a turn: no share of the gather block comes after it. Of the kernel's ranks likewise.
constexpr std::int32_t kLastTicket = 1 << 30;

struct DqSchedule {
    // [program.gather_blocks.size()], offsets as the program's: each work item's gather blocks in
    // the order of its steps.
    std::vector<std::int32_t> gather_blocks;
    // [same]: how many shares of the gather block are added before this one, with kLastTicket or
    // without. Every gather block's shares are added in this order, whatever the speed of the
    // thread blocks, so the sum is a function of the program and the number of SMs.
    std::vector<std::int32_t> tickets;
    // Work items are taken so many (batch, head) pairs at a time, which take turns.
    int batch_heads_at_once = 1;
};

// DqSchedule::batch_heads_at_once of every program with `sequence` gather blocks in its sequence.
int batch_heads_at_once(int sequence, int sm_count);

// A list schedule of the steps: the thread blocks of a (batch, head) take a step each at a time, of
// gather blocks that no other has just added to, so that turns come when they are expected and
// nobody waits. program: kGradients, one gather block a step.
//
// Nobody waits forever either, if `sm_count` thread blocks run at once and take work items in
// order: a share waits only for shares of the same `sm_count` consecutive work items, that the
// schedule has put at earlier steps, or of work items before those.
DqSchedule schedule_dq(const TileProgram& program, int sm_count);

}  // namespace spion
