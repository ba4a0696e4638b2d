// x = dropout(token + position), and what that dropout keeps, drawn here once for both passes. A thread
// keeps an octet of a position in registers and meets it with that position's token of eight samples.
#pragma once

#include "kernels/cuda/train/token_position.cuh"

enum : int { kSamples = kSpionSamplesPerItem, kPositions = kThreads / kOctets };
static_assert(kSamples % kSpionKeptSamples == 0);

// The samples 4 quad .. 4 quad + 3 of position `position`, whose own octet is `here`.
SPION_DEVICE void store_quad(const SpionTokenPositionArguments& args, unsigned key_now,
                             unsigned quad, unsigned position, const Octet& here) {
    const unsigned octet = threadIdx.x % kOctets;
    unsigned octets[kSpionKeptSamples], word = 0;
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s) {
        octets[s] = octet_index(args, quad * kSpionKeptSamples + s, position, octet);
    }
    if constexpr (kDropout > 0.0F) {
        word = draw_octets(octets, args.stream, args.draws, [&](int round) {
            const unsigned int* key = args.draws.key + 2 * round;
            return make_uint4(key[0], round == 0 ? key_now : key[1], key[2], key[3]);
        });
        args.kept[kept_word(args, quad, position, octet)] = word;
    }
    const Kept kept[2] = {Kept(word, 0), Kept(word, 1)};
#pragma unroll
    for (int s = 0; s < kSpionKeptSamples; ++s) {
        if (quad * kSpionKeptSamples + s >= (unsigned)args.batch) break;
        const unsigned id = args.ids[octets[s] / kOctets];
        const float4* token = (const float4*)args.token + (id * kOctets + octet) * 2;
        const float4 low = token[0], high = token[1];
        Octet x = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#pragma unroll
        for (int e = 0; e < 8; ++e) x.value[e] = (x.value[e] + here.value[e]) * args.draws.scale;
        ((uint4*)args.x)[octets[s]] = kept[s / 2].apply(s % 2, pack(x));
    }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    token_position_forward(const __grid_constant__ SpionTokenPositionArguments args) {
    const unsigned chunks = (args.length + kPositions - 1) / kPositions;
    const unsigned position = blockIdx.x % chunks * kPositions + threadIdx.x / kOctets;
    const unsigned first_quad = blockIdx.x / chunks * (kSamples / kSpionKeptSamples);
    if (position >= (unsigned)args.length) return;
    const float4* row =
        (const float4*)args.position + (position * kOctets + threadIdx.x % kOctets) * 2;
    const float4 low = row[0], high = row[1];
    const Octet here = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    const unsigned key_now = spion_key_now(args.draws, 1);
#pragma unroll
    for (int i = 0; i < kSamples / kSpionKeptSamples; ++i) {
        const unsigned quad = first_quad + i;
        if (quad * kSpionKeptSamples < (unsigned)args.batch)
            store_quad(args, key_now, quad, position, here);
    }
}
