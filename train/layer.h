// One encoder layer, pre-norm (Yoon, Han, Moon: SPION, PAKDD 2024):
//     x += dropout(Wo attention(norm1(x)));   x += dropout(W2 dropout(gelu(W1 norm2(x))))
// The addition of a branch is fused with the norm that follows it, so a layer starts with the norm
// that adds the previous layer's feed-forward branch, and leaves its own in scratch.branch.
//
//     x, branch -> norm1.x [N, C] -> normed1 [N, C] -> qkv [N, 3, H, D] -> o [N, H, D] -> branch
//     [N, C] norm1.x, branch -> norm2.x [N, C] -> normed2 [N, C] -> hidden [N, F] -> gated [N, F]
//                     -> branch [N, C]
//
// Where the layer is fused (train/fused_layer.h), it adds its own branches:
//
//     norm1.x [N, C] -> qkv [N, 3, H, D] -> o [N, H, D], norm1.x -> norm2.x [N, C] -> norm1.x of the
//                     next layer, or final_norm.x
#pragma once

#include "compiler/launch/compiled_attention.h"
#include "train/linear.h"
#include "train/step_context.h"

namespace spion {

// Q, K, V or O of layer `index`, and their gradients, as attention sees them.
SpionAttentionArguments attention_views(const StepContext& step, int index);

// x: T [N, C], the residual stream before the branch in scratch.branch is added; layer 0 and fused
// layers have none, and x is norm1.x itself. Returns the stream after it, before its branch.
const void* layer_forward(const StepContext& step, int index, CompiledAttention& attention,
                          const void* x);

// In: scratch.d_x [N, C], the gradient of the residual stream after norm2's addition (all that lies
// beyond the feed-forward branch), and scratch.branch [N, C], the gradient of that branch, which a
// fused layer makes itself.
// Out: the same two for the layer before (scratch.branch is not written by layer 0), and the
// gradients of this layer's parameters; of a fused one, with the bias of its second feed-forward map
// and without that of the layer before, and once `sums` are launched.
void layer_backward(const StepContext& step, int index, CompiledAttention& attention,
                    PartialSums& sums);

}  // namespace spion
