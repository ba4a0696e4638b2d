// What lies where in the shared memory of a thread block of wgmma_pipeline.cuh.
#ifndef SPION_WGMMA_MEMORY_CUH
#define SPION_WGMMA_MEMORY_CUH

#include "kernels/cuda/sm90/wgmma_body_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/packed_rows.cuh"
#include "kernels/cuda/sm90/tile.cuh"

enum : int { kGroups = kWarps / 4 };  // consumers
// One warp of the producer's warpgroup works: registers move between whole warpgroups only.
enum : int { kBlockThreads = kThreads + 128 };
enum : int { kStationaryStageBytes = kStationaryTensors * kStationaryBytes };
// fp32 rows that travel with a stationary stage or a stage: LSE and delta.
enum : int { kStationaryStatistics = kStationaryHasStatistics ? kStationaryRows * 4 : 0 };
enum : int { kStageStatistics = kStageHasStatistics ? 2 * kStreamedRows * 4 : 0 };
// An ItemPlan, with its order index for reduce warps, or with the elements of each block row of
// packed tiles, or with its gather blocks where positions matter, or with both; and a stage's block
// row masks, one word.
enum : bool { kElementsApart = kPacked && kPositionsMatter && !kElementsMasked };
enum : int {
    kItemBytes = kElementsApart                                    ? 48
                 : kHelperWarps > 0 || kPacked || kPositionsMatter ? 32
                                                                   : 16
};
enum : int { kStageBlockRowMask = kPacked ? 8 : 0 };
enum : bool { kLanesReadStages = kStageHasStatistics || kPacked };
static_assert(kHelperWarps == 0 || !kPacked);
static_assert(!kPacked || (kStationaryRows == 64 && kPackedRows <= 4 &&
                           kPackedRows * kGatherBlocksPerStep <= 32),
              "packed rows are those of one warpgroup, a step's bits one word");

// Shared memory, in bytes from its start.
enum : int { kStagesStart = kStationaryStages * kStationaryStageBytes };
enum : int { kExchangeStart = kStagesStart + kStages * 2 * kTileBytes };
enum : int { kStationaryStatisticsStart = kExchangeStart + kExchangeBytes };
enum : int {
    kStageStatisticsStart = kStationaryStatisticsStart + kStationaryStages * kStationaryStatistics
};
enum : int { kPlansStart = kStageStatisticsStart + kStages * kStageStatistics };
enum : int { kBlockRowMasksStart = kPlansStart + kStationaryStages * kItemBytes };
enum : int { kBarriersStart = kBlockRowMasksStart + kStages * kStageBlockRowMask };
enum : int { kDqBarriersStart = kBarriersStart + 8 * (2 * kStationaryStages + 4 * kStages) };
enum : int { kBarriersEnd = kDqBarriersStart + (kHelperWarps > 0 ? 32 * kHelperWarps + 8 : 0) };
SPION_REQUIRE_SHARED_BYTES(kBarriersEnd);
static_assert(kStationaryRows == kGroupRows * kGroups);
static_assert(kTileBytes % 1024 == 0, "a tile starts at a repeat of the swizzle");

// Shared addresses. `tile` of a stage: 0 is its first tile, 1 its second.
SPION_DEVICE unsigned stationary_full(int stationary_stage) {
    return shared_memory_start() + kBarriersStart + stationary_stage * 16;
}
SPION_DEVICE unsigned stationary_empty(int stationary_stage) {
    return stationary_full(stationary_stage) + 8;
}
SPION_DEVICE unsigned stage_full(int stage, int tile) {
    return shared_memory_start() + kBarriersStart + kStationaryStages * 16 + stage * 32 + tile * 16;
}
SPION_DEVICE unsigned stage_empty(int stage, int tile) {
    return stage_full(stage, tile) + 8;
}
SPION_DEVICE unsigned stationary_tile(int stationary_stage, int tensor) {
    return shared_memory_start() + stationary_stage * kStationaryStageBytes +
           tensor * kStationaryBytes;
}
SPION_DEVICE unsigned stationary_statistics(int stationary_stage) {
    return shared_memory_start() + kStationaryStatisticsStart +
           stationary_stage * kStationaryStatistics;
}
SPION_DEVICE unsigned stationary_plan(int stationary_stage) {
    return shared_memory_start() + kPlansStart + stationary_stage * kItemBytes;
}
SPION_DEVICE unsigned stage_block_row_mask(int stage) {
    return shared_memory_start() + kBlockRowMasksStart + stage * kStageBlockRowMask;
}
SPION_DEVICE unsigned stage_tile(int stage, int tile) {
    return shared_memory_start() + kStagesStart + (2 * stage + tile) * kTileBytes;
}
SPION_DEVICE unsigned stage_statistics(int stage) {
    return shared_memory_start() + kStageStatisticsStart + stage * kStageStatistics;
}

// Barriers of the two buffers for partial dQs, each with a reduce warp.
SPION_DEVICE unsigned dq_full(int buffer) {
    return shared_memory_start() + kDqBarriersStart + 32 * buffer;
}
SPION_DEVICE unsigned dq_empty(int buffer) {
    return dq_full(buffer) + 8;
}
// The buffer's partials of an item have had their turns. Items have two of these by turns: a reduce
// warp may be done with an item before the producer has asked about the one before.
SPION_DEVICE unsigned item_turns(int buffer, unsigned item) {
    return dq_full(buffer) + 16 + item % 2 * 8;
}
// Both warpgroups have multiplied with the dS that they exchange.
SPION_DEVICE unsigned exchange_free() {
    return dq_full(kHelperWarps);
}

#endif
