// The embedding before the first layer, with random operands, and what the fused kernels must make of them,
// in double.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/layer_arguments.h"
#include "tests/kernels/train_reference.h"
#include "train/fused_embedding.h"

namespace spion {

struct EmbeddingProblem {
    // one_token: every row has the last token, in which all gradients meet.
    EmbeddingProblem(const FusedEmbeddingShape& shape, int batch, int length, bool dropout_enabled,
                     bool one_token, std::mt19937& random);

    FusedEmbeddingShape shape;
    int batch, length;
    std::vector<std::uint16_t> ids;      // [B, L]
    std::vector<float> token, position;  // [V, C], [L, C]
    std::vector<std::uint16_t> d_x;      // bf16 [B, L, C], NaN where it is dropped
    SpionDropout dropout;
    Values factors;              // of the dropout [B, L, C]
    std::vector<unsigned> kept;  // what it keeps, from those factors; empty without dropout

    // Inputs filled in, outputs and positions_per_item not.
    SpionTokenPositionArguments arguments() const;

    // Each fails the test unless results, NaN included, are near. Partials: [items, V, C].
    void expect_forward(const std::vector<std::uint16_t>& x,
                        const std::vector<unsigned>& new_kept) const;
    void expect_backward(const std::vector<float>& d_token_partials,
                         const std::vector<float>& d_position) const;
};

}  // namespace spion
