// What the generated text says ahead of a body of the training step: names, one a line, and then
// one #include of the body. train/kernels.cpp and train/fused_*.cpp write them. Every body has
//   Element         using Element = struct ...; Bf16 or Fp16 of common/element.cuh, T of its activations
//   kThreads        of a thread block, a multiple of 32
// and of these those that its text uses, no other:
//   kChannels       of a row of activations, a multiple of 8
//   kDropout        a float, the probability of dropping; 0: nothing is dropped
//   kEpsilon        a float, of the layer norm
//   kTableChannels  channels of the embedding's table that a work item gathers
//   kStagedRows     rows that the embedding's gradient stages at once
//   kOut, kIn       of the weights [kOut, kIn] of linear_backward, multiples of 64; of norm_linear's
//                   [kOut, kChannels]
//   kGelu           whether linear_backward's y goes on through dropout(gelu(y))
//   kHidden         of feed_forward, layer_end and norm_linear_forward, a multiple of 64
//   kHeads, kLength  H and L of attention_sink_gradient and attention_bias_gradient
//   kBiasEntries    2R + 1, of a head's biases by relative position
// Those that a body uses are checked where it uses them: a name that is not said is an error there.
//
// A file that is compiled alone, with -DSPION_SAMPLE, gets the sample below instead.
#ifndef SPION_TRAIN_CONTRACT_CUH
#define SPION_TRAIN_CONTRACT_CUH

#include "kernels/cuda/common/element.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/train_arguments.h"

#ifdef SPION_SAMPLE
using Element = struct Bf16;
enum : int { kThreads = 256, kChannels = 64, kHidden = 128, kOut = 64, kIn = 64 };
enum : int { kTableChannels = 32, kStagedRows = 64, kHeads = 2, kLength = 1000 };
enum : int { kBiasEntries = 81 };
enum : bool { kGelu = true };
#define kDropout 0.1F
#define kEpsilon 1e-5F
#endif

static_assert(kThreads % 32 == 0 && kThreads >= 32 && kThreads <= 1024);

#endif
