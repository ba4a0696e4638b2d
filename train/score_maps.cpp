#include "train/score_maps.h"

#include "compiler/discovery/score_summary.h"

namespace spion {

ScoreMaps::ScoreMaps(const Attention& attention, const DiscoverySettings& discovery,
                     bool keep_scores, Device& device, KernelCache& cache)
    : plan_(make_score_summary_plan(attention, discovery, device, cache)),
      device_(&device),
      summary_(device, static_cast<std::size_t>(plan_.sums) * sizeof(float)) {
    if (keep_scores) {
        const auto length = static_cast<std::size_t>(attention.length);
        scores_ = Buffer(device, length * length * sizeof(float));
    }
}

ScoreMaps::Map ScoreMaps::take(SpionAttentionArguments arguments) {
    arguments.summary = summary_.as<float>();
    arguments.scores = scores_.as<float>();
    device_->launch(*plan_.jit.kernel, plan_.geometry, arguments);
    std::vector<float> summary(summary_.bytes() / sizeof(float));
    device_->copy_out(summary.data(), summary_.data(), summary_.bytes());
    const ScoreSummaryProgram& program = plan_.program;
    Map map{
        .pooled = combine_summary(summary, program.attention.length, program.block, program.tile),
        .scores = std::vector<float>(scores_.bytes() / sizeof(float))};
    if (scores_) device_->copy_out(map.scores.data(), scores_.data(), scores_.bytes());
    return map;
}

}  // namespace spion
