// Which elements of a block count, for all CUDA bodies. Today they are kept out by
//   key padding       keys from lengths[b] on are no element of any sum
//   the ragged edge   queries from L and keys from Lk on do not exist
//   the element mask  a query keeps one interval of keys (element_mask.cuh)
//   packed rows       a tile streams the union of its block rows' gather blocks; a gather block
//                     that a block row does not use counts as pruned for its rows (packed_rows.cuh)
// A body asks for a ScoreMask of the scores that it multiplies at once and applies it; a mask that
// is full costs one comparison, or nothing where kStepsAreFull says so beforehand.
#ifndef SPION_MASK_CUH
#define SPION_MASK_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/element_mask.cuh"
#include "kernels/cuda/common/score.cuh"
#include "kernels/cuda/common/sequences.cuh"
#include "kernels/cuda/common/tile.cuh"

// Whether there are elements that count with a score of 0: what the softmax makes of pruned ones.
enum : bool { kPrunedCount = (int)kSoftmax == SPION_SOFTMAX_PRUNED_ZERO };

// How many of them a row has that keeps `kept` elements, `elements` of them in the pattern.
SPION_DEVICE int pruned_elements(int kept, const int& elements) {
    return kPrunedCount ? kept - elements : 0;
}

// Number of keys of the sample that are its own and not padded.
SPION_DEVICE int key_limit(const SpionAttentionArguments& args, int batch) {
    if constexpr (kKeyPadding) return min(args.lengths[batch], kKeyLength);
    return key_count(args, batch);
}

// Whether a streamed tile of which `valid` rows count may have padded rows in it, or another
// sequence's. These need not be
// finite, so that they are made zeros where they are a right operand.
template <int kRows>
SPION_DEVICE bool may_have_padded_rows(int valid) {
    return (kKeyPadding || kVarlen) && valid < kRows;
}

// Says which of scores [16, 8 * kTiles], with kGatherBlocks gather blocks side by side, count: those
// in columns [0, valid) of the gather blocks whose bit is set.
template <int kGatherBlocks = 1>
struct ScoreMask {
    int valid;
    unsigned gather_blocks = ~0U;  // bit j: gather block j
};

// Elements in columns of gather blocks whose bit is not set become `value`.
template <int kGatherBlocks, int kTiles>
SPION_DEVICE void set_outside_gather_blocks(float (&elements)[kTiles][4],
                                            const ScoreMask<kGatherBlocks>& mask, float value) {
    constexpr int kGatherBlockTiles = kTiles / kGatherBlocks;
#pragma unroll
    for (int gather_block = 0; gather_block < kGatherBlocks; ++gather_block) {
        if ((mask.gather_blocks >> gather_block & 1U) != 0) continue;
#pragma unroll
        for (int j = gather_block * kGatherBlockTiles; j < (gather_block + 1) * kGatherBlockTiles;
             ++j) {
#pragma unroll
            for (int i = 0; i < 4; ++i) elements[j][i] = value;
        }
    }
}

// Scores in columns from `valid` on become those of probability 0.
template <int kTiles>
SPION_DEVICE void mask_columns(float (&scores)[kTiles][4], int valid) {
    const int t = (int)(threadIdx.x % 4);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (8 * j + 2 * t + i % 2 >= valid) scores[j][i] = kMaskedScore;
        }
    }
}

// Scores that do not count become those of probability 0. kKnownFull: all columns count.
template <bool kKnownFull = false, int kGatherBlocks, int kTiles>
SPION_DEVICE void mask_scores(float (&scores)[kTiles][4], const ScoreMask<kGatherBlocks>& mask) {
    set_outside_gather_blocks(scores, mask, kMaskedScore);
    if (!kKnownFull && mask.valid < 8 * kTiles) mask_columns(scores, mask.valid);
}

// The same of several row tiles.
template <int kRows, int kTiles>
SPION_DEVICE void mask_scores(float (&scores)[kRows][kTiles][4], const ScoreMask<>& mask) {
    if (mask.valid < 8 * kTiles) {
#pragma unroll
        for (int m = 0; m < kRows; ++m) mask_columns(scores[m], mask.valid);
    }
}

// The same of P^T, whose columns are queries: of probabilities, not scores, because a query without
// any element has an LSE of -infinity. Queries from `valid` on are zeros throughout, LSE and delta
// too, and add nothing.
template <int kGatherBlocks, int kTiles>
SPION_DEVICE void mask_transposed(float (&probabilities)[kTiles][4],
                                  const ScoreMask<kGatherBlocks>& mask) {
    set_outside_gather_blocks(probabilities, mask, 0.0F);
}

// Rows g and g + 8 of the warp's accumulators from `first` on become zeros, by selection: what rows
// of padded keys have gathered need not even be finite.
template <int kTiles, typename... Others>
SPION_DEVICE void zero_rows_from(int first, float (&acc)[kTiles][4], Others&... others) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (lane_index() / 4 + 8 * half < first) continue;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
            acc[j][2 * half] = acc[j][2 * half + 1] = 0.0F;
            ((others[j][2 * half] = others[j][2 * half + 1] = 0.0F), ...);
        }
    }
}

// The same of the left operand of a product, as pack_operand gives it; of its columns those from
// 16 * kFirst until 16 * kEnd.
template <int kFirst, int kEnd, int kSteps>
SPION_DEVICE void zero_rows_from(int first, unsigned (&left)[kSteps][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (lane_index() / 4 + 8 * half < first) continue;
#pragma unroll
        for (int step = kFirst; step < kEnd; ++step) left[step][half] = left[step][2 + half] = 0;
    }
}

// The same of several row tiles.
template <int kRows, int kTiles>
SPION_DEVICE void zero_rows_from(int first, float (&acc)[kRows][kTiles][4]) {
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (16 * m + 8 * half + lane_index() / 4 < first) continue;
#pragma unroll
            for (int j = 0; j < kTiles; ++j) acc[m][j][2 * half] = acc[m][j][2 * half + 1] = 0.0F;
        }
    }
}

#endif
