// score_summary-b128-D128-fp32-F31
// program role=score_summary
// attention H=4 D=128 L=1024 dtype=fp32 scale=0.088388346 softmax=masked key_padding=false dropout=0
// shape block=128 tile=64 filter=31

using Element = struct Fp32;  // storage and arithmetic
constexpr int kHeads = 4;  // H
constexpr int kHeadDim = 128;  // D
constexpr int kLength = 1024;  // L
constexpr float kScale = 0.0883883461F;  // of Q K^T
constexpr bool kPrunedZero = false;  // pruned elements count as a score of 0
constexpr bool kKeyPadding = false;  // lengths say which keys are valid
constexpr int kBlock = 128;  // edge of a pattern block
constexpr int kTile = 64;  // rows and columns of a work item
constexpr int kFilter = 31;  // F of the diagonal convolution
constexpr int kWarps = 4;
constexpr int kStages = 1;  // streamed tiles in shared memory at once
constexpr int kResidentBlocks = 3;  // a processor has registers for that many
constexpr int kSharedBytes = 65536;  // of a thread block

#include "kernels/cuda/sm80/score_summary.cuh"
