#include "compiler/plan/typical.h"

#include <algorithm>
#include <cmath>

#include "ir/ceil_div.h"

namespace spion {

StreamedRows planned_rows(std::int64_t length, int block, std::int64_t streamed_length,
                          double density) {
    const std::int64_t others = streamed_length == 0 ? length : streamed_length;
    const std::int64_t blocks = ceil_div(length, block);
    const std::int64_t other_blocks = ceil_div(others, block);
    const auto planned =
        static_cast<std::int64_t>(std::ceil(density * static_cast<double>(other_blocks)));
    const std::int64_t streamed = std::min(others, std::max<std::int64_t>(2, planned) * block);
    StreamedRows rows{
        .stationary = std::vector<std::int64_t>(static_cast<std::size_t>(blocks), block),
        .streamed = std::vector<std::int64_t>(static_cast<std::size_t>(blocks), streamed),
        .distinct = others};
    rows.stationary.back() = length - (blocks - 1) * block;
    return rows;
}

TypicalTiles rank_typical(const KernelCase& launch, KernelFamilies families) {
    TypicalTiles tiles{
        .candidates = tile_candidates(
            launch,
            planned_rows(stationary_length(launch.attention, launch.role), launch.block,
                         streamed_length(launch.attention, launch.role)),
            kPlannedBatch, families),
        .measured = {},
        .ranked = {}};
    tiles.measured = measured_among(tiles.candidates, launch, families);
    tiles.ranked = rank_candidates(tiles.candidates, tiles.measured, tiles.candidates.size());
    if (tiles.ranked.empty()) {
        throw_nothing_fits(launch, families);
    }
    return tiles;
}

}  // namespace spion
