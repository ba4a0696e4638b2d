#include "compiler/passes/order_work.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace spion {
namespace {

// Work items of `program` in the order they should start: [tiles] indices.
std::vector<int> longest_first(const TileProgram& program) {
    std::vector<int> items(program.order.size());
    std::iota(items.begin(), items.end(), 0);
    const auto length = [&](int item) { return program.offsets[item + 1] - program.offsets[item]; };
    std::stable_sort(items.begin(), items.end(),
                     [&](int left, int right) { return length(left) > length(right); });
    return items;
}

}  // namespace

TileProgram order_work(TileProgram program, const PassContext& /*context*/) {
    TileProgram ordered = program;
    ordered.order.clear();
    ordered.offsets = {0};
    ordered.gather_blocks.clear();
    ordered.block_row_masks.clear();
    ordered.classes.clear();
    ordered.coverages.clear();  // marked afterwards
    for (int item : longest_first(program)) {
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
    }
    return ordered;
}

}  // namespace spion
