// What a body for wgmma defines, with SPION_BODY, ahead of its includes of sm90/:
//   kStationaryTensors   tensors of the stationary side, first in `maps`; two more stream
//   kSlotHasStatistics   whether an fp32 row travels with every slot (LSE)
//   kStageHasStatistics  whether two fp32 rows travel with every stage (LSE, delta)
//   kHelperWarps         warps beside the producer that take part in every work item
//   kExchangeBytes       shared memory behind the tiles that the body lays out itself
// and afterwards, for run_items of wgmma_pipeline.cuh, a struct Consumer with a member `slot` and
//   compute(attention arguments, plan)   computes the item of its slot and advances that
#ifndef SPION_WGMMA_BODY_CONTRACT_CUH
#define SPION_WGMMA_BODY_CONTRACT_CUH

#include "kernels/cuda/sm90/wgmma_contract.cuh"

#if defined(SPION_SAMPLE) && !defined(SPION_BODY)
enum : int { kStationaryTensors = 2, kHelperWarps = 2 };
enum : bool { kSlotHasStatistics = false, kStageHasStatistics = true };
enum : int { kPieceBytes = 64 * 64 * 4, kExchangedBytes = 64 * kStreamedRows * 2 };
enum : int { kExchangeBytes = 4 * kExchangedBytes + 4 * kPieceBytes };
#endif

static_assert(kStationaryTensors >= 1 && kStationaryTensors <= 3, "SpionHopperArguments::maps");
static_assert((bool)kSlotHasStatistics == kSlotHasStatistics, "a bool");
static_assert((bool)kStageHasStatistics == kStageHasStatistics, "a bool");
static_assert(kHelperWarps >= 0 && kHelperWarps <= 3, "of the producer's warpgroup");
static_assert(kExchangeBytes >= 0 && kExchangeBytes % 1024 == 0);

#endif
