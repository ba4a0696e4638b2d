// What the generated text says ahead of a body whose warps have a work item each, beside what
// common/contract.cuh lists:
//   kHeldOperands       stationary operands that stay in registers throughout, the others are
//                       fetched at every use
//   kConsumerRegisters  registers a thread of the warps that compute (setmaxnreg)
//   kProducerRegisters  the same of the producer's warpgroup; 0: registers do not move
// kWarps warps compute, each an item of kStationaryRows rows. What the body itself has to define is
// in warp_body_contract.cuh.
#ifndef SPION_WARP_CONTRACT_CUH
#define SPION_WARP_CONTRACT_CUH

#define SPION_SAMPLE_ROWS 32
#include "kernels/cuda/common/contract.cuh"

static_assert(kStationaryRows == 16 || kStationaryRows == 32);
static_assert(kStreamedRows % 32 == 0 && kGatherRows <= 32 && kStreamedRows % kGatherRows == 0);
static_assert(kColumns % 16 == 0 && kStreamedRows % kColumns == 0);
static_assert(kWarps < 32, "a lane of the producer each");
static_assert(kStages >= 2, "a stage is still read while the next one is waited for");
static_assert(kHeldOperands >= 0 && kResidentBlocks >= 1 && kSharedBytes > 0);
static_assert(kConsumerRegisters % 8 == 0 && kProducerRegisters % 8 == 0, "as setmaxnreg counts");

#endif
