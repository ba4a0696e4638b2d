// Attention's kernels of a training run: dense, at the transition, and what is compiled behind it.
#include <fmt/format.h>

#include <utility>

#include "compiler/discovery/fixed_patterns.h"
#include "compiler/discovery/score_summary.h"
#include "compiler/plan/layer_roles.h"
#include "io/pattern_file.h"
#include "ir/error.h"
#include "train/report.h"
#include "train/training.h"

namespace spion {

namespace {

constexpr KernelRole kRoles[] = {KernelRole::kForward, KernelRole::kQueryGradient,
                                 KernelRole::kKeyValueGradient};

// The file's only pattern, or one of several.
BlockPattern pattern_in_file(const TrainSettings& settings, int head, bool several) {
    const PatternRequest request{.block = settings.discovery.block, .length = settings.length};
    if (!several) return open_pattern(settings.pattern, request).pattern;
    const std::string name = fmt::format("{}:{}", settings.pattern, head);
    try {
        return open_pattern(name, request).pattern;
    } catch (const UserError& error) {
        throw UserError(
            "per-head gives head {} the pattern {}, but {}; give a JSON file with a pattern for "
            "each head, or leave per-head away",
            head, name, error.what());
    }
}

}  // namespace

AttentionLayers Training::compile_dense() {
    const HeadPatterns full = full_patterns(settings_);
    return compile_patterns({&full, 1});
}

// A run that goes on keeps the tile shapes that were tuned before, as others may round otherwise.
AttentionLayers Training::compile_patterns(std::span<const HeadPatterns> layers) {
    const Attention attention = attention_of(settings_, model_.dtype());
    const CompileOptions options = compile_options(settings_);
    const FirstOfMachine first(ranks_);
    if (saved_.tuned.size() != layers.size()) {
        return compile_attention(attention, layers, device_, cache_, options);
    }
    AttentionLayers compiled;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        CompileOptions as_before = options;
        as_before.roles = saved_.tuned[i].fused ? kFusedBackwardRoles : kSplitBackwardRoles;
        for (std::size_t launch = 0; launch < as_before.shapes.size(); ++launch) {
            as_before.shapes[launch] = saved_.tuned[i].shapes.at(launch);
        }
        compiled.push_back(
            std::move(compile_attention(attention, layers.subspan(i, 1), device_, cache_, as_before)
                          .front()));
    }
    return compiled;
}

std::vector<TunedLaunches> Training::tuned_launches() const {
    std::vector<TunedLaunches> tuned;
    if (!settings_.autotune) return tuned;
    for (const auto& layer : attention_) {
        TunedLaunches& launches = tuned.emplace_back();
        for (const KernelRole role : kRoles) {
            const TileProgram& program = layer->part(role).program;
            launches.fused = launches.fused || program.role == KernelRole::kGradients;
            launches.shapes.push_back(shape_of(program));
        }
    }
    return tuned;
}

void Training::write_kernels(const AttentionLayers& layers) {
    for (const auto& layer : layers) {
        for (const KernelRole role : kRoles) {
            folder_.write_kernel(layer->part(role).jit, device_.target().back_end);
        }
    }
}

// Between two steps: tier 1 of the layers that are compiled by now.
void Training::decide_tiers() {
    // They are measured on the tensors of a step.
    const bool has_tensors = runner_.steps_done() > first_step_;
    // Between two agreements one process may not wait for its steps while others go on.
    if (!alone() && runner_.pending() > 0) return;
    while (has_tensors && tiers_ != nullptr && tiers_->ready()) {
        collect();                // frees the marks, and keeps the measurement out of step times
        runner_.forget_graphs();  // the kernels in them may be replaced
        const TierVerdict verdict =
            tiers_->decide([this](int layer) { return model_.attention_arguments(layer); });
        progress_.say(verdict.text());
        report_.tiers.push_back(verdict);
        if (!tiers_->pending()) tiers_.reset();
        if (verdict.taken) write_kernels(attention_);
    }
}

// Of a head, or of all heads of a layer.
BlockPattern Training::find_pattern(int layer, int head) const {
    const DiscoverySettings& discovery = settings_.discovery;
    const Attention attention = attention_of(settings_, model_.dtype());
    if (settings_.pattern == "discovered") {
        const auto& pooled = pooled_[static_cast<std::size_t>(layer)];
        return discover_layer(pooled.at(static_cast<std::size_t>(head)), attention, discovery);
    }
    if (const auto kind = parse_fixed_pattern(settings_.pattern)) {
        const int index = layer * attention.patterns + head;
        return fixed_pattern(*kind, settings_.length, discovery.block, discovery.density,
                             settings_.seed + static_cast<std::uint64_t>(index));
    }
    return pattern_in_file(settings_, head, attention.patterns > 1);
}

void Training::note_patterns(const HeadPatterns& patterns) {
    report_.densities.push_back(patterns.density());
    report_.balances.push_back(patterns.imbalance());
}

// Of each layer, written and shown.
std::vector<HeadPatterns> Training::find_patterns() {
    const int count = attention_of(settings_, model_.dtype()).patterns;
    std::vector<HeadPatterns> layers;
    for (int layer = 0; layer < settings_.layers; ++layer) {
        std::vector<BlockPattern> patterns;
        patterns.reserve(static_cast<std::size_t>(count));
        for (int head = 0; head < count; ++head) patterns.push_back(find_pattern(layer, head));
        layers.emplace_back(std::move(patterns));
        folder_.write_patterns(layer, layers.back(), pooled_[static_cast<std::size_t>(layer)]);
        note_patterns(layers.back());
        progress_.say(pattern_text(layer, layers.back(), progress_.picture_columns()));
    }
    return layers;
}

void Training::turn_sparse() {
    collect();  // dense steps are recorded as such; they are done now
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<HeadPatterns> patterns = find_patterns();
    compare(patterns);
    report_.stall.discovery_ms = milliseconds_since(begin);
    const auto before = cache_.counters();
    const auto compilation = std::chrono::steady_clock::now();
    saved_.tuned.clear();  // those of dense attention
    AttentionLayers sparse = compile_patterns(patterns);
    device_.synchronize();  // tables have arrived
    report_.stall.kernels_ms = milliseconds_since(compilation);
    const auto after = cache_.counters();
    report_.transition_compiled =
        after.compiled - before.compiled + after.from_disk - before.from_disk;
    schedule_start_ = runner_.steps_done();
    go_on_with(std::move(sparse));
    state_.step_ms = 0;  // the rate starts anew
    turns_sparse_ = false;
    report_.stall.total_ms = report_.stall.maps_ms + milliseconds_since(begin);
    progress_.say(transition_text(attention_, before, after, report_.stall));
    checkpoint_if_due();  // of the step before, now that it is certain what follows it
}

// Sparse from here on; schedule_start_ is set.
void Training::go_on_with(AttentionLayers sparse) {
    write_kernels(sparse);
    std::vector<CompiledAttention*> layers;
    for (const auto& layer : sparse) layers.push_back(layer.get());
    runner_.forget_graphs();
    model_.set_attention(std::move(layers));
    attention_ = std::move(sparse);
    score_maps_.reset();
    head_maps_.reset();
    history_ = MapHistory(settings_.layers);  // frees A^s
    phase_ = Phase::kSparse;
    density_ = mean_of(report_.densities);
    balance_ = mean_of(report_.balances);
    tiers_wanted_ = settings_.tiers > 0;
    agreed_.tiers = false;  // what was agreed before these kernels says nothing of them
    start_tiers();
    report_.transition_step = schedule_start_;
    schedule_ = schedule_over(settings_, settings_.steps - schedule_start_);
}

}  // namespace spion
