// The gradient through a layer norm and the residual sum before it. With u = (x_out - mean) * rstd
// and g = d_y * gamma: d_x = d_residual + rstd * (g - mean(g) - u * mean(g * u)), d_branch =
// dropout(d_x).
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const float kDropout;
}

// mean(g) and mean(g * u) of one row; adds to the sums of d_gamma and d_beta, [2, kChannels].
SPION_INLINE void row_means(const SpionNormArguments& args, long long row, float* sums,
                            float& mean_g, float& mean_gu) {
    const int octets = kChannels / 8;
    const float mean = args.mean[row], rstd = args.rstd[row];
    Octet sum = 0.0F, product = 0.0F;
    for (int i = 0; i < octets; ++i) {
        const Octet unit = (load_octet(args.x_out, row * octets + i) - mean) * rstd;
        const Octet d_y = load_octet(args.d_y, row * octets + i);
        const Octet scaled = d_y * load_octet(args.gamma, i);
        sum += scaled;
        product += scaled * unit;
        store_octet(sums, i, load_octet(sums, i) + d_y * unit);
        store_octet(sums, octets + i, load_octet(sums, octets + i) + d_y);
    }
    mean_g = sum_of(sum) / static_cast<float>(kChannels);
    mean_gu = sum_of(product) / static_cast<float>(kChannels);
}

template <typename Factors>
SPION_INLINE void backward_rows(const SpionNormArguments& args, long long first, long long last,
                                float* sums, Factors& factors) {
    const int octets = kChannels / 8;
    for (long long row = first; row < last; ++row) {
        float mean_g, mean_gu;
        row_means(args, row, sums, mean_g, mean_gu);
        const float mean = args.mean[row], rstd = args.rstd[row];
        for (int c = 0; c < octets; ++c) {
            const long long i = row * octets + c;
            const Octet unit = (load_octet(args.x_out, i) - mean) * rstd;
            const Octet scaled = load_octet(args.d_y, i) * load_octet(args.gamma, c);
            Octet d_x = (scaled - mean_g - unit * mean_gu) * rstd;
            if (args.d_residual != nullptr) d_x += load_octet(args.d_residual, i);
            store_octet(args.d_x, i, d_x);
            if (args.d_branch != nullptr) {
                const Octet d_branch = factors.drop(d_x, i);
                store_octet(args.d_branch, i, d_branch);
                store_octet(sums, 2 * octets + c, load_octet(sums, 2 * octets + c) + d_branch);
            }
        }
    }
}

extern "C" void residual_norm_backward(const SpionNormArguments* args, long long begin,
                                       long long end) {
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long item = begin; item < end; ++item) {
            float* sums = args->partials + item * 3 * kChannels;
            zero(sums, 3 * kChannels);
            backward_rows(*args, item * kSpionRowsPerItem, end_of_rows(item, args->rows), sums,
                          factors);
        }
    });
}
