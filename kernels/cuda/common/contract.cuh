// What the generated text says ahead of every body of attention: the text is these names, one a
// line, and then the line that includes the body. Each family's contract adds to them:
// sm80/contract.cuh, sm90/warp_contract.cuh, sm90/wgmma_contract.cuh. codegen/cuda/emit_cuda.cpp
// writes them.
//
//   Element           using Element = struct ...; Fp32, Tf32, Bf16 or Fp16 of element.cuh
//   kHeads            H
//   kKeyHeads         heads of K and V, a divisor of H
//   kItemHeads        heads that have work items: kKeyHeads where K and V stay, else H
//   kHeadDim          columns of a tile: D and Dv padded, a multiple of 16 up to 256
//   kKeyDim           D, of Q and K
//   kValueDim         Dv, of V and O; columns of a tile beyond these are zeros
//   kLength           L, of Q
//   kKeyLength        Lk, of K and V
//   kScale            a float, of Q K^T
//   kSoftmax          a SpionSoftmax (kernels/attention_arguments.h): what pruned elements count as
//   kKeyPadding       whether lengths[b] says how many keys of sample b are valid
//   kMask             a SpionMask: which elements there are, beside padded keys
//   kBlocksAreFull    whether the mask drops nothing of what the walk has, whatever the launch
//   kDropped          of 256 values of a random byte, those that drop an element of P; 0: none is
//   kSoftcap          a float: scores are capped there; 0: they are not
//   kAlibi            whether a slope a head times the distance is taken from scores
//   kSink             whether every row has a sink
//   kRelativeBias     R of a bias by relative position; 0: there is none
//   kVarlen           whether samples are sequences that lie end to end
//   kKeyStarts        whether keys are sequences of their own, which key_starts says the rows of
//   kSequencePatterns  whether each of them has kPatterns block patterns of its own
//   kWarps            warps of a thread block that compute
//   kStages           streamed tiles in shared memory at once
//   kResidentBlocks   thread blocks that an SM has registers for, for __launch_bounds__ (not delta)
//   kSharedBytes      dynamic shared memory of a thread block (not delta)
// and, of all but the score summary,
//   kPatterns         block patterns: 1, kKeyHeads or kHeads
//   kKeysStay         whether the stationary side is keys, and queries stream past
//   kStationaryLength  positions of the stationary side: kLength, or kKeyLength where keys stay
//   kStreamedLength   of the other side
//   kStationaryRows   rows of a work item's stationary tile
//   kStreamedRows     rows of one step's streamed tiles
//   kGatherRows       streamed rows that are adjacent in memory; a step has a whole number of them
//   kColumns          streamed rows that are multiplied at once; a step is a multiple of them
//   kStepsAreFull     whether all elements of all steps count, whatever the launch
// Packed tiles also have SPION_PACKED_ROWS (packed_rows.cuh), baked tables SPION_BAKED_TABLES and
// the tables (work_item.cuh).
//
// A file that is compiled alone, with -DSPION_SAMPLE, gets the sample below instead.
#ifndef SPION_CONTRACT_CUH
#define SPION_CONTRACT_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/ptx.cuh"

#ifdef SPION_SAMPLE
#ifndef SPION_SAMPLE_ROWS
#define SPION_SAMPLE_ROWS 64
#endif
using Element = struct Bf16;
enum : int { kHeads = 2, kKeyHeads = 1, kItemHeads = 2, kHeadDim = 64, kLength = 1000 };
enum : int { kKeyDim = 56, kValueDim = 64 };
enum : int { kKeyLength = 900, kStationaryLength = 1000, kStreamedLength = 1000 };
enum : int { kPatterns = 1 };
#define kScale 0.125F
enum : int { kSoftmax = SPION_SOFTMAX_PRUNED_ZERO };
enum : bool { kKeyPadding = true };
enum : int { kMask = SPION_MASK_SPANS };
enum : bool { kBlocksAreFull = false };
enum : int { kDropped = 26 };
#define kSoftcap 50.0F
enum : bool { kAlibi = true, kSink = true, kVarlen = false, kKeyStarts = false };
enum : bool { kSequencePatterns = false, kKeysStay = false };
enum : int { kRelativeBias = 40 };
enum : int { kStationaryRows = SPION_SAMPLE_ROWS, kStreamedRows = SPION_SAMPLE_ROWS };
enum : int { kGatherRows = SPION_SAMPLE_ROWS, kColumns = SPION_SAMPLE_ROWS };
enum : bool { kStepsAreFull = false };
enum : int {
    kWarps = SPION_SAMPLE_ROWS < 64 ? 4 : SPION_SAMPLE_ROWS / 16,
    kStages = 2,
    kResidentBlocks = 1,
    kSharedBytes = 65536
};
enum : bool { kHeldInRegisters = false };  // sm80
enum : int { kHeldOperands = 1 };          // sm90, a warp an item
enum : int { kStationaryStages = 2 };      // sm90, wgmma
enum : int { kConsumerRegisters = SPION_SAMPLE_ROWS > 64 ? 240 : 160, kProducerRegisters = 24 };
enum : int { kBlock = 64, kTile = 64, kFilter = 3 };  // score summary
// A sample cannot have the bytes that every body wants.
#define SPION_REQUIRE_SHARED_BYTES(bytes) static_assert((bytes) > 0)
#else
#define SPION_REQUIRE_SHARED_BYTES(bytes) \
    static_assert(kSharedBytes == (bytes), "shared memory is planned as the body lays it out")
#endif

static_assert(kHeads >= 1 && kLength >= 1 && kKeyLength >= 1);
static_assert(kKeyHeads >= 1 && (int)kHeads % (int)kKeyHeads == 0);
static_assert((int)kItemHeads == (int)kHeads || (int)kItemHeads == (int)kKeyHeads);
static_assert(kHeadDim % 16 == 0 && kHeadDim >= 16 && kHeadDim <= 256);
static_assert(kKeyDim % 8 == 0 && (int)kKeyDim <= (int)kHeadDim);
static_assert(kValueDim % 8 == 0 && (int)kValueDim <= (int)kHeadDim);
static_assert(sizeof(kScale) == sizeof(float), "kScale is a float");
static_assert(kSoftmax >= 0 && (int)kSoftmax < SPION_SOFTMAXES, "a SpionSoftmax");
static_assert((bool)kKeyPadding == kKeyPadding, "a bool");
static_assert(kMask >= 0 && (int)kMask < SPION_MASKS, "a SpionMask");
static_assert(kDropped >= 0 && kDropped < 256, "of 256");
static_assert(sizeof(kSoftcap) == sizeof(float), "kSoftcap is a float");
static_assert((bool)kAlibi == kAlibi && (bool)kSink == kSink, "bools");
static_assert(kRelativeBias >= 0 && kRelativeBias <= 8192, "as ir/attention.h");
static_assert(!kVarlen || (kMask == SPION_MASK_SPANS && !kKeyPadding), "spans say what is kept");
static_assert(!kKeyStarts || kVarlen, "of sequences");
static_assert(!kSequencePatterns || kVarlen, "sequences have patterns of their own");
static_assert(kWarps >= 1 && kWarps <= 32 && kStages >= 1);

#endif
