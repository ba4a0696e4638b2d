// x = dropout(token + position), and what that dropout keeps, drawn here once for both passes. A thread
// keeps an octet of a position in registers and meets it with that position's token of eight samples.
#pragma once

#include "kernels/cuda/train/token_position.cuh"

enum : int { kSamples = kSpionSamplesPerItem, kPositions = kThreads / kOctets };
static_assert(kSamples % kSpionKeptSamples == 0);

// An octet of fp32 values.
SPION_DEVICE Octet load_octet(const float* data, unsigned index) {
    const float4 low = ((const float4*)data)[2 * index],
                 high = ((const float4*)data)[2 * index + 1];
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

// The samples 4 quad .. 4 quad + 3 of position `position`, whose own octet is `here`. Their tokens are on
// their way while the dropout draws.
SPION_DEVICE void store_quad(const SpionTokenPositionArguments& args, unsigned quad,
                             unsigned position, const Octet& here) {
    const unsigned octet = threadIdx.x % kOctets, first = quad * kSpionKeptSamples;
    unsigned octets[kSpionKeptSamples], ids[kSpionKeptSamples], word = 0;
    Octet x[kSpionKeptSamples];
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s) {
        octets[s] = octet_index(args, first + s, position, octet);
        ids[s] = first + s < (unsigned)args.batch ? args.ids[octets[s] / kOctets] : 0;
    }
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s)
        x[s] = load_octet(args.token, ids[s] * kOctets + octet);
    if constexpr (kDropout > 0.0F) {
        word = draw_octets(octets, args.stream, args.draws, [&](int round) {
            const unsigned int* key = args.draws.key + 2 * round;
            return make_uint4(key[0], key[1], key[2], key[3]);
        });
        args.kept[kept_word(args, quad, position, octet)] = word;
    }
    const Kept kept[2] = {Kept(word, 0), Kept(word, 1)};
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            x[s].value[e] = (x[s].value[e] + here.value[e]) * args.draws.scale;
        }
        store_global_16((uint4*)args.x + octets[s], kept[s / 2].apply(s % 2, pack(x[s])),
                        first + s < (unsigned)args.batch);
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    token_position_forward(const __grid_constant__ SpionTokenPositionArguments args) {
    const unsigned chunks = (args.length + kPositions - 1) / kPositions;
    const unsigned position = blockIdx.x % chunks * kPositions + threadIdx.x / kOctets;
    const unsigned first_quad = blockIdx.x / chunks * (kSamples / kSpionKeptSamples);
    if (position >= (unsigned)args.length) return;
    const Octet here = load_octet(args.position, position * kOctets + threadIdx.x % kOctets);
#pragma unroll
    for (int i = 0; i < kSamples / kSpionKeptSamples; ++i) {
        const unsigned quad = first_quad + i;
        if (quad * kSpionKeptSamples < (unsigned)args.batch) store_quad(args, quad, position, here);
    }
}
