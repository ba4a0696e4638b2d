#include "codegen/cuda/score_needs.h"

namespace spion {

// Of a capped score going backward a lane has its slope, as of an expression's, whose own values and
// positions take 16 more; then the head's slope or biases. Random numbers come and go where there is room
// and leave a bit an element; beside 128 columns, spans or a packed tile's block rows they take more, numbers
// found by compiling.
ScoreNeeds score_needs(const Attention& attention, KernelRole role, bool packed, int columns) {
    const bool forward = role == KernelRole::kForward;
    const bool tight = packed || columns > 64 || attention.mask == ElementMask::kSpans;
    int registers = attention.dropout > 0.0F && tight ? columns / 8 + 8 : 0;
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
