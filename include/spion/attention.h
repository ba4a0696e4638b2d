// The operation and the names of what it is made of. Part of spion.h.
#ifndef SPION_ATTENTION_H
#define SPION_ATTENTION_H

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include "spion/spion_c.h"

namespace spion {
inline namespace abi0 {  // as SPION_ABI_MAJOR

enum class DType : std::int32_t {
    kBf16 = SPION_BF16,
    kFp16 = SPION_FP16,
    kFp32 = SPION_FP32,
    kTf32 = SPION_TF32
};
enum class Softmax : std::int32_t { kMasked = SPION_MASKED, kPrunedZero = SPION_PRUNED_ZERO };
// By number: what the command and Python call them.
inline constexpr std::string_view kSoftmaxNames[] = {"masked", "pruned_zero"};
inline constexpr char kSoftmaxChoices[] = "masked or pruned_zero";  // for people
inline std::optional<Softmax> softmax_named(std::string_view name) {
    for (std::size_t n = 0; n < std::size(kSoftmaxNames); ++n) {
        if (kSoftmaxNames[n] == name) return static_cast<Softmax>(n);
    }
    return std::nullopt;
}
enum class Pass : std::int32_t { kForward = SPION_FORWARD, kBackward = SPION_BACKWARD };
enum class Kernel : std::int32_t {
    kForward = SPION_KERNEL_FORWARD,
    kBackwardFirst = SPION_KERNEL_BACKWARD_FIRST,
    kBackwardSecond = SPION_KERNEL_BACKWARD_SECOND
};
enum class Stage : std::int32_t {
    kAttention = SPION_STAGE_ATTENTION,
    kProgram = SPION_STAGE_PROGRAM,
    kSource = SPION_STAGE_SOURCE,
    kPtx = SPION_STAGE_PTX,
    kLlvm = SPION_STAGE_LLVM,
    kBinary = SPION_STAGE_BINARY,
    kAssembly = SPION_STAGE_ASSEMBLY
};
enum class Origin : std::int32_t {
    kMemory = SPION_FROM_MEMORY,
    kBundle = SPION_FROM_BUNDLE,
    kDisk = SPION_FROM_DISK,
    kCompiled = SPION_COMPILED
};

// The operation: H heads of width D over L positions, patterns in blocks of `block`. spion_attention
// says what each field means.
struct Attention {
    int heads = 1;
    int head_dim = 64;
    std::int64_t length = 0;
    int block = 64;
    DType dtype = DType::kBf16;
    float scale = 0;  // 0: 1 / sqrt(D)
    Softmax softmax = Softmax::kMasked;
    bool key_padding = false;
    bool causal = false;          // a query keeps the keys up to its own position
    int key_value_heads = 0;      // of K, V, dK and dV, a divisor of `heads`; 0: as many
    bool spans = false;           // calls are given a mask's spans (MaskRules); without causal
    float dropout = 0;            // of probabilities; calls are given a DropoutState
    std::int64_t key_length = 0;  // of K and V; 0: `length`
    float softcap = 0;            // above 0: a score s becomes softcap * tanh(s / softcap)
    bool alibi = false;           // calls are given slopes [H]
    bool sinks = false;           // calls are given scores [H] that belong to no key
    int patterns = 0;             // 0: one for all heads; or one a head of K and V, or one a head
    int value_dim = 0;            // Dv of V and O; 0: head_dim
    bool varlen = false;    // sequences of at most `length` end to end; calls are given cu_seqlens
    int relative_bias = 0;  // R above 0: calls are given biases [H, 2R + 1] by relative position
    // What a score becomes, an expression of score, q, k, head and batch, and its derivative by score;
    // "": nothing happens to it, and it is derived.
    std::string score = {};
    std::string score_derivative = {};
    bool key_starts = false;  // with varlen: keys are sequences of their own, of key_cu_seqlens
    int sequence_patterns =
        0;  // with varlen: so many sequences at most, with patterns of their own

    // Refers to the expressions of this.
    spion_attention c() const {
        spion_attention c = SPION_ATTENTION_INIT;
        c.heads = heads;
        c.head_dim = head_dim;
        c.length = length;
        c.block = block;
        c.dtype = static_cast<std::int32_t>(dtype);
        c.scale = scale;
        c.softmax = static_cast<std::int32_t>(softmax);
        c.key_padding = key_padding ? 1 : 0;
        c.causal = causal ? 1 : 0;
        c.key_value_heads = key_value_heads;
        c.spans = spans ? 1 : 0;
        c.dropout = dropout;
        c.key_length = key_length;
        c.softcap = softcap;
        c.alibi = alibi ? 1 : 0;
        c.sinks = sinks ? 1 : 0;
        c.patterns = patterns;
        c.value_dim = value_dim;
        c.varlen = varlen ? 1 : 0;
        c.relative_bias = relative_bias;
        c.score = score.empty() ? nullptr : score.c_str();
        c.score_derivative = score_derivative.empty() ? nullptr : score_derivative.c_str();
        c.key_starts = key_starts ? 1 : 0;
        c.sequence_patterns = sequence_patterns;
        return c;
    }
};

}  // namespace abi0
}  // namespace spion

#endif
