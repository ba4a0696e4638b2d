// What `spion bench` measures: one attention problem's kernels and their compilation.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>

#include "compiler/compile_attention.h"
#include "ir/attention.h"
#include "ir/element_spans.h"
#include "ir/head_patterns.h"
#include "runtime/device.h"

namespace spion {

// A kernel alone.
struct KernelTime {
    KernelRole role = KernelRole::kForward;
    double milliseconds = 0;
    int packed_rows = 1;  // block rows a tile
};
// Forward; then dQ, dK and dV, or delta, all gradients.
using KernelTimes = std::array<KernelTime, 3>;

struct AttentionTimes {
    double forward_ms = 0;
    double backward_ms = 0;        // the other two of `kernels` in turn
    double compile_cold_ms = 0;    // all three kernels, nothing cached
    double compile_cached_ms = 0;  // the same from the disk cache, by a fresh memory cache
    KernelTimes kernels = {};
    int buffer_sets = 1;  // rotated, so that no call finds its inputs in the L2 cache
};

// Work and bytes that the operation itself asks for, whatever the kernels do.
struct AttentionWork {
    double forward_flop = 0;    // 4 * B * H * elements of the pattern * D
    double backward_flop = 0;   // 2.5 times that
    double forward_bytes = 0;   // with N = B * H * L rows: Q, K, V, O once and LSE
    double backward_bytes = 0;  // Q, K, V, O, dO, dQ, dK, dV once and LSE
};
AttentionWork work_of(const Attention& attention, const HeadPatterns& pattern, std::int64_t batch);

// Median over `repeat` measurements, device events around as many back-to-back calls as a
// measurement needs to be exact; warmed up before. `call` gets 0, 1, 2, ... and enqueues its work.
double median_milliseconds(Device& device, int repeat, const std::function<void(int)>& call);

// Compiles afresh in a temporary cache, or, to tune the tile shapes, in the user's own. lengths:
// [B], or empty without key padding. rules: read with a mask of spans alone.
AttentionTimes measure_attention(const Attention& attention, const HeadPatterns& pattern,
                                 std::int64_t batch, std::span<const int> lengths,
                                 const MaskRules& rules, int repeat, Device& device,
                                 CompileOptions options = {});

// Median milliseconds of each kernel on its own.
KernelTimes measure_kernels(const Attention& attention, const HeadPatterns& pattern,
                            std::int64_t batch, int repeat, Device& device);

struct SummaryTimes {
    double kernel_ms = 0;     // the score summary kernel
    double discovery_ms = 0;  // kernel, copy, pooled map, quantile, flood fill: wall time
    double forward_ms = 0;    // of the dense forward pass that it follows
};

// Of a dense layer: `block` and `filter` as in discovery.
SummaryTimes measure_summary(const Attention& attention, std::int64_t batch,
                             std::span<const int> lengths, const MaskRules& rules, int block,
                             int filter, int repeat, Device& device);

}  // namespace spion
