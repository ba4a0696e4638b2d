#include "train/settings.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "ir/error.h"
#include "train/setting_kinds.h"
#include "train/task.h"
#include "train/toml_letters.h"

namespace spion {
namespace {

// Of names that are read elsewhere, where nobody knows what the user called them.
template <typename Parse>
auto parse_name(Parse parse, std::string_view text, std::string_view given) {
    try {
        return parse(text);
    } catch (const UserError& error) {
        throw UserError("{}: {}", given, error.what());
    }
}

ScoreMode parse_score_mode(std::string_view text, std::string_view given) {
    if (text == "exact") return ScoreMode::kExact;
    if (text == "pooled") return ScoreMode::kPooled;
    throw UserError("{} is '{}', but it takes exact or pooled", given, text);
}

Setting precision_setting(std::string_view group) {
    return words(
        group, "precision",
        "of activations: auto (bf16 on a GPU, fp32 on the host), or bf16 or fp16 on a GPU; "
        "fp16 scales the loss",
        [](TrainSettings& s, std::string_view text, std::string_view given) {
            if (text != "auto" && text != "bf16" && text != "fp16") {
                throw UserError("{} is '{}', but it takes auto, bf16 or fp16", given, text);
            }
            s.precision = text == "auto"   ? Precision::kAuto
                          : text == "bf16" ? Precision::kBf16
                                           : Precision::kFp16;
        },
        [](const TrainSettings& s) {
            constexpr std::array<std::string_view, 3> kNames = {"auto", "bf16", "fp16"};
            return kNames[static_cast<std::size_t>(s.precision)];
        });
}

Setting graph_setting(std::string_view group) {
    return words(
        group, "graph",
        "on: a GPU's steps are captured as CUDA graphs and replayed; off: each kernel is launched "
        "by itself, with the same results",
        [](TrainSettings& s, std::string_view text, std::string_view given) {
            if (text != "on" && text != "off") {
                throw UserError("{} is '{}', but it takes on or off", given, text);
            }
            s.graph = text == "on";
        },
        [](const TrainSettings& s) { return std::string_view(s.graph ? "on" : "off"); });
}

std::vector<Setting> general_settings() {
    constexpr std::string_view group = "run";
    return {
        words(
            group, "task", "what is learnt: the word after `spion train`",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                if (text != s.task) {
                    throw UserError("{} is '{}', but this is a run of {}: use `spion train {}`",
                                    given, text, s.task, text);
                }
            },
            [](const TrainSettings& s) { return std::string_view(s.task); }),
        words(
            group, "device", "auto, cpu or cuda",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                s.device = parse_name(parse_device_choice, text, given);
            },
            [](const TrainSettings& s) {
                constexpr std::array<std::string_view, 3> kNames = {"auto", "cpu", "cuda"};
                return kNames[static_cast<std::size_t>(s.device)];
            }),
        number(group, "seed", "seed of initial values, shuffling and dropout", SPION_FIELD(seed),
               0),
        number(group, "steps", "training steps", SPION_FIELD(steps), 1),
        number(group, "batch", "samples a step and process", SPION_FIELD(batch), 1, 65536),
        number(group, "accumulate",
               "batches whose gradients are added up to one step, which so has accumulate * batch "
               "samples",
               SPION_FIELD(accumulate), 1, 65536),
        number(group, "eval-every",
               "steps between evaluations (validation; in the dense phase also the score maps)",
               SPION_FIELD(eval_every), 1),
        words(
            group, "on-divergence",
            "at the first step whose loss or gradients are not finite: stop, with exit code 4, or "
            "continue, while patterns can be found",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                if (text != "stop" && text != "continue") {
                    throw UserError("{} is '{}', but it takes stop or continue", given, text);
                }
                s.on_divergence = text == "stop" ? OnDivergence::kStop : OnDivergence::kContinue;
            },
            [](const TrainSettings& s) {
                return std::string_view(s.on_divergence == OnDivergence::kStop ? "stop"
                                                                               : "continue");
            }),
        precision_setting(group),
        graph_setting(group),
        flag(group, "tensorboard", "write RUN/tensorboard, which TensorBoard shows",
             SPION_FIELD(tensorboard)),
        flag(group, "autotune", "measure attention's tile shapes and take the fastest",
             SPION_FIELD(autotune)),
    };
}

std::vector<Setting> checkpoint_settings() {
    constexpr std::string_view group = "checkpoints";
    return {
        number(group, "checkpoint-every", "steps between checkpoints; 0: by time alone",
               SPION_FIELD(checkpoint_every), 0),
        number(group, "checkpoint-minutes", "minutes between checkpoints; 0: by steps alone",
               SPION_FIELD(checkpoint_minutes), 0.0),
        number(group, "keep-checkpoints",
               "how many of the latest are kept, beside the best by validation",
               SPION_FIELD(keep_checkpoints), 1, 1000000),
        number(group, "minutes",
               "stop after so many minutes, with a checkpoint to go on from; 0: never",
               SPION_FIELD(minutes), 0.0),
    };
}

Setting pooling_setting(std::string_view group) {
    return words(
        group, "pooling",
        "what the head sees of a sequence: mean (over its length) or cls (a token put before "
        "it, the last of the vocabulary, which leaves length - 1 to the sample)",
        [](TrainSettings& s, std::string_view text, std::string_view given) {
            if (text != "mean" && text != "cls") {
                throw UserError("{} is '{}', but it takes mean or cls", given, text);
            }
            s.pooling = text == "cls" ? Pooling::kCls : Pooling::kMean;
        },
        [](const TrainSettings& s) {
            return std::string_view(s.pooling == Pooling::kCls ? "cls" : "mean");
        });
}

Setting embedding_setting(std::string_view group) {
    return words(
        group, "embedding",
        "first values of positions, of pictures of grey values too: normal, or sine (of rows and "
        "columns in pictures), by which near ones are alike",
        [](TrainSettings& s, std::string_view text, std::string_view given) {
            if (text != "normal" && text != "sine") {
                throw UserError("{} is '{}', but it takes normal or sine", given, text);
            }
            s.sine_embedding = text == "sine";
        },
        [](const TrainSettings& s) {
            return std::string_view(s.sine_embedding ? "sine" : "normal");
        });
}

std::vector<Setting> model_settings() {
    constexpr std::string_view group = "model";
    return {
        number(group, "length", "tokens a sample is padded to (L)", SPION_FIELD(length), 1,
               1 << 20),
        number(group, "vocabulary", "rows of the token embedding", SPION_FIELD(vocabulary), 16,
               65536),
        number(group, "layers", "encoder layers", SPION_FIELD(layers), 1, 1024),
        number(group, "heads", "attention heads", SPION_FIELD(heads), 1, 1024),
        number(group, "head-dim", "width of a head: a multiple of 8 from 16 to 256",
               SPION_FIELD(head_dim), 16, kMaxHeadDim),
        number(group, "d-model", "width of the residual stream: heads * head-dim",
               SPION_FIELD(d_model), 8, 1024),
        number(group, "feed-forward", "width of the feed-forward layers and of the head",
               SPION_FIELD(feed_forward), 8, 4096),
        number(group, "dropout",
               "dropout probability, everywhere but on the attention probabilities",
               SPION_FIELD(dropout), 0.0, 0.99),
        number(group, "attention-dropout",
               "dropout probability of the attention probabilities, realised in 256ths",
               SPION_FIELD(attention_dropout), 0.0, 0.99),
        flag(group, "causal", "a token attends to itself and those before it alone",
             SPION_FIELD(causal)),
        words(
            group, "softmax",
            "what a pruned element counts as in the sparse phase: pruned_zero (a score of 0) is "
            "the "
            "paper's, masked (minus infinity) that of others; docs/ir.md has all kinds",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                s.softmax = parse_name(parse_softmax_kind, text, given);
            },
            [](const TrainSettings& s) { return to_string(s.softmax); }),
        pooling_setting(group),
        embedding_setting(group),
        number(group, "embedding-deviation", "standard deviation of the embedding's first values",
               SPION_FIELD(embedding_deviation), 0.0, 10.0),
    };
}

std::vector<Setting> optimiser_settings() {
    constexpr std::string_view group = "optimiser";
    return {
        number(group, "lr", "peak learning rate of the one-cycle schedule",
               SPION_FIELD(learning_rate), 0.0),
        number(group, "warmup",
               "steps to the peak; after the transition the same fraction of the steps left",
               SPION_FIELD(warmup), 0),
        number(group, "beta1", "AdamW", SPION_FIELD(beta1), 0.0, 0.999999),
        number(group, "beta2", "AdamW", SPION_FIELD(beta2), 0.0, 0.999999),
        number(group, "epsilon", "AdamW", SPION_FIELD(epsilon), 1e-12),
        number(group, "weight-decay", "AdamW", SPION_FIELD(weight_decay), 0.0),
        number(group, "clip", "gradient values are clipped to [-clip, clip]", SPION_FIELD(clip),
               1e-12),
        number(group, "loss-scale",
               "what the loss is multiplied by at first, so that small gradients do not vanish; a "
               "step whose gradients overflow is left out and halves it, down to 1; 0: 65536 with "
               "precision fp16, none otherwise",
               SPION_FIELD(loss_scale), 0.0, 3e38),
        number(group, "loss-scale-growth", "steps without an overflow after which it is doubled",
               SPION_FIELD(loss_scale_growth), 1, 1000000000),
    };
}

std::vector<Setting> sparsity_settings() {
    constexpr std::string_view group = "sparsity";
    return {
        words(
            group, "variant", "pattern discovery: cf, c or f",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                s.discovery.variant = parse_name(parse_variant, text, given);
            },
            [](const TrainSettings& s) { return to_string(s.discovery.variant); }),
        number(group, "block", "edge of a block: 16, 32, 64 or 128", SPION_FIELD(discovery.block),
               16, 128),
        number(group, "filter", "edge of the diagonal filter (cf, c)",
               SPION_FIELD(discovery.filter), 1, 257),
        number(group, "quantile", "threshold of the flood fill (cf, f)",
               SPION_FIELD(discovery.quantile), 0.0, 1.0),
        number(group, "density", "share of the blocks kept (c, and patterns that are fixed)",
               SPION_FIELD(discovery.density), 0.0, 1.0),
        words(
            group, "pattern",
            "discovered; or window, bigbird, strided or fixed, with that density; or a file with a "
            "pattern (docs/formats.md)",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                if (!is_utf8(text)) {
                    throw UserError(
                        "{} names a file that is not UTF-8, which config.toml could not hold: "
                        "rename the file",
                        given);
                }
                s.pattern = text;
            },
            [](const TrainSettings& s) { return std::string_view(s.pattern); }),
        words(
            group, "sparse-from",
            "transition, or start: a pattern that is not discovered may be used from the first "
            "step",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                if (text != "start" && text != "transition") {
                    throw UserError("{} is '{}', but it takes start or transition", given, text);
                }
                s.sparse_from_start = text == "start";
            },
            [](const TrainSettings& s) {
                return std::string_view(s.sparse_from_start ? "start" : "transition");
            }),
        flag(group, "per-head",
             "a pattern for each head, found in its own score maps, and not one for all heads of a "
             "layer; of --pattern bigbird each has random blocks of its own, of a file the pattern "
             "of its number",
             SPION_FIELD(per_head)),
        flag(group, "dense", "never turn sparse, whatever transition-step says (for comparison)",
             SPION_FIELD(dense)),
        number(group, "transition-step", "turn sparse after this step; 0: by the paper's rule",
               SPION_FIELD(transition_step), 0),
        number(group, "transition-change",
               "the rule: turn sparse when the score maps' distance changes by less than this many "
               "per cent in every layer",
               SPION_FIELD(transition_change), 1, 1000000),
        words(
            group, "scores",
            "what the rule compares: exact (L x L score maps, L up to 16384) or pooled (block "
            "means)",
            [](TrainSettings& s, std::string_view text, std::string_view given) {
                s.scores = parse_score_mode(text, given);
            },
            [](const TrainSettings& s) {
                return std::string_view(s.scores == ScoreMode::kExact ? "exact" : "pooled");
            }),
        number(group, "tiers",
               "1: after the transition compile each layer's pattern into its kernels, in the "
               "background, and keep what is faster; 0: do not",
               SPION_FIELD(tiers), 0, 1),
    };
}

#undef SPION_FIELD

std::vector<Setting> make_table() {
    std::vector<Setting> table;
    for (auto* group : {general_settings, checkpoint_settings, model_settings, optimiser_settings,
                        sparsity_settings, data_settings}) {
        std::vector<Setting> settings = group();
        table.insert(table.end(), settings.begin(), settings.end());
    }
    return table;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0U);
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
        }
    }
    return row[b.size()];
}

}  // namespace

std::vector<const Setting*> train_settings(std::string_view task) {
    static const std::vector<Setting> table = make_table();
    std::vector<const Setting*> own;
    for (const Setting& setting : table) {
        if (setting.tasks.empty() ||
            std::find(setting.tasks.begin(), setting.tasks.end(), task) != setting.tasks.end()) {
            own.push_back(&setting);
        }
    }
    return own;
}

void apply_setting(TrainSettings& settings, std::string_view name, std::string_view value,
                   std::string_view given) {
    const auto table = train_settings(settings.task);
    const auto found = std::find_if(table.begin(), table.end(),
                                    [&](const Setting* setting) { return setting->name == name; });
    if (found != table.end()) return (*found)->parse(settings, value, given);
    const auto* nearest =
        *std::min_element(table.begin(), table.end(), [&](const Setting* a, const Setting* b) {
            return edit_distance(a->name, name) < edit_distance(b->name, name);
        });
    throw UserError("{} is no setting of train {}; the nearest is '{}' (see --help for all)", given,
                    settings.task, nearest->name);
}

std::string to_toml(const TrainSettings& settings) {
    std::string text;
    std::string_view group;
    for (const Setting* setting : train_settings(settings.task)) {
        if (setting->group != group) {
            text += fmt::format("{}# {}\n", group.empty() ? "" : "\n", setting->group);
            group = setting->group;
        }
        text += fmt::format("{} = {}\n", setting->name, setting->toml(settings));
    }
    return text;
}

}  // namespace spion
