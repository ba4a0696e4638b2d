// The kernels that the emulated tests run: what the emission tool writes and the tests look up.
#pragma once

#include <cstdint>
#include <vector>

#include "codegen/emit.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// One compiled set of the three attention kernels; the walk is the test's.
struct EmulatedCase {
    const char* name;
    DType dtype;
    int heads, head_dim;
    std::int64_t length;
    int block, stationary_rows, streamed_rows, granule, stages;
    SoftmaxKind softmax;
    bool key_padding;
};

// Every element type, head dimension, stage count and switch at least once, ragged and even L, one
// and several granules a step and column groups a step, buffers used again, lists of more than the
// 32 granules that a warp reads at once.
inline std::vector<EmulatedCase> emulated_cases() {
    constexpr auto kZero = SoftmaxKind::kPrunedZero;
    constexpr auto kMasked = SoftmaxKind::kMasked;
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
                          .key_padding = c.key_padding},
            .block = c.block,
            .stationary_rows = c.stationary_rows,
            .streamed_rows = c.streamed_rows,
            .granule = c.granule,
            .warps = c.stationary_rows / 16,
            .stages = c.stages,
            .order = {},
            .offsets = {0},
            .granules = {}};
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
        {"summary_bf16_d32", cases[0], 128, 31, 64},
        {"summary_fp16_d64", cases[2], 32, 10, 32},
        {"summary_fp32_d16", cases[6], 16, 1, 16},
        {"summary_tf32_d32", cases[4], 32, 31, 32},
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
    return cuda_target(90);
}

}  // namespace spion
