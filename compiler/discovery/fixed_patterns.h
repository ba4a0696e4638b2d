// Patterns that look at no score map: those that sparse Transformers before SPION fix in advance. At
// any density, so that they can be compared with what is discovered.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "ir/block_pattern.h"

namespace spion {

enum class FixedPattern {
    kWindow,   // a band round the diagonal (Beltagy, Peters, Cohan: Longformer, 2020)
    kBigBird,  // a band, the first rows and columns, and random blocks of each row (Zaheer et al.:
               // Big Bird, NeurIPS 2020)
    kStrided,  // a band, and every s-th diagonal (Child et al.: Sparse Transformers, 2019)
    kFixed,    // segments round the diagonal, and every s-th column (the same)
};
inline constexpr std::array<std::string_view, 4> kFixedPatternNames = {"window", "bigbird",
                                                                       "strided", "fixed"};

std::optional<FixedPattern> parse_fixed_pattern(std::string_view name);

// As near to `density` of the blocks as the pattern allows: never less than the diagonal. About half
// of a row's blocks are in the band or the segment, but all of them in kWindow; kBigBird's random
// blocks depend on `seed`, and its first rows and columns have a sixth. Throws UserError for a density outside (0, 1].
BlockPattern fixed_pattern(FixedPattern kind, std::int64_t length, int block, double density,
                           std::uint64_t seed);

}  // namespace spion
