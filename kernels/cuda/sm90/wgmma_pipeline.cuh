// How the rows of a work item reach the warpgroups that multiply, on sm_90a.
//
// A thread block has kWarps / 4 warpgroups that multiply (consumers) and one producer warp. It
// computes one work item after the other, each taken from a counter when there is room for it, so
// that no SM runs out of work before the others; for the same reason the longest of the last items
// come first. The producer walks ahead of the consumers: it fills *stationary stages* with an
// item's stationary tiles and *stages* with its steps' pairs of streamed tiles (first, second),
// across the ends of items, by TMA. A stationary stage, and each tile of a stage, has a barrier
// that says it is full and one that says that every consumer warp is done with it. Which thread
// block computes an item has no influence on its result.
#ifndef SPION_WGMMA_PIPELINE_CUH
#define SPION_WGMMA_PIPELINE_CUH

#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm90/tile.cuh"
#include "kernels/cuda/sm90/wgmma_memory.cuh"

// Which of a step's scores count, for one warp.
using StepMask = ScoreMask<kGatherBlocksPerStep>;

// The mask of a step whose first `valid` rows exist. gather_mask: gather_mask_of_stage().
SPION_DEVICE StepMask step_mask(int valid, unsigned gather_mask) {
    return {valid, kPacked ? gather_mask : ~0U};
}

// Goes round kCount buffers; `parity` is that of the phase which a reader of the buffer waits for.
template <int kCount>
struct PipelineState {
    int index = 0;
    unsigned parity = 0;
    __device__ __forceinline__ void advance() {
        if (++index == kCount) {
            index = 0;
            parity ^= 1;
        }
    }
};

SPION_DEVICE void initialise_barriers() {
    if (shared_memory_start() % 1024 != 0) __trap();
    if (threadIdx.x == 0) {
        for (int stationary_stage = 0; stationary_stage < kStationaryStages; ++stationary_stage) {
            mbarrier_init(stationary_full(stationary_stage), kStationaryHasStatistics ? 33 : 1);
            mbarrier_init(stationary_empty(stationary_stage), 32 * (kWarps + kHelperWarps));
        }
        for (int stage = 0; stage < kStages; ++stage) {
            mbarrier_init(stage_full(stage, 0), kStageHasStatistics ? 33 : 1);
            mbarrier_init(stage_empty(stage, 0), kLanesReadStages ? kThreads : kWarps);
            mbarrier_init(stage_full(stage, 1), 1);
            mbarrier_init(stage_empty(stage, 1), kWarps);
        }
        if constexpr (kHelperWarps > 0) {
            mbarrier_init(exchange_free(), kWarps);
            for (int buffer = 0; buffer < kHelperWarps; ++buffer) {
                mbarrier_init(dq_full(buffer), kThreads);
                mbarrier_init(dq_empty(buffer), 32);
                mbarrier_init(item_turns(buffer, 0), 1);
                mbarrier_init(item_turns(buffer, 1), 1);
            }
        }
        fence_mbarrier_init();
    }
    __syncthreads();
}

// A consumer warp is done with a tile of a stage, and with what travels with the first one.
SPION_DEVICE void release_stage(int stage, int tile) {
    if (tile == 0 && kLanesReadStages) {
        mbarrier_arrive_by_lanes(stage_empty(stage, tile));
    } else {
        mbarrier_arrive_by_warp(stage_empty(stage, tile));
    }
}

// What consumers are told of an item.
struct ItemPlan {
    int batch_head;   // b * kItemHeads + h; negative: there are no more items
    int first_row;    // of the stationary tile
    int valid;        // rows of the walk that count, see Walk
    int elements;     // likewise, of the warp's rows
    int order_index;  // in TileProgram::order
    // Where positions matter: of the walk's gather blocks, in the table, and how many there are.
    int first_gather_block, listed;

    __device__ __forceinline__ int steps() const {
        return (valid + kStreamedRows - 1) / kStreamedRows;
    }
    __device__ __forceinline__ int batch() const { return batch_head / kItemHeads; }
    __device__ __forceinline__ int head() const { return batch_head % kItemHeads; }
};

SPION_DEVICE ItemPlan read_plan(int stationary_stage) {
    const uint4 words = load_shared_16(stationary_plan(stationary_stage));
    uint4 more = make_uint4(0, 0, 0, 0);
    if constexpr (kHelperWarps > 0 || kPositionsMatter)
        more = load_shared_16(stationary_plan(stationary_stage) + 16);
    ItemPlan plan = {(int)words.x, (int)words.y, (int)words.z, (int)words.w,
                     (int)more.x,  (int)more.y,  (int)more.z};
    if constexpr (kPacked && !kElementsMasked) {
        const int row = warp_index() % 4 * kPackedRows / 4;
        plan.elements = (int)load_shared_word(stationary_plan(stationary_stage) +
                                              (kElementsApart ? 32 : 16) + row * 4);
    }
    return plan;
}

// Waits until all partial dQs of this thread block's item number `item` have had their turns, so that
// nothing of it waits for other thread blocks any more.
SPION_DEVICE void wait_for_turns(unsigned item) {
    for (int buffer = 0; buffer < kHelperWarps; ++buffer) {
        mbarrier_wait(item_turns(buffer, item), item / 2 & 1);
    }
}

// The next item of a thread block whose partial dQs wait for those of others: not one of the same
// batch-heads before this block's partials of `item` have all had their turns, as they may wait for
// the next item's. done: items before this one.
SPION_DEVICE unsigned claim_late(const SpionSm90Arguments& args, unsigned item, unsigned done) {
    const unsigned together = args.batch_heads_at_once * (unsigned)tile_count(args.attention);
    if (done > 0) wait_for_turns(done - 1);
    const unsigned next = gridDim.x + *(volatile unsigned*)&args.counters[0];
    if (next / together == item / together) wait_for_turns(done);
    return gridDim.x + atomicAdd(&args.counters[0], 1U);
}

// What depends on the positions of a consumer warp's rows, in the item's first step and those after
// it.
template <bool kRowsAreKeys>
SPION_DEVICE StepElements<kRowsAreKeys> step_elements(const SpionAttentionArguments& args,
                                                      const ItemPlan& plan, int warp_row) {
    return step_elements<kRowsAreKeys>(args, gather_block_table(args) + plan.first_gather_block,
                                       plan.listed, plan.batch(), plan.head(),
                                       plan.first_row + warp_row);
}

// Which gather blocks of a full stage's step the warp's rows use.
SPION_DEVICE unsigned gather_mask_of_stage(int stage) {
    if constexpr (kPacked)
        return gather_mask_of_warp(load_shared_word(stage_block_row_mask(stage)));
    return 0;
}

// One lane a box: an item's stationary tiles. block_row_masks: read_block_row_masks() of the walk's
// start.
template <bool kWalksKeys>
SPION_DEVICE void fetch_stationary(const SpionSm90Arguments& args, const WorkItem& work,
                                   const Walk& walk, unsigned block_row_masks,
                                   int stationary_stage) {
    const uint4 elements = elements_of_rows(args.attention, walk, block_row_masks);
    constexpr int kBoxes = kStationaryTensors * kGroups * kSwizzleAtoms;
    const unsigned full = stationary_full(stationary_stage);
    if (lane_index() == 0) {
        store_shared_16(stationary_plan(stationary_stage),
                        make_uint4(work.batch * kItemHeads + work.head, work.first_row, walk.valid,
                                   walk.elements));
        if constexpr (kElementsApart) {
            store_shared_16(stationary_plan(stationary_stage) + 32, elements);
        }
        if constexpr (kPositionsMatter) {
            const int first = (int)(walk.gather_blocks - gather_block_table(args.attention));
            store_shared_16(stationary_plan(stationary_stage) + 16,
                            make_uint4(work.order_index, first, walk.listed, 0));
        } else if constexpr (kHelperWarps > 0) {
            store_shared_16(stationary_plan(stationary_stage) + 16,
                            make_uint4(work.order_index, 0, 0, 0));
        } else if constexpr (kPacked) {
            store_shared_16(stationary_plan(stationary_stage) + 16, elements);
        }
        mbarrier_arrive_expect_tx(full, kStationaryStageBytes);
    }
    __syncwarp();
    for (int box = lane_index(); box < kBoxes; box += 32) {
        const int swizzle_atom = box % kSwizzleAtoms, group = box / kSwizzleAtoms % kGroups,
                  tensor = box / kSwizzleAtoms / kGroups;
        tma_load(stationary_tile(stationary_stage, tensor) + group * kGroupTileBytes +
                     swizzle_atom * kGroupRows * kSwizzleAtomBytes,
                 args.maps[tensor], full, swizzle_atom * kSwizzleAtomColumns,
                 work.start + work.first_row + group * kGroupRows,
                 head_in_tensor<!kWalksKeys>(work.head), batch_in_map(work.batch));
    }
}

// One lane a box: a tile of a stage, gather block after gather block. Gather blocks that the step
// does not have are taken from beyond the tensor's end: zeros. start: streamed_start().
template <bool kWalksKeys>
SPION_DEVICE void fetch_tile(const SpionTensorMap& map, const WorkItem& work, int start,
                             int gather_block, int stage, int tile) {
    const unsigned full = stage_full(stage, tile);
    if (lane_index() == 0) mbarrier_arrive_expect_tx(full, kTileBytes);
    __syncwarp();
    if (lane_index() < kGatherBlocksPerStep) {
#pragma unroll
        for (int swizzle_atom = 0; swizzle_atom < kSwizzleAtoms; ++swizzle_atom) {
            tma_load(
                stage_tile(stage, tile) +
                    (swizzle_atom * kStreamedRows + lane_index() * kGatherRows) * kSwizzleAtomBytes,
                map, full, swizzle_atom * kSwizzleAtomColumns,
                row_in_map(start, gather_block * kGatherRows, kStreamedLength),
                head_in_tensor<kWalksKeys>(work.head), batch_in_map(work.batch));
        }
    }
}

// Tells consumers, in a free stationary stage, that there are no more items.
SPION_DEVICE void end_items(unsigned* counters, int stationary_stage) {
    const unsigned full = stationary_full(stationary_stage);
    if (lane_index() == 0) {
        store_shared_16(stationary_plan(stationary_stage), make_uint4(~0U, 0, 0, 0));
        mbarrier_arrive(full);
        // The last thread block leaves the counters as it found them; where there are helper warps,
        // the last warp that has done its part.
        if (kHelperWarps == 0 && atomicAdd(&counters[1], 1U) == gridDim.x - 1) {
            counters[0] = counters[1] = 0;
        }
    }
    if constexpr (kStationaryHasStatistics) cp_async_mbarrier_arrive_noinc(full);
}

// The item that is handed out as number `claim`. Those of the last lpt_heads heads go order index
// by order index (LPT): their longest walks start while there is work for everybody else, not at
// the very end.
// kLastHeadFirst: the heads backward. A kernel that goes through them against the order of the one
// before finds in the L2 what that has read or written last.
template <bool kLastHeadFirst>
SPION_DEVICE WorkItem claimed_item(const SpionSm90Arguments& args, unsigned claim) {
    const unsigned tiles = head_items(args.attention);
    if constexpr (kHelperWarps > 0) {
        // batch_heads_at_once heads side by side, order index by order index.
        const unsigned first =
            claim / (args.batch_heads_at_once * tiles) * args.batch_heads_at_once;
        const unsigned within = claim - first * tiles;
        const unsigned batch_heads = min(args.batch_heads_at_once, args.items / tiles - first);
        return work_item(args.attention, first + within % batch_heads, (int)(within / batch_heads));
    }
    const unsigned first_late = args.items - args.lpt_heads * tiles;
    unsigned batch_head, order_index;
    if (claim < first_late) {
        batch_head = claim / tiles;
        order_index = claim - batch_head * tiles;
    } else {
        order_index = (claim - first_late) / args.lpt_heads;
        batch_head = first_late / tiles + (claim - first_late - order_index * args.lpt_heads);
    }
    if (kLastHeadFirst) batch_head = head_count(args.attention) - 1 - batch_head;
    return work_item(args.attention, batch_head, (int)order_index);
}

// An item of a group of heads has as many times the steps of one head, so that a thread block that
// claims the next one when it begins this one keeps it from others for long: at the end SMs had
// nothing to do for an eighth of the time. It is claimed when this item has so many steps left,
// which is as long as a claim takes.
enum : bool { kClaimsLate = kMembers > 1 };
enum : int { kStepsOfAClaim = 4 };

// What ItemPlan::steps() says: none of a tile of padding alone, whatever the source says of others.
SPION_DEVICE int steps_of(const Walk& walk) {
    return kSteps >= 0 && walk.valid == 0 ? 0 : walk.steps();
}

// The producer warp's life. `fetch_stationary_statistics(work, target)` and
// `fetch_stage_statistics(work, walk, step, target)` start the cp.async copies of the statistics to
// shared memory; kWalksKeys: streamed rows are keys, of which a sample may have fewer than L.
template <bool kWalksKeys, typename StationaryStatistics, typename StageStatistics>
SPION_DEVICE void produce(const SpionSm90Arguments& args,
                          const StationaryStatistics& fetch_stationary_statistics,
                          const StageStatistics& fetch_stage_statistics) {
    PipelineState<kStationaryStages> stationary_stage;
    PipelineState<kStages> stage;
    unsigned* const counters = args.counters;
    unsigned claim = blockIdx.x;
    bool first_item = true;
    unsigned items_done = 0;
    if (args.waits_first) {
        griddepcontrol_wait();
        griddepcontrol_launch_dependents();
    }
    while (claim < args.items) {
        const WorkItem work = claimed_item<kWalksKeys>(args, claim);
        Walk walk = open_walk(args.attention, work.order_index);
        unsigned block_row_masks = read_block_row_masks(args.attention, walk, 0);
        if (first_item) griddepcontrol_wait();  // without effect where it has waited
        first_item = false;
        // Asked for now, needed when this item's copies are under way.
        unsigned next = 0;
        const auto ask = [&] {
            if (lane_index() == 0) next = gridDim.x + atomicAdd(&counters[0], 1U);
        };
        if constexpr (kHelperWarps == 0 && !kClaimsLate) ask();
        const int limit = key_limit(args.attention, work.batch);
        measure_walk(walk, clip_walk<!kWalksKeys>(
                               args.attention, walk, work.batch, work.first_row,
                               kWalksKeys ? limit : query_limit(args.attention, work.batch)));
        if constexpr (kSpansMasked) block_row_masks = read_block_row_masks(args.attention, walk, 0);
        if (!kWalksKeys && work.first_row >= limit) walk.valid = 0;

        mbarrier_wait(stationary_empty(stationary_stage.index), stationary_stage.parity ^ 1);
        fetch_stationary<kWalksKeys>(args, work, walk, block_row_masks, stationary_stage.index);
        if constexpr (kStationaryHasStatistics) {
            fetch_stationary_statistics(work, stationary_statistics(stationary_stage.index));
            cp_async_mbarrier_arrive_noinc(stationary_full(stationary_stage.index));
        }
        stationary_stage.advance();

        const int start = streamed_start(args.attention, work);
        const int walked = steps_of(walk);
        if (kClaimsLate && kMembers * walked < kStepsOfAClaim) ask();
        for (int each = 0; each < kMembers * walked; ++each, stage.advance()) {
            if (kClaimsLate && kMembers * walked - each == kStepsOfAClaim) ask();
            const auto [member, step] = member_step(each, walked);
            const WorkItem streamed = member_item(work, member);
            const int first = step * kGatherBlocksPerStep;
            if (each > 0 && first % 32 == 0) {
                walk.window = read_window(walk, first);
                block_row_masks = read_block_row_masks(args.attention, walk, first);
            }
            const int mine = __shfl_sync(0xFFFFFFFFU, walk.window, (first + lane_index()) & 31);
            const bool present = (first + lane_index()) * kGatherRows < walk.valid;
            const int gather_block =
                present ? mine : (kStreamedLength + kGatherRows - 1) / kGatherRows;
            const unsigned word = block_row_mask_of_step(block_row_masks, first);
            mbarrier_wait(stage_empty(stage.index, 0), stage.parity ^ 1);
            if (kPacked && lane_index() == 0)
                store_shared_word(stage_block_row_mask(stage.index), word);
            fetch_tile<kWalksKeys>(args.maps[kStationaryTensors], streamed, start, gather_block,
                                   stage.index, 0);
            if constexpr (kStageHasStatistics) {
                fetch_stage_statistics(streamed, walk, step, stage_statistics(stage.index));
                cp_async_mbarrier_arrive_noinc(stage_full(stage.index, 0));
            }
            mbarrier_wait(stage_empty(stage.index, 1), stage.parity ^ 1);
            fetch_tile<kWalksKeys>(args.maps[kStationaryTensors + 1], streamed, start, gather_block,
                                   stage.index, 1);
        }
        if (kHelperWarps > 0 && lane_index() == 0) next = claim_late(args, claim, items_done++);
        claim = __shfl_sync(0xFFFFFFFFU, next, 0);
    }

    mbarrier_wait(stationary_empty(stationary_stage.index), stationary_stage.parity ^ 1);
    end_items(counters, stationary_stage.index);
}

struct NoHelper {
    __device__ __forceinline__ void operator()(int) const {}
};

// The whole kernel: one producer warp, and warpgroups that compute items until there are no more.
// `Consumer::compute(args, plan)` computes the item of its `stationary_stage` and advances that.
// Where there are helper warps, `Consumer::finish(args)` ends a consumer warp.
template <typename Consumer, bool kWalksKeys, typename StationaryStatistics,
          typename StageStatistics, typename Helper = NoHelper>
SPION_DEVICE void run_items(const SpionSm90Arguments& args,
                            const StationaryStatistics& fetch_stationary_statistics,
                            const StageStatistics& fetch_stage_statistics,
                            const Helper& help = {}) {
    if (!args.waits_first) griddepcontrol_launch_dependents();
    initialise_barriers();
    if (warp_index() >= kWarps) {
        setmaxnreg_dec<kProducerRegisters>();
        if (warp_index() == kWarps) {
            if (lane_index() < kStationaryTensors + 2) prefetch_tensormap(args.maps[lane_index()]);
            produce<kWalksKeys>(args, fetch_stationary_statistics, fetch_stage_statistics);
        } else if (warp_index() <= kWarps + kHelperWarps) {
            help(warp_index() - kWarps - 1);
        }
    } else {
        setmaxnreg_inc<kConsumerRegisters>();
        Consumer consumer;
        while (true) {
            mbarrier_wait(stationary_full(consumer.stationary_stage.index),
                          consumer.stationary_stage.parity);
            const ItemPlan plan = read_plan(consumer.stationary_stage.index);
            if (plan.batch_head < 0) break;
            consumer.compute(args.attention, plan);
        }
        if constexpr (kHelperWarps > 0) Consumer::finish(args);
    }
}

#endif
