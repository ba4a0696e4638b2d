// What every part of one forward and backward pass needs to know.
#pragma once

#include <cstdint>

#include "kernels/attention_arguments.h"
#include "kernels/train_arguments.h"
#include "runtime/device.h"
#include "train/activations.h"
#include "train/fused_feed_forward.h"
#include "train/fused_layer.h"
#include "train/fused_linear.h"
#include "train/kernels.h"
#include "train/parameters.h"

namespace spion {

struct StepContext {
    Device& device;
    const StepKernels& kernels;
    const ModelShape& shape;
    const ParameterLayout& layout;
    const ParameterState& parameters;
    const Activations& activations;
    const FusedLayer* layer = nullptr;  // all but attention; null: what follows, not `out`
    const FusedLinear* out = nullptr;   // null: by products
    const FusedLinear* qkv = nullptr;   // null: by products
    const FusedFeedForward* feed_forward = nullptr;        // its forward pass; null: by products
    const FusedLinear* feed_forward1 = nullptr;            // null: by products
    DType dtype = DType::kFp32;                            // T
    int batch = 0;                                         // B of this pass
    const std::uint16_t* tokens = nullptr;                 // [B, L] on the device
    const int* lengths = nullptr;                          // [B] on the device
    const int* labels = nullptr;                           // [B] on the device
    const SpionPassState* now = nullptr;                   // of this pass, on the device
    SpionDropout dropout{};                                // of this pass; each use sets its stream
    const SpionDropoutState* attention_dropout = nullptr;  // [layers] on the device; null: none

    std::int64_t rows() const { return batch * shape.length; }  // N
    SpionDropout dropout_of(unsigned int stream) const {
        SpionDropout result = dropout;
        result.stream = stream;
        return result;
    }
};

// Every use of dropout draws from a stream of its own.
constexpr unsigned int kEmbeddingDropout = 0;
constexpr unsigned int attention_dropout(int layer) {
    return 1 + 3 * static_cast<unsigned>(layer);
}
constexpr unsigned int gelu_dropout(int layer) {
    return 2 + 3 * static_cast<unsigned>(layer);
}
constexpr unsigned int feed_forward_dropout(int layer) {
    return 3 + 3 * static_cast<unsigned>(layer);
}

}  // namespace spion
