// Every setting of a training run, with the paper's value as its default (Yoon, Han, Moon: SPION,
// PAKDD 2024). One table gives each its name, which is the flag, the key of a config file and of
// RUN/config.toml.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/discovery/discover.h"
#include "ir/attention.h"
#include "ir/head_patterns.h"
#include "runtime/device.h"
#include "train/data/listops_generator.h"
#include "train/parameters.h"

namespace spion {

// Which map the transition rule compares between evaluations.
enum class ScoreMode {
    kExact,   // A^s itself, L x L: the paper's rule; one L x L fp32 buffer on the device, one a
              // layer in host memory
    kPooled,  // its pooled map, nb x nb: the same rule on block means, nothing of size L x L
              // anywhere
};

// What training does at the first step whose loss or gradients are not finite.
enum class OnDivergence { kStop, kContinue };

// What activations and the products' operands are stored as. Parameters and sums are fp32.
enum class Precision { kAuto, kBf16, kFp16 };  // auto: bf16 on a GPU, fp32 on the host

// Of each split; 0: all that there are.
struct SampleCounts {
    std::int64_t train = 0, validation = 0, test = 0;
};

struct TrainSettings {
    std::string task = "listops";  // train/task.h
    DeviceChoice device = DeviceChoice::kAuto;
    std::uint64_t seed = 0;  // initial values, shuffling, dropout
    std::int64_t steps = 30000;
    int batch = 256;
    int accumulate = 1;  // batches whose gradients a step adds up
    std::int64_t eval_every = 500;
    bool autotune = false;  // attention's tile shapes are measured
    OnDivergence on_divergence = OnDivergence::kStop;
    bool tensorboard = false;  // RUN/tensorboard/ is written
    Precision precision = Precision::kAuto;
    bool graph = true;  // a GPU's steps are captured and replayed, else launched kernel by kernel

    // Checkpoints (train/checkpoint.h).
    std::int64_t checkpoint_every = 0;  // steps
    double checkpoint_minutes = 10;
    int keep_checkpoints = 2;
    double minutes = 0;

    // Model.
    std::int64_t length = 2048;  // L
    int vocabulary = 32;
    int layers = 4;
    int heads = 2;
    int head_dim = 32;
    int d_model = 64;
    int feed_forward = 128;
    double dropout = 0.1;
    double attention_dropout = 0.0;  // on attention's probabilities; the paper's is 0.1
    bool causal = false;             // a token attends to itself and those before it alone
    SoftmaxKind softmax = SoftmaxKind::kPrunedZero;  // of the sparse phase
    Pooling pooling = Pooling::kMean;
    bool sine_embedding = false;  // EmbeddingStart of train/parameters.h
    double embedding_deviation = 0.02;

    // Optimiser.
    double learning_rate = 7e-4;
    std::int64_t warmup = 1000;
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
    double weight_decay = 0.0;
    double clip = 1.0;
    double loss_scale = 0;  // the first; 0: see first_loss_scale
    int loss_scale_growth = 2000;

    // Discovery and transition.
    DiscoverySettings discovery = {
        .block = 64, .filter = 31, .quantile = 0.98, .density = 0.04, .variant = Variant::kCF};
    bool per_head = false;               // a pattern a head, not one a layer
    bool dense = false;                  // never turn sparse
    std::string pattern = "discovered";  // or a fixed one's name, or a file of one pattern
    bool sparse_from_start = false;      // there is no dense phase
    std::int64_t transition_step = 0;    // 0: by the rule
    int transition_change = 15;          // per cent
    ScoreMode scores = ScoreMode::kExact;
    int tiers = 1;  // 1: compile each layer's pattern into its kernels, and keep what is faster

    // Data: files, or else generated where the task has a generator.
    std::string data;
    ListOpsSettings list_ops;  // its seed is every task's data-seed
    SampleCounts samples;      // of the other tasks
    int border = 0;            // of pictures, in pixels
    std::int64_t cut = 0;      // of texts, in bytes
    int ngram = 1;             // bytes that a token of a text stands for

    // Tokens of a sample that there is room for.
    std::int64_t sample_length() const { return length - (pooling == Pooling::kCls ? 1 : 0); }
};

struct Setting {
    std::string_view group;
    std::string_view name;  // "eval-every"
    std::string_view help;
    bool is_flag;                              // a boolean: its flag takes no value
    std::vector<std::string_view> tasks = {};  // that have it; empty: all
    // Throws UserError saying what the setting takes; `given` names it as the user did.
    std::function<void(TrainSettings&, std::string_view value, std::string_view given)> parse;
    std::function<std::string(const TrainSettings&)> toml;  // the value as TOML
};

// All of a task's, by group.
std::vector<const Setting*> train_settings(std::string_view task = "listops");
// A part of them, which has a file of its own.
std::vector<Setting> data_settings();

// Sets one by name. `given` is how the user named it: "--steps", "run.toml: steps". Throws
// UserError for an unknown name (with the nearest known one) or a value that is not allowed.
void apply_setting(TrainSettings& settings, std::string_view name, std::string_view value,
                   std::string_view given);

// "paper": the paper's for the task. "demo": small enough for a laptop without a GPU. Throws
// UserError for another name.
TrainSettings preset_settings(std::string_view name, std::string_view task = "listops");

// Throws UserError for settings that are out of range together or contradict each other.
void check(const TrainSettings& settings);

// The first scale of the loss, 0 for none (kernels/train_arguments.h says what it is for).
double first_loss_scale(const TrainSettings& settings);

// Changes batch and accumulate so that `now` processes have the samples a step that `before`
// processes had: fewer batches, or more or smaller ones. Throws UserError where they cannot be
// divided so.
void divide_among(TrainSettings& settings, int before, int now);

// The operation of the dense phase or the sparse phase, in `dtype`. Dense attention prunes nothing,
// so the softmax kind makes no difference there.
Attention attention_of(const TrainSettings& settings, DType dtype);
// A layer's patterns in the dense phase: as many as in the sparse one, so that it has its kernels.
HeadPatterns full_patterns(const TrainSettings& settings);

// Every setting, as a config file that reproduces the run.
std::string to_toml(const TrainSettings& settings);

}  // namespace spion
