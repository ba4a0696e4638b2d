// What dropout, caps and positions of elements take more, of the kernels for sm_90a.
#pragma once

#include "ir/attention.h"
#include "ir/tile_program.h"

namespace spion {

struct ScoreNeeds {
    bool positions = false;       // an item's gather blocks go with it
    bool elements_apart = false;  // behind them, the elements of each block row of a packed tile
    bool bias_sums = false;       // dQ adds the gradient of a bias up
    int registers = 0;            // of a thread
    int producer_registers = 0;   // of a thread of the producer
};

// columns: streamed rows multiplied at once.
ScoreNeeds score_needs(const Attention& attention, KernelRole role, bool packed, int columns);

}  // namespace spion
