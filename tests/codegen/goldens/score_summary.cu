// score_summary-b128-D128-fp32-F31
// program role=score_summary
// attention H=4 D=128 L=1024 dtype=fp32 scale=0.088388346 softmax=masked key_padding=false dropout=0
// shape block=128 tile=64 filter=31

using Element = struct Fp32;  // storage and arithmetic
enum : int { kHeads = 4 };  // H
enum : int { kKeyHeads = 4 };  // of K and V
enum : int { kHeadDim = 128 };  // of tiles, D and Dv padded
enum : int { kKeyDim = 128 };  // D
enum : int { kValueDim = 128 };  // Dv
enum : int { kLength = 1024 };  // L
enum : int { kKeyLength = 1024 };  // of K and V
#define kScale 0.0883883461F  // of Q K^T
enum : int { kSoftmax = 0 };  // masked (SpionSoftmax)
enum : bool { kKeyPadding = false };  // lengths say which keys are valid
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
enum : int { kItemHeads = 4 };
enum : int { kStationaryLength = 1024 };  // of either side
enum : int { kBlock = 128 };  // edge of a pattern block
enum : int { kTile = 64 };  // rows and columns of a work item
enum : int { kFilter = 31 };  // F of the diagonal convolution
enum : int { kWarps = 4 };
enum : int { kStages = 1 };  // streamed tiles in shared memory at once
enum : int { kResidentBlocks = 3 };  // an SM has registers for that many
enum : int { kSharedBytes = 65536 };  // of a thread block

#include "kernels/cuda/sm80/score_summary.cuh"
