// d_x = dropout(d_y) * gelu'(x), and the sum of d_x over the item's rows: the bias gradient's
// share.
#include "kernels/host/train/normal.h"
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const float kDropout;
}

SPION_INLINE Floats gelu_slope(Floats x) {
    constexpr float kInverseRootTwoPi = 0.39894228040143268F;
    const NormalTerms terms = normal_terms(x);
    return x * kInverseRootTwoPi * terms.bell + terms.distribution;
}

template <typename Factors>
SPION_INLINE void backward_row(const SpionGeluArguments& args, long long row, float* sums,
                               Factors& factors) {
    const int octets = kChannels / 8;
    for (int c = 0; c < octets; c += 2) {
        // Two octets at a time; an odd last one is paired with itself.
        const int next = c + 1 < octets ? c + 1 : c;
        const long long i = row * octets;
        Floats x;
        x.lo = load_octet(args.x, i + c);
        x.hi = load_octet(args.x, i + next);
        const Floats slope = gelu_slope(x);
        const Octet low = factors.drop(load_octet(args.d_y, i + c), i + c) * slope.lo;
        const Octet high = factors.drop(load_octet(args.d_y, i + next), i + next) * slope.hi;
        store_octet(args.d_x, i + c, low);
        store_octet(sums, c, load_octet(sums, c) + low);
        if (next == c) break;
        store_octet(args.d_x, i + next, high);
        store_octet(sums, next, load_octet(sums, next) + high);
    }
}

extern "C" void gelu_dropout_backward(const SpionGeluArguments* args, long long begin,
                                      long long end) {
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long item = begin; item < end; ++item) {
            float* sums = args->d_bias_partials + item * kChannels;
            zero(sums, kChannels);
            const long long last = end_of_rows(item, args->rows);
            for (long long row = item * kSpionRowsPerItem; row < last; ++row) {
                backward_row(*args, row, sums, factors);
            }
        }
    });
}
