// How the rows of a work item reach the warp that computes it, on sm_90a.
//
// A thread block has kWarps warps that compute (consumers), each an item of its own, and one that
// fetches for them by TMA (the producer). A consumer has a *stationary stage* for an item's
// stationary tiles and a ring of *stages*, each for a step's pair of streamed tiles (first,
// second). Where it takes all it needs of the stationary tiles into registers, its stationary stage
// is free for those of its next item while it computes this one. In the producer every consumer has
// a lane: the lanes read tables and take items from a counter side by side, each as far ahead as
// its consumer leaves room. Nothing but the barriers of stationary stages and stages ties warps
// together, and which warp computes an item has no influence on its result.
#ifndef SPION_WARP_PIPELINE_CUH
#define SPION_WARP_PIPELINE_CUH

#include "kernels/cuda/sm90/warp_body_contract.cuh"

#include "kernels/cuda/sm90/warp_items.cuh"
#include "kernels/cuda/sm90/warp_memory.cuh"
#include "kernels/cuda/sm90/warp_tile.cuh"

SPION_DEVICE void initialise_barriers() {
    if (shared_memory_start() % 1024 != 0) __trap();
    if (threadIdx.x < kWarps) {
        const ConsumerMemory memory((int)threadIdx.x);
        // With statistics every lane of the producer arrives when its copies are there.
        mbarrier_init(memory.stationary_full(), kStationaryHasStatistics ? 33 : 1);
        mbarrier_init(memory.stationary_empty(), 32);
        for (int stage = 0; stage < kStages; ++stage) {
            mbarrier_init(memory.stage_full(stage), kStageHasStatistics ? 33 : 1);
            mbarrier_init(memory.stage_empty(stage), kStageHasStatistics ? 32 : 1);
        }
        fence_mbarrier_init();
    }
    __syncthreads();
}

// Goes round the stages; `parity` is that of the phase which a reader of the stage waits for.
struct PipelineState {
    int stage = 0;
    unsigned parity = 0;
    __device__ __forceinline__ void advance() {
        if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// What a consumer is told of an item.
struct ItemPlan {
    int batch_head;  // b * kItemHeads + h; negative: there are no more items
    int first_row;   // of the stationary tile
    int valid;       // rows of the walk that count, see Walk
    int elements;    // likewise
    // Where positions matter: of the walk's gather blocks, in the table, and how many there are.
    int first_gather_block, listed;

    __device__ __forceinline__ int batch() const { return batch_head / kItemHeads; }
    __device__ __forceinline__ int head() const { return batch_head % kItemHeads; }
};

// What depends on the positions of an item's rows, in its first step and those after it.
template <bool kRowsAreKeys>
SPION_DEVICE StepElements<kRowsAreKeys> step_elements(const SpionAttentionArguments& args,
                                                      const ItemPlan& plan) {
    return step_elements<kRowsAreKeys>(args, gather_block_table(args) + plan.first_gather_block,
                                       plan.listed, plan.batch(), plan.head(), plan.first_row);
}

// The producer's side of one consumer, on that consumer's lane.
template <bool kWalksKeys>
struct Feed {
    const SpionSm90Arguments& args;
    const ConsumerMemory memory;
    unsigned item;  // to be opened next
    bool alive;
    unsigned stationary_parity = 1;
    PipelineState ring;
    // Of the open item.
    int batch = 0, head = 0, first_row = 0, start = 0;
    int start_of_streamed = 0;                        // where keys are sequences of their own
    const GatherBlockIndex* gather_blocks = nullptr;  // of the step to be fetched next
    int left = 0;                                     // rows from there on
    int upcoming[kGatherBlocksPerStep] = {};          // its gather blocks
    // Where an item has several members: which one's rows stream, and what each starts with.
    int member = 0, rows = 0;
    const GatherBlockIndex* first_gather_blocks = nullptr;

    __device__ __forceinline__ explicit Feed(const SpionSm90Arguments& args_)
        : args(args_),
          memory(min(lane_index(), kWarps - 1)),
          item(blockIdx.x * kWarps + lane_index()),
          alive(lane_index() < kWarps) {
        ring.parity = 1;
    }

    __device__ __forceinline__ bool can_open() const {
        return alive && left <= 0 &&
               mbarrier_test_wait(memory.stationary_empty(), stationary_parity);
    }
    __device__ __forceinline__ bool can_fetch() const {
        return alive && left > 0 && mbarrier_test_wait(memory.stage_empty(ring.stage), ring.parity);
    }

    // Gather blocks that start below `limit`: a prefix.
    __device__ __forceinline__ int gather_blocks_within(int limit, int listed) const {
        int count = 0;
        for (int more = listed; more > 0; more /= 2) {
            while (count + more <= listed &&
                   gather_blocks[count + more - 1] * kGatherRows < limit) {
                count += more;
            }
        }
        return count;
    }

    // Rows of the walk that are below `limit`.
    __device__ __forceinline__ int rows_within(int limit, int listed) const {
        const int count = gather_blocks_within(limit, listed);
        return count == 0 ? 0 : rows_below(limit, count, gather_blocks[count - 1]);
    }

    __device__ __forceinline__ void read_upcoming() {
#pragma unroll
        for (int i = 0; i < kGatherBlocksPerStep; ++i) {
            if (i * kGatherRows < left) upcoming[i] = gather_blocks[i];
        }
    }

    __device__ __forceinline__ void load_stationary_tiles(unsigned full) const {
        mbarrier_arrive_expect_tx(full, kStationaryStageBytes);
#pragma unroll
        for (int box = 0; box < kStationaryTensors * kSwizzleAtoms; ++box) {
            const int tensor = box / kSwizzleAtoms, swizzle_atom = box % kSwizzleAtoms;
            tma_load(
                memory.stationary_tile(tensor) + swizzle_atom * kStationaryRows * kSwizzleAtomBytes,
                args.maps[tensor], full, swizzle_atom * kSwizzleAtomColumns, start + first_row,
                head_in_tensor<!kWalksKeys>(head), batch_in_map(batch));
        }
    }

    // Fetches the item's stationary tiles, or tells the consumer that there is no item.
    __device__ __forceinline__ void open() {
        const unsigned full = memory.stationary_full();
        stationary_parity ^= 1;
        if (item >= args.items) {
            store_shared_16(memory.plan(), make_uint4(~0U, 0, 0, 0));
            mbarrier_arrive(full);
            alive = false;
            return;
        }
        const WorkItem work = work_item(args, item);
        const int offset = offset_at(args.attention, work.order_index);
        int listed = offset_at(args.attention, work.order_index + 1) - offset;
        gather_blocks = gather_block_table(args.attention) + offset;
        int stop = kStreamedLength;  // nobody keeps a row from here on
        if constexpr (kSpansMasked) {
            const Span span = span_of_tile<!kWalksKeys, kStationaryRows>(args.attention, work.batch,
                                                                         work.first_row);
            const int skipped = gather_blocks_within(span.first - kGatherRows + 1, listed);
            gather_blocks += skipped;
            listed -= skipped;
            stop = span.end;
        }
        const int elements =
            listed == 0 ? 0 : rows_below(kStreamedLength, listed, gather_blocks[listed - 1]);
        // Asked for now, needed when this item's steps have been fetched.
        item = gridDim.x * kWarps + atomicAdd(&args.counters[0], 1U);
        const int limit = key_limit(args.attention, work.batch);
        left = elements;
        if constexpr (kSpansMasked) {
            left = rows_within(
                min(kWalksKeys ? limit : query_limit(args.attention, work.batch), stop), listed);
        } else if (kWalksKeys && limit < kStreamedLength) {
            left = rows_within(limit, listed);
        }
        if (!kWalksKeys && work.first_row >= limit) left = 0;
        batch = work.batch;
        head = work.head;
        first_row = work.first_row;
        start = work.start;
        if constexpr (kKeyStarts) start_of_streamed = streamed_start(args.attention, work);
        if constexpr (kMembers > 1) {
            member = 0;
            rows = left;
            first_gather_blocks = gather_blocks;
        }
        read_upcoming();
        store_shared_16(memory.plan(),
                        make_uint4(batch * kItemHeads + head, first_row, left, elements));
        if constexpr (kPositionsMatter) {
            const int first = (int)(gather_blocks - gather_block_table(args.attention));
            store_shared_16(memory.plan() + 16, make_uint4(first, listed, 0, 0));
        }
        if (left == 0 && !kEmptyHasTiles) {
            mbarrier_arrive(full);
            return;
        }
        load_stationary_tiles(full);
    }

    // Fetches a step. Gather blocks that it does not have are taken from beyond the tensor's end:
    // zeros.
    __device__ __forceinline__ void fetch() {
        const unsigned full = memory.stage_full(ring.stage);
        const unsigned tiles = memory.stage_tiles(ring.stage);
        mbarrier_arrive_expect_tx(full, kStageBytes);
#pragma unroll
        for (int i = 0; i < kGatherBlocksPerStep; ++i) {
            const int row = i * kGatherRows < left ? upcoming[i] * kGatherRows : kStreamedLength;
#pragma unroll
            for (int box = 0; box < 2 * kSwizzleAtoms; ++box) {
                const int tile = box / kSwizzleAtoms, swizzle_atom = box % kSwizzleAtoms;
                tma_load(
                    tiles + tile * kTileBytes +
                        (swizzle_atom * kStreamedRows + i * kGatherRows) * kSwizzleAtomBytes,
                    args.maps[kStationaryTensors + tile], full, swizzle_atom * kSwizzleAtomColumns,
                    row_in_map(kKeyStarts ? start_of_streamed : start, row, kStreamedLength),
                    kWalksKeys ? key_head(head) : query_head(head, member), batch_in_map(batch));
            }
        }
        gather_blocks += kGatherBlocksPerStep;
        left -= kStreamedRows;
        if constexpr (kMembers > 1) {
            if (left <= 0 && member + 1 < kMembers) {
                ++member;
                left = rows;
                gather_blocks = first_gather_blocks;
            }
        }
        read_upcoming();
        ring.advance();
    }
};

// The producer's lanes copy kRows rows of LSE from row `first` of [B, H, L] on, and for stages of
// delta; those from `present` on become zeros.
template <int kRows, bool kWithDelta>
SPION_DEVICE void copy_statistics(const SpionAttentionArguments& args, unsigned target,
                                  long long first, int present) {
    static_assert(kRows <= 32, "one lane a row");
    const int row = lane_index();
    if (row >= kRows) return;
    cp_async_4(target + row * 4, args.lse + first + row, row < present);
    if constexpr (kWithDelta) {
        cp_async_4(target + (kStreamedRows + row) * 4, args.delta + first + row, row < present);
    }
}

// All lanes of the producer together, for the consumers in `lanes`, whose own lane has seen that
// there is room: LSE of their stationary stages.
template <typename Feed>
SPION_DEVICE void fetch_stationary_statistics(const Feed& feed, unsigned lanes) {
    for (; lanes != 0; lanes &= lanes - 1) {
        const int lane = __ffs((int)lanes) - 1;
        const ConsumerMemory memory(lane);
        const int batch_head = __shfl_sync(0xFFFFFFFFU, feed.batch * kHeads + feed.head, lane);
        const int first = __shfl_sync(0xFFFFFFFFU, feed.first_row, lane);
        // Passes at once; open() has moved on to the other parity.
        mbarrier_wait(memory.stationary_empty(),
                      __shfl_sync(0xFFFFFFFFU, feed.stationary_parity, lane) ^ 1);
        copy_statistics<kStationaryRows, false>(feed.args.attention, memory.stationary_statistics(),
                                                (long long)batch_head * kLength + first,
                                                kLength - first);
        cp_async_mbarrier_arrive_noinc(memory.stationary_full());
    }
}

// LSE and delta of the stages that they fetch next.
template <typename Feed>
SPION_DEVICE void fetch_stage_statistics(const Feed& feed, unsigned lanes) {
    for (; lanes != 0; lanes &= lanes - 1) {
        const int lane = __ffs((int)lanes) - 1;
        const ConsumerMemory memory(lane);
        const int stage = __shfl_sync(0xFFFFFFFFU, feed.ring.stage, lane);
        const int batch_head = __shfl_sync(
            0xFFFFFFFFU, feed.batch * kHeads + query_head(feed.head, feed.member), lane);
        const int left = __shfl_sync(0xFFFFFFFFU, feed.left, lane);
        mbarrier_wait(memory.stage_empty(stage),
                      __shfl_sync(0xFFFFFFFFU, feed.ring.parity, lane));  // passes at once
#pragma unroll
        for (int i = 0; i < kGatherBlocksPerStep; ++i) {
            const int first = __shfl_sync(0xFFFFFFFFU, feed.upcoming[i], lane) * kGatherRows;
            copy_statistics<kGatherRows, true>(
                feed.args.attention, memory.stage_statistics(stage) + i * kGatherRows * 4,
                (long long)batch_head * kLength + first, left - i * kGatherRows);
        }
        cp_async_mbarrier_arrive_noinc(memory.stage_full(stage));
    }
}

// The producer warp's life. kWalksKeys: streamed rows are keys, of which a sample may have fewer
// than L.
template <bool kWalksKeys>
SPION_DEVICE void produce(const SpionSm90Arguments& args) {
    Feed<kWalksKeys> feed(args);
    griddepcontrol_wait();
    if (args.waits_first) griddepcontrol_launch_dependents();
    while (__any_sync(0xFFFFFFFFU, feed.alive)) {
        const bool open = feed.can_open();
        if (open) feed.open();
        __syncwarp();
        if constexpr (kStationaryHasStatistics) {
            fetch_stationary_statistics(feed, __ballot_sync(0xFFFFFFFFU, open));
        }
        const bool fetch = feed.can_fetch();
        if constexpr (kStageHasStatistics) {
            fetch_stage_statistics(feed, __ballot_sync(0xFFFFFFFFU, fetch));
        }
        if (fetch) feed.fetch();
        __syncwarp();
        if (!__any_sync(0xFFFFFFFFU, open || fetch)) __nanosleep(20);
    }
    // The last thread block leaves the counters as it found them.
    if (lane_index() == 0 && atomicAdd(&args.counters[1], 1U) == gridDim.x - 1) {
        args.counters[0] = args.counters[1] = 0;
    }
}

// The consumer is done with a stage.
SPION_DEVICE void release_stage(unsigned empty) {
    if constexpr (kStageHasStatistics) {
        mbarrier_arrive_by_lanes(empty);
    } else {
        mbarrier_arrive_by_warp(empty);
    }
}

// A consumer's life. Consumer has, each for the whole warp,
//   begin(attention, memory, plan)       takes what it needs from the stationary stage
//   add(tiles, statistics, valid)        a step of which `valid` > 0 rows count
//   walk_again(attention, plan, member)  the next step is that member's first
//   finish(attention, plan, staging)     stores the results; `staging`: kStageBytes
//   finish_empty(attention, plan)        the same of an item without steps
template <typename Consumer>
SPION_DEVICE void consume(const SpionAttentionArguments& args) {
    const ConsumerMemory memory(warp_index());
    Consumer consumer;
    PipelineState ring;
    for (unsigned parity = 0;; parity ^= 1) {
        mbarrier_wait(memory.stationary_full(), parity);
        const uint4 words = load_shared_16(memory.plan());
        uint4 more = make_uint4(0, 0, 0, 0);
        if constexpr (kPositionsMatter) more = load_shared_16(memory.plan() + 16);
        const ItemPlan plan = {(int)words.x, (int)words.y, (int)words.z,
                               (int)words.w, (int)more.x,  (int)more.y};
        if (plan.batch_head < 0) break;
        if (plan.valid > 0 || kEmptyHasTiles) consumer.begin(args, memory, plan);
        if constexpr (!kStationaryStaysInUse) mbarrier_arrive_by_lanes(memory.stationary_empty());
        if (plan.valid == 0) {
            if constexpr (kStationaryStaysInUse)
                mbarrier_arrive_by_lanes(memory.stationary_empty());
            consumer.finish_empty(args, plan);
            continue;
        }
        int left = plan.valid, members = kMembers - 1;  // those after this one
        while (true) {
            mbarrier_wait(memory.stage_full(ring.stage), ring.parity);
            consumer.add(memory.stage_tiles(ring.stage), memory.stage_statistics(ring.stage), left);
            left -= kStreamedRows;
            if (left <= 0) {
                if (members == 0) break;
                --members;
                left = plan.valid;
                consumer.walk_again(args, plan, kMembers - 1 - members);
            }
            release_stage(memory.stage_empty(ring.stage));
            ring.advance();
        }
        consumer.finish(args, plan, memory.stage_tiles(ring.stage));
        release_stage(memory.stage_empty(ring.stage));
        if constexpr (kStationaryStaysInUse) mbarrier_arrive_by_lanes(memory.stationary_empty());
        ring.advance();
    }
}

// The whole kernel.
template <typename Consumer, bool kWalksKeys>
SPION_DEVICE void run_items(const SpionSm90Arguments& args) {
    if (!args.waits_first) griddepcontrol_launch_dependents();
    initialise_barriers();
    if (warp_index() >= kWarps) {
        if constexpr (kRegistersMove) setmaxnreg_dec<kProducerRegisters>();
        if (warp_index() > kWarps) return;
        if (lane_index() < kStationaryTensors + 2) prefetch_tensormap(args.maps[lane_index()]);
        produce<kWalksKeys>(args);
    } else {
        if constexpr (kRegistersMove) setmaxnreg_inc<kConsumerRegisters>();
        consume<Consumer>(args.attention);
    }
}

#endif
