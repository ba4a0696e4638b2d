#include <algorithm>
#include <cstdint>
#include <vector>

#include "ir/ceil_div.h"

#include "ir/verify_parts.h"

namespace spion {
namespace {

// The tile of entry `item` where walks lie pattern after pattern, those of an item's members side by
// side.
std::int32_t numbered(const TileProgram& program, std::size_t item) {
    const std::int64_t walks = item_walks(program.attention, program.role);
    const std::int64_t tiles = program.pattern_tiles(), entry = static_cast<std::int64_t>(item);
    const std::int64_t pattern = entry / (walks * tiles) * walks + entry % walks;
    return static_cast<std::int32_t>(pattern * tiles + entry / walks % tiles);
}

void verify_order(const TileProgram& program) {
    const std::int64_t length = stationary_length(program.attention, program.role);
    const std::int64_t tiles = program.attention.pattern_count() * program.pattern_tiles();
    if (program.tiles() != tiles) {
        broken(kProgram, "order has {} tiles, L={} in {} stationary rows has {}", program.tiles(),
               length, program.stationary_rows, tiles);
    }
    std::vector<bool> seen(static_cast<std::size_t>(tiles), false);
    for (std::size_t item = 0; item < program.order.size(); ++item) {
        const std::int32_t tile = program.order[item];
        if (program.attention.items_of_sequences() && tile != numbered(program, item)) {
            broken(static_cast<int>(item),
                   "work item {} is tile {}: with varlen tiles are in the order of their numbers",
                   item, tile);
        }
        if (tile < 0 || tile >= tiles || seen[static_cast<std::size_t>(tile)]) {
            broken(static_cast<int>(item), "order is no permutation: work item {} is tile {} {}",
                   item, tile, tile < 0 || tile >= tiles ? "out of range" : "a second time");
        }
        seen[static_cast<std::size_t>(tile)] = true;
    }
    // The walks of an item's members stand side by side.
    const int walks = item_walks(program.attention, program.role);
    for (int w = 0; w < program.tiles(); ++w) {
        const int first = w - w % walks;
        if (program.tile(w) != program.tile(first) ||
            program.pattern(w) != program.pattern(first) / walks * walks + w % walks) {
            broken(w, "tile {}.{} stands among the {} walks of an item that tile {}.{} begins",
                   program.pattern(w), program.tile(w), walks, program.pattern(first),
                   program.tile(first));
        }
    }
}

void verify_walk(const TileProgram& program) {
    const std::vector<std::int32_t>& offsets = program.offsets;
    if (offsets.size() != program.order.size() + 1 || offsets.front() != 0 ||
        offsets.back() != static_cast<std::int64_t>(program.gather_blocks.size())) {
        broken(kProgram, "{} offsets do not span {} work items and {} gather blocks",
               offsets.size(), program.order.size(), program.gather_blocks.size());
    }
    if (!std::is_sorted(offsets.begin(), offsets.end())) {
        const auto at = std::is_sorted_until(offsets.begin(), offsets.end());
        broken(kProgram, "offsets decrease at work item {}", at - offsets.begin() - 1);
    }
    const std::int64_t streamed = streamed_length(program.attention, program.role);
    const std::int64_t limit = ceil_div(streamed, program.gather_rows);
    for (int item = 0; item < program.tiles(); ++item) {
        std::int32_t previous = -1;
        for (std::int32_t gather_block : gather_blocks_of(program, item)) {
            if (gather_block <= previous) {
                broken(item, "tile {}: gather block {} follows {}, not ascending",
                       program.order[item], gather_block, previous);
            }
            if (gather_block >= limit) {
                broken(item, "tile {}: gather block {} starts beyond L={}", program.order[item],
                       gather_block, streamed);
            }
            previous = gather_block;
        }
    }
}

void verify_bits(const TileProgram& program) {
    const bool packed = program.packed_rows() > 1;
    if (program.block_row_masks.size() != (packed ? program.gather_blocks.size() : 0)) {
        broken(kProgram, "{} entries of bits for {} gather blocks and {} block rows",
               program.block_row_masks.size(), program.gather_blocks.size(), program.packed_rows());
    }
    const int rows = program.packed_rows();
    const std::uint32_t allowed = rows == 32 ? ~0U : (1U << rows) - 1;
    for (int item = 0; packed && item < program.tiles(); ++item) {
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            if (program.block_row_masks[at] == 0 || (program.block_row_masks[at] & ~allowed) != 0) {
                broken(item, "tile {}: gather block {} is used by {}", program.order[item],
                       program.gather_blocks[at],
                       program.block_row_masks[at] == 0 ? "no block row"
                                                        : "a block row beyond the tile");
            }
        }
    }
}

void verify_classes(const TileProgram& program) {
    if (program.classes.empty()) {
        return;
    }
    if (program.classes.size() != program.order.size()) {
        broken(kProgram, "{} row classes for {} work items", program.classes.size(),
               program.order.size());
    }
    for (int item = 0; item < program.tiles(); ++item) {
        const RowClass expected = row_class(program, item);
        if (program.classes[item] != expected) {
            broken(item, "tile {} is classed {}, its gather blocks are {}", program.order[item],
                   to_string(program.classes[item]), to_string(expected));
        }
    }
}

void verify_marks(const TileProgram& program) {
    if (program.coverages.empty()) {
        return;
    }
    if (program.coverages.size() != program.gather_blocks.size()) {
        broken(kProgram, "{} marks for {} gather blocks", program.coverages.size(),
               program.gather_blocks.size());
    }
    for (int item = 0; item < program.tiles(); ++item) {
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            const Coverage expected =
                gather_block_coverage(program, item, static_cast<std::size_t>(at));
            if (program.coverages[at] != expected) {
                broken(item, "tile {}: gather block {} is marked {}, it is {}", program.order[item],
                       program.gather_blocks[at], expected == Coverage::kFull ? "partial" : "full",
                       expected == Coverage::kFull ? "full" : "partial");
            }
        }
    }
}

}  // namespace

void verify_whole_walk(const TileProgram& program) {
    verify_order(program);
    verify_walk(program);
    verify_bits(program);
    verify_classes(program);
    verify_marks(program);
}

}  // namespace spion
