// What is said when training's values are no longer finite: the step, the layer and the tensor.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "train/model.h"
#include "train/step_runner.h"

namespace spion {

struct Divergence {
    std::int64_t step = 0;     // steps done, the one that diverged included
    std::optional<int> layer;  // none: outside of the layers
    std::string tensor;        // "layer0.qkv.weight"; several where they cannot be told apart
    std::string reason;        // "12 of 3408 gradient values are not finite"
    bool ended_training = false;

    // "training has diverged in layer 0 (layer0.qkv.weight) at step 3: ...; lower the learning rate
    // (--lr)"
    std::string sentence() const;
    friend bool operator==(const Divergence&, const Divergence&) = default;
};

// Whether a step's loss or gradients are not finite. (Steps that a loss scaler skips would not
// count; there is none yet.)
bool has_diverged(const StepRecord& record);

// Where the step of `record` left what is finite; `latest`: it was the last pass of `model`, whose
// buffers then say exactly. The first tensor is named, in the order of computation: Q, K, V and O of
// each layer, then gradients, from the head down. (The loss alone does not tell: a ReLU makes 0 of
// NaN.)
// Otherwise only the counts of AdamW's work items are known, each of which may hold several tensors.
// Copies buffers from the device, so it is called once.
Divergence find_divergence(const StepRecord& record, bool latest, Model& model, Device& device);

// The same for the score map of a layer after `step` steps: nullopt when its pooled map [nb, nb] is
// finite. scores: the map itself, or empty; finite scores may have sums beyond fp32.
std::optional<Divergence> find_divergence(std::int64_t step, int layer,
                                          std::span<const double> pooled,
                                          std::span<const float> scores);

}  // namespace spion
