// What the generated text says ahead of a body for mma.sync, beside what common/contract.cuh lists:
//   kHeldInRegisters  whether stationary operands stay in registers, or are fetched at every use
// A warp has 16 stationary rows, and a thread block kWarps of them. In packed tiles each warp skips
// what its block row does not use, so that what is multiplied at once lies in one gather block.
#ifndef SPION_SM80_CONTRACT_CUH
#define SPION_SM80_CONTRACT_CUH

#include "kernels/cuda/common/contract.cuh"

static_assert((bool)kHeldInRegisters == kHeldInRegisters, "a bool");
static_assert(kStationaryRows == 16 * kWarps, "a warp has 16 stationary rows");
static_assert(kGatherRows % 16 == 0 && kStreamedRows % kGatherRows == 0);
static_assert(kColumns % 16 == 0 && kStreamedRows % kColumns == 0);
static_assert(kResidentBlocks >= 1 && kSharedBytes > 0);
#ifdef SPION_PACKED_ROWS
static_assert(kGatherRows % kColumns == 0, "what is multiplied at once lies in one gather block");
#endif

#endif
