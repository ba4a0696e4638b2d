// attention_forward-b32-D32-bf16-pruned_zero
// program role=attention_forward
// attention H=2 D=32 L=100 dtype=bf16 scale=0.17677669 softmax=pruned_zero key_padding=true dropout=0
// shape block=32 stationary_rows=32 streamed_rows=64 gather_rows=32 warps=2 stages=2 unit=mma_sync tables=passed

using Element = struct Bf16;  // storage and arithmetic
enum : int { kHeads = 2 };  // H
enum : int { kKeyHeads = 2 };  // of K and V
enum : int { kHeadDim = 32 };  // of tiles, D and Dv padded
enum : int { kKeyDim = 32 };  // D
enum : int { kValueDim = 32 };  // Dv
enum : int { kLength = 100 };  // L
enum : int { kKeyLength = 100 };  // of K and V
#define kScale 0.176776692F  // of Q K^T
enum : int { kSoftmax = 1 };  // pruned_zero (SpionSoftmax)
enum : bool { kKeyPadding = true };  // lengths say which keys are valid
enum : int { kMask = 0 };  // none (SpionMask)
enum : bool { kBlocksAreFull = false };  // the mask drops nothing of the walk
enum : int { kDropped = 0 };  // of 256, of P
#define kSoftcap 0.0F  // of scores; 0: none
enum : bool { kAlibi = false };  // slopes of distances
enum : bool { kSink = false };  // one score more a row
enum : int { kRelativeBias = 0 };  // R of a bias by position; 0: none
enum : bool { kVarlen = false };  // sequences lie end to end
enum : bool { kKeyStarts = false };  // keys are sequences of their own
enum : bool { kSequencePatterns = false };  // each has patterns of its own
enum : int { kItemHeads = 2 };  // heads that have work items
enum : int { kPatterns = 1 };  // of all heads
enum : bool { kKeysStay = false };  // and queries stream past
enum : int { kStationaryLength = 100 };  // positions of what stays
enum : int { kStreamedLength = 100 };  // of what streams past
enum : int { kStationaryRows = 32 };  // of a work item
enum : int { kStreamedRows = 64 };  // of one step
enum : int { kGatherRows = 32 };  // streamed rows adjacent in memory
enum : bool { kStepsAreFull = false };  // all elements of all steps count
enum : int { kColumns = 64 };  // streamed rows multiplied at once
enum : bool { kHeldInRegisters = true };  // stationary operands, else fetched at every use
enum : int { kWarps = 2 };
enum : int { kStages = 2 };  // streamed tiles in shared memory at once
enum : int { kResidentBlocks = 8 };  // an SM has registers for that many
enum : int { kSharedBytes = 18432 };  // of a thread block

#include "kernels/cuda/sm80/attention_forward.cuh"
