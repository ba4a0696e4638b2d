#include "compiler/passes/order_work.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace spion {
namespace {

// Gather blocks of `count` entries of the walk from `first` on.
std::int64_t listed(const TileProgram& program, int first, int count) {
    return program.offsets[first + count] - program.offsets[first];
}

// The order of items where heads have patterns of their own. Head after head, so that what runs at
// the same time shares K and V, the heads with most to do first, and longest first within a head.
// The last heads, as many as have two items for every SM, go side by side, longest first, so that
// no long walk of one of them is left when the others are done.
void order_by_heads(const TileProgram& program, int sm_count, std::vector<int>& items) {
    const int walks = item_walks(program.attention, program.role);
    const int patterns = item_patterns(program.attention, program.role);
    const std::int64_t tiles = program.pattern_tiles();
    std::vector<std::int64_t> work(static_cast<std::size_t>(patterns));
    const auto pattern_of = [&](int item) {
        return static_cast<std::size_t>(program.pattern(item) / walks);
    };
    for (const int item : items) {
        work[pattern_of(item)] += listed(program, item, walks);
    }
    std::vector<std::size_t> heads(work.size());
    std::iota(heads.begin(), heads.end(), 0);
    std::stable_sort(heads.begin(), heads.end(),
                     [&](std::size_t a, std::size_t b) { return work[a] > work[b]; });
    const auto together = static_cast<std::size_t>((2 * sm_count + tiles - 1) / tiles);
    std::vector<std::size_t> turn(work.size());  // of a head; the last ones share theirs
    for (std::size_t n = 0; n < heads.size(); ++n) {
        turn[heads[n]] = std::min(n, heads.size() - std::min(heads.size(), together));
    }
    std::stable_sort(items.begin(), items.end(), [&](int a, int b) {
        const std::size_t turn_a = turn[pattern_of(a)], turn_b = turn[pattern_of(b)];
        return turn_a != turn_b ? turn_a < turn_b
                                : listed(program, a, walks) > listed(program, b, walks);
    });
}

// First entries of the work items of `program` in the order they should start.
std::vector<int> starting_order(const TileProgram& program, int sm_count) {
    const int walks = item_walks(program.attention, program.role);
    std::vector<int> items;
    for (int first = 0; first < program.tiles(); first += walks) {
        items.push_back(first);
    }
    if (program.attention.items_of_sequences()) {
        return items;  // by number, as kernels find a sequence's tiles
    }
    if (program.attention.patterns > 1) {
        order_by_heads(program, sm_count, items);
    } else {
        std::stable_sort(items.begin(), items.end(), [&](int left, int right) {
            return listed(program, left, 1) > listed(program, right, 1);
        });
    }
    return items;
}

}  // namespace

TileProgram order_work(TileProgram program, const PassContext& context) {
    TileProgram ordered = program;
    ordered.order.clear();
    ordered.offsets = {0};
    ordered.gather_blocks.clear();
    ordered.block_row_masks.clear();
    ordered.classes.clear();
    ordered.coverages.clear();  // marked afterwards
    const int walks = item_walks(program.attention, program.role);
    const auto append = [&](int item) {
        ordered.order.push_back(program.order[item]);
        for (std::int32_t at = program.offsets[item]; at < program.offsets[item + 1]; ++at) {
            ordered.gather_blocks.push_back(program.gather_blocks[at]);
            if (!program.block_row_masks.empty()) {
                ordered.block_row_masks.push_back(program.block_row_masks[at]);
            }
        }
        ordered.offsets.push_back(static_cast<std::int32_t>(ordered.gather_blocks.size()));
        if (!program.classes.empty()) {
            ordered.classes.push_back(program.classes[item]);
        }
    };
    for (const int first : starting_order(program, context.target.sm_count)) {
        for (int item = first; item < first + walks; ++item) {
            append(item);
        }
    }
    return ordered;
}

}  // namespace spion
