// dQ of a query tile as the sum of the shares that key tiles have in it, on sm_90a.
//
// A step of a work item has one share [kStreamedRows, D] fp32, in two pieces of [64, 64], one a
// consumer warpgroup: other rows of the share where kStreamedRows is 128, other columns where it is
// 64. A piece lies in shared memory as the accumulator that it was: float4 j of thread t at
// 16 * (128 * j + t). Shared memory has two places for shares, which steps take in turn. A warp
// beside the producer, the adder of the place, brings each to the sum in device memory when it is
// its turn (compiler/share_schedule.h says which is when). It has the time of two steps for that: a
// transfer is under way for about one. The first share is stored, later ones are added in L2 by
// cp.reduce.async.bulk, and the last one's adder fetches the sum and writes dQ.
#ifndef SPION_WGMMA_GRADIENT_SHARES_CUH
#define SPION_WGMMA_GRADIENT_SHARES_CUH

#define SPION_SAMPLE_ROWS 128
#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/sm90/wgmma_pipeline.cuh"

enum : bool { kSplitsRows = kStreamedRows == 128 };
enum : int { kShareElements = kStreamedRows * kHeadDim };
enum : int { kShareBytes = kShareElements * 4 };
static_assert(kGroups == 2 && kGranulesPerStep == 1 && kShareBytes == 2 * kPieceBytes);

// A turn counts the shares of a query tile that were added; with kHasSum when one of them was more
// than nothing. A rank is the turn that a share waits for.
enum : unsigned { kHasSum = 1U << 31 };
enum : int { kLastRank = 1 << 30 };
enum : int { kQueryGranules = (kLength + kGranule - 1) / kGranule };

// Behind the tiles: dS of both warpgroups, twice, then the places of shares.
SPION_DEVICE unsigned exchanged_tile(int buffer, int group) {
    return shared_memory_start() + kExchangeStart + (2 * buffer + group) * kExchangedBytes;
}
SPION_DEVICE unsigned share_at(int place) {
    return shared_memory_start() + kExchangeStart + 4 * kExchangedBytes + place * kShareBytes;
}
SPION_DEVICE unsigned piece_of(int place, int group) {
    return share_at(place) + group * kPieceBytes;
}

struct Adder {
    const SpionHopperArguments& args;
    int place;
    unsigned parity = 0, fetched_parity = 0;

    __device__ __forceinline__ Adder(const SpionHopperArguments& arguments, int of_place)
        : args(arguments), place(of_place) {}
    // Takes part in all work items.
    __device__ __forceinline__ void run();

  private:
    // has_share: padded keys have none, but keep their turn.
    __device__ __forceinline__ void add(const ItemPlan& plan, int granule, int rank,
                                        bool has_share);
    __device__ __forceinline__ unsigned wait_for_turn(int at, int rank) const;
    __device__ __forceinline__ void transfer(float* sum, bool has_sum) const;
    __device__ __forceinline__ void fetch_sum(const float* sum);
    // dQ: from the share's place or, without a share, from device memory.
    __device__ __forceinline__ void write(const ItemPlan& plan, int granule, const float* sum,
                                          bool has_share) const;
};

// Returns the turn, with kHasSum or without.
__device__ __forceinline__ unsigned Adder::wait_for_turn(int at, int rank) const {
    unsigned turn = 0;
    if (lane_index() == 0) {
        do turn = ld_acquire(args.turns + at);
        while ((turn & ~kHasSum) != (rank & ~kLastRank));
        fence_proxy_async_global();
    }
    return __shfl_sync(0xFFFFFFFFU, turn, 0);
}

// Begins to store or to add the share.
__device__ __forceinline__ void Adder::transfer(float* sum, bool has_sum) const {
    fence_proxy_async_shared();  // for what consumers have stored
    if (has_sum) {
        cp_reduce_async_bulk_add(sum, share_at(place), kShareBytes);
    } else {
        cp_async_bulk_store(sum, share_at(place), kShareBytes);
    }
    cp_async_bulk_commit_group();
}

// To the share's place, when that has been added.
__device__ __forceinline__ void Adder::fetch_sum(const float* sum) {
    if (lane_index() == 0) {
        cp_async_bulk_wait_group<0>();
        fence_proxy_async_global();
        fence_proxy_async_shared();
        mbarrier_arrive_expect_tx(sum_fetched(place), kShareBytes);
        cp_async_bulk_load(share_at(place), sum, kShareBytes, sum_fetched(place));
    }
    __syncwarp();
    mbarrier_wait(sum_fetched(place), fetched_parity);
    fetched_parity ^= 1;
}

// Lanes exchange what they hold of rows g and g + 8, so that each stores 4 columns of one row.
__device__ __forceinline__ void Adder::write(const ItemPlan& plan, int granule, const float* sum,
                                             bool has_share) const {
    const SpionTensor& tensor = args.attention.d_q;
    const int odd = lane_index() % 2;
    const int first = granule * kGranule + lane_index() / 4 + 8 * odd;
    char* const target =
        rows_of(tensor, plan.batch(), plan.head()).at(first, 0) + lane_index() % 4 / 2 * 8;
    const int pitch = (int)tensor.row_stride * Element::kBytes;
    unsigned source = share_at(place) + lane_index() * 16;
#pragma unroll 1
    for (int i = 0; i < 64; ++i, source += 512) {
        const int piece = i / 32;
        const int row = i % 4 * 16 + (kSplitsRows ? piece * 64 : 0);
        const int byte = i % 32 / 4 * 16 + (kSplitsRows ? 0 : piece * 128);
        float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (has_share) {
            value = load_shared_float4(source);
        } else if (sum != nullptr) {
            value = ((const float4*)sum)[i * 32 + lane_index()];
        }
        const unsigned low = Element::pack(value.x * kScale, value.y * kScale);
        const unsigned high = Element::pack(value.z * kScale, value.w * kScale);
        const unsigned other = __shfl_xor_sync(0xFFFFFFFFU, odd ? low : high, 1);
        if (first + row < kLength) {
            *(uint2*)(target + row * pitch + byte) =
                odd ? make_uint2(other, high) : make_uint2(low, other);
        }
    }
}

__device__ __forceinline__ void Adder::add(const ItemPlan& plan, int granule, int rank,
                                           bool has_share) {
    const int at = plan.pair * kQueryGranules + granule;
    float* const sum = args.sums + (long long)at * kShareElements;
    const unsigned turn = wait_for_turn(at, rank);
    const bool has_sum = (turn & kHasSum) != 0, last = (rank & kLastRank) != 0;
    if (has_share) {
        mbarrier_wait(share_full(place), parity);
        parity ^= 1;
        if (lane_index() == 0 && (has_sum || !last)) transfer(sum, has_sum);
    }
    if (last) {
        if (has_share && has_sum) fetch_sum(sum);
        write(plan, granule, has_sum ? sum : nullptr, has_share);
        __syncwarp();
        if (lane_index() == 0) args.turns[at] = 0;  // for the next launch
        if (has_share) mbarrier_arrive_by_lanes(share_empty(place));
        return;
    }
    if (has_share) {
        if (lane_index() == 0) cp_async_bulk_wait_group_read();
        __syncwarp();
        mbarrier_arrive_by_lanes(share_empty(place));
    }
    if (lane_index() == 0) {
        cp_async_bulk_wait_group<0>();
        fence_proxy_async_global();
        st_release(args.turns + at, ((turn + 1) & ~kHasSum) | (has_sum || has_share ? kHasSum : 0));
    }
    __syncwarp();
}

__device__ __forceinline__ void Adder::run() {
    Place<kSlots> slot;
    int next = 0;  // the place of the next share
    griddepcontrol_wait();
    while (true) {
        mbarrier_wait(slot_full(slot.index), slot.parity);
        const ItemPlan plan = read_plan(slot.index);
        mbarrier_arrive_by_lanes(slot_empty(slot.index));
        if (plan.pair < 0) break;
        slot.advance();
        const int begin = offset_at(args.attention, plan.place);
        const int end = offset_at(args.attention, plan.place + 1);
        const bool has_shares = plan.valid > 0;
        for (int entry = begin + (next ^ place); entry < end; entry += 2) {
            add(plan, granule_table(args.attention)[entry], args.ranks[entry], has_shares);
        }
        if (has_shares) next ^= (end - begin) & 1;
        if (lane_index() == 0) mbarrier_arrive(item_added());
    }
}

#endif
