// The order in which the key tiles of one (batch, head) add their shares of dQ, for kernels that
// sum all gradients together (kernels/cuda/sm90/wgmma_attention_gradients.cuh).
#pragma once

#include <cstdint>
#include <vector>

#include "ir/tile_program.h"

namespace spion {

// Set in a turn: no share of the granule comes after it. Of the kernel's ranks likewise.
constexpr std::int32_t kLastTurn = 1 << 30;

struct ShareSchedule {
    // [program.granules.size()], offsets as the program's: each work item's granules in the order
    // of its steps.
    std::vector<std::int32_t> granules;
    // [same]: how many shares of the granule are added before this one, with kLastTurn or without.
    // Every granule's shares are added in this order, whatever the speed of the thread blocks, so
    // the sum is a function of the program and the number of processors.
    std::vector<std::int32_t> turns;
    // Work items are taken so many (batch, head) pairs at a time, which take turns.
    int pairs_at_once = 1;
};

// ShareSchedule::pairs_at_once of every program with `sequence` granules in its sequence.
int pairs_at_once(int sequence, int processors);

// A list schedule of the steps: the thread blocks of a (batch, head) take a step each at a time, of
// granules that no other has just added to, so that turns come when they are expected and nobody
// waits. program: kGradients, one granule a step.
//
// Nobody waits forever either, if `processors` thread blocks run at once and take work items in
// order: a share waits only for shares of the same `processors` consecutive work items, that the
// schedule has put at earlier steps, or of work items before those.
ShareSchedule schedule_shares(const TileProgram& program, int processors);

}  // namespace spion
