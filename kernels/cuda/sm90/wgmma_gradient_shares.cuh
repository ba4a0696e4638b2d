// dQ of a query tile as the sum of the shares that key tiles have in it, on sm_90a.
//
// A step of a work item has one share [kStreamedRows, D] fp32, in two pieces of [64, 64], one a
// consumer warpgroup: other rows of the share where kStreamedRows is 128, other columns where it is
// 64. A piece lies in shared memory as the accumulator that it was: float4 j of thread t at
// 16 * (128 * j + t). A warp beside the producer, the adder of the warpgroup's pieces, brings each
// to the sum in device memory when it is its turn (compiler/share_schedule.h says which is when).
// The first is stored, later ones are added in L2 by cp.reduce.async.bulk, and the last one's adder
// fetches the sum and writes dQ.
#ifndef SPION_WGMMA_GRADIENT_SHARES_CUH
#define SPION_WGMMA_GRADIENT_SHARES_CUH

#define SPION_SAMPLE_ROWS 128
#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/sm90/wgmma_pipeline.cuh"

enum : bool { kSplitsRows = kStreamedRows == 128 };
static_assert(kGroups == 2 && kGranulesPerStep == 1 && kStreamedRows * kHeadDim == 2 * 64 * 64);

// A turn counts the shares of a piece of dQ that were added; with kHasSum when one of them was more
// than nothing. A rank is the turn that a share waits for.
enum : unsigned { kHasSum = 1U << 31 };
enum : int { kLastRank = 1 << 30 };
enum : int { kQueryGranules = (kLength + kGranule - 1) / kGranule };

// Behind the tiles: dS of both warpgroups, twice, then the pieces, then the sums.
SPION_DEVICE unsigned exchanged_tile(int buffer, int group) {
    return shared_memory_start() + kExchangeStart + (2 * buffer + group) * kExchangedBytes;
}
SPION_DEVICE unsigned piece_of(int group) {
    return shared_memory_start() + kExchangeStart + 4 * kExchangedBytes + group * kPieceBytes;
}
enum : int { kSumAfterPiece = 2 * kPieceBytes };

struct Adder {
    const SpionHopperArguments& args;
    int group;
    unsigned parity = 0, fetched_parity = 0;
    int pending = -1;        // the piece of dQ whose turn is to be passed on
    unsigned next_turn = 0;  // to what

    __device__ __forceinline__ Adder(const SpionHopperArguments& arguments, int of_group)
        : args(arguments), group(of_group) {}
    // Takes part in all work items.
    __device__ __forceinline__ void run();

  private:
    // has_share: padded keys have none, but keep their turn.
    __device__ __forceinline__ void add(const ItemPlan& plan, int granule, int rank,
                                        bool has_share);
    __device__ __forceinline__ void fetch_sum(const float* sum);
    __device__ __forceinline__ void write(const ItemPlan& plan, int granule, bool has_sum,
                                          bool has_share) const;
    __device__ __forceinline__ unsigned read_turn(int at) const;
    __device__ __forceinline__ void pass_turn();
};

__device__ __forceinline__ unsigned Adder::read_turn(int at) const {
    unsigned turn = 0;
    if (lane_index() == 0) turn = ld_acquire(args.turns + at);
    return __shfl_sync(0xFFFFFFFFU, turn, 0);
}

// When the last piece has arrived.
__device__ __forceinline__ void Adder::pass_turn() {
    if (pending < 0) return;
    if (lane_index() == 0) {
        cp_async_bulk_wait_group<0>();
        fence_proxy_async_global();
        st_release(args.turns + pending, next_turn);
    }
    __syncwarp();
    pending = -1;
}

__device__ __forceinline__ void Adder::fetch_sum(const float* sum) {
    if (lane_index() == 0) {
        fence_proxy_async_global();
        fence_proxy_async_shared();
        mbarrier_arrive_expect_tx(sum_fetched(group), kPieceBytes);
        cp_async_bulk_load(piece_of(group) + kSumAfterPiece, sum, kPieceBytes, sum_fetched(group));
    }
    __syncwarp();
    pass_turn();
    mbarrier_wait(sum_fetched(group), fetched_parity);
    fetched_parity ^= 1;
}

// The piece of dQ: the sum of the other shares and this one. Lanes exchange what they hold of rows
// g and g + 8, so that each stores 4 columns of one row.
__device__ __forceinline__ void Adder::write(const ItemPlan& plan, int granule, bool has_sum,
                                             bool has_share) const {
    const SpionTensor& tensor = args.attention.d_q;
    const int odd = lane_index() % 2;
    const int first =
        granule * kGranule + (kSplitsRows ? group * 64 : 0) + lane_index() / 4 + 8 * odd;
    char* const target = rows_of(tensor, plan.batch(), plan.head()).at(first, 0) +
                         (kSplitsRows ? 0 : group * 128) + lane_index() % 4 / 2 * 8;
    const int pitch = (int)tensor.row_stride * Element::kBytes;
    unsigned place = piece_of(group) + lane_index() * 16;
#pragma unroll 1
    for (int i = 0; i < 32; ++i, place += 512) {
        const int row = i % 4 * 16, byte = i / 4 * 16;
        float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
        if (has_sum) value = load_shared_float4(place + kSumAfterPiece);
        if (has_share) {
            const float4 share = load_shared_float4(place);
            value.x += share.x;
            value.y += share.y;
            value.z += share.z;
            value.w += share.w;
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
    const int at = (plan.pair * kQueryGranules + granule) * 2 + group;
    float* const sum = args.sums + (long long)at * (64 * 64);
    unsigned turn = read_turn(at);
    while ((turn & ~kHasSum) != (rank & ~kLastRank)) {
        pass_turn();  // others may wait for that
        turn = read_turn(at);
    }
    const bool has_sum = (turn & kHasSum) != 0;
    if ((rank & kLastRank) != 0) {
        if (has_sum) fetch_sum(sum);
        write(plan, granule, has_sum, has_share);
        __syncwarp();
        if (lane_index() == 0) args.turns[at] = 0;  // for the next launch
        if (has_share) mbarrier_arrive_by_lanes(share_empty(group));
        return;
    }
    if (has_share && lane_index() == 0) {
        fence_proxy_async_global();
        if (has_sum) {
            cp_reduce_async_bulk_add(sum, piece_of(group), kPieceBytes);
        } else {
            cp_async_bulk_store(sum, piece_of(group), kPieceBytes);
        }
        cp_async_bulk_commit_group();
        cp_async_bulk_wait_group_read();
    }
    if (has_share) mbarrier_arrive_by_lanes(share_empty(group));
    if (has_share && lane_index() == 0 && pending >= 0) {
        cp_async_bulk_wait_group<1>();  // the one before
        fence_proxy_async_global();
        st_release(args.turns + pending, next_turn);
    }
    __syncwarp();
    if (!has_share) pass_turn();
    pending = at;
    next_turn = ((turn + 1) & ~kHasSum) | (has_sum || has_share ? kHasSum : 0);
}

__device__ __forceinline__ void Adder::run() {
    Place<kSlots> slot;
    griddepcontrol_wait();
    while (true) {
        mbarrier_wait(slot_full(slot.index), slot.parity);
        const ItemPlan plan = read_plan(slot.index);
        mbarrier_arrive_by_lanes(slot_empty(slot.index));
        if (plan.pair < 0) break;
        slot.advance();
        const bool has_shares = plan.valid > 0;
        const int end = offset_at(args.attention, plan.place + 1);
        for (int entry = offset_at(args.attention, plan.place); entry < end; ++entry) {
            const int granule = granule_table(args.attention)[entry], rank = args.ranks[entry];
            if (has_shares) {
                const bool there = mbarrier_test_wait(share_full(group), parity);
                if (!__all_sync(0xFFFFFFFFU, there)) {
                    pass_turn();  // while there is time
                    mbarrier_wait(share_full(group), parity);
                }
                parity ^= 1;
            }
            add(plan, granule, rank, has_shares);
        }
        pass_turn();
        if (lane_index() == 0) mbarrier_arrive(item_added());
    }
}

#endif
