// dQ of a query block as the sum of the partial dQs that key tiles have for it, on sm_90a.
//
// A step of a work item has one partial dQ [kStreamedRows, D] fp32, in two accumulators [64, 64],
// one a consumer warpgroup: other rows of the partial where kStreamedRows is 128, other columns
// where it is 64. In shared memory an accumulator lies as it was in registers: float4 j of thread t
// at 16 * (128 * j + t). There are two buffers for partials, which steps take in turn. Each has a
// reduce warp beside the producer, which brings its partials to the sum in device memory when the
// dQ semaphore has come to their ticket (compiler/launch/dq_schedule.h makes tickets). It has the time of
// two steps for that: a transfer is under way for about one. The first partial is stored, later
// ones are added in L2 by cp.reduce.async.bulk. Consumer warps make dQ of the sums when
// their thread block has no more work items: some few key tiles of a batch-head complete most of its
// query blocks, and a reduce warp that wrote dQ would keep its buffer for several steps each time.
#ifndef SPION_WGMMA_DQ_REDUCE_CUH
#define SPION_WGMMA_DQ_REDUCE_CUH

#define SPION_SAMPLE_ROWS 128
#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/sm90/wgmma_pipeline.cuh"

enum : bool { kSplitsRows = kStreamedRows == 128 };
enum : int { kDqPartialElements = kStreamedRows * kHeadDim };
enum : int { kDqPartialBytes = kDqPartialElements * 4 };
static_assert(kGroups == 2 && kGatherBlocksPerStep == 1 && kDqPartialBytes == 2 * kDqAccBytes);

// A semaphore counts the partial dQs of a query block that were added; with kHasSum when one of
// them was more than nothing, with kComplete when no more will come. A ticket is the count that a
// partial waits for.
enum : unsigned { kHasSum = 1U << 31, kComplete = 1U << 30 };
enum : int { kLastTicket = 1 << 30 };
enum : int { kQueryBlocks = (kLength + kGatherRows - 1) / kGatherRows };

// counters[1] counts, beside each other, reduce warps that have added all their partials and
// consumer warps that have written all their query blocks.
enum : unsigned { kReduced = 1U << 16, kWritten = 1 };

// Behind the tiles lie kExchangeBuffers times dS of both warpgroups, and then the buffers of
// partials.
SPION_DEVICE unsigned exchanged_tile(int buffer, int group) {
    return shared_memory_start() + kExchangeStart + (2 * buffer + group) * kExchangedBytes;
}
SPION_DEVICE unsigned dq_partial_at(int buffer) {
    return shared_memory_start() + kExchangeStart + 2 * kExchangeBuffers * kExchangedBytes +
           buffer * kDqPartialBytes;
}
SPION_DEVICE unsigned dq_acc_at(int buffer, int group) {
    return dq_partial_at(buffer) + group * kDqAccBytes;
}

// A query block's sum, of all batch-heads' query blocks.
SPION_DEVICE float* dq_sum(const SpionSm90Arguments& args, int at) {
    return args.dq_accum + (long long)at * kDqPartialElements;
}

// One lane: counts a warp as done. The last one of all leaves the counters as it found them.
SPION_DEVICE void count_warp(const SpionSm90Arguments& args, unsigned what) {
    const unsigned all = gridDim.x * (kHelperWarps * kReduced + kWarps * kWritten);
    __threadfence();
    if (atomicAdd(&args.counters[1], what) + what == all) args.counters[0] = args.counters[1] = 0;
}

struct DqReduceWarp {
    const SpionSm90Arguments& args;
    int buffer;
    unsigned parity = 0;
    unsigned items = 0;

    __device__ __forceinline__ DqReduceWarp(const SpionSm90Arguments& arguments, int of_buffer)
        : args(arguments), buffer(of_buffer) {}
    // Takes part in all work items.
    __device__ __forceinline__ void run();

  private:
    // has_partial: padded keys have none, but keep their ticket. last_of_item: of this warp's.
    __device__ __forceinline__ void add(const ItemPlan& plan, int gather_block, int ticket,
                                        bool has_partial, bool last_of_item);
    __device__ __forceinline__ void end_turns();
    __device__ __forceinline__ unsigned wait_for_ticket(int at, int ticket) const;
    __device__ __forceinline__ void transfer(float* sum, bool has_sum) const;
};

// Returns the semaphore, with kHasSum or without.
__device__ __forceinline__ unsigned DqReduceWarp::wait_for_ticket(int at, int ticket) const {
    unsigned semaphore = 0;
    if (lane_index() == 0) {
        do semaphore = ld_acquire(args.dq_semaphore + at);
        while ((semaphore & ~kHasSum) != (ticket & ~kLastTicket));
        fence_proxy_async_global();
    }
    return __shfl_sync(0xFFFFFFFFU, semaphore, 0);
}

// Begins to store or to add the partial.
__device__ __forceinline__ void DqReduceWarp::transfer(float* sum, bool has_sum) const {
    fence_proxy_async_shared();  // for what consumers have stored
    if (has_sum) {
        cp_reduce_async_bulk_add(sum, dq_partial_at(buffer), kDqPartialBytes);
    } else {
        cp_async_bulk_store(sum, dq_partial_at(buffer), kDqPartialBytes);
    }
    cp_async_bulk_commit_group();
}

// The producer may take an item of the same batch-heads now, while the last partials are still made
// and added: that depends on this thread block alone.
__device__ __forceinline__ void DqReduceWarp::end_turns() {
    if (lane_index() == 0) mbarrier_arrive(item_turns(buffer, items));
    ++items;
}

__device__ __forceinline__ void DqReduceWarp::add(const ItemPlan& plan, int gather_block,
                                                  int ticket, bool has_partial, bool last_of_item) {
    const int at = plan.batch_head * kQueryBlocks + gather_block;
    const unsigned semaphore = wait_for_ticket(at, ticket);
    if (last_of_item) end_turns();
    if (has_partial) {
        mbarrier_wait(dq_full(buffer), parity);
        parity ^= 1;
        if (lane_index() == 0) {
            transfer(dq_sum(args, at), (semaphore & kHasSum) != 0);
            cp_async_bulk_wait_group_read();
        }
        __syncwarp();
        mbarrier_arrive_by_lanes(dq_empty(buffer));
    }
    if (lane_index() == 0) {
        cp_async_bulk_wait_group<0>();
        fence_proxy_async_global();
        st_release(args.dq_semaphore + at, (semaphore + 1) | (has_partial ? kHasSum : 0) |
                                               ((ticket & kLastTicket) != 0 ? kComplete : 0));
    }
    __syncwarp();
}

__device__ __forceinline__ void DqReduceWarp::run() {
    PipelineState<kStationaryStages> stationary_stage;
    int next = 0;  // the buffer of the next partial
    griddepcontrol_wait();
    while (true) {
        mbarrier_wait(stationary_full(stationary_stage.index), stationary_stage.parity);
        const ItemPlan plan = read_plan(stationary_stage.index);
        mbarrier_arrive_by_lanes(stationary_empty(stationary_stage.index));
        if (plan.batch_head < 0) break;
        stationary_stage.advance();
        const int begin = offset_at(args.attention, plan.order_index);
        const int end = offset_at(args.attention, plan.order_index + 1);
        const bool has_partials = plan.valid > 0;
        const int first = begin + (next ^ buffer);
        if (first >= end) end_turns();
        for (int entry = first; entry < end; entry += 2) {
            add(plan, gather_block_table(args.attention)[entry], args.dq_tickets[entry],
                has_partials, entry + 2 >= end);
        }
        if (has_partials) next ^= (end - begin) & 1;
    }
    if (lane_index() == 0) count_warp(args, kReduced);
}

// The semaphore of a query block whose sum is complete; 0 where no key tile has the query block, which
// shows when all partials have been added.
SPION_DEVICE unsigned wait_for_sum(const SpionSm90Arguments& args, int at) {
    unsigned semaphore = 0;
    if (lane_index() == 0) {
        bool reduced = false;
        do {
            reduced = ld_acquire_once(&args.counters[1]) / kReduced == gridDim.x * kHelperWarps;
            semaphore = ld_acquire_once(args.dq_semaphore + at);
        } while ((semaphore & kComplete) == 0 && !reduced);
        fence_proxy_async_global();
    }
    return __shfl_sync(0xFFFFFFFFU, semaphore, 0);
}

// A warp: rows of a query block by 32 columns of the dQ, of which there are four. In the sum, four
// lanes hold 8 columns of row g and of row g + 8, a pair of each a lane, and as much of the tile of
// columns beside it. They exchange them so that each stores 8 columns of one row.
SPION_DEVICE void write_quarter(const SpionSm90Arguments& args, int at, int quarter, bool has_sum) {
    const SpionTensor& tensor = args.attention.d_q;
    const int batch_head = at / kQueryBlocks, dq_acc = quarter / 2;
    const bool odd = lane_index() % 2 != 0, right = lane_index() % 4 / 2 != 0;
    const int first = (at - batch_head * kQueryBlocks) * kGatherRows +
                      (kSplitsRows ? dq_acc * 64 : 0) + lane_index() / 4 + (odd ? 8 : 0);
    const int byte = quarter % 2 * 64 + (kSplitsRows ? 0 : dq_acc * 128) + (right ? 16 : 0);
    const auto rows =
        rows_of(args.attention, tensor, batch_head / kItemHeads, batch_head % kItemHeads);
    char* const target = rows.at(first, 0) + byte;
    const int pitch = (int)tensor.row_stride * Element::kBytes;
    constexpr int kTiles = 16;  // 16 rows by 8 columns
    const float* const sum = dq_sum(args, at) + quarter * kTiles * 128 + lane_index() * 4;
    float4 values[kTiles];
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
        values[i] = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (has_sum) values[i] = load_global_float4(sum + i * 128);
    }
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
        if (i % 8 >= 4) continue;  // the right one of two tiles
        uint2 halves[2];
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
            const float4 value = values[i + 4 * tile];
            const unsigned low = Element::pack(value.x * kScale, value.y * kScale);
            const unsigned high = Element::pack(value.z * kScale, value.w * kScale);
            const unsigned other = __shfl_xor_sync(0xFFFFFFFFU, odd ? low : high, 1);
            halves[tile] = odd ? make_uint2(other, high) : make_uint2(low, other);
        }
        const uint2 given = right ? halves[0] : halves[1], kept = right ? halves[1] : halves[0];
        const unsigned x = __shfl_xor_sync(0xFFFFFFFFU, given.x, 2);
        const unsigned y = __shfl_xor_sync(0xFFFFFFFFU, given.y, 2);
        const int row = i % 4 * 16, further = i / 8 * 32;
        if (first + row < kLength &&
            (kKeyDim == kHeadDim || byte + further < kKeyDim * Element::kBytes)) {
            *(uint4*)(target + row * pitch + further) =
                right ? make_uint4(x, y, kept.x, kept.y) : make_uint4(kept.x, kept.y, x, y);
        }
    }
}

// Consumer warps, behind their last work item: each writes each kWarps * gridDim.x-th query block of dQ
// and leaves its semaphore as it was.
SPION_DEVICE void write_dq(const SpionSm90Arguments& args) {
    const int query_blocks = (int)(args.items / head_items(args.attention)) * kQueryBlocks;
    for (int at = (int)blockIdx.x * kWarps + warp_index(); at < query_blocks;
         at += (int)gridDim.x * kWarps) {
        const unsigned semaphore = wait_for_sum(args, at);
        if (semaphore == 0) continue;
#pragma unroll 1
        for (int quarter = 0; quarter < 4; ++quarter) {
            write_quarter(args, at, quarter, (semaphore & kHasSum) != 0);
        }
        if (lane_index() == 0) args.dq_semaphore[at] = 0;
    }
    if (lane_index() == 0) count_warp(args, kWritten);
}

#endif
