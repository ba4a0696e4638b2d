// Pattern discovery (SPION, section 2): pooled scores -> quantile -> flood fill -> BlockPattern.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "ir/block_pattern.h"

namespace spion {

enum class Variant {
    kCF,  // diagonal convolution, then flood fill
    kF,   // flood fill only
    kC,   // diagonal convolution, then the top k = floor(nb^2 * density - nb) blocks
};
// "cf", "f", "c".
std::string_view to_string(Variant variant);
Variant parse_variant(std::string_view name);  // throws UserError listing them

struct DiscoverySettings {
    int block = 64;          // 16, 32, 64 or 128
    int filter = 31;         // F >= 1, edge of the identity filter; unused by kF
    double quantile = 0.96;  // in [0, 1]; unused by kC
    double density = 0.04;   // in [0, 1]; kC only
    Variant variant = Variant::kCF;
};
// Throws UserError on a setting out of range.
void check(const DiscoverySettings& settings);

// F as the pooled map needs it: settings.filter, or 1 (no convolution) for kF.
int effective_filter(const DiscoverySettings& settings);

// Steps 1 and 2 on a whole map: scores [L, L] row-major -> pooled [nb, nb]. fp64 throughout.
std::vector<double> pool_scores(std::span<const double> scores, std::int64_t length,
                                const DiscoverySettings& settings);

// Writes row i of a map, L scores. Called once for each row, i ascending.
using ScoreRows = std::function<void(std::int64_t row, std::span<double> scores)>;
// The same from rows that are made when they are needed; keeps no more than F of them. A score of
// -infinity is masked: it counts as absent, adds nothing to the sum along its diagonal, and a
// block's mean runs over its other elements. A block without any other pools to -infinity. (In
// numpy's words, with NaN for masked: nansum along the diagonal, NaN where the element itself is,
// then nanmean.)
std::vector<double> pool_masked_scores(const ScoreRows& rows, std::int64_t length,
                                       const DiscoverySettings& settings);

// As discover(), where a block of -infinity is wholly masked: it counts for no quantile and is set
// by its place on the diagonal alone. Throws UserError when no block is left.
BlockPattern discover_masked(std::span<const double> pooled, std::int64_t length,
                             const DiscoverySettings& settings);
// The threshold that it takes: the quantile of the blocks that are not masked.
double masked_quantile(std::span<const double> pooled, double q);

// Linear interpolation between order statistics, as numpy.quantile's default.
double quantile(std::span<const double> values, double q);

// Step 4: marks [nb, nb] (1 = marked). Ties as in the reference specification: below wins only if
// strictly larger than right and diagonal, right only if strictly larger than diagonal.
std::vector<std::uint8_t> flood_fill(std::span<const double> pooled, int blocks, double threshold);

// Steps 3 to 5. pooled: [nb, nb]. Throws UserError on NaN in pooled or a wrong size.
BlockPattern discover(std::span<const double> pooled, std::int64_t length,
                      const DiscoverySettings& settings);

}  // namespace spion
