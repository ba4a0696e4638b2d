// How the rows of a work item reach the warpgroups that multiply, on sm_90a.
//
// A thread block has kWarps / 4 warpgroups that multiply (consumers) and one producer warp. It
// computes one work item after the other, each taken from a counter when there is room for it, so
// that no SM runs out of work before the others; for the same reason the longest of the last items
// come first. The producer walks ahead of the consumers: it fills *slots* with an item's stationary
// tiles and *stages* with its steps' pairs of streamed tiles (first, second), across the ends of
// items, by TMA. A slot, and each tile of a stage, has a barrier that says it is full and one that
// says that every consumer warp is done with it. Which thread block computes an item has no
// influence on its result.
#ifndef SPION_WGMMA_PIPELINE_CUH
#define SPION_WGMMA_PIPELINE_CUH

#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm90/tile.cuh"

enum : int { kGroups = kWarps / 4 };  // consumers
// One warp of the producer's warpgroup works: registers move between whole warpgroups only.
enum : int { kBlockThreads = kThreads + 128 };
enum : int { kSlotBytes = kStationaryTensors * kStationaryBytes };
// fp32 rows that travel with a slot or a stage: LSE and delta.
enum : int { kSlotStatistics = kSlotHasStatistics ? kStationaryRows * 4 : 0 };
enum : int { kStageStatistics = kStageHasStatistics ? 2 * kStreamedRows * 4 : 0 };
// An ItemPlan, with its place for helpers, or with the elements of each block row of packed tiles;
// and a stage's word of uses.
enum : int { kItemBytes = kHelperWarps > 0 || kPacked ? 32 : 16 };
enum : int { kStageUses = kPacked ? 8 : 0 };
enum : bool { kLanesReadStages = kStageHasStatistics || kPacked };
static_assert(kHelperWarps == 0 || !kPacked);
static_assert(!kPacked || (kStationaryRows == 64 && kPackedRows <= 4 &&
                           kPackedRows * kGranulesPerStep <= 32),
              "packed rows are those of one warpgroup, a step's bits one word");

// Which of a step's scores count, for one warp.
using StepMask = ScoreMask<kGranulesPerStep>;

// Of a step whose first `valid` rows exist. uses: uses_of_stage().
SPION_DEVICE StepMask step_mask(int valid, unsigned uses) {
    return {valid, kPacked ? uses : ~0U};
}

// Shared memory, in bytes from its start.
enum : int { kStagesStart = kSlots * kSlotBytes };
enum : int { kExchangeStart = kStagesStart + kStages * 2 * kTileBytes };
enum : int { kSlotStatisticsStart = kExchangeStart + kExchangeBytes };
enum : int { kStageStatisticsStart = kSlotStatisticsStart + kSlots * kSlotStatistics };
enum : int { kPlansStart = kStageStatisticsStart + kStages * kStageStatistics };
enum : int { kUsesStart = kPlansStart + kSlots * kItemBytes };
enum : int { kBarriersStart = kUsesStart + kStages * kStageUses };
enum : int { kShareBarriersStart = kBarriersStart + 8 * (2 * kSlots + 4 * kStages) };
enum : int { kBarriersEnd = kShareBarriersStart + (kHelperWarps > 0 ? 24 * kHelperWarps + 8 : 0) };
SPION_REQUIRE_SHARED_BYTES(kBarriersEnd);
static_assert(kStationaryRows == kGroupRows * kGroups);
static_assert(kTileBytes % 1024 == 0, "a tile starts at a repeat of the swizzle");

// Shared addresses. `tile` of a stage: 0 is its first tile, 1 its second.
SPION_DEVICE unsigned slot_full(int slot) {
    return shared_memory_start() + kBarriersStart + slot * 16;
}
SPION_DEVICE unsigned slot_empty(int slot) {
    return slot_full(slot) + 8;
}
SPION_DEVICE unsigned stage_full(int stage, int tile) {
    return shared_memory_start() + kBarriersStart + kSlots * 16 + stage * 32 + tile * 16;
}
SPION_DEVICE unsigned stage_empty(int stage, int tile) {
    return stage_full(stage, tile) + 8;
}
SPION_DEVICE unsigned slot_tile(int slot, int tensor) {
    return shared_memory_start() + slot * kSlotBytes + tensor * kStationaryBytes;
}
SPION_DEVICE unsigned slot_statistics(int slot) {
    return shared_memory_start() + kSlotStatisticsStart + slot * kSlotStatistics;
}
SPION_DEVICE unsigned slot_plan(int slot) {
    return shared_memory_start() + kPlansStart + slot * kItemBytes;
}
SPION_DEVICE unsigned stage_uses(int stage) {
    return shared_memory_start() + kUsesStart + stage * kStageUses;
}
SPION_DEVICE unsigned stage_tile(int stage, int tile) {
    return shared_memory_start() + kStagesStart + (2 * stage + tile) * kTileBytes;
}
SPION_DEVICE unsigned stage_statistics(int stage) {
    return shared_memory_start() + kStageStatisticsStart + stage * kStageStatistics;
}

// Of the two places of shares, each with an adder.
SPION_DEVICE unsigned share_full(int place) {
    return shared_memory_start() + kShareBarriersStart + 24 * place;
}
SPION_DEVICE unsigned share_empty(int place) {
    return share_full(place) + 8;
}
SPION_DEVICE unsigned sum_fetched(int place) {
    return share_full(place) + 16;
}
SPION_DEVICE unsigned item_added() {
    return share_full(kHelperWarps);
}

// Goes round kCount places; `parity` is that of the phase which a reader of the place waits for.
template <int kCount>
struct Place {
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
        for (int slot = 0; slot < kSlots; ++slot) {
            mbarrier_init(slot_full(slot), kSlotHasStatistics ? 33 : 1);
            mbarrier_init(slot_empty(slot), 32 * (kWarps + kHelperWarps));
        }
        for (int stage = 0; stage < kStages; ++stage) {
            mbarrier_init(stage_full(stage, 0), kStageHasStatistics ? 33 : 1);
            mbarrier_init(stage_empty(stage, 0), kLanesReadStages ? kThreads : kWarps);
            mbarrier_init(stage_full(stage, 1), 1);
            mbarrier_init(stage_empty(stage, 1), kWarps);
        }
        if constexpr (kHelperWarps > 0) {
            for (int place = 0; place < kHelperWarps; ++place) {
                mbarrier_init(share_full(place), kThreads);
                mbarrier_init(share_empty(place), 32);
                mbarrier_init(sum_fetched(place), 1);
            }
            mbarrier_init(item_added(), kHelperWarps);
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
    int pair;       // b * H + h; negative: there are no more items
    int first_row;  // of the stationary tile
    int valid;      // rows of the walk that count, see Walk
    int elements;   // likewise, of the warp's rows
    int place;      // in TileProgram::order

    __device__ __forceinline__ int steps() const {
        return (valid + kStreamedRows - 1) / kStreamedRows;
    }
    __device__ __forceinline__ int batch() const { return pair / kHeads; }
    __device__ __forceinline__ int head() const { return pair % kHeads; }
};

SPION_DEVICE ItemPlan read_plan(int slot) {
    const uint4 words = load_shared_16(slot_plan(slot));
    const int place = kHelperWarps > 0 ? (int)load_shared_16(slot_plan(slot) + 16).x : 0;
    ItemPlan plan = {(int)words.x, (int)words.y, (int)words.z, (int)words.w, place};
    if constexpr (kPacked) {
        const int row = warp_index() % 4 * kPackedRows / 4;
        plan.elements = (int)load_shared_word(slot_plan(slot) + 16 + row * 4);
    }
    return plan;
}

// The next item of a thread block whose shares of a sum wait for those of others: not one of the
// same pairs before this block's shares of `item` are all added, as they may wait for that one's.
// done: items before this one.
SPION_DEVICE unsigned take_late(const SpionHopperArguments& args, unsigned item, unsigned done) {
    const unsigned together = args.pairs_at_once * (unsigned)tile_count(args.attention);
    if (done > 0) mbarrier_wait(item_added(), (done - 1) & 1);
    const unsigned next = gridDim.x + *(volatile unsigned*)&args.counters[0];
    if (next / together == item / together) mbarrier_wait(item_added(), done & 1);
    return gridDim.x + atomicAdd(&args.counters[0], 1U);
}

// Which granules of a full stage's step the warp's rows use.
SPION_DEVICE unsigned uses_of_stage(int stage) {
    if constexpr (kPacked) return uses_of_warp(load_shared_word(stage_uses(stage)));
    return 0;
}

// One lane a box: a slot's stationary tiles. uses: read_uses() of the walk's start.
template <bool kWalksKeys>
SPION_DEVICE void fetch_slot(const SpionHopperArguments& args, const WorkItem& work,
                             const Walk& walk, unsigned uses, int slot) {
    const uint4 elements = elements_of_rows(args.attention, walk, uses);
    constexpr int kBoxes = kStationaryTensors * kGroups * kSlabs;
    const unsigned full = slot_full(slot);
    if (lane_index() == 0) {
        store_shared_16(slot_plan(slot), make_uint4(work.batch * kHeads + work.head, work.first_row,
                                                    walk.valid, walk.elements));
        if (kHelperWarps > 0) {
            store_shared_16(slot_plan(slot) + 16, make_uint4(work.place, 0, 0, 0));
        }
        if constexpr (kPacked) store_shared_16(slot_plan(slot) + 16, elements);
        mbarrier_arrive_expect_tx(full, kSlotBytes);
    }
    __syncwarp();
    for (int box = lane_index(); box < kBoxes; box += 32) {
        const int slab = box % kSlabs, group = box / kSlabs % kGroups,
                  tensor = box / kSlabs / kGroups;
        tma_load(slot_tile(slot, tensor) + group * kGroupTileBytes + slab * kGroupRows * kSlabBytes,
                 args.maps[tensor], full, slab * kSlabColumns, work.first_row + group * kGroupRows,
                 head_in_tensor<!kWalksKeys>(work.head), work.batch);
    }
}

// One lane a box: a tile of a stage, granule after granule. Granules that the step does not have
// are taken from beyond the tensor's end: zeros.
template <bool kWalksKeys>
SPION_DEVICE void fetch_tile(const SpionTensorMap& map, const WorkItem& work, int granule,
                             int stage, int tile) {
    const unsigned full = stage_full(stage, tile);
    if (lane_index() == 0) mbarrier_arrive_expect_tx(full, kTileBytes);
    __syncwarp();
    if (lane_index() < kGranulesPerStep) {
#pragma unroll
        for (int slab = 0; slab < kSlabs; ++slab) {
            tma_load(stage_tile(stage, tile) +
                         (slab * kStreamedRows + lane_index() * kGranule) * kSlabBytes,
                     map, full, slab * kSlabColumns, granule * kGranule,
                     head_in_tensor<kWalksKeys>(work.head), work.batch);
        }
    }
}

// Tells consumers, in a free slot, that there are no more items.
SPION_DEVICE void end_items(unsigned* counters, int slot) {
    const unsigned full = slot_full(slot);
    if (lane_index() == 0) {
        store_shared_16(slot_plan(slot), make_uint4(~0U, 0, 0, 0));
        mbarrier_arrive(full);
        // The last thread block leaves the counters as it found them.
        if (atomicAdd(&counters[1], 1U) == gridDim.x - 1) counters[0] = counters[1] = 0;
    }
    if constexpr (kSlotHasStatistics) cp_async_mbarrier_arrive_noinc(full);
}

// The item that is handed out as number `turn`. Those of the last heads_together heads go place by
// place: their longest walks start while there is work for everybody else, not at the very end.
// kLastHeadFirst: the heads backward. A kernel that goes through them against the order of the one
// before finds in the L2 what that has read or written last.
template <bool kLastHeadFirst>
SPION_DEVICE WorkItem item_of_turn(const SpionHopperArguments& args, unsigned turn) {
    const unsigned tiles = (unsigned)tile_count(args.attention);
    if constexpr (kHelperWarps > 0) {
        // pairs_at_once heads take turns, place by place.
        const unsigned first = turn / (args.pairs_at_once * tiles) * args.pairs_at_once;
        const unsigned within = turn - first * tiles;
        const unsigned pairs = min(args.pairs_at_once, args.items / tiles - first);
        return work_item(args.attention, first + within % pairs, (int)(within / pairs));
    }
    const unsigned first_late = args.items - args.heads_together * tiles;
    unsigned pair, place;
    if (turn < first_late) {
        pair = turn / tiles;
        place = turn - pair * tiles;
    } else {
        place = (turn - first_late) / args.heads_together;
        pair = first_late / tiles + (turn - first_late - place * args.heads_together);
    }
    if (kLastHeadFirst) pair = (unsigned)args.attention.batch * kHeads - 1 - pair;
    return work_item(args.attention, pair, (int)place);
}

// What ItemPlan::steps() says: none of a tile of padding alone, whatever the source says of others.
SPION_DEVICE int steps_of(const Walk& walk) {
    return kSteps >= 0 && walk.valid == 0 ? 0 : walk.steps();
}

// The producer warp's life. `fetch_slot_statistics(work, target)` and
// `fetch_stage_statistics(work, walk, step, target)` start the cp.async copies of the statistics to
// shared memory; kWalksKeys: streamed rows are keys, of which a sample may have fewer than L.
template <bool kWalksKeys, typename SlotStatistics, typename StageStatistics>
SPION_DEVICE void produce(const SpionHopperArguments& args,
                          const SlotStatistics& fetch_slot_statistics,
                          const StageStatistics& fetch_stage_statistics) {
    Place<kSlots> slot;
    Place<kStages> stage;
    unsigned* const counters = args.counters;
    unsigned turn = blockIdx.x;
    bool first_item = true;
    unsigned items_done = 0;
    if (args.waits_first) {
        griddepcontrol_wait();
        griddepcontrol_launch_dependents();
    }
    while (turn < args.items) {
        const WorkItem work = item_of_turn<kWalksKeys>(args, turn);
        Walk walk = open_walk(args.attention, work.place);
        unsigned uses = read_uses(args.attention, walk, 0);
        if (first_item) griddepcontrol_wait();  // without effect where it has waited
        first_item = false;
        // Asked for now, needed when this item's copies are under way.
        unsigned next = 0;
        if (kHelperWarps == 0 && lane_index() == 0) {
            next = gridDim.x + atomicAdd(&counters[0], 1U);
        }
        const int limit = key_limit(args.attention, work.batch);
        measure_walk(walk, kWalksKeys ? limit : kLength);
        if (!kWalksKeys && work.first_row >= limit) walk.valid = 0;

        mbarrier_wait(slot_empty(slot.index), slot.parity ^ 1);
        fetch_slot<kWalksKeys>(args, work, walk, uses, slot.index);
        if constexpr (kSlotHasStatistics) {
            fetch_slot_statistics(work, slot_statistics(slot.index));
            cp_async_mbarrier_arrive_noinc(slot_full(slot.index));
        }
        slot.advance();

        for (int step = 0; step < steps_of(walk); ++step, stage.advance()) {
            const int first = step * kGranulesPerStep;
            if (step > 0 && first % 32 == 0) {
                walk.window = read_window(walk, first);
                uses = read_uses(args.attention, walk, first);
            }
            const int mine = __shfl_sync(0xFFFFFFFFU, walk.window, (first + lane_index()) & 31);
            const bool present = (first + lane_index()) * kGranule < walk.valid;
            const int granule = present ? mine : (kLength + kGranule - 1) / kGranule;
            const unsigned word = uses_of_step(uses, first);
            mbarrier_wait(stage_empty(stage.index, 0), stage.parity ^ 1);
            if (kPacked && lane_index() == 0) store_shared_word(stage_uses(stage.index), word);
            fetch_tile<kWalksKeys>(args.maps[kStationaryTensors], work, granule, stage.index, 0);
            if constexpr (kStageHasStatistics) {
                fetch_stage_statistics(work, walk, step, stage_statistics(stage.index));
                cp_async_mbarrier_arrive_noinc(stage_full(stage.index, 0));
            }
            mbarrier_wait(stage_empty(stage.index, 1), stage.parity ^ 1);
            fetch_tile<kWalksKeys>(args.maps[kStationaryTensors + 1], work, granule, stage.index,
                                   1);
        }
        if (kHelperWarps > 0 && lane_index() == 0) next = take_late(args, turn, items_done++);
        turn = __shfl_sync(0xFFFFFFFFU, next, 0);
    }

    mbarrier_wait(slot_empty(slot.index), slot.parity ^ 1);
    end_items(counters, slot.index);
}

struct NoHelper {
    __device__ __forceinline__ void operator()(int) const {}
};

// The whole kernel: one producer warp, and warpgroups that compute items until there are no more.
// `Consumer::compute(args, plan)` computes the item of its `slot` and advances that.
template <typename Consumer, bool kWalksKeys, typename SlotStatistics, typename StageStatistics,
          typename Helper = NoHelper>
SPION_DEVICE void run_items(const SpionHopperArguments& args,
                            const SlotStatistics& fetch_slot_statistics,
                            const StageStatistics& fetch_stage_statistics,
                            const Helper& help = {}) {
    if (!args.waits_first) griddepcontrol_launch_dependents();
    initialise_barriers();
    if (warp_index() >= kWarps) {
        setmaxnreg_dec<kProducerRegisters>();
        if (warp_index() == kWarps) {
            if (lane_index() < kStationaryTensors + 2) prefetch_tensormap(args.maps[lane_index()]);
            produce<kWalksKeys>(args, fetch_slot_statistics, fetch_stage_statistics);
        } else if (warp_index() <= kWarps + kHelperWarps) {
            help(warp_index() - kWarps - 1);
        }
    } else {
        setmaxnreg_inc<kConsumerRegisters>();
        Consumer consumer;
        while (true) {
            mbarrier_wait(slot_full(consumer.slot.index), consumer.slot.parity);
            const ItemPlan plan = read_plan(consumer.slot.index);
            if (plan.pair < 0) break;
            consumer.compute(args.attention, plan);
        }
    }
}

#endif
