// What a step keeps on the device between its forward and its backward pass, and the buffers that
// both passes share.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/dtype.h"
#include "kernels/train_arguments.h"
#include "runtime/device.h"
#include "train/parameters.h"

namespace spion {

// Fused layers whose partial sums one launch adds up, of up to 7 each.
constexpr int kSummedLayers = 8;
static_assert(7 * kSummedLayers + 2 <= kSpionMostSums);

// Row statistics of one norm, and what it saw.
struct NormActivations {
    Buffer x;     // T [N, C] residual stream after the branch was added
    Buffer mean;  // fp32 [N]
    Buffer rstd;  // fp32 [N]
};

// Saved by a layer's forward pass for its backward pass. T is fp32 on the host, bf16 on a GPU. A fused
// layer (train/fused_layer.h) saves no normed1, normed2, hidden and gated.
struct LayerActivations {
    NormActivations norm1;
    Buffer normed1;  // T [N, C]
    Buffer qkv;      // T [N, 3, H, D]
    Buffer o;        // T [N, H, D]
    Buffer lse;      // fp32 [B, H, L]
    NormActivations norm2;
    Buffer normed2;  // T [N, C]
    Buffer hidden;   // T [N, F] before gelu
    Buffer gated;    // T [N, F] after gelu and dropout
    Buffer kept;     // uint32 [fused_layer_kept]: a fused layer's alone
};

// One set for all layers: each is dead before the next layer needs it.
struct ScratchBuffers {
    Buffer branch;    // T [N, C] output of a residual branch; its gradient on the way back
    Buffer d_x;       // T [N, C] gradient of the residual stream
    Buffer d_narrow;  // T [N, C] gradient of a norm's output or of o; the final norm's output
    Buffer d_wide;    // T [N, max(3C, F)] gradient of qkv or of hidden
    Buffer delta;     // fp32 [B, H, L]
    Buffer partials;  // fp32, the largest set of partial sums of any kernel
};

struct Activations {
    // For batches of up to `batch` sequences, those of all towers.
    Activations(Device& device, const ModelShape& shape, int batch, DType dtype);

    std::vector<LayerActivations> layers;
    Buffer embedding_kept;  // uint32 [fused_embedding_kept]: of a fused embedding alone
    NormActivations final_norm;
    ScratchBuffers scratch;
    Buffer units;          // fp32 [T, B, C] means of the last norm's rows, where layers are fused
    Buffer pooled;         // fp32 [T, B, C]
    Buffer d_pooled;       // fp32 [T, B, C]
    Buffer features;       // fp32 [B, 4C]; none with one tower
    Buffer d_features;     // fp32 [B, 4C]; likewise
    Buffer head_hidden;    // fp32 [B, F]
    Buffer d_head_hidden;  // fp32 [B, F]
    Buffer d_logits;       // fp32 [B, classes]
};

}  // namespace spion
