// The fused linear maps, feed-forward parts, layers and embeddings that the emulated tests run.
#pragma once

#include <vector>

#include "train/fused_embedding.h"
#include "train/fused_feed_forward.h"
#include "train/fused_layer.h"
#include "train/fused_linear.h"

namespace spion {

struct EmulatedLinear {
    const char* name;
    FusedLinearShape shape;
};

// One and several tiles of outputs a warp, one and several groups of columns, both sides of gelu.
inline std::vector<EmulatedLinear> emulated_linears() {
    return {
        {"linear_qkv", {.out = 192, .in = 64}},
        {"linear_gelu", {.out = 128, .in = 64, .gelu = true, .dropout = 0.1F}},
        {"linear_wide", {.out = 64, .in = 128}},
    };
}

struct EmulatedFeedForward {
    const char* name;
    FusedFeedForwardShape shape;
};

inline std::vector<EmulatedFeedForward> emulated_feed_forwards() {
    return {
        {"feed_forward_paper", {.channels = 64, .hidden = 128, .dropout = 0.1F}},
        {"feed_forward_wide", {.channels = 128, .hidden = 64, .dropout = 0.0F}},
    };
}

struct EmulatedLayer {
    const char* name;
    FusedLayerShape shape;
};

inline std::vector<EmulatedLayer> emulated_layers() {
    return {
        {"layer_paper", {.channels = 64, .hidden = 128, .dropout = 0.1F}},
        {"layer_narrow", {.channels = 64, .hidden = 64, .dropout = 0.0F}},
    };
}

struct EmulatedEmbedding {
    const char* name;
    FusedEmbeddingShape shape;
};

inline std::vector<EmulatedEmbedding> emulated_embeddings() {
    return {
        {"embedding_paper", {.channels = 64, .vocabulary = 32, .dropout = 0.1F}},
        {"embedding_kept", {.channels = 64, .vocabulary = 75, .dropout = 0.0F}},
    };
}

}  // namespace spion
