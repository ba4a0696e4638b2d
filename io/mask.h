// Square masks, whose rows and columns are blocks or elements, as block patterns.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "ir/block_pattern.h"

namespace spion {

// What is known of a pattern besides what its file says.
struct PatternRequest {
    std::optional<int> block = {};  // 16, 32, 64 or 128; kDefaultBlock where neither says it
    std::int64_t length = 0;        // L; 0: what the file says or its rows make
    std::int64_t key_length = 0;    // of bits alone: Lk; 0: L
};
constexpr int kDefaultBlock = 64;

struct FoundPattern {
    BlockPattern pattern;
    // Blocks of which a mask of elements sets some and not all; they are computed whole.
    std::int64_t partial_blocks = 0;
};

// What a mask of `edge` x `edge` is for a request: with a length, its blocks where the edge is nb
// and its elements where it is L; without one, blocks. Throws UserError that begins with `origin`
// where the edge is neither, or where it might be either.
struct MaskGrid {
    std::int64_t length = 0;
    int block = 0;
    bool elements = false;
};
MaskGrid mask_grid(std::int64_t edge, const PatternRequest& request, const std::string& origin);

using SetCell = std::function<void(std::int64_t row, std::int64_t column)>;
// `visit` calls what it is given once for each cell that is set. A block is set when any of its
// elements is.
FoundPattern pattern_of_mask(const MaskGrid& grid,
                             const std::function<void(const SetCell&)>& visit);

}  // namespace spion
