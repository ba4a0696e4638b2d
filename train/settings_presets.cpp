// The presets, and what settings must be together.
#include "ir/error.h"
#include "ir/sizes.h"
#include "train/kernels.h"
#include "train/settings.h"

namespace spion {

TrainSettings preset_settings(std::string_view name) {
    if (name == "paper") return {};
    if (name != "demo") {
        throw UserError("--preset is '{}', but it takes paper or demo", name);
    }
    TrainSettings settings;
    settings.steps = 800;
    settings.batch = 16;
    settings.eval_every = 100;
    settings.length = 1024;  // long enough for attention to be most of a dense step
    settings.layers = 2;
    settings.learning_rate = 4e-3;
    settings.warmup = 50;
    settings.discovery.block = 32;
    settings.discovery.quantile = 0.95;
    settings.discovery.density = 0.07;
    settings.transition_step = 250;  // in so short a run the rule holds early, late or never
    settings.list_ops.train_samples = 12000;
    settings.list_ops.validation_samples = 128;
    settings.list_ops.test_samples = 1000;
    settings.list_ops.min_length = 200;
    settings.list_ops.max_length = 1000;
    settings.list_ops.max_depth = 4;  // wide and shallow: much is learnt within minutes
    settings.list_ops.max_arguments = 30;
    return settings;
}

void check(const TrainSettings& s) {
    if (s.d_model != s.heads * s.head_dim) {
        throw UserError("d-model is {}, but heads * head-dim is {} * {} = {}: make them equal",
                        s.d_model, s.heads, s.head_dim, s.heads * s.head_dim);
    }
    check(attention_of(s, DType::kFp32));
    check_batch(attention_of(s, DType::kFp32), s.batch);
    if (s.warmup > s.steps) {
        throw UserError("warmup is {} steps of only {}: lower --warmup or raise --steps", s.warmup,
                        s.steps);
    }
    if (!s.dense && s.transition_step >= s.steps) {
        throw UserError(
            "transition-step is {}, but it must come before the last of the {} steps (0: by the "
            "rule)",
            s.transition_step, s.steps);
    }
    constexpr std::int64_t kExactLimit = 16384;
    if (!s.dense && s.transition_step == 0 && s.scores == ScoreMode::kExact &&
        s.length > kExactLimit) {
        throw UserError(
            "scores is exact at length {}, but it allows {} at most: use --scores pooled", s.length,
            kExactLimit);
    }
    check(s.discovery);
    if (!s.dense) check_summary_filter(effective_filter(s.discovery), s.discovery.block);
    check(StepShape{.channels = s.d_model,
                    .feed_forward = s.feed_forward,
                    .vocabulary = s.vocabulary,
                    .dropout = static_cast<float>(s.dropout)});
    if (!s.data.empty()) return;
    check(s.list_ops);
    if (s.list_ops.max_length > s.length) {
        throw UserError("max-length is {}, but length allows {}: lower it or raise --length",
                        s.list_ops.max_length, s.length);
    }
}

// The paper drops attention probabilities too; the operation does not do that yet.
Attention attention_of(const TrainSettings& settings, DType dtype) {
    return {.heads = settings.heads,
            .head_dim = settings.head_dim,
            .length = settings.length,
            .dtype = dtype,
            .scale = default_scale(settings.head_dim),
            .softmax = settings.softmax,
            .key_padding = true,
            .dropout = 0.0F,
            .mask = settings.causal ? ElementMask::kCausal : ElementMask::kNone};
}

}  // namespace spion
