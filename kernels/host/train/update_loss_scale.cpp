// Whether the step at hand is left out, and the next one's loss scale; one work item.
#include "kernels/host/train/rows.h"

extern "C" void update_loss_scale(const SpionLossScaleArguments* args, long long /*begin*/,
                                  long long /*end*/) {
    const long long items = spion_adam_items(args->count);
    const int slot = args->now != nullptr ? args->now->slot : 0;
    int overflow = 0;
    for (long long i = 0; i < items; ++i) overflow |= args->not_finite[slot * items + i];
    spion_next_loss_scale(*args->state, overflow != 0, args->growth_steps);
    if (args->used != nullptr) args->used[slot] = args->state->used;
}
