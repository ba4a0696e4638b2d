// P^T and dS^T of a step on sm_90a, [64, n] a warpgroup: rows are keys, columns queries, whose LSE
// and delta lie in shared memory with the step. Queries that the step does not have are zeros
// throughout, LSE and delta too, and add nothing.
#ifndef SPION_WGMMA_COLUMNS_CUH
#define SPION_WGMMA_COLUMNS_CUH

#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/common/mask.cuh"
#include "kernels/cuda/sm90/wgmma_pipeline.cuh"

enum : int { kScoreTiles = kStreamedRows / 8 };

// Where the LSE lie of the columns of a lane (or thread), which are 8 j + 2 (lane % 4) and the
// next.
SPION_DEVICE unsigned lane_statistics(int stage, int lane) {
    return stage_statistics(stage) + lane % 4 * 8;
}

// Those of a lane for the first kTiles tiles of 8 columns, loaded ahead of a wait for the products
// that they meet.
template <int kTiles>
struct EarlyStatistics {
    float2 values[kTiles > 0 ? kTiles : 1];

    __device__ __forceinline__ void load(unsigned lane_statistics) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) values[j] = load_shared_float2(lane_statistics + j * 32);
    }
    __device__ __forceinline__ float2 at(unsigned lane_statistics, int j) const {
        return j < kTiles ? values[j] : load_shared_float2(lane_statistics + j * 32);
    }
};

// Scores as change_scores leaves them become probabilities: P^T = exp(kScale * S^T - LSE). Of
// columns [8 kFirst, 8 kEnd).
template <int kFirst, int kEnd, int kEarly = 0>
SPION_DEVICE void take_part_of_probabilities(float (&scores)[kScoreTiles][4], unsigned lane_lse,
                                             const EarlyStatistics<kEarly>& early = {}) {
#pragma unroll
    for (int j = kFirst; j < kEnd; ++j) {
        const float2 lse = early.at(lane_lse, j);
        const float shift[2] = {lse.x * kLog2E, lse.y * kLog2E};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            scores[j][i] = probability(scores[j][i], shift[i % 2]);
        }
    }
}

// All scores become probabilities, 0 where the mask says so. Returns the slopes of the scores.
SPION_DEVICE ScoreSlopes<kScoreTiles> take_probabilities(float (&scores)[kScoreTiles][4],
                                                         unsigned lane_lse, const StepMask& mask,
                                                         const StepElements<true>& elements) {
    change_scores(scores);
    ScoreSlopes<kScoreTiles> slopes;
    slopes.take(scores);
    elements.add_position_terms(scores, slopes, 0);
    take_part_of_probabilities<0, kScoreTiles>(scores, lane_lse);
    mask_transposed(scores, mask);
    return slopes;
}

// Whether dS^T is divided by how many times a kept element counts.
enum : bool { kDividedByKept = kDrops && !kCaps && !kExpression };

// dO V^T becomes dS^T = P^T * (dP^T - delta), with kDividedByKept divided so.
SPION_DEVICE void take_kept_gradient(float (&gradient)[kScoreTiles][4],
                                     float (&probabilities)[kScoreTiles][4], unsigned lane_lse,
                                     const KeptElements<true, kScoreTiles>& kept) {
    const unsigned lane_delta = lane_lse + kStreamedRows * 4;
    const float share = kept.share();
    float2 divided[kScoreTiles];
#pragma unroll
    for (int j = 0; j < kScoreTiles; ++j) {
        const float2 delta = load_shared_float2(lane_delta + j * 32);
        divided[j] = {delta.x * share, delta.y * share};
    }
    kept.for_each([&](int j, int i) {
        const float dropped = -(i % 2 == 0 ? divided[j].x : divided[j].y) * probabilities[j][i];
        probabilities[j][i] = kept.keep(j, i, probabilities[j][i]);
        gradient[j][i] = __fmaf_rn(probabilities[j][i], gradient[j][i], dropped);
    });
}

// dO V^T becomes dS^T = P^T * (dP^T - delta).
SPION_DEVICE void take_score_gradient(float (&gradient)[kScoreTiles][4],
                                      const float (&probabilities)[kScoreTiles][4],
                                      unsigned lane_lse, const ScoreSlopes<kScoreTiles>& slopes,
                                      const KeptElements<true, kScoreTiles>& kept) {
    const unsigned lane_delta = lane_lse + kStreamedRows * 4;
#pragma unroll
    for (int j = 0; j < kScoreTiles; ++j) {
        const float2 delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            gradient[j][i] = slopes.gradient(
                j, i, probabilities[j][i],
                kept.gradient(j, i, gradient[j][i], i % 2 == 0 ? delta.x : delta.y));
        }
    }
}

// What depends on positions in the step that `left` - 1 others of the item follow. It is read anew from the
// item's stationary stage, and not kept in registers from step to step.
SPION_DEVICE StepElements<true> elements_of_step(const SpionAttentionArguments& args,
                                                 int stationary_stage, int left, int warp_row) {
    const ItemPlan plan = read_plan(stationary_stage);
    const int walked = plan.steps();
    const MemberStep at = member_step(kMembers * walked - left, walked);
    return step_elements<true>(args, plan, warp_row)
        .at(at.step)
        .of_member(args, plan.batch(), plan.head(), at.member);
}

// Probabilities that the element mask drops become 0, of tiles kFirst to kEnd, in the step that
// `left` - 1 others of the item follow. What the mask needs is read anew from the item's stationary
// stage, and is not kept in registers from step to step.
template <int kFirst, int kEnd>
SPION_DEVICE void drop_part_of_step(float (&probabilities)[kScoreTiles][4],
                                    const SpionAttentionArguments& args, int stationary_stage,
                                    int left, int warp_row) {
    if constexpr (kElementsMasked) {
        const ItemPlan plan = read_plan(stationary_stage);
        const int walked = plan.steps();
        step_elements<true>(args, plan, warp_row)
            .at(member_step(kMembers * walked - left, walked).step)
            .template drop_part<kFirst, kEnd>(probabilities, 0, 0.0F);
    }
}

#endif
