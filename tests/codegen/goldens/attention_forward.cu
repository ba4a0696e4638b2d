// attention_forward-b32-D32-bf16-pruned_zero
// program role=attention_forward
// attention H=2 D=32 L=100 dtype=bf16 scale=0.17677669 softmax=pruned_zero key_padding=true dropout=0
// shape block=32 stationary_rows=32 streamed_rows=64 granule=32 warps=2 stages=2 unit=mma_sync tables=passed

using Element = struct Bf16;  // storage and arithmetic
constexpr int kHeads = 2;  // H
constexpr int kHeadDim = 32;  // D
constexpr int kLength = 100;  // L
constexpr float kScale = 0.176776692F;  // of Q K^T
constexpr bool kPrunedZero = true;  // pruned elements count as a score of 0
constexpr bool kKeyPadding = true;  // lengths say which keys are valid
constexpr int kStationaryRows = 32;  // of a work item
constexpr int kStreamedRows = 64;  // of one step
constexpr int kGranule = 32;  // streamed rows adjacent in memory
constexpr int kColumns = 64;  // streamed rows multiplied at once
constexpr bool kHeldInRegisters = true;  // stationary operands, else fetched at every use
constexpr int kWarps = 2;
constexpr int kStages = 2;  // streamed tiles in shared memory at once
constexpr int kResidentBlocks = 8;  // a processor has registers for that many
constexpr int kSharedBytes = 18432;  // of a thread block

#include "kernels/cuda/sm80/attention_forward.cuh"
