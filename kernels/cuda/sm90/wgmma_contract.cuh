// What the generated text says ahead of a body for wgmma, beside what common/contract.cuh lists:
//   kStationaryStages   stationary tiles in shared memory at once
//   kConsumerRegisters  registers a thread of the warpgroups that multiply (setmaxnreg)
//   kProducerRegisters  the same of the producer's warpgroup
//   SPION_FULL_PATTERN  a macro, only where every tile streams everything
// kWarps warps multiply, four to a warpgroup with 64 stationary rows; kColumns = kStreamedRows.
// What the body itself has to define is in wgmma_body_contract.cuh.
#ifndef SPION_WGMMA_CONTRACT_CUH
#define SPION_WGMMA_CONTRACT_CUH

#include "kernels/cuda/common/contract.cuh"

static_assert(kWarps % 4 == 0 && kStationaryRows == 16 * kWarps, "a warpgroup has 64 rows");
static_assert(kHeadDim == 32 || kHeadDim == 64 || kHeadDim == 128);
static_assert(kStreamedRows == 64 || kStreamedRows == 128);
static_assert(kColumns == kStreamedRows && kStreamedRows % kGatherRows == 0);
static_assert(kStages >= 2, "a stage is still read while the next one is waited for");
static_assert(kStationaryStages >= 1 && kResidentBlocks >= 1 && kSharedBytes > 0);
static_assert(kConsumerRegisters % 8 == 0 && kProducerRegisters % 8 == 0, "as setmaxnreg counts");

#endif
