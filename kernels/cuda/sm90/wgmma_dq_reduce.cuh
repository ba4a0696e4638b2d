// dQ of a query block as the sum of the partial dQs that key tiles have for it, on sm_90a.
//
// A step of a work item has one partial dQ [kStreamedRows, D] fp32, in two accumulators [64, 64],
// one a consumer warpgroup: other rows of the partial where kStreamedRows is 128, other columns
// where it is 64. In shared memory an accumulator lies as it was in registers: float4 j of thread t
// at 16 * (128 * j + t). There are two buffers for partials, which steps take in turn. Each has a
// reduce warp beside the producer, which brings its partials to the sum in device memory when the
// dQ semaphore has come to their ticket (compiler/launch/dq_schedule.h makes tickets). It has the time of
// two steps for that: a transfer is under way for about one. The first partial is stored, later
// ones are added in L2 by cp.reduce.async.bulk; for the last one its reduce warp fetches the sum
// and writes dQ.
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
// them was more than nothing. A ticket is the count that a partial waits for.
enum : unsigned { kHasSum = 1U << 31 };
enum : int { kLastTicket = 1 << 30 };
enum : int { kQueryBlocks = (kLength + kGatherRows - 1) / kGatherRows };

// Behind the tiles lie dS of both warpgroups, twice, and then the buffers of partials.
SPION_DEVICE unsigned exchanged_tile(int buffer, int group) {
    return shared_memory_start() + kExchangeStart + (2 * buffer + group) * kExchangedBytes;
}
SPION_DEVICE unsigned dq_partial_at(int buffer) {
    return shared_memory_start() + kExchangeStart + 4 * kExchangedBytes + buffer * kDqPartialBytes;
}
SPION_DEVICE unsigned dq_acc_at(int buffer, int group) {
    return dq_partial_at(buffer) + group * kDqAccBytes;
}

struct DqReduceWarp {
    const SpionSm90Arguments& args;
    int buffer;
    unsigned parity = 0, fetched_parity = 0;

    __device__ __forceinline__ DqReduceWarp(const SpionSm90Arguments& arguments, int of_buffer)
        : args(arguments), buffer(of_buffer) {}
    // Takes part in all work items.
    __device__ __forceinline__ void run();

  private:
    // has_partial: padded keys have none, but keep their ticket.
    __device__ __forceinline__ void add(const ItemPlan& plan, int gather_block, int ticket,
                                        bool has_partial);
    __device__ __forceinline__ unsigned wait_for_ticket(int at, int ticket) const;
    __device__ __forceinline__ void transfer(float* sum, bool has_sum) const;
    __device__ __forceinline__ void fetch_sum(const float* sum);
    // dQ: from the partial's buffer or, without a partial, from device memory.
    __device__ __forceinline__ void write(const ItemPlan& plan, int gather_block, const float* sum,
                                          bool has_partial) const;
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

// To the partial's buffer, when that has been added.
__device__ __forceinline__ void DqReduceWarp::fetch_sum(const float* sum) {
    if (lane_index() == 0) {
        cp_async_bulk_wait_group<0>();
        fence_proxy_async_global();
        fence_proxy_async_shared();
        mbarrier_arrive_expect_tx(sum_fetched(buffer), kDqPartialBytes);
        cp_async_bulk_load(dq_partial_at(buffer), sum, kDqPartialBytes, sum_fetched(buffer));
    }
    __syncwarp();
    mbarrier_wait(sum_fetched(buffer), fetched_parity);
    fetched_parity ^= 1;
}

// Lanes exchange what they hold of rows g and g + 8, so that each stores 4 columns of one row.
__device__ __forceinline__ void DqReduceWarp::write(const ItemPlan& plan, int gather_block,
                                                    const float* sum, bool has_partial) const {
    const SpionTensor& tensor = args.attention.d_q;
    const int odd = lane_index() % 2;
    const int first = gather_block * kGatherRows + lane_index() / 4 + 8 * odd;
    char* const target = rows_of(args.attention, tensor, plan.batch(), plan.head()).at(first, 0) +
                         lane_index() % 4 / 2 * 8;
    const int pitch = (int)tensor.row_stride * Element::kBytes;
    unsigned source = dq_partial_at(buffer) + lane_index() * 16;
#pragma unroll 1
    for (int i = 0; i < 64; ++i, source += 512) {
        const int dq_acc = i / 32;
        const int row = i % 4 * 16 + (kSplitsRows ? dq_acc * 64 : 0);
        const int byte = i % 32 / 4 * 16 + (kSplitsRows ? 0 : dq_acc * 128);
        float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (has_partial) {
            value = load_shared_float4(source);
        } else if (sum != nullptr) {
            value = ((const float4*)sum)[i * 32 + lane_index()];
        }
        const unsigned low = Element::pack(value.x * kScale, value.y * kScale);
        const unsigned high = Element::pack(value.z * kScale, value.w * kScale);
        const unsigned other = __shfl_xor_sync(0xFFFFFFFFU, odd ? low : high, 1);
        if (first + row < kLength && (kKeyDim == kHeadDim || byte < kKeyDim * Element::kBytes)) {
            *(uint2*)(target + row * pitch + byte) =
                odd ? make_uint2(other, high) : make_uint2(low, other);
        }
    }
}

__device__ __forceinline__ void DqReduceWarp::add(const ItemPlan& plan, int gather_block,
                                                  int ticket, bool has_partial) {
    const int at = plan.batch_head * kQueryBlocks + gather_block;
    float* const sum = args.dq_accum + (long long)at * kDqPartialElements;
    const unsigned semaphore = wait_for_ticket(at, ticket);
    const bool has_sum = (semaphore & kHasSum) != 0, last = (ticket & kLastTicket) != 0;
    if (has_partial) {
        mbarrier_wait(dq_full(buffer), parity);
        parity ^= 1;
        if (lane_index() == 0 && (has_sum || !last)) transfer(sum, has_sum);
    }
    if (last) {
        if (has_partial && has_sum) fetch_sum(sum);
        write(plan, gather_block, has_sum ? sum : nullptr, has_partial);
        __syncwarp();
        if (lane_index() == 0) args.dq_semaphore[at] = 0;  // for the next launch
        if (has_partial) mbarrier_arrive_by_lanes(dq_empty(buffer));
        return;
    }
    if (has_partial) {
        if (lane_index() == 0) cp_async_bulk_wait_group_read();
        __syncwarp();
        mbarrier_arrive_by_lanes(dq_empty(buffer));
    }
    if (lane_index() == 0) {
        cp_async_bulk_wait_group<0>();
        fence_proxy_async_global();
        st_release(args.dq_semaphore + at,
                   ((semaphore + 1) & ~kHasSum) | (has_sum || has_partial ? kHasSum : 0));
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
        for (int entry = begin + (next ^ buffer); entry < end; entry += 2) {
            add(plan, gather_block_table(args.attention)[entry], args.dq_tickets[entry],
                has_partials);
        }
        if (has_partials) next ^= (end - begin) & 1;
        if (lane_index() == 0) mbarrier_arrive(item_reduced());
    }
}

#endif
