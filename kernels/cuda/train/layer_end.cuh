// What both passes of a layer's end share.
#pragma once

#include "kernels/cuda/train/gelu_terms.cuh"
#include "kernels/cuda/train/layer_kept.cuh"
#include "kernels/cuda/train/warp_rows.cuh"

enum : int { kHiddenChunks = kHidden / 8 };
enum : int { kWeightBytes = kHidden * kChannels * 2 };  // of either map of the feed-forward part
