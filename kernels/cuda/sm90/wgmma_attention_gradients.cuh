// dK and dV of one key tile, and its partial dQs, on sm_90a.
//   S^T [64, n]   = K [64, D] * Q [n, D]^T       a warpgroup's 64 keys, n = kStreamedRows queries
//   P^T [64, n]   = exp(kScale * S^T - LSE)
//   dS^T [64, n]  = P^T * (V [64, D] * dO [n, D]^T - delta)
//   dV [64, D]   += P^T [64, n] * dO [n, D]
//   dK [64, D]   += dS^T [64, n] * Q [n, D]      at the end times kScale
//   dQ [n, D]    += dS [n, 128] * K [128, D]     over both warpgroups' keys, each [64, 64] of it
// LSE and delta are those of the column. Rows of padded keys get zeros. The warpgroups exchange dS
// through shared memory; how partial dQs are added up is in wgmma_dq_reduce.cuh.
#define SPION_SAMPLE_ROWS 128
#include "kernels/cuda/sm90/wgmma_contract.cuh"

#define SPION_BODY
enum : int { kStationaryTensors = 2 };  // K, V; streamed: Q, dO
enum : bool { kStationaryHasStatistics = false };
enum : bool { kStageHasStatistics = true };  // LSE, delta
enum : int { kHelperWarps = 2 };             // reduce warps
enum : int { kDqAccBytes = 64 * 64 * 4 };
enum : int { kExchangedBytes = 64 * kStreamedRows * 2 };  // dS^T of a warpgroup
// Of dS: one where that leaves room for a second stationary stage.
enum : int { kExchangeBuffers = kStreamedRows == 128 ? 1 : 2 };
enum : int { kExchangeBytes = 2 * kExchangeBuffers * kExchangedBytes + 4 * kDqAccBytes };
#include "kernels/cuda/sm90/wgmma_columns.cuh"
#include "kernels/cuda/sm90/wgmma_dq_reduce.cuh"

using Operand = unsigned[kScoreTiles / 2][4];  // P^T or dS^T, rounded: the left one of a product

enum : int { kExchange = 3 };  // the barrier at which both warpgroups have written dS

// dS^T [64, kStreamedRows] lies as swizzle atoms of 64 columns, 128 bytes a row. Where, from the
// tile's start, a lane stores a row of matrices of the first 16 columns.
SPION_DEVICE unsigned exchanged_offset() {
    const unsigned thread = threadIdx.x % 128, lane = thread % 32;
    const unsigned row = thread / 32 * 16 + lane % 16;
    return row * 128 + (lane / 16 * 16 ^ row % 8 * 16);
}

// exchanged: exchanged_offset() of a tile, a shared address. Of the operand's columns those from
// 16 * kFirst until 16 * kEnd.
template <int kFirst, int kEnd>
SPION_DEVICE void store_exchanged(unsigned exchanged, const Operand& operand) {
#pragma unroll
    for (int step = kFirst; step < kEnd; ++step) {
        stmatrix_x4((exchanged + step / 4 * 64 * 128) ^ step % 4 * 32, operand[step]);
    }
}

// dq_acc [64, 64] = dS [64, 128] * K [128, 64], a warpgroup's keys after the other's. Both operands
// are contracted across their rows, of 128 bytes in shared memory.
SPION_DEVICE void start_dq_acc(float (&dq_acc)[8][4], int buffer, int group, unsigned key_tiles) {
    constexpr unsigned long long kShape = 1ULL << 62 | 64ULL << 32 | 1ULL << 16;
    constexpr int kSwizzleAtom = 64 * 128;
    static_assert(kSwizzleAtomBytes == 128);
    // Steps add to whole descriptors, one addition each.
    const unsigned long long left =
        kShape | (exchanged_tile(buffer, 0) + (kSplitsRows ? group * kSwizzleAtom : 0)) >> 4;
    const unsigned long long right =
        kShape | (key_tiles + (kSplitsRows ? 0 : group * kSwizzleAtom)) >> 4;
#pragma unroll
    for (int step = 0; step < 8; ++step) {
        const int keys_of = step / 4, row = step % 4 * 16;
        Wgmma<Element, 64>::product_across(
            dq_acc, left + (keys_of * kExchangedBytes + row * 128) / 16,
            right + (keys_of * kGroupTileBytes + row * 128) / 16, step > 0);
    }
}

// dS^T = P^T * (dP^T - delta), rounded, from P^T as rounded for dV, whose product may be under way;
// of its columns those from 8 * kFirst until 8 * kEnd.
template <int kFirst, int kEnd>
SPION_DEVICE void pack_score_gradient(Operand& left, const float (&gradient)[kScoreTiles][4],
                                      const Operand& probabilities, unsigned lane_lse,
                                      const ScoreSlopes<kScoreTiles>& slopes) {
    const unsigned lane_delta = lane_lse + kStreamedRows * 4;
#pragma unroll
    for (int j = kFirst; j < kEnd; ++j) {
        const float2 delta = load_shared_float2(lane_delta + j * 32);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int i = 2 * half;
            const unsigned pair = probabilities[j / 2][j % 2 * 2 + half];
            left[j / 2][j % 2 * 2 + half] = Element::pack(
                slopes.gradient(j, i, Element::low(pair), gradient[j][i] - delta.x),
                slopes.gradient(j, i + 1, Element::high(pair), gradient[j][i + 1] - delta.y));
        }
    }
}

// Whether a key tile may have rows that are padded, or beyond L: they have no partial dQ.
enum : bool { kKeysMayLack = kKeyPadding || kKeyLength % kStationaryRows != 0 };

// How many of the warp's 16 keys count, of the item in the stationary stage: not kept in a
// register.
SPION_DEVICE int valid_keys(const SpionAttentionArguments& args, int stationary_stage) {
    const ItemPlan plan = read_plan(stationary_stage);
    return key_limit(args, plan.batch()) - plan.first_row - warp_index() * 16;
}

struct Consumer {
    int group;  // this warpgroup of the block's consumers
    PipelineState<kStationaryStages> stationary_stage;
    PipelineState<kStages> stage;  // there are two, as of what is exchanged and of partials

    __device__ __forceinline__ Consumer() : group(__shfl_sync(0xFFFFFFFFU, warp_index() / 4, 0)) {}
    __device__ __forceinline__ void compute(const SpionAttentionArguments& args, ItemPlan plan);
    __device__ __forceinline__ void hand_over(const float (&dq_acc)[8][4]) const;
    static __device__ __forceinline__ void finish(const SpionSm90Arguments& args) {
        write_dq(args);
    }
};
static_assert(kStages == 2 && kMembers == 1);
#ifndef SPION_SAMPLE
static_assert(!kDrops && !kCaps && !kSlopes && !kExpression, "there are no registers for them");
#endif

// The accumulator goes to the reduce warp, whose fence orders it before the transfer.
__device__ __forceinline__ void Consumer::hand_over(const float (&dq_acc)[8][4]) const {
    mbarrier_wait(dq_empty(stage.index), stage.parity ^ 1);
    const unsigned lane_acc = dq_acc_at(stage.index, group) + thread_now() % 128 * 16;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        store_shared_16(lane_acc + j * 2048,
                        make_uint4(__float_as_uint(dq_acc[j][0]), __float_as_uint(dq_acc[j][1]),
                                   __float_as_uint(dq_acc[j][2]), __float_as_uint(dq_acc[j][3])));
    }
    mbarrier_arrive_by_lanes(dq_full(stage.index));
}

__device__ __forceinline__ void Consumer::compute(const SpionAttentionArguments& args,
                                                  ItemPlan plan) {
    const unsigned key_tiles = stationary_tile(stationary_stage.index, 0);
    const unsigned key_tile = key_tiles + group * kGroupTileBytes;
    const unsigned value_tile =
        stationary_tile(stationary_stage.index, 1) + group * kGroupTileBytes;
    if constexpr (kKeyPadding) {
        const int valid = key_limit(args, plan.batch()) - plan.first_row - group * kGroupRows;
        if (valid < kGroupRows) zero_rows<kGroupRows>(key_tile, max(valid, 0), 1 + group);
    }

    float key_gradient[kKeyTiles][4], value_gradient[kValueTiles][4];
    set_zero(key_gradient);
    set_zero(value_gradient);
    Operand probabilities, operand;
    const unsigned exchanged = exchanged_tile(0, group) + exchanged_offset();
#pragma unroll 1
    for (int left = __shfl_sync(0xFFFFFFFFU, plan.steps(), 0); left > 0; --left) {
        const unsigned query_tile = stage_tile(stage.index, 0);
        const unsigned output_gradient_tile = stage_tile(stage.index, 1);
        {
            float scores[kScoreTiles][4], gradient[kScoreTiles][4];
            mbarrier_wait(stage_full(stage.index, 0), stage.parity);
            warpgroup_discard_operand(scores);
            wgmma_fence();
            start_scores<kStreamedRows, kKeyDim>(scores, key_tile, query_tile);
            wgmma_commit_group();
            mbarrier_wait(stage_full(stage.index, 1), stage.parity);
            warpgroup_discard_operand(gradient);
            wgmma_fence();
            start_scores<kStreamedRows, kValueDim>(gradient, value_tile, output_gradient_tile);
            wgmma_commit_group();
            const unsigned statistics = lane_statistics(stage.index, (int)(thread_now() % 32));
            EarlyStatistics<4> early;
            early.load(statistics);
            wgmma_wait_group<1>();
            warpgroup_fence_operand(scores);
            // dV starts with half of the probabilities, and its other half is started ahead of the
            // wait for dP: ptxas would place that wait, with no product before it, ahead of all
            // exponentials, while they are to be taken beside dP.
            constexpr int kHalf = kScoreTiles / 2, kSteps = kScoreTiles / 2;
            change_scores(scores);
            ScoreSlopes<kScoreTiles> slopes;
            slopes.take(scores);
            take_part_of_probabilities<0, kHalf>(scores, statistics, early);
            drop_part_of_step<0, kHalf>(scores, args, stationary_stage.index, left,
                                        warp_index() * 16);
            pack_part<0, kHalf>(probabilities, scores);
            warpgroup_fence_operand(value_gradient);
            warpgroup_fence_operand(probabilities);
            wgmma_fence();
            start_part_of_sum<0, kSteps / 2>(value_gradient, probabilities, output_gradient_tile);
            wgmma_commit_group();
            take_part_of_probabilities<kHalf, kScoreTiles>(scores, statistics);
            drop_part_of_step<kHalf, kScoreTiles>(scores, args, stationary_stage.index, left,
                                                  warp_index() * 16);
            pack_part<kHalf, kScoreTiles>(probabilities, scores);
            warpgroup_fence_operand(probabilities);
            wgmma_fence();
            start_part_of_sum<kSteps / 2, kSteps>(value_gradient, probabilities,
                                                  output_gradient_tile);
            wgmma_commit_group();
            wgmma_wait_group<2>();
            warpgroup_fence_operand(gradient);
            // ptxas would start the last product of dV behind all of dS; nothing is loaded ahead of
            // this, so that delta and what is made of it come later.
            __syncwarp();
            // dK starts with half of dS, so that the tensor cores have it while the other half is made
            // and until the other warpgroup has stored its own.
            const int valid = kKeysMayLack ? valid_keys(args, stationary_stage.index) : 16;
            const int buffer = kExchangeBuffers == 2 ? stage.index : 0;
            const unsigned target = exchanged + buffer * 2 * kExchangedBytes;
            // Steps take both phases of exchange_free by turns, as they take stages.
            if (kExchangeBuffers == 1) mbarrier_wait(exchange_free(), stage.index ^ 1);
            pack_score_gradient<0, kHalf>(operand, gradient, probabilities, statistics, slopes);
            if (kKeysMayLack && valid < 16) zero_rows_from<0, kSteps / 2>(valid, operand);
            store_exchanged<0, kSteps / 2>(target, operand);
            warpgroup_fence_operand(key_gradient);
            warpgroup_fence_operand(operand);
            wgmma_fence();
            start_part_of_sum<0, kSteps / 2>(key_gradient, operand, query_tile);
            wgmma_commit_group();
            __syncwarp();
            pack_score_gradient<kHalf, kScoreTiles>(operand, gradient, probabilities, statistics,
                                                    slopes);
            if (kKeysMayLack && valid < 16) zero_rows_from<kSteps / 2, kSteps>(valid, operand);
            store_exchanged<kSteps / 2, kSteps>(target, operand);
        }
        bar_sync(kExchange, kThreads);
        fence_proxy_async_shared();  // for what both warpgroups have stored
        float dq_acc[8][4];
        warpgroup_discard_operand(dq_acc);
        warpgroup_fence_operand(operand);
        wgmma_fence();
        start_dq_acc(dq_acc, kExchangeBuffers == 2 ? stage.index : 0, group, key_tiles);
        wgmma_commit_group();
        start_part_of_sum<kScoreTiles / 4, kScoreTiles / 2>(key_gradient, operand, query_tile);
        wgmma_commit_group();
        wgmma_wait_group<1>();
        warpgroup_fence_operand(dq_acc);
        if (kExchangeBuffers == 1) mbarrier_arrive_by_warp(exchange_free());
        warpgroup_fence_operand(value_gradient);
        warpgroup_fence_operand(probabilities);
        release_stage(stage.index, 1);
        hand_over(dq_acc);
        wgmma_wait_group<0>();
        warpgroup_fence_operand(key_gradient);
        warpgroup_fence_operand(operand);
        release_stage(stage.index, 0);
        stage.advance();
    }
    plan = read_plan(stationary_stage.index);  // not kept in registers
    mbarrier_arrive_by_lanes(stationary_empty(stationary_stage.index));
    stationary_stage.advance();

    const int first = plan.first_row + group * kGroupRows + warp_index() % 4 * 16;
    if constexpr (kKeyPadding) {
        const int valid = key_limit(args, plan.batch()) - first;
        zero_rows_from(valid, key_gradient);
        zero_rows_from(valid, value_gradient);
    }
    mbarrier_wait(dq_empty(stage.index), stage.parity ^ 1);  // it serves as staging
    const float one[2] = {1.0F, 1.0F}, scale[2] = {kScale, kScale};
    ResultRows rows;
    rows.take(dq_acc_at(stage.index, group), key_gradient, scale);
    rows.store(key_rows_of(args, args.d_k, plan.batch(), plan.head()), first, kKeyLength);
    rows.take(dq_acc_at(stage.index, group), value_gradient, one);
    rows.store(key_rows_of<ValueRows>(args, args.d_v, plan.batch(), plan.head()), first,
               kKeyLength);
}

extern "C" __global__ void __launch_bounds__(kBlockThreads, kResidentBlocks)
    attention_gradients(const __grid_constant__ SpionSm90Arguments args) {
    const auto fetch_statistics = [&](const WorkItem& work, const Walk& walk, int step,
                                      unsigned target) {
        const int gather_block = __shfl_sync(0xFFFFFFFFU, walk.window, step & 31);
#pragma unroll
        for (int i = 0; i < kStreamedRows / 32; ++i) {
            const int row = 32 * i + lane_index();
            const int source = gather_block * kGatherRows + row;
            cp_async_4(target + row * 4, args.attention.lse + work.row + source, source < kLength);
            cp_async_4(target + (kStreamedRows + row) * 4, args.attention.delta + work.row + source,
                       source < kLength);
        }
    };
    run_items<Consumer, false>(
        args, [](const WorkItem&, unsigned) {}, fetch_statistics,
        [&](int buffer) { DqReduceWarp(args, buffer).run(); });
}
