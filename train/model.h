// The encoder with its head (Yoon, Han, Moon: SPION, PAKDD 2024): parameters, activations and one
// training step.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "compiler/launch/compiled_attention.h"
#include "train/activations.h"
#include "train/data/dataset.h"
#include "train/fused_embedding.h"
#include "train/kernels.h"
#include "train/linear.h"
#include "train/parameters.h"
#include "train/settings.h"
#include "train/step_context.h"

namespace spion {

struct ModelSettings {
    ModelShape shape;
    int batch = 1;  // the largest B, in samples
    double dropout = 0.1;
    std::uint64_t seed = 0;
    EmbeddingStart embedding = {};
    Precision precision = Precision::kAuto;
    double loss_scale = 0;  // the first; 0: none
    int loss_scale_growth = 2000;
    int processes = 1;  // that add up their gradients: each computes its part of the mean
};

// Told of [first, first + count) of the gradients once what computes them is launched: from the end
// of the buffer to its beginning, each value once.
using GradientsLaunched = std::function<void(std::int64_t first, std::int64_t count)>;

struct OptimiserSettings {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
    double weight_decay = 0.0;
    double clip = 1.0;
};

// Where a pass leaves what is read back later: from where its SpionPassState says.
struct StepResults {
    float* losses = nullptr;      // fp32 [B] cross entropy of each sample
    int* correct = nullptr;       // int32 [B] 1 where the prediction is right
    int* not_finite = nullptr;    // int32 [not_finite_items()], counts of gradients that are not
    float* loss_scale = nullptr;  // fp32 [1] of the step's gradients, where they are scaled
};

// What pass `pass`, whose gradients are of step `step`, both from 0, reads from device memory; the first
// results are its own.
SpionPassState pass_state(std::uint32_t pass, std::int64_t step, double learning_rate,
                          const OptimiserSettings& optimiser);

// The activation type on a device: fp32 on the host, bf16 or fp16 on a GPU. Throws UserError for
// a precision that the host does not have.
DType activation_type(const Target& target, Precision precision);

class Model {
  public:
    // Compiles the step's kernels. `device` must outlive the model. Throws UserError for sizes that
    // no kernel takes.
    Model(const ModelSettings& settings, Device& device, KernelCache& cache);

    // One for each layer, alive while passes run.
    void set_attention(std::vector<CompiledAttention*> layers);

    // Copies a batch of up to settings.batch samples to the device; passes then use it. `pass` goes with it, for
    // the launch_... below.
    void upload(const Batch& batch, const SpionPassState& pass = {});

    // Forward pass without dropout.
    void evaluate(const StepResults& results);
    // Forward and backward pass with dropout of step `step`; the gradients of the mean loss are in
    // parameters().gradients().
    void compute_gradients(std::uint32_t step, const StepResults& results);
    // Part `part` of `parts` passes whose gradients are added up; `step` differs for each. The first
    // begins the sum, the last leaves the gradients of the mean loss of all of them there.
    // The last part tells `launched`, if there is one.
    void accumulate_gradients(std::uint32_t step, int part, int parts, const StepResults& results,
                              const GradientsLaunched& launched = {});
    // AdamW with the gradients; `step` counts from 0.
    void update(std::int64_t step, double learning_rate, const OptimiserSettings& optimiser,
                const StepResults& results);

    // accumulate_gradients and update as launches alone, of the pass that was uploaded with the batch: the
    // same ones for every pass, but for where the batch lies.
    void launch_gradients(int part, int parts, const StepResults& results,
                          const GradientsLaunched& launched = {});
    void launch_update(const OptimiserSettings& optimiser, const StepResults& results);
    std::size_t batch_buffer() const { return batch_; }  // where it lies, of two

    // Q, K, LSE and lengths of `layer` as the last pass left them (v, o and gradients as well): of
    // every sequence of the batch, those of the first tower first.
    SpionAttentionArguments attention_arguments(int layer) const;
    // [B, classes] of the last pass. Waits for it.
    std::vector<float> logits() const;

    const ModelShape& shape() const { return settings_.shape; }
    DType dtype() const { return dtype_; }
    const ParameterLayout& layout() const { return layout_; }
    ParameterState& parameters() { return parameters_; }
    const StepKernels& kernels() const { return kernels_; }
    bool fuses_layers() const { return layer_.has_value(); }
    // Beside those: the fused passes of layers or linear maps.
    std::vector<const JitKernel*> fused_kernels() const;
    std::int64_t not_finite_items() const;
    bool scales_loss() const { return static_cast<bool>(loss_scale_); }
    // Waits for the device. Only where the loss is scaled.
    SpionLossScale loss_scale() const;
    void set_loss_scale(const SpionLossScale& state);

  private:
    void compile_fused(KernelCache& cache);
    // model_pass.cpp
    void make_room_for_batches();
    template <typename T>
    void stage(std::size_t at, std::span<const T> values);
    void stage_pass(const SpionPassState& pass, bool drops);
    void begin_pass(const SpionPassState& pass, bool drops);  // copies it beside the batch at hand
    StepContext context(bool drops) const;
    SpionNormMeanArguments norm_mean_arguments(const StepContext& step) const;  // no partials
    SpionTokenPositionArguments token_position_arguments(
        const StepContext& step) const;  // nor here
    SpionEmbeddingArguments embedding_arguments(const StepContext& step) const;
    void embedding_forward(const StepContext& step);
    void embedding_backward(const StepContext& step, PartialSums& sums);
    void encoder_forward(const StepContext& step);
    void encoder_backward(const StepContext& step, const GradientsLaunched& launched);
    void head(const StepContext& step, const StepResults& results, bool backward, int parts = 1);

    ModelSettings settings_;
    Device* device_;
    DType dtype_;
    ParameterLayout layout_;
    ParameterState parameters_;
    Activations activations_;
    StepKernels kernels_;
    std::optional<FusedEmbedding> embedding_;  // where it can be fused
    std::optional<FusedLayer> layer_;          // where it can be fused; else, likewise,
    std::optional<FusedLinear> out_, qkv_, feed_forward1_;  // (out_ beside layer_)
    std::optional<FusedFeedForward> feed_forward_;
    std::vector<CompiledAttention*> attention_;  // [layers]
    int samples_ = 0;                            // B of the uploaded batch
    // Lengths int32 [T, B], labels int32 [B], SpionPassState, SpionDropoutState [layers] of attention, tokens
    // uint16 [T, B, L]; the next batch comes while the last one is used.
    std::array<Buffer, 2> batches_;
    std::size_t batch_ = 0;  // the one that passes use
    std::size_t labels_at_ = 0, pass_at_ = 0, attention_at_ = 0, tokens_at_ = 0;  // bytes
    std::vector<std::byte> staged_;  // a batch as it is copied: once a batch, not five times
    Buffer sums_;                    // fp32 [2, parameters]: gradients so far, and more
    Buffer loss_scale_;              // SpionLossScale; empty: gradients are not scaled
};

}  // namespace spion
