// The score maps of the dense phase: A^s, the mean over batch and heads of a layer's attention
// probabilities, pooled to blocks while it is computed (compiler/discovery/score_summary.h).
#pragma once

#include <vector>

#include "compiler/discovery/discover.h"
#include "compiler/score_summary_plan.h"
#include "kernels/attention_arguments.h"

namespace spion {

class ScoreMaps {
  public:
    // keep_scores: A^s itself is needed too; allocates its fp32 [L, L] on the device.
    ScoreMaps(const Attention& attention, const DiscoverySettings& discovery, bool keep_scores,
              Device& device, KernelCache& cache);

    struct Map {
        std::vector<double> pooled;  // [nb, nb]
        std::vector<float> scores;   // [L, L], empty unless kept
    };
    // Of the layer whose q, k, lse, lengths and batch are given, as a forward pass left them. Waits
    // for the device.
    Map take(SpionAttentionArguments arguments);

    const JitKernel& kernel() const { return plan_.jit; }

  private:
    ScoreSummaryPlan plan_;
    Device* device_;
    Buffer summary_;  // fp32 [tiles^2, 7]
    Buffer scores_;   // fp32 [L, L]
};

// The same of each head: the mean over the batch alone, pooled.
class HeadMaps {
  public:
    HeadMaps(const Attention& attention, const DiscoverySettings& discovery, Device& device,
             KernelCache& cache);

    // [heads] of [nb, nb], of a layer as above. Waits for the device.
    std::vector<std::vector<double>> take(SpionAttentionArguments arguments);

    const JitKernel& kernel() const { return plan_.jit; }

  private:
    int heads_;
    ScoreSummaryPlan plan_;  // of an attention with one head
    Device* device_;
    Buffer summary_;  // fp32 [tiles^2, 7]
    Buffer lse_;      // fp32 [H, B, L]
};

}  // namespace spion
