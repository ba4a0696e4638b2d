// The words of what a layer's dropouts keep (kernels/layer_arguments.h), as a warp of 16 rows has them.
// Needs the constants kHidden and kDropout of the generated source.
#pragma once

#include "kernels/cuda/train/draws.cuh"

// Words of a lane for its 16 rows, and the places of the three dropouts in them.
enum : int {
    kKeptWords = spion_kept_words(kChannels, kHidden),
    kKeptOut = 0,
    kKeptBranch = 1,
    kKeptGelu = 2
};
static_assert(kChannels == 64 && kHidden % 64 == 0, "whole words");

// Where the lane's words for the rows from `first`, a multiple of 16, begin; they are 32 apart.
SPION_DEVICE unsigned kept_index(unsigned first) {
    return first / kSpionWarpRows * (kKeptWords * 32) + threadIdx.x % 32;
}

// A lane's word of 64 columns of a tensor: octets of elements 8 * index .. 8 * index + 7, for `index`, the
// one `apart` further on, and both again 4 further on. The rounds' keys lie in shared memory at `keys`.
SPION_DEVICE unsigned draw_word(unsigned index, unsigned apart, unsigned stream, unsigned keys,
                                const SpionDraws& draws) {
    const unsigned octets[4] = {index, index + apart, index + 4, index + apart + 4};
    return draw_octets(octets, stream, draws,
                       [&](int round) { return load_shared_16(keys + round * 8); });
}
