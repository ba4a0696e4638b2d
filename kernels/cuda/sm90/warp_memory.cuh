// What lies where in the shared memory of a thread block of warp_pipeline.cuh.
#ifndef SPION_WARP_MEMORY_CUH
#define SPION_WARP_MEMORY_CUH

#include "kernels/cuda/sm90/warp_body_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/sm90/warp_tile.cuh"

// Where consumers need more than an even share of the registers, the producer's warp comes with
// three idle ones: registers move between whole warpgroups only.
enum : bool { kRegistersMove = kProducerRegisters > 0 };
enum : int { kBlockThreads = kThreads + (kRegistersMove ? 128 : 32) };
enum : int { kStationaryStageBytes = kStationaryTensors * kStationaryBytes };
enum : int { kStageBytes = 2 * kTileBytes };
enum : int { kConsumerTilesBytes = kStationaryStageBytes + kStages * kStageBytes };
// What a consumer has beside its tiles: an ItemPlan; fp32 rows that travel with a stationary stage
// or a stage, LSE and delta; a barrier that says full and one that says empty for the stationary
// stage and every stage.
enum : int { kPlanBytes = kPositionsMatter ? 32 : 16 };
enum : int { kStationaryStatistics = kStationaryHasStatistics ? kStationaryRows * 4 : 0 };
enum : int { kStageStatistics = kStageHasStatistics ? 2 * kStreamedRows * 4 : 0 };
enum : int { kStatisticsEnd = kPlanBytes + kStationaryStatistics + kStages * kStageStatistics };
enum : int { kNotesBytes = kStatisticsEnd + 16 * (1 + kStages) };

SPION_REQUIRE_SHARED_BYTES(kWarps*(kConsumerTilesBytes + kNotesBytes));
static_assert(kTileBytes % 1024 == 0 && kStationaryBytes % 1024 == 0,
              "a tile starts at a repeat of the swizzle");
static_assert(kTileBytes >= kStationaryBytes, "results are staged where a step's tiles were");

// Shared addresses of one consumer: its tiles, then, behind the tiles of all, its notes.
struct ConsumerMemory {
    unsigned tiles, notes;
    __device__ __forceinline__ explicit ConsumerMemory(int consumer)
        : tiles(shared_memory_start() + consumer * kConsumerTilesBytes),
          notes(shared_memory_start() + kWarps * kConsumerTilesBytes + consumer * kNotesBytes) {}
    __device__ __forceinline__ unsigned stationary_tile(int tensor) const {
        return tiles + tensor * kStationaryBytes;
    }
    __device__ __forceinline__ unsigned stage_tiles(int stage) const {
        return tiles + kStationaryStageBytes + stage * kStageBytes;
    }
    __device__ __forceinline__ unsigned plan() const { return notes; }
    __device__ __forceinline__ unsigned stationary_statistics() const { return notes + kPlanBytes; }
    __device__ __forceinline__ unsigned stage_statistics(int stage) const {
        return notes + kPlanBytes + kStationaryStatistics + stage * kStageStatistics;
    }
    __device__ __forceinline__ unsigned stationary_full() const { return notes + kStatisticsEnd; }
    __device__ __forceinline__ unsigned stationary_empty() const { return stationary_full() + 8; }
    __device__ __forceinline__ unsigned stage_full(int stage) const {
        return stationary_full() + 16 * (1 + stage);
    }
    __device__ __forceinline__ unsigned stage_empty(int stage) const {
        return stage_full(stage) + 8;
    }
};

#endif
