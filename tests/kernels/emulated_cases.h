// The kernels that the emulated tests run: what the emission tool writes and the tests look up.
#pragma once

#include <cstdint>
#include <vector>

#include "codegen/emit.h"
#include "ir/target.h"
#include "ir/tile_program.h"
#include "tests/kernels/emulated_case.h"

namespace spion {

// Every element type, kind of head dimension, stage count and switch at least once, ragged and even
// L, one and several gather blocks a step and column groups a step, buffers used again, lists of
// more than the 32 gather blocks that a warp reads at once, tiles of several block rows.
inline std::vector<EmulatedCase> emulated_cases() {
    constexpr auto kZero = SoftmaxKind::kPrunedZero;
    constexpr auto kMasked = SoftmaxKind::kMasked;
    constexpr auto kNone = ElementMask::kNone;
    constexpr auto kCausal = ElementMask::kCausal;
    constexpr auto kSpans = ElementMask::kSpans;
    return {
        {"bf16_d32", DType::kBf16, 2, 32, 200, 64, 64, 128, 64, 2, kZero, true},
        {"bf16_d128", DType::kBf16, 1, 128, 70, 32, 32, 32, 32, 1, kMasked, false},
        {"fp16_d64", DType::kFp16, 2, 64, 150, 32, 32, 32, 16, 3, kMasked, true},
        {"fp16_d16", DType::kFp16, 1, 16, 570, 16, 16, 64, 16, 2, kZero, true},
        {"tf32_d32", DType::kTf32, 1, 32, 90, 32, 32, 32, 32, 2, kZero, true},
        {"tf32_d128", DType::kTf32, 1, 128, 64, 64, 64, 32, 32, 2, kMasked, false},
        {"fp32_d16", DType::kFp32, 2, 16, 75, 16, 16, 32, 16, 2, kZero, true},
        {"fp32_d64", DType::kFp32, 1, 64, 64, 32, 32, 32, 32, 2, kMasked, true},
        {"fp32_d128", DType::kFp32, 1, 128, 40, 16, 16, 16, 16, 2, kZero, false},
        {"bf16_d48", DType::kBf16, 2, 48, 200, 64, 64, 64, 64, 2, kZero, true},
        {"fp16_d80", DType::kFp16, 1, 80, 100, 32, 32, 64, 32, 2, kMasked, true},
        {"bf16_d96", DType::kBf16, 1, 96, 70, 16, 16, 32, 16, 3, kZero, false},
        {"fp16_d160", DType::kFp16, 1, 160, 90, 64, 64, 32, 32, 2, kMasked, true},
        {"bf16_d192", DType::kBf16, 1, 192, 535, 16, 16, 32, 16, 2, kZero, true},
        {"bf16_d256", DType::kBf16, 1, 256, 90, 64, 64, 32, 32, 1, kMasked, true},
        {"tf32_d48", DType::kTf32, 1, 48, 90, 32, 32, 32, 32, 2, kMasked, true},
        {"tf32_d208", DType::kTf32, 1, 208, 70, 32, 32, 32, 32, 1, kZero, false},
        {"fp32_d80", DType::kFp32, 1, 80, 75, 32, 32, 32, 32, 2, kZero, true},
        {"fp32_d256", DType::kFp32, 1, 256, 40, 16, 16, 16, 16, 1, kMasked, true},
        // Several block rows a tile: one whole, gather blocks of a block, of half and all in one
        // step.
        {"packed_bf16_d32", DType::kBf16, 2, 32, 200, 32, 64, 64, 32, 2, kZero, true},
        {"packed_fp16_d16", DType::kFp16, 1, 16, 590, 16, 64, 64, 16, 3, kZero, true},
        {"packed_bf16_d64", DType::kBf16, 1, 64, 150, 32, 128, 32, 16, 2, kMasked, true},
        {"packed_fp32_d32", DType::kFp32, 1, 32, 90, 16, 32, 32, 16, 1, kMasked, false},
        {"packed_tf32_d64", DType::kTf32, 1, 64, 130, 32, 64, 32, 32, 2, kZero, false},
        // Element masks: gather blocks of a block, of less, several at once, packed, dK and dV
        // apart.
        {"causal_bf16_d32", DType::kBf16, 2, 32, 200, 64, 64, 128, 64, 2, kZero, true, kCausal},
        {"causal_fp16_d64", DType::kFp16, 1, 64, 150, 32, 32, 32, 16, 3, kMasked, false, kCausal},
        {"causal_fp32_d16", DType::kFp32, 1, 16, 75, 16, 16, 32, 16, 2, kZero, false, kCausal},
        {"spans_bf16_d48", DType::kBf16, 2, 48, 200, 64, 64, 64, 64, 2, kZero, true, kSpans},
        {"spans_fp16_d16", DType::kFp16, 1, 16, 570, 16, 16, 64, 16, 2, kMasked, true, kSpans},
        {"spans_tf32_d208", DType::kTf32, 1, 208, 70, 32, 32, 32, 32, 1, kZero, true, kSpans},
        {"packed_causal", DType::kBf16, 1, 64, 150, 32, 128, 32, 16, 2, kZero, true, kCausal},
        {"packed_spans", DType::kFp16, 1, 16, 590, 16, 64, 64, 16, 3, kZero, true, kSpans},
        // Fewer heads of K and V, lists of more than 32 gather blocks among them.
        {"grouped_bf16_d32", DType::kBf16, 4, 32, 200, 64, 64, 128, 64, 2, kZero, true, kNone, 2},
        {"grouped_fp16_d16", DType::kFp16, 3, 16, 570, 16, 16, 64, 16, 2, kZero, true, kCausal, 1},
        {"grouped_tf32_d208", DType::kTf32, 2, 208, 70, 32, 32, 32, 32, 1, kMasked, true, kSpans,
         1},
        {"packed_grouped", DType::kFp16, 2, 16, 590, 16, 64, 64, 16, 3, kZero, false, kNone, 1},
        // More keys than queries, and fewer.
        {"keys_bf16_d32", DType::kBf16, 2, 32, 100, 32, 32, 64, 32, 2, kZero, true, kNone, 0, 270},
        {"keys_fp16_d16", DType::kFp16, 2, 16, 570, 16, 16, 64, 16, 2, kZero, true, kCausal, 1, 70},
        {"keys_fp32_d16", DType::kFp32, 1, 16, 75, 16, 16, 32, 16, 2, kMasked, false, kCausal, 0,
         190},
        {"keys_tf32_d208", DType::kTf32, 1, 208, 70, 32, 32, 32, 32, 1, kZero, true, kSpans, 0,
         110},
        // Dimensions that are padded, and others of V.
        {"width_bf16_d40", DType::kBf16, 2, 40, 200, 64, 64, 64, 64, 2, kZero, true},
        with_values(24, {"width_fp16_d72", DType::kFp16, 1, 72, 100, 32, 32, 64, 32, 2, kMasked,
                         true, kCausal}),
        with_values(64,
                    {"width_fp32_d24", DType::kFp32, 1, 24, 75, 16, 16, 32, 16, 2, kZero, true}),
        with_values(136, {"width_tf32_d56", DType::kTf32, 2, 56, 90, 32, 32, 32, 32, 2, kMasked,
                          true, kNone, 1, 60}),
        with_values(128, {"width_bf16_d192", DType::kBf16, 1, 192, 90, 32, 32, 32, 16, 2, kZero,
                          true, kSpans}),
        // Sequences end to end.
        with_sequences({"varlen_bf16_d32", DType::kBf16, 2, 32, 200, 64, 64, 64, 64, 2, kZero,
                        false, kSpans, 1}),
        with_sequences({"varlen_tf32_d208", DType::kTf32, 1, 208, 70, 32, 32, 32, 32, 1, kMasked,
                        false, kSpans}),
        with_sequences(
            {"packed_varlen", DType::kFp16, 1, 16, 200, 16, 64, 64, 16, 3, kZero, false, kSpans}),
        // Patterns of each sequence's own: for all heads, of packed tiles, for each query head.
        with_own_patterns(
            {"own_bf16_d32", DType::kBf16, 2, 32, 200, 64, 64, 64, 64, 2, kZero, false, kSpans, 1}),
        with_own_patterns(
            {"packed_own", DType::kFp16, 1, 16, 200, 16, 64, 64, 16, 3, kMasked, false, kSpans}),
        with_own_patterns({"own_heads_fp16_d16", DType::kFp16, 4, 16, 200, 16, 16, 64, 16, 2, kZero,
                           false, kSpans, 2, 0, 4}),
        // Keys that are sequences of their own: grouped, of other lengths, packed, with slopes.
        with_key_sequences({"cross_bf16_d32", DType::kBf16, 2, 32, 200, 64, 64, 64, 64, 2, kZero,
                            false, kSpans, 1, 270}),
        with_own_patterns(with_key_sequences(
            {"packed_cross", DType::kFp16, 2,      16, 200, 16, 64,   64,   16,   3,
             kMasked,        false,        kSpans, 0,  110, 1,  0.1F, 0.0F, true, true})),
        with_bias(20, with_key_sequences({"cross_bias", DType::kFp32, 2, 16, 75, 16, 16, 32, 16, 2,
                                          kZero, false, kSpans, 0, 90})),
        // A pattern a head, a head of K and V, a query head.
        {"heads_bf16_d32", DType::kBf16, 3, 32, 200, 64, 64, 128, 64, 2, kZero, true, kNone, 0, 0,
         3},
        {"heads_kv_fp16_d16", DType::kFp16, 4, 16, 570, 16, 16, 64, 16, 2, kZero, true, kCausal, 2,
         0, 2},
        {"heads_query_fp16_d16", DType::kFp16, 4, 16, 200, 16, 16, 64, 16, 2, kZero, true, kSpans,
         2, 0, 4},
        {"heads_query_fp32_d64", DType::kFp32, 4, 64, 64, 32, 32, 32, 32, 1, kMasked, true, kNone,
         1, 90, 4},
        {"packed_heads", DType::kFp16, 4, 16, 200, 16, 64, 64, 16, 3, kZero, true, kNone, 2, 0, 4},
        {"packed_keys", DType::kFp16, 1, 16, 200, 16, 64, 64, 16, 3, kZero, true, kSpans, 0, 330},
        // Slopes with more keys than queries.
        {"sloped_keys", DType::kFp16, 2,       16, 100, 16, 16,   64,   16,   2,
         kMasked,       true,         kCausal, 0,  170, 1,  0.0F, 0.0F, true, false},
        // Baked, the mask drops nothing of its walk.
        {"causal_full", DType::kFp16, 1, 32, 160, 32, 32, 64, 32, 2, kZero, false, kCausal},
        // A bias by relative position: clipped within a tile, beyond it and never, more keys than
        // queries, members, packed, sequences, beside everything else.
        with_bias(9, {"bias_bf16_d32", DType::kBf16, 4, 32, 200, 64, 64, 128, 64, 2, kZero, true,
                      kCausal, 2}),
        with_bias(70, {"bias_fp32_d16", DType::kFp32, 2, 16, 75, 16, 16, 32, 16, 2, kMasked, true,
                       kNone, 0, 130}),
        with_bias(600, {"bias_tf32_d208", DType::kTf32, 2, 208, 70, 32, 32, 32, 32, 1, kZero, true,
                        kNone, 1}),
        with_bias(33, {"packed_bias", DType::kFp16, 2,     16, 250, 16, 64,   64,   16,   3,
                       kZero,         true,         kNone, 0,  0,   1,  0.1F, 5.0F, true, true}),
        with_bias(1, with_sequences({"varlen_bias", DType::kBf16, 2, 32, 200, 64, 64, 64, 64, 2,
                                     kZero, false, kSpans, 1})),
        // A user's expression: of all variables and beside everything else, of members, packed,
        // sequences; one that is no number where a causal mask drops its scores; dK and dV apart, with
        // a bias and more keys than queries.
        with_score("30*tanh(score/30)-(0.1+0.05*head)*log(1+fabs(q-k))+batch*0.01",
                   {"score_bf16_d32",
                    DType::kBf16,
                    4,
                    32,
                    200,
                    64,
                    64,
                    128,
                    64,
                    2,
                    kZero,
                    true,
                    kCausal,
                    2,
                    0,
                    1,
                    0.1F,
                    0.0F,
                    true,
                    true}),
        with_score("score-0.3*log(1+q-k)", {"score_fp16_d64", DType::kFp16, 1, 64, 150, 32, 32, 32,
                                            16, 3, kMasked, true, kCausal}),
        with_score("q<k?0.5*score:max(score,0.1*score)+sqrt(1+q)/9",
                   {"packed_score", DType::kFp16, 2, 16, 250, 16, 64, 64, 16, 3, kZero, true}),
        with_score("exp(min(score,3))/4-q*0.01",
                   with_sequences({"varlen_score", DType::kBf16, 2, 32, 200, 64, 64, 64, 64, 2,
                                   kZero, false, kSpans, 1})),
        with_bias(33, with_score("score/(1.5+sigmoid(score))*(head==0?1:2)",
                                 {"score_tf32_d208", DType::kTf32, 2, 208, 70, 32, 32, 32, 32, 1,
                                  kZero, true, kNone, 1, 130})),
        with_score("score*fabs(score)/8", {"score_fp32_d16", DType::kFp32, 2, 16, 75, 16, 16, 32,
                                           16, 2, kMasked, true, kNone}),
        // Changed scores and dropout: column groups in pairs and alone, gather blocks of a column
        // group, packed, dK and dV apart, members of a group.
        {"changed_bf16_d32",
         DType::kBf16,
         4,
         32,
         200,
         64,
         64,
         128,
         64,
         2,
         kZero,
         true,
         kCausal,
         2,
         0,
         1,
         0.1F,
         20.0F,
         true,
         true},
        {"dropped_fp16_d16", DType::kFp16, 2, 16, 570, 16, 16, 64, 16, 2, kMasked, true, kSpans, 0,
         0, 1, 0.55F},
        {"changed_tf32_d208",
         DType::kTf32,
         2,
         208,
         70,
         32,
         32,
         32,
         32,
         1,
         kZero,
         true,
         kNone,
         1,
         0,
         1,
         0.3F,
         3.0F,
         true,
         false},
        {"dropped_fp32_d16",
         DType::kFp32,
         2,
         16,
         75,
         16,
         16,
         16,
         16,
         2,
         kZero,
         false,
         kNone,
         0,
         0,
         1,
         0.25F,
         0.0F,
         false,
         true},
        {"packed_changed",
         DType::kFp16,
         2,
         16,
         590,
         16,
         64,
         64,
         16,
         3,
         kZero,
         true,
         kNone,
         0,
         0,
         1,
         0.1F,
         5.0F,
         true,
         true},
    };
}

inline TileProgram program_of(const EmulatedCase& c, KernelRole role) {
    return {.role = role,
            .attention = {.heads = c.heads,
                          .head_dim = c.head_dim,
                          .length = c.length,
                          .dtype = c.dtype,
                          .scale = default_scale(c.head_dim),
                          .softmax = c.softmax,
                          .key_padding = c.key_padding,
                          .dropout = c.dropout,
                          .mask = c.mask,
                          .kv_heads = c.kv_heads,
                          .kv_length = c.kv_length,
                          .value_dim = c.value_dim,
                          .patterns = c.patterns,
                          .softcap = c.softcap,
                          .alibi = c.alibi,
                          .sink = c.sink,
                          .relative_bias = c.relative_bias,
                          .varlen = c.varlen,
                          .key_starts = c.key_starts,
                          .sequence_patterns = c.sequence_patterns,
                          .score = c.score},
            .block = c.block,
            .stationary_rows = c.stationary_rows,
            .streamed_rows = c.streamed_rows,
            .gather_rows = c.gather_rows,
            .warps = c.stationary_rows / 16,
            .stages = c.stages,
            .unit = role == KernelRole::kGradients ? MatrixUnit::kWgmma
                    : c.dtype == DType::kFp32      ? MatrixUnit::kFma
                                                   : MatrixUnit::kMmaSync,
            .order = {},
            .offsets = {0},
            .gather_blocks = {}};
}

// Score summaries: attention of the named case, pattern block, filter and tile.
struct EmulatedSummary {
    const char* name;
    EmulatedCase attention;
    int block, filter, tile;
};

inline std::vector<EmulatedSummary> emulated_summaries() {
    const auto cases = emulated_cases();
    return {
        {"summary_bf16_d32", cases[0], 128, 31, 64}, {"summary_fp16_d64", cases[2], 32, 10, 32},
        {"summary_fp32_d16", cases[6], 16, 1, 16},   {"summary_tf32_d32", cases[4], 32, 31, 32},
        {"summary_fp16_d80", cases[10], 64, 31, 32}, {"summary_tf32_d208", cases[16], 16, 6, 16},
        {"summary_causal", cases[24], 64, 31, 32},
    };
}

inline ScoreSummaryProgram program_of(const EmulatedSummary& s) {
    return {.attention = program_of(s.attention, KernelRole::kForward).attention,
            .block = s.block,
            .filter = s.filter,
            .tile = s.tile};
}

// Where the emulated kernels' source is emitted for; any GPU would do.
inline Target emulated_target() {
    return cuda_target(80);  // mma.sync, which emulation has
}

}  // namespace spion
