// The pooled map of discovery, accumulated tile by tile (SPION, section 2: steps 1 and 2 are one
// linear map of A^s).
//
// conv[i', j'] = sum over f in [-h, F - 1 - h] of A[i' + f, j' + f] with h = F / 2, zero padded;
// pooled[I, J] = mean of conv over the elements of block (I, J), block_rows(I) x block_rows(J) of
// them. So element (i, j) of A adds A[i, j] * w / (rows(I) * rows(J)) to block (I, J), with
// r = i - I * block, c = j - J * block and
//   w = weight(r, c, rows(I), rows(J), F).
// An element reaches its own block and, moving along the diagonal by at most `block` (so F / 2 <=
// block is required), 6 others: kNeighbours lists the block offsets in the order of the summary's 7
// sums.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "compiler/discovery/discover.h"
#include "ir/attention.h"
#include "ir/block_pattern.h"

namespace spion {

struct BlockOffset {
    int row, column;
};
constexpr std::array<BlockOffset, 7> kNeighbours = {
    {{0, 0}, {1, 0}, {0, 1}, {1, 1}, {-1, 0}, {0, -1}, {-1, -1}}};

// Number of shifts f in [-(F/2), F - 1 - F/2] with 0 <= r - f < rows and 0 <= c - f < columns:
// the weight of an element at offset (r, c), which may lie outside, in a block of rows x columns.
int weight(int r, int c, int rows, int columns, int filter);

// summary: [tiles^2, 7] as written by the score_summary kernel for tiles of `tile` rows (tile
// divides block), each sum not yet divided by the block's element count. Returns pooled [nb, nb]
// row-major. The sums are added in fp64, in tile order.
std::vector<double> combine_summary(std::span<const float> summary, std::int64_t length, int block,
                                    int tile);

// The pattern of a layer with this operation, from combine_summary's map. What a causal mask drops
// counts as masked scores do (discover_masked, docs/formats.md): blocks above the diagonal are
// never set and in no quantile, and a block on the diagonal is the mean of the elements that it
// keeps. What is dropped has a probability of 0, so that sums are those of the kept elements.
BlockPattern discover_layer(std::vector<double> pooled, const Attention& attention,
                            const DiscoverySettings& settings);

}  // namespace spion
