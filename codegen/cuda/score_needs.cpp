#include "codegen/cuda/score_needs.h"

namespace spion {

// Of 16 columns a lane has two words that say what is kept, and of a capped score going backward its
// slope, as of an expression's, whose own values and positions take 16 more; then the key of the
// random numbers, or the head's slope or biases. What is kept beside the bits of a
// packed tile's block rows takes more, a number found by compiling.
ScoreNeeds score_needs(const Attention& attention, KernelRole role, bool packed, int columns) {
    const bool forward = role == KernelRole::kForward;
    int registers = attention.dropout > 0.0F ? columns / 8 + 8 : 0;
    registers += attention.dropout > 0.0F && packed ? columns / 4 : 0;
    registers += attention.softcap > 0.0F && !forward ? columns / 2 : 0;
    registers += attention.alibi ? 8 : 0;
    registers += attention.score.empty() ? 0 : 16 + (forward ? 0 : columns / 2);
    registers += attention.relative_bias > 0 ? (packed && columns > 64 ? 32 : 8) : 0;
    return {.positions = attention.positions_matter(),
            .elements_apart =
                packed && attention.positions_matter() && attention.mask == ElementMask::kNone,
            .bias_sums = attention.relative_bias > 0 && role == KernelRole::kQueryGradient,
            .registers = registers};
}

}  // namespace spion
