#include "train/score_maps.h"

#include <algorithm>

#include "compiler/discovery/score_summary.h"
#include "ir/dtype.h"

namespace spion {
namespace {

Attention one_head(Attention attention) {
    attention.heads = attention.patterns = 1;
    return attention;
}

SpionTensor view_of_head(SpionTensor tensor, int head, DType dtype) {
    tensor.data =
        static_cast<char*>(tensor.data) + head * tensor.head_stride * storage_bytes(dtype);
    return tensor;
}

}  // namespace

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

HeadMaps::HeadMaps(const Attention& attention, const DiscoverySettings& discovery, Device& device,
                   KernelCache& cache)
    : heads_(attention.heads),
      plan_(make_score_summary_plan(one_head(attention), discovery, device, cache)),
      device_(&device),
      summary_(device, static_cast<std::size_t>(plan_.sums) * sizeof(float)) {}

// A head of Q and K is a view of them. The kernel takes LSE as [B, heads, L] without a stride, so a
// head's rows are brought together.
std::vector<std::vector<double>> HeadMaps::take(SpionAttentionArguments arguments) {
    const ScoreSummaryProgram& program = plan_.program;
    const auto length = static_cast<std::size_t>(program.attention.length);
    const auto batch = static_cast<std::size_t>(arguments.batch);
    const auto heads = static_cast<std::size_t>(heads_);
    std::vector<float> lse(batch * heads * length), by_head(lse.size());
    const std::size_t bytes = lse.size() * sizeof(float);
    device_->copy_out(lse.data(), arguments.lse, bytes);
    for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t h = 0; h < heads; ++h) {
            std::copy_n(lse.begin() + static_cast<std::ptrdiff_t>((b * heads + h) * length), length,
                        by_head.begin() + static_cast<std::ptrdiff_t>((h * batch + b) * length));
        }
    }
    if (lse_.bytes() < bytes) lse_ = Buffer(*device_, bytes);
    device_->copy_in(lse_.data(), by_head.data(), bytes);
    std::vector<std::vector<double>> maps;
    std::vector<float> summary(summary_.bytes() / sizeof(float));
    for (std::size_t h = 0; h < heads; ++h) {
        SpionAttentionArguments own = arguments;
        own.q = view_of_head(arguments.q, static_cast<int>(h), program.attention.dtype);
        own.k = view_of_head(arguments.k, static_cast<int>(h), program.attention.dtype);
        own.lse = lse_.as<float>() + h * batch * length;
        own.summary = summary_.as<float>();
        own.scores = nullptr;
        device_->launch(*plan_.jit.kernel, plan_.geometry, own);
        device_->copy_out(summary.data(), summary_.data(), summary_.bytes());
        maps.push_back(
            combine_summary(summary, program.attention.length, program.block, program.tile));
    }
    return maps;
}

}  // namespace spion
