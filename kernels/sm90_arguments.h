// The one parameter of the attention kernels for sm_90a whose tiles are fetched by the tensor
// memory accelerator (TMA). Plain C++ without includes, as attention_arguments.h.
#pragma once

#include "kernels/attention_arguments.h"

// An encoded CUtensorMap of a [B, H, L, D] view: dimensions {D, L, H, B}, boxes of one swizzle atom
// of columns (kernels/cuda/sm90/tile.cuh) and as many rows as the kernel fetches at once.
struct alignas(64) SpionTensorMap {
    unsigned long long words[16];
};

struct SpionSm90Arguments {
    // The stationary tensors, then the streamed ones, each in the order of the role:
    //   attention_forward              q | k v
    //   attention_query_gradient       q d_o o | k v
    //   attention_key_value_gradient   k v | q d_o
    //   attention_gradients            k v | q d_o
    SpionTensorMap maps[5];
    SpionAttentionArguments attention;
    unsigned items;      // B * H * tiles
    unsigned* counters;  // [2] of this kernel: items handed out, thread blocks done; zeros before
                         // the first launch, and every launch leaves zeros
    // Read by the warp_* bodies alone: so many tiles of every (b, h), fewer than all, are taken
    // before the others of any.
    unsigned lpt_tiles;
    // Read by the wgmma_* bodies alone: the items of the last so many of the B * H heads are handed
    // out side by side, longest walks first, those of the others head after head.
    unsigned lpt_heads;
    // Of attention_gradients, else null:
    const int* dq_tickets;   // [listed gather blocks]: the turn of a share, compiler/dq_schedule.h
    float* dq_accum;         // [B, H, query blocks, gather_rows, D]: of dQ, not initialised
    unsigned* dq_semaphore;  // [B, H, query blocks], zeros between launches
    unsigned batch_heads_at_once;  // (batch, head) pairs whose work items take turns
};
