// out[c] = sum over i of partials[i, c] for eight columns a work item: four running sums of every
// fourth row, then their sum.
#include "kernels/host/train/rows.h"

static_assert(kSpionSumColumnsPerItem == 8, "an octet");

extern "C" void sum_partials(const SpionSumPartialsArguments* args, long long begin,
                             long long end) {
    for (long long item = begin; item < end; ++item) {
        Octet sums[4] = {0.0F, 0.0F, 0.0F, 0.0F};
        for (long long i = 0; i < args->count; ++i) {
            sums[i % 4] += load_octet(args->partials + i * args->stride, item);
        }
        store_octet(args->out, item, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}
