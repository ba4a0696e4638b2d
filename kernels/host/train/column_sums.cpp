// partials[item, c] = sum of x[row, c] over the item's rows: the share of a bias gradient.
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
}

extern "C" void column_sums(const SpionColumnSumArguments* args, long long begin, long long end) {
    const int octets = kChannels / 8;
    for (long long item = begin; item < end; ++item) {
        float* sums = args->partials + item * kChannels;
        zero(sums, kChannels);
        const long long last = end_of_rows(item, args->rows);
        for (long long row = item * kSpionRowsPerItem; row < last; ++row) {
            for (int c = 0; c < octets; ++c) {
                store_octet(sums, c, load_octet(sums, c) + load_octet(args->x, row * octets + c));
            }
        }
    }
}
