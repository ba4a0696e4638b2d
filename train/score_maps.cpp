#include "train/score_maps.h"

#include "compiler/discovery/score_summary.h"
#include "compiler/plan/summary_tile.h"

namespace spion {
namespace {

ScoreSummaryProgram program_of(const Attention& attention, const DiscoverySettings& discovery,
                               const Target& target) {
    return {.attention = attention,
            .block = discovery.block,
            .filter = effective_filter(discovery),
            .tile = choose_summary_tile(attention, discovery.block, target)};
}

}  // namespace

ScoreMaps::ScoreMaps(const Attention& attention, const DiscoverySettings& discovery,
                     bool keep_scores, Device& device, KernelCache& cache)
    : program_(program_of(attention, discovery, device.target())),
      device_(&device),
      jit_(compile_kernel(emit(program_, device.target()), device, cache)) {
    const std::int64_t tiles = (attention.length + program_.tile - 1) / program_.tile;
    const EmittedGeometry emitted = geometry(program_, device.target());
    geometry_ = {.work_items = tiles * tiles,
                 .threads = emitted.threads,
                 .shared_bytes = emitted.shared_bytes};
    summary_ = Buffer(device,
                      static_cast<std::size_t>(tiles * tiles) * kNeighbours.size() * sizeof(float));
    if (keep_scores) {
        const auto length = static_cast<std::size_t>(attention.length);
        scores_ = Buffer(device, length * length * sizeof(float));
    }
}

ScoreMaps::Map ScoreMaps::take(SpionAttentionArguments arguments) {
    arguments.summary = summary_.as<float>();
    arguments.scores = scores_.as<float>();
    device_->launch(*jit_.kernel, geometry_, arguments);
    std::vector<float> summary(summary_.bytes() / sizeof(float));
    device_->copy_out(summary.data(), summary_.data(), summary_.bytes());
    Map map{.pooled =
                combine_summary(summary, program_.attention.length, program_.block, program_.tile),
            .scores = std::vector<float>(scores_.bytes() / sizeof(float))};
    if (scores_) device_->copy_out(map.scores.data(), scores_.data(), scores_.bytes());
    return map;
}

}  // namespace spion
