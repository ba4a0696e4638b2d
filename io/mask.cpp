#include "io/mask.h"

#include <algorithm>
#include <vector>

#include "ir/error.h"

namespace spion {
namespace {

constexpr std::int64_t kMostBlocks = 32768;  // a side, as BlockPattern has it

// Throws UserError for any other edge than a pattern's blocks may have.
void require_block(int block) {
    BlockPattern::empty(1, block);
}

// nb, checked before anything of that size is made.
std::int64_t count_blocks(std::int64_t length, int block) {
    require_block(block);
    const std::int64_t nb = length / block + (length % block != 0 ? 1 : 0);
    if (nb > kMostBlocks) {
        throw UserError(
            "length {} in blocks of {} makes {} x {} blocks: at most {} x {} are allowed, use a "
            "larger block or a shorter sequence",
            length, block, nb, nb, kMostBlocks, kMostBlocks);
    }
    return nb;
}

}  // namespace

MaskGrid mask_grid(std::int64_t edge, const PatternRequest& request, const std::string& origin) {
    const int block = request.block.value_or(kDefaultBlock);
    if (edge < 1) {
        throw UserError("{}: holds a mask of 0 x 0: give one with a row for each block or element",
                        origin);
    }
    if (request.length > 0) {
        const std::int64_t nb = count_blocks(request.length, block);
        if (edge != nb && edge != request.length) {
            throw UserError(
                "{}: holds a mask of {} x {}: length {} in blocks of {} needs {} x {} blocks or {} "
                "x {} elements",
                origin, edge, edge, request.length, block, nb, nb, request.length, request.length);
        }
        return {.length = request.length, .block = block, .elements = edge != nb};
    }
    require_block(block);
    if (edge > block) {
        throw UserError(
            "{}: holds a mask of {} x {}, which may be blocks or elements: give --length {} for "
            "blocks of {}, --length {} for elements",
            origin, edge, edge, edge * block, block, edge);
    }
    return {.length = edge * block, .block = block, .elements = false};
}

FoundPattern pattern_of_mask(const MaskGrid& grid,
                             const std::function<void(const SetCell&)>& visit) {
    const std::int64_t nb = count_blocks(grid.length, grid.block);
    const std::int64_t cell = grid.elements ? grid.block : 1;
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(nb * nb), 0);
    std::vector<std::int32_t> counts(grid.elements ? bits.size() : 0, 0);
    visit([&](std::int64_t row, std::int64_t column) {
        const auto at = static_cast<std::size_t>(row / cell * nb + column / cell);
        bits[at] = 1;
        if (grid.elements) {
            ++counts[at];
        }
    });
    std::int64_t partial = 0;
    for (std::int64_t i = 0; i < nb && grid.elements; ++i) {
        for (std::int64_t j = 0; j < nb; ++j) {
            const std::int64_t rows = std::min(cell, grid.length - i * cell);
            const std::int64_t columns = std::min(cell, grid.length - j * cell);
            const std::int32_t count = counts[static_cast<std::size_t>(i * nb + j)];
            partial += count != 0 && count != rows * columns ? 1 : 0;
        }
    }
    return {.pattern = BlockPattern(grid.length, grid.block, std::move(bits)),
            .partial_blocks = partial};
}

}  // namespace spion
