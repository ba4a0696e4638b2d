// y = dropout(gelu(x)), elementwise; rows matter to the work items only.
#include "kernels/host/train/normal.h"
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const float kDropout;
}

extern "C" void gelu_dropout_forward(const SpionGeluArguments* args, long long begin,
                                     long long end) {
    const long long first = begin * kSpionRowsPerItem * kChannels / 8;
    const long long last = end_of_rows(end - 1, args->rows) * kChannels / 8;
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long i = first; i < last; i += 2) {
            // Two octets at a time; an odd last one is paired with itself.
            const long long next = i + 1 < last ? i + 1 : i;
            Floats x;
            x.lo = load_octet(args->x, i);
            x.hi = load_octet(args->x, next);
            const Floats y = x * normal_terms(x).distribution;
            store_octet(args->y, i, factors.drop(y.lo, i));
            if (next != i) store_octet(args->y, next, factors.drop(y.hi, next));
        }
    });
}
