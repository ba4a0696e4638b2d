// x[n, :] = dropout(token[ids[n], :] + position[n % L, :]).
#include "kernels/host/train/rows.h"

extern "C" {
extern const int kChannels;
extern const float kDropout;
}

template <typename Factors>
SPION_INLINE void embed_row(const SpionEmbeddingArguments& args, long long row, Factors& factors) {
    const int octets = kChannels / 8;
    const long long token = args.ids[row], position = row % args.length;
    for (int c = 0; c < octets; ++c) {
        const Octet sum = load_octet(args.token, token * octets + c) +
                          load_octet(args.position, position * octets + c);
        store_octet(args.x, row * octets + c, factors.drop(sum, row * octets + c));
    }
}

extern "C" void embedding_forward(const SpionEmbeddingArguments* args, long long begin,
                                  long long end) {
    const long long chunks = spion_position_chunks(args->length);
    const long long batch = args->rows / args->length;
    with_dropout(args->dropout, kDropout, [&](auto factors) {
        for (long long item = begin; item < end; ++item) {
            const long long sample = item / chunks * kSpionSamplesPerItem;
            const long long position = item % chunks * kSpionPositionsPerItem;
            for (long long b = sample; b < batch && b < sample + kSpionSamplesPerItem; ++b) {
                for (long long l = position;
                     l < args->length && l < position + kSpionPositionsPerItem; ++l) {
                    embed_row(*args, b * args->length + l, factors);
                }
            }
        }
    });
}
