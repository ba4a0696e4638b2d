// out[c] = sum over i of partials[i, c] for eight columns a work item, of several sums: four running sums of every
// fourth row, then their sum.
#include "kernels/host/train/rows.h"

static_assert(kSpionSumColumnsPerItem == 8, "an octet");

extern "C" void sum_partials(const SpionSumPartialsArguments* args, long long begin,
                             long long end) {
    for (long long item = begin; item < end; ++item) {
        const SpionPartialSum* sum = args->sums;
        long long octet = item;
        for (; octet >= sum->columns / 8; ++sum) octet -= sum->columns / 8;
        Octet sums[4] = {0.0F, 0.0F, 0.0F, 0.0F};
        for (long long i = 0; i < sum->count; ++i) {
            sums[i % 4] += load_octet(sum->partials + i * sum->stride, octet);
        }
        store_octet(sum->out, octet, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}
