// The one parameter of the attention kernels for sm_90a whose tiles are fetched by the tensor
// memory accelerator (TMA). Plain C++ without includes, as attention_arguments.h.
#pragma once

#include "attention_arguments.h"

// An encoded CUtensorMap of a [B, H, L, D] view: dimensions {D, L, H, B}, boxes of one slab of
// columns (kernels/cuda/hopper_tile.cuh) and as many rows as the kernel fetches at once.
struct alignas(64) SpionTensorMap {
    unsigned long long words[16];
};

struct SpionHopperArguments {
    // The stationary tensors, then the streamed ones, each in the order of the role:
    //   attention_forward              q | k v
    //   attention_query_gradient       q d_o o | k v
    //   attention_key_value_gradient   k v | q d_o
    SpionTensorMap maps[5];
    SpionAttentionArguments attention;
    unsigned items;      // B * H * tiles
    unsigned* counters;  // [2] of this kernel: items handed out, thread blocks done; zeros before
                         // the first launch, and every launch leaves zeros
};
