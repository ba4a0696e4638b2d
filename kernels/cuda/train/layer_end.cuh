// What the passes of a layer's end share: sizes, and the bits of what their dropouts keep.
#pragma once

#include "kernels/cuda/train/draws.cuh"
#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kHiddenChunks = kHidden / 8 };
enum : int { kWeightBytes = kHidden * kChannels * 2 };  // of either map of the feed-forward part
static_assert(kHidden % 64 == 0 && kChannels == 64, "whole words of kept bits");

// Words of a lane's kept bits for 16 rows, and the places of the three dropouts in them.
enum : int {
    kKeptWords = spion_kept_words(kChannels, kHidden),
    kKeptOut = 0,
    kKeptBranch = 1,
    kKeptGelu = 2
};
// The lane's word `word` for the rows from `first`, a multiple of 16.
SPION_DEVICE unsigned* kept_word(const SpionLayerEndArguments& args, unsigned first, int word) {
    return args.kept + (first / kWarpRows * kKeptWords + word) * 32 + threadIdx.x % 32;
}
