// What a body for wgmma defines, with SPION_BODY, ahead of its includes of sm90/:
//   kStationaryTensors   tensors of the stationary side, first in `maps`; two more stream
//   kStationaryHasStatistics  whether an fp32 row travels with every stationary stage (LSE)
//   kStageHasStatistics  whether two fp32 rows travel with every stage (LSE, delta)
//   kHelperWarps         warps beside the producer that take part in every work item
//   kExchangeBytes       shared memory behind the tiles that the body lays out itself
// and afterwards, for run_items of wgmma_pipeline.cuh, a struct Consumer with a member
// `stationary_stage` and
//   compute(attention arguments, plan)   computes the item of its stationary stage and advances
//                                        that
#ifndef SPION_WGMMA_BODY_CONTRACT_CUH
#define SPION_WGMMA_BODY_CONTRACT_CUH

#include "kernels/cuda/sm90/wgmma_contract.cuh"

#if defined(SPION_SAMPLE) && !defined(SPION_BODY)
enum : int { kStationaryTensors = 2, kHelperWarps = 2 };
enum : bool { kStationaryHasStatistics = false, kStageHasStatistics = true };
enum : int { kDqAccBytes = 64 * 64 * 4, kExchangedBytes = 64 * kStreamedRows * 2 };
enum : int { kExchangeBuffers = 2 };
enum : int { kExchangeBytes = 4 * kExchangedBytes + 4 * kDqAccBytes };
#endif

static_assert(kStationaryTensors >= 1 && kStationaryTensors <= 3, "SpionSm90Arguments::maps");
static_assert((bool)kStationaryHasStatistics == kStationaryHasStatistics, "a bool");
static_assert((bool)kStageHasStatistics == kStageHasStatistics, "a bool");
static_assert(kHelperWarps >= 0 && kHelperWarps <= 3, "of the producer's warpgroup");
static_assert(kExchangeBytes >= 0 && kExchangeBytes % 1024 == 0);

#endif
