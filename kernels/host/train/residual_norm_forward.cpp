// x_out = x + dropout(branch); y = layer norm of x_out.
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const float kDropout;
extern const float kEpsilon;
}

// One row in x_out, [kChannels] -> y and its statistics.
SPION_INLINE void normalise(const SpionNormArguments& args, const float* x, float* y,
                            long long row) {
    const int octets = kChannels / 8;
    Octet sum = 0.0F;
    for (int i = 0; i < octets; ++i) sum += load_octet(x, i);
    const float mean = sum_of(sum) / static_cast<float>(kChannels);
    Octet squares = 0.0F;
    for (int i = 0; i < octets; ++i) {
        const Octet deviation = load_octet(x, i) - mean;
        squares += deviation * deviation;
    }
    const float variance = sum_of(squares) / static_cast<float>(kChannels);
    const float rstd = 1.0F / __builtin_sqrtf(variance + kEpsilon);
    for (int i = 0; i < octets; ++i) {
        const Octet unit = (load_octet(x, i) - mean) * rstd;
        store_octet(y, i, unit * load_octet(args.gamma, i) + load_octet(args.beta, i));
    }
    args.mean[row] = mean;
    args.rstd[row] = rstd;
}

extern "C" void residual_norm_forward(const SpionNormArguments* args, long long begin,
                                      long long end) {
    const int octets = kChannels / 8;
    const long long last_row = end_of_rows(end - 1, args->rows);
    float* y = static_cast<float*>(args->y);
    if (args->branch == nullptr) {
        const float* x = static_cast<const float*>(args->x);
        for (long long row = begin * kSpionRowsPerItem; row < last_row; ++row) {
            normalise(*args, x + row * kChannels, y + row * kChannels, row);
        }
        return;
    }
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long row = begin * kSpionRowsPerItem; row < last_row; ++row) {
            for (long long i = row * octets; i < (row + 1) * octets; ++i) {
                const Octet branch = factors.drop(load_octet(args->branch, i), i);
                store_octet(args->x_out, i, load_octet(args->x, i) + branch);
            }
            normalise(*args, static_cast<const float*>(args->x_out) + row * kChannels,
                      y + row * kChannels, row);
        }
    });
}
