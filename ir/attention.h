// The operation: one layer's multi-head attention on a fixed block pattern.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ir/dtype.h"

namespace spion {

// "none, causal or spans": what a message or a flag's help allows.
std::string any_of_names(std::span<const std::string_view> names);

// What a pruned element (one outside the pattern) counts as in the softmax.
//
// With S = scale * Q K^T and n_i the number of elements of query row i inside the pattern (padded
// keys included, nothing beyond L):
//   kPrunedZero  a score of 0:        m = max(0, max_j S_ij), Z = sum_j exp(S_ij - m)
//                                     + (L - n_i) * exp(-m)            (SPION, section 3)
//   kMasked      a score of -inf:     m = max_j S_ij,         Z = sum_j exp(S_ij - m)
// The sums run over the elements of the pattern whose key is not padded. P_ij = exp(S_ij - m) / Z,
// LSE_i = m + ln Z. A row without any such element has O = 0 and no gradient; its LSE is
// ln(L - n_i) under kPrunedZero when L > n_i, and -inf otherwise.
//
// The numbers are those of device code (SpionSoftmax in kernels/attention_arguments.h) and of the C
// interface (spion_softmax).
enum class SoftmaxKind { kMasked, kPrunedZero };

// By number: what the command, the IR, settings and messages call them.
inline constexpr std::array<std::string_view, 2> kSoftmaxNames = {"masked", "pruned_zero"};

std::string_view to_string(SoftmaxKind kind);
// Throws UserError that lists the allowed names.
SoftmaxKind parse_softmax_kind(std::string_view name);

// Which elements of the score map the operation has at all, beside key padding. What a mask drops
// is neither an element of any sum nor pruned: n_i and the L of the formulas above count kept
// elements alone, padded keys among them.
//   kNone     all
//   kCausal   key j <= query i + Lk - L: the last query keeps the last key
//   kSpans    the launch says which (ir/element_spans.h): any conjunction of causal, sliding
//             window, documents, a prefix that everybody sees and query padding
//
// The numbers are those of device code (SpionMask in kernels/attention_arguments.h).
enum class ElementMask { kNone, kCausal, kSpans };

inline constexpr std::array<std::string_view, 3> kElementMaskNames = {"none", "causal", "spans"};

std::string_view to_string(ElementMask mask);
// Throws UserError that lists the allowed names.
ElementMask parse_element_mask(std::string_view name);

constexpr int kMaxHeadDim = 256;
constexpr int kMaxRelativeBias = 8192;

// Everything about the operation that is fixed when it is compiled. The batch size B and the
// per-sample lengths are run-time arguments.
struct Attention {
    int heads = 1;               // H >= 1, of Q
    int head_dim = 64;           // D of Q and K: a multiple of 8 from 16 to kMaxHeadDim
    std::int64_t length = 0;     // L >= 1 of Q, not necessarily a multiple of the block
    DType dtype = DType::kBf16;  // of Q, K, V, O, dO, dQ, dK, dV
    float scale = 0.0F;          // of Q K^T; usually 1/sqrt(D)
    SoftmaxKind softmax = SoftmaxKind::kPrunedZero;
    bool key_padding = false;  // true: lengths[b] <= L says how many keys of sample b are valid
    float dropout = 0.0F;      // on P: the probability to drop, rounded to dropped_of_256()
    ElementMask mask = ElementMask::kNone;
    // Heads of K and V, a divisor of H: query head h reads head h / (H / kv_heads). 0: H of them.
    int kv_heads = 0;
    std::int64_t kv_length = 0;  // Lk >= 1: positions of K and V. 0: L of them.
    int value_dim = 0;           // Dv of V and O, likewise a multiple of 8. 0: D
    // Block patterns: 1 for all heads, one a head of K and V, or one a query head; neighbouring
    // heads share, query head h has pattern h / (H / patterns).
    int patterns = 1;
    float softcap = 0.0F;  // above 0: a score s becomes softcap * tanh(s / softcap)
    bool alibi = false;  // slopes [H] of the launch: then minus slope_h * |i + Lk - L - j| is added
    bool sink = false;   // sinks [H] of the launch: one score more in the sum of every row
    // R above 0, up to kMaxRelativeBias: then a score of query i and key j of head h gets
    // relative_bias[h, R + clamp(j - (i + Lk - L), -R, R)] of the launch's [H, 2R + 1]. 0: none
    int relative_bias = 0;
    // Sequences of at most L positions that lie end to end: a launch has B of them, tensors
    // [H, T, D], and starts [B + 1] (cu_seqlens) that say in which row each begins. Needs kSpans.
    bool varlen = false;
    // Of varlen: keys are sequences of their own, of at most Lk positions, which K and V [Hkv, Tk, D]
    // have end to end; a launch says by key_starts [B + 1] where each begins. Without it queries and
    // keys are the same positions.
    bool key_starts = false;
    // N above 0, of varlen: each sequence has block patterns of its own, `patterns` of them, and a
    // launch has at most N sequences. 0: all sequences have the same, cut at their ends.
    int sequence_patterns = 0;
    // Not "": what the score becomes before slopes and biases, and its derivative by the score, or ""
    // to have it derived (ir/score_expression.h). Not beside a softcap.
    std::string score = {};
    std::string score_derivative = {};

    // Block patterns of a layer: sequence b's are those from b * patterns on.
    constexpr int pattern_count() const {
        return patterns * (sequence_patterns == 0 ? 1 : sequence_patterns);
    }
    constexpr int key_value_heads() const { return kv_heads == 0 ? heads : kv_heads; }
    constexpr std::int64_t key_value_length() const { return kv_length == 0 ? length : kv_length; }
    constexpr int value_head_dim() const { return value_dim == 0 ? head_dim : value_dim; }
    // Entries of a head's table of biases, 2R + 1; 0 without one.
    constexpr int bias_entries() const { return relative_bias == 0 ? 0 : 2 * relative_bias + 1; }
    // Whether a launch's items are the tiles that its sequences have, found by their number, so that
    // walks lie in the order of tiles. Of patterns of heads that all sequences share, every sequence
    // has an item for every tile of L rows instead.
    constexpr bool items_of_sequences() const {
        return varlen && (patterns == 1 || sequence_patterns > 0);
    }
    // Lk - L: query i stands beside key i + diagonal(), as sequences are aligned at their ends. With
    // key_starts each sequence has a number of its own, of its own lengths.
    constexpr std::int64_t diagonal() const { return key_value_length() - length; }
    // Whether it matters to an element, beside the pattern, where it is.
    bool positions_matter() const {
        return mask != ElementMask::kNone || dropout > 0.0F || alibi || relative_bias > 0 ||
               !score.empty();
    }
    friend bool operator==(const Attention&, const Attention&) = default;
};

// The things in which attentions differ, and where each is said; the device code has one file
// a back end for each of them (CONTRIBUTING.md):
//   which elements of a block count     coverage() below; kernels/cuda/common/mask.cuh
//   what happens to a score             scale, softcap, score, alibi, relative_bias, sink;
//                                       kernels/cuda/common/score.cuh
//   which probabilities are dropped     dropout; kernels/cuda/common/dropout.cuh
//   which head of K and V is read       kv_heads; kernels/cuda/common/heads.cuh
//   where a sample's positions lie      varlen; kernels/cuda/common/sequences.cuh

// Queries [row_begin, row_end) and keys [key_begin, key_end) of the score map.
struct ScoreRectangle {
    std::int64_t row_begin, row_end;
    std::int64_t key_begin, key_end;
};

// Whether all elements of a rectangle of the score map count, or a kernel has to ask which do, or
// none of them does.
enum class Coverage : std::uint8_t { kFull, kPartial, kEmpty };

// Partial: rectangles with queries from L or keys from Lk on, and all where only the launch knows what counts:
// keys may be padded, or the mask is kSpans.
Coverage coverage(const Attention& attention, const ScoreRectangle& rectangle);

// 1/sqrt(D).
float default_scale(int head_dim);

// Dropout on P decides by 8 random bits an element (kernels/random.h), of whose 256 values so many
// drop it: round(256 * dropout). The kept ones count 256 / (256 - dropped) times.
int dropped_of_256(const Attention& attention);

// Throws UserError if a field is out of its range.
void check(const Attention& attention);

// One line: "attention H=2 D=32 L=2048 dtype=bf16 scale=0.17677669 softmax=pruned_zero
// key_padding=true dropout=0", and behind it, each where it is not the default, " mask=causal",
// " kv_heads=1", " kv_length=77", " patterns=2", " softcap=50", " alibi=true", " sink=true",
// " relative_bias=128", " Dv=64", " varlen=true", " key_starts=true", " sequence_patterns=8",
// " score=2*tanh(score)" and " score_derivative=2-2*tanh(score)*tanh(score)", expressions in their
// canonical texts.
std::string to_text(const Attention& attention);

}  // namespace spion
