// What a body whose warps have a work item each defines, with SPION_BODY, ahead of its includes of
// sm90/:
//   kStationaryTensors   tensors of the stationary side, first in `maps`; two more stream
//   kStationaryHasStatistics  whether an fp32 row travels with every stationary stage (LSE)
//   kStageHasStatistics  whether two fp32 rows travel with every stage (LSE, delta)
//   kStationaryStaysInUse  whether stationary tiles are read until the item is done
//   kEmptyHasTiles       whether the stationary tiles are wanted of an item without steps too
// and afterwards, for run_items of warp_pipeline.cuh, a struct Consumer with the members that
// `consume` there lists.
#ifndef SPION_WARP_BODY_CONTRACT_CUH
#define SPION_WARP_BODY_CONTRACT_CUH

#include "kernels/cuda/sm90/warp_contract.cuh"

#if defined(SPION_SAMPLE) && !defined(SPION_BODY)
enum : int { kStationaryTensors = 2 };
enum : bool { kStationaryHasStatistics = true, kStageHasStatistics = true };
enum : bool { kStationaryStaysInUse = true, kEmptyHasTiles = false };
#endif

static_assert(kStationaryTensors >= 1 && kStationaryTensors <= 3, "SpionSm90Arguments::maps");
static_assert((bool)kStationaryHasStatistics == kStationaryHasStatistics, "a bool");
static_assert((bool)kStageHasStatistics == kStageHasStatistics, "a bool");
static_assert((bool)kStationaryStaysInUse == kStationaryStaysInUse, "a bool");
static_assert((bool)kEmptyHasTiles == kEmptyHasTiles, "a bool");

#endif
