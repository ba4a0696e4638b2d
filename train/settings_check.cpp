// What settings must be together.
#include <optional>

#include "compiler/discovery/fixed_patterns.h"
#include "ir/error.h"
#include "ir/sizes.h"
#include "train/kernels.h"
#include "train/settings.h"
#include "train/task.h"

namespace spion {
namespace {

// Some fixed patterns are a function of length and density alone.
void check_heads(const TrainSettings& s) {
    const auto kind = s.pattern == "discovered" ? std::nullopt : parse_fixed_pattern(s.pattern);
    if (s.per_head && kind && kind != FixedPattern::kBigBird) {
        throw UserError(
            "per-head gives each head a pattern of its own, but {} is the same for all: take "
            "--pattern discovered, bigbird or a JSON file with a pattern for each head, or leave "
            "per-head away",
            s.pattern);
    }
}

}  // namespace

void check(const TrainSettings& s) {
    if (s.d_model != s.heads * s.head_dim) {
        throw UserError("d-model is {}, but heads * head-dim is {} * {} = {}: make them equal",
                        s.d_model, s.heads, s.head_dim, s.heads * s.head_dim);
    }
    check(attention_of(s, DType::kFp32));
    check_batch(attention_of(s, DType::kFp32), std::int64_t{s.batch} * task_named(s.task).towers);
    if (s.loss_scale > 0 && s.loss_scale < 1) {
        throw UserError("loss-scale is {}, but a scale is 1 or more: 0 leaves it to the precision",
                        s.loss_scale);
    }
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
    if (s.sparse_from_start && (s.dense || s.pattern == "discovered")) {
        throw UserError(
            "sparse-from is start, but {}: take transition, or --pattern window, bigbird, strided, "
            "fixed or a file",
            s.dense ? "dense says never" : "a pattern is discovered in the dense phase");
    }
    check_heads(s);
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
    task_named(s.task).check(s);
}

double first_loss_scale(const TrainSettings& settings) {
    constexpr double kFirstLossScale = 65536;  // as PyTorch's GradScaler
    if (settings.loss_scale > 0) return settings.loss_scale;
    return settings.precision == Precision::kFp16 ? kFirstLossScale : 0;
}

Attention attention_of(const TrainSettings& settings, DType dtype) {
    return {.heads = settings.heads,
            .head_dim = settings.head_dim,
            .length = settings.length,
            .dtype = dtype,
            .scale = default_scale(settings.head_dim),
            .softmax = settings.softmax,
            .key_padding = true,
            .dropout = static_cast<float>(settings.attention_dropout),
            .mask = settings.causal ? ElementMask::kCausal : ElementMask::kNone,
            .patterns = settings.per_head && !settings.dense ? settings.heads : 1};
}

HeadPatterns full_patterns(const TrainSettings& s) {
    const auto count = static_cast<std::size_t>(attention_of(s, DType::kFp32).patterns);
    return HeadPatterns(
        std::vector<BlockPattern>(count, BlockPattern::full(s.length, s.discovery.block)));
}

}  // namespace spion
