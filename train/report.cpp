#include "train/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

namespace spion {
namespace {

std::string_view plural(int count) {
    return count == 1 ? "" : "s";
}

std::string origin_text(const CachedKernel& cached) {
    switch (cached.origin) {
        case CacheOrigin::kCompiled:
            return fmt::format("compiled in {:.0f} ms", cached.milliseconds);
        case CacheOrigin::kDisk:
            return fmt::format("from the disk cache in {:.1f} ms", cached.milliseconds);
        case CacheOrigin::kBundle:
            return fmt::format("from the bundle in {:.1f} ms", cached.milliseconds);
        case CacheOrigin::kMemory:
            return "already in memory";
    }
    return {};
}

std::string step_times_text(const TrainReport& report) {
    std::string text;
    if (report.dense_step_ms > 0) {
        text += fmt::format("dense step   {:.2f} ms\n", report.dense_step_ms);
    }
    if (report.sparse_step_ms > 0) {
        text += fmt::format("sparse step  {:.2f} ms", report.sparse_step_ms);
        if (report.dense_step_ms > 0) {
            text +=
                fmt::format(" ({:.2f} x as fast)", report.dense_step_ms / report.sparse_step_ms);
        }
        text += '\n';
    }
    return text;
}

// How unevenly full the heads are, where they have patterns of their own.
std::string balance_text(const TrainReport& report, const TrainSettings& settings) {
    if (!settings.per_head || report.balances.empty()) return {};
    return fmt::format(
        ", the fullest head {:.2f} times its layer's mean ({:.2f} in the most uneven layer)",
        mean_of(report.balances),
        *std::max_element(report.balances.begin(), report.balances.end()));
}

}  // namespace

std::string compiled_text(const KernelCache::Counters& counters) {
    if (counters.compiled == 0) {
        return fmt::format("compiled nothing: all {} kernels came from the cache",
                           counters.from_disk);
    }
    return fmt::format("compiled {} kernel{}, {} came from the cache", counters.compiled,
                       plural(counters.compiled), counters.from_disk);
}

std::string pattern_text(int layer, const HeadPatterns& patterns, int columns) {
    const bool shared = patterns.count() == 1;
    std::string text = shared ? "" : fmt::format("layer {}: {}\n", layer, density_text(patterns));
    for (int head = 0; head < patterns.count(); ++head) {
        const BlockPattern& pattern = patterns[head];
        const std::int64_t all = static_cast<std::int64_t>(pattern.rows()) * pattern.rows();
        text += fmt::format("{} {}: {} of {} blocks, density {:.1f} %\n{}",
                            shared ? "layer" : "head", shared ? layer : head, pattern.block_count(),
                            all, 100.0 * pattern.density(), pattern.to_art(columns));
    }
    return text;
}

std::string changes_text(std::span<const double> changes, const TrainSettings& settings) {
    return fmt::format(
        "score maps: distance changed by {:.0f} % (layer by layer); sparse when all are below {} %",
        fmt::join(changes, ", "), settings.transition_change);
}

std::string transition_text(const std::vector<std::unique_ptr<CompiledAttention>>& layers,
                            const KernelCache::Counters& before, const KernelCache::Counters& after,
                            const StallTimes& stall) {
    std::string text;
    std::set<std::string> told;  // layers whose tile shapes agree share kernels
    for (std::size_t i = 0; i < layers.size(); ++i) {
        for (const KernelRole role :
             {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
            const JitKernel& jit = layers[i]->part(role).jit;
            if (!told.insert(jit.source.text).second) continue;
            text += fmt::format("  {}: {}\n", jit.source.name, origin_text(jit.cached));
        }
    }
    const int compiled = after.compiled - before.compiled;
    const int disk = after.from_disk - before.from_disk;
    return text +
           fmt::format(
               "sparse from here: {} kernel{} compiled, {} from the disk cache; training stood "
               "still for {:.1f} ms ({}discovery {:.1f}, kernels and tables {:.1f}, files and the "
               "rest {:.1f})",
               compiled, plural(compiled), disk, stall.total_ms,
               stall.maps_ms > 0 ? fmt::format("score maps {:.1f}, ", stall.maps_ms) : "",
               stall.discovery_ms, stall.kernels_ms,
               stall.total_ms - stall.maps_ms - stall.discovery_ms - stall.kernels_ms);
}

double mean_of(std::span<const double> values) {
    if (values.empty()) return 0;
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void smooth(ProgressState& state, double loss, double accuracy, double step_ms) {
    constexpr double kShare = 0.05;
    const bool first = state.loss == 0;
    const auto move = [](double& value, double to, bool start) {
        value = start ? to : value + kShare * (to - value);
    };
    move(state.loss, loss, first);
    move(state.accuracy, accuracy, first);
    move(state.step_ms, step_ms, state.step_ms == 0);
}

std::string report_text(const TrainReport& report, const TrainSettings& settings,
                        const KernelCache::Counters& counters, const RunFolder& folder) {
    const bool diverged = report.divergence && report.divergence->ended_training;
    std::string text = fmt::format("{} {} of {} steps\n",
                                   report.interrupted   ? "interrupted after"
                                   : report.out_of_time ? "out of time after"
                                   : diverged           ? "diverged, ended after"
                                                        : "done:",
                                   report.steps_done, settings.steps);
    if (report.divergence) text += report.divergence->sentence() + "\n";
    if (report.transition_step) {
        text += fmt::format(
            "turned sparse after step {}, density {:.1f} % on average{}; training stood still for "
            "{:.1f} ms\n",
            *report.transition_step, 100.0 * mean_of(report.densities),
            balance_text(report, settings), report.stall.total_ms);
    } else if (!settings.dense && !report.interrupted && !report.out_of_time && !diverged) {
        text +=
            "stayed dense: the transition rule never held (--transition-step N fixes the step)\n";
    }
    text += step_times_text(report);
    if (report.test) {
        text += fmt::format("test accuracy {:.2f} %, loss {:.4f}\n", 100.0 * report.test->accuracy,
                            report.test->loss);
    }
    if (report.not_finite_gradients > 0) {
        text += fmt::format("warning: {} gradient values were not finite\n",
                            report.not_finite_gradients);
    }
    text +=
        fmt::format("peak device memory {:.2f} GB\n", static_cast<double>(report.peak_bytes) / 1e9);
    text += compiled_text(counters) + "\n";
    if (report.interrupted || report.out_of_time) {
        text += fmt::format("go on with: spion train {} --resume {}\n", settings.task,
                            folder.path().string());
    }
    return text + fmt::format("metrics, patterns and kernels: {}\n", folder.path().string());
}

std::string device_json(Device& device) {
    const Target& target = device.target();
    const nlohmann::ordered_json json{
        {"device", device.name()},
        {"compiler", device.compiler_version()},
        {"back_end", target.back_end == BackEnd::kCuda ? "cuda" : "host"},
        {"arch", target.arch},
        {"features", target.features},
        {"compute_capability", target.compute_capability},
        {"processors", target.sm_count},
        {"shared_bytes_per_block", target.shared_bytes_per_block},
        {"vector_floats", target.vector_floats}};
    return json.dump(2) + "\n";
}

namespace {

using Json = nlohmann::ordered_json;

Json evaluation_json(const std::optional<Evaluation>& value) {
    if (!value) return Json();
    return {{"loss", value->loss}, {"accuracy", value->accuracy}};
}

Json tiers_json(const std::vector<TierVerdict>& tiers) {
    Json json = Json::array();
    for (const TierVerdict& tier : tiers) {
        json.push_back({{"layer", tier.layer},
                        {"taken", tier.taken},
                        {"why_not", tier.why_not},
                        {"compile_ms", tier.compile_ms},
                        {"tier0_ms", tier.tier0_ms},
                        {"tier1_ms", tier.tier1_ms},
                        {"measurement_ms", tier.measurement_ms}});
    }
    return json;
}

Json attention_json(const TrainReport& report) {
    const auto launch = [](const AttentionTime& time) {
        return Json{{"forward", time.forward_ms}, {"backward", time.backward_ms}};
    };
    Json layers = Json::array();
    for (const AttentionTime& time : report.attention_times) {
        layers.push_back(launch(time));
    }
    Json json{{"batch", report.attention_batch}, {"layers", std::move(layers)}, {"dense", nullptr}};
    if (report.dense_time) json["dense"] = launch(*report.dense_time);
    return json;
}

}  // namespace

std::string report_json(const TrainReport& report, const TrainSettings& settings,
                        const KernelCache::Counters& counters, const Device& device) {
    Json json;
    json["device"] = device.name();
    json["arch"] = device.target().arch;
    json["seed"] = settings.seed;
    json["steps"] = report.steps_done;
    json["processes"] = report.processes;
    json["interrupted"] = report.interrupted;
    json["out_of_time"] = report.out_of_time;
    json["diverged"] = nullptr;
    if (const auto& found = report.divergence) {
        json["diverged"] = {{"step", found->step},
                            {"layer", nullptr},
                            {"tensor", found->tensor},
                            {"reason", found->reason},
                            {"ended_training", found->ended_training}};
        if (found->layer) json["diverged"]["layer"] = *found->layer;
    }
    json["transition_step"] = nullptr;
    if (report.transition_step) json["transition_step"] = *report.transition_step;
    json["stall_ms"] = nullptr;
    if (report.transition_step && report.stall.total_ms > 0) {  // else in an earlier process
        json["stall_ms"] = {{"total", report.stall.total_ms},
                            {"score_maps", report.stall.maps_ms},
                            {"discovery", report.stall.discovery_ms},
                            {"kernels", report.stall.kernels_ms}};
        json["first_sparse_step_ms"] = report.first_sparse_step_ms;
        json["transition_compiled"] = report.transition_compiled;
    }
    json["tiers"] = tiers_json(report.tiers);
    json["densities"] = report.densities;
    json["balances"] = report.balances;
    json["dense_step_ms"] = report.dense_step_ms;
    json["sparse_step_ms"] = report.sparse_step_ms;
    json["validation"] = evaluation_json(report.validation);
    json["test"] = evaluation_json(report.test);
    json["not_finite_gradients"] = report.not_finite_gradients;
    if (report.loss_scale > 0) {
        json["loss_scale"] = report.loss_scale;
        json["skipped_steps"] = report.skipped_steps;
    }
    json["peak_device_bytes"] = report.peak_bytes;
    json["kernels"] = {{"compiled", counters.compiled}, {"from_disk", counters.from_disk}};
    json["attention_ms"] = attention_json(report);
    return json.dump(2) + "\n";
}

}  // namespace spion
