#include "ir/verify.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "ir/element_spans.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kProgram = -1;  // Fault::item of a rule about the whole program

struct BrokenRule {
    Fault fault;
};

template <typename... Args>
[[noreturn]] void broken(int item, fmt::format_string<Args...> format, Args&&... args) {
    throw BrokenRule{{.rule = fmt::format(format, std::forward<Args>(args)...), .item = item}};
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

std::span<const std::int32_t> gather_blocks_of(const TileProgram& program, int item) {
    return {program.gather_blocks.data() + program.offsets[item],
            program.gather_blocks.data() + program.offsets[item + 1]};
}

constexpr int kMostPackedRows = 32;  // bits of an entry of TileProgram::block_row_masks

bool divides_either_way(int rows, int block) {
    return rows >= 1 && (block % rows == 0 || rows % block == 0);
}

void verify_unit(const TileProgram& program) {
    const bool exact = program.unit == MatrixUnit::kVector || program.unit == MatrixUnit::kFma;
    if (program.attention.dtype == DType::kFp32 && !exact) {
        broken(kProgram, "fp32 products on {}, which rounds: vector or fma needed",
               to_string(program.unit));
    }
    if (program.unit == MatrixUnit::kMmaSyncTma &&
        (program.warps != 1 || program.stationary_rows > 32)) {
        broken(kProgram,
               "mma_sync_tma with {} warps and stationary_rows {}, 1 and 32 at most needed",
               program.warps, program.stationary_rows);
    }
    if (program.unit == MatrixUnit::kWgmma && program.warps % 4 != 0) {
        broken(kProgram, "wgmma with {} warps, a multiple of 4 is needed", program.warps);
    }
}

void verify_operation(const Attention& attention, int block) {
    try {
        check(attention);
    } catch (const UserError& error) {
        broken(kProgram, "{}", error.what());
    }
    if (block != 16 && block != 32 && block != 64 && block != 128) {
        broken(kProgram, "block {} is not 16, 32, 64 or 128", block);
    }
}

void verify_shape(const TileProgram& program) {
    const int block = program.block;
    if (!divides_either_way(program.stationary_rows, block)) {
        broken(kProgram, "stationary_rows {} does not divide block {} and is no multiple of it",
               program.stationary_rows, block);
    }
    if (program.packed_rows() > kMostPackedRows) {
        broken(kProgram, "{} block rows in a tile, at most {} have a bit", program.packed_rows(),
               kMostPackedRows);
    }
    if (!divides_either_way(program.gather_rows, block)) {
        broken(kProgram, "gather_rows {} does not divide block {} and is no multiple of it",
               program.gather_rows, block);
    }
    if (program.streamed_rows < 1 || program.streamed_rows % program.gather_rows != 0) {
        broken(kProgram, "streamed_rows {} is not a multiple of gather_rows {}",
               program.streamed_rows, program.gather_rows);
    }
    if (program.warps < 1 || program.stages < 1) {
        broken(kProgram, "{} warps and {} stages, at least one of each is needed", program.warps,
               program.stages);
    }
    if (program.warps > 1 && program.stationary_rows != std::int64_t{16} * program.warps) {
        broken(kProgram, "{} warps for {} stationary rows, 16 rows a warp needed", program.warps,
               program.stationary_rows);
    }
}

void verify_order(const TileProgram& program) {
    const std::int64_t length = stationary_length(program.attention, program.role);
    const std::int64_t tiles = program.attention.patterns * program.pattern_tiles();
    if (program.tiles() != tiles) {
        broken(kProgram, "order has {} tiles, L={} in {} stationary rows has {}", program.tiles(),
               length, program.stationary_rows, tiles);
    }
    std::vector<bool> seen(static_cast<std::size_t>(tiles), false);
    for (std::size_t item = 0; item < program.order.size(); ++item) {
        const std::int32_t tile = program.order[item];
        if (program.attention.varlen && program.attention.patterns == 1 &&
            tile != static_cast<std::int32_t>(item)) {
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

// Blocks [first, last] of the sequence that a gather block reaches into.
struct Columns {
    int first, last;
};

Columns columns_of(const TileProgram& program, std::int32_t gather_block) {
    const std::int64_t begin = std::int64_t{gather_block} * program.gather_rows;
    const std::int64_t end =
        std::min(begin + program.gather_rows, streamed_length(program.attention, program.role));
    return {static_cast<int>(begin / program.block), static_cast<int>((end - 1) / program.block)};
}

// One block row of a tile: bit `bit` of its gather blocks.
struct CoveredRow {
    int item, row, bit;
};

void verify_nothing_more(const TileProgram& program, const BlockPattern& pattern,
                         const CoveredRow& covered) {
    for (std::int32_t at = program.offsets[covered.item]; at < program.offsets[covered.item + 1];
         ++at) {
        if (!program.block_row_masks.empty() &&
            (program.block_row_masks[at] >> covered.bit & 1U) == 0) {
            continue;
        }
        const Columns columns = columns_of(program, program.gather_blocks[at]);
        for (int column = columns.first; column <= columns.last; ++column) {
            if (covered.row >= pattern.rows() || !pattern.at(covered.row, column)) {
                broken(covered.item,
                       "tile {} streams gather block {} outside the pattern (block row {})",
                       program.order[covered.item], program.gather_blocks[at], covered.row);
            }
        }
    }
}

void verify_nothing_less(const TileProgram& program, const BlockPattern& pattern,
                         const CoveredRow& covered) {
    const std::span<const std::int32_t> listed = gather_blocks_of(program, covered.item);
    for (std::int32_t column : pattern.row(covered.row)) {
        const std::int64_t begin = std::int64_t{column} * program.block;
        const std::int64_t end = begin + pattern.block_columns(column);
        for (std::int64_t gather_block = begin / program.gather_rows;
             gather_block * program.gather_rows < end; ++gather_block) {
            const auto found = std::lower_bound(listed.begin(), listed.end(), gather_block);
            const auto at = static_cast<std::size_t>(program.offsets[covered.item]) +
                            static_cast<std::size_t>(found - listed.begin());
            if (found == listed.end() || *found != gather_block ||
                (!program.block_row_masks.empty() &&
                 (program.block_row_masks[at] >> covered.bit & 1U) == 0)) {
                broken(covered.item, "tile {} lacks gather block {} of the pattern (block row {})",
                       program.order[covered.item], gather_block, covered.row);
            }
        }
    }
}

// `patterns` as the role walks them: transposed where it walks columns.
void verify_coverage(const TileProgram& program, const HeadPatterns& patterns) {
    for (int item = 0; item < program.tiles(); ++item) {
        const BlockPattern& pattern = patterns[program.pattern(item)];
        const std::int64_t first_row = program.tile(item) * program.stationary_rows / program.block;
        for (int bit = 0; bit < program.packed_rows(); ++bit) {
            const CoveredRow covered{
                .item = item, .row = static_cast<int>(first_row) + bit, .bit = bit};
            verify_nothing_more(program, pattern, covered);
            if (covered.row < pattern.rows()) {
                verify_nothing_less(program, pattern, covered);
            }
        }
    }
}

void verify_whole_walk(const TileProgram& program) {
    verify_order(program);
    verify_walk(program);
    verify_bits(program);
    verify_classes(program);
    verify_marks(program);
}

void verify_belongs(const TileProgram& program, const HeadPatterns& pattern) {
    if (pattern.count() != program.attention.patterns) {
        broken(kProgram, "{} patterns in a text of {}", program.attention.patterns,
               pattern.count());
    }
    if (!fits(pattern, program.attention) || pattern.block() != program.block) {
        broken(kProgram, "{} block={} was made for another pattern than {} block={}",
               lengths_text(program.attention.length, program.attention.key_value_length()),
               program.block, lengths_text(pattern.length(), pattern.key_length()),
               pattern.block());
    }
}

void verify_so_far(const TileProgram& program, const HeadPatterns* pattern) {
    verify_operation(program.attention, program.block);
    if (pattern != nullptr) {
        verify_belongs(program, *pattern);
    }
    if (program.stationary_rows != 0) {
        verify_shape(program);
        verify_unit(program);
    }
    const bool walked = !program.order.empty();
    if (walked && program.stationary_rows == 0) {
        broken(kProgram, "a walk without tiles");
    }
    if (walked) {
        verify_whole_walk(program);
    } else if (!program.offsets.empty() || !program.gather_blocks.empty() ||
               !program.block_row_masks.empty() || !program.classes.empty() ||
               !program.coverages.empty()) {
        broken(kProgram, "gather blocks, bits, classes or marks without an order");
    }
    if (walked && pattern != nullptr) {
        const HeadPatterns visited = visited_blocks(*pattern, program.attention);
        verify_coverage(program, walks_columns(program.role) ? visited.transpose() : visited);
    }
}

void verify_finished(const TileProgram& program) {
    if (program.stationary_rows == 0) {
        broken(kProgram, "the program is not finished: its shape names only the block");
    }
    if (program.order.empty()) {
        broken(kProgram, "the program is not finished: it has no walk");
    }
}

template <typename Check>
std::optional<Fault> fault_of(Check check_rules) {
    try {
        check_rules();
    } catch (const BrokenRule& broken_rule) {
        return broken_rule.fault;
    }
    return std::nullopt;
}

void require(const std::optional<Fault>& fault, const char* what = "tile program") {
    if (fault) {
        throw InternalError("{}: {}", what, fault->rule);
    }
}

void verify_summary(const ScoreSummaryProgram& program) {
    verify_operation(program.attention, program.block);
    if (program.attention.diagonal() != 0) {
        broken(kProgram,
               "a score summary of {} queries and {} keys: patterns are found in square "
               "maps, give as many keys as queries",
               program.attention.length, program.attention.key_value_length());
    }
    if (program.attention.varlen) {
        broken(kProgram,
               "a score summary of varlen sequences: patterns are found in maps of one length, "
               "give samples of their own");
    }
    const int tile = program.tile;
    if ((tile != 16 && tile != 32 && tile != 64) || tile > program.block) {
        broken(kProgram, "tile {} in block {}, 16, 32 or 64 and at most the block needed", tile,
               program.block);
    }
    if (program.filter < 1 || program.filter > 2 * program.block + 1) {
        broken(kProgram, "filter {} reaches beyond the neighbours of block {}: 1 to {} needed",
               program.filter, program.block, 2 * program.block + 1);
    }
}

void verify_step(const StepProgram& program) {
    if (!is_identifier(program.name)) {
        broken(kProgram, "'train_{}' is no name of a step kernel", program.name);
    }
    for (const StepProgram::Constant& constant : program.constants) {
        if (!is_identifier(constant.name)) {
            broken(kProgram, "'{}' is no name of a constant", constant.name);
        }
        if (!std::isfinite(constant.value)) {
            broken(kProgram, "constant {} is {}, a finite number is needed", constant.name,
                   constant.value);
        }
    }
}

}  // namespace

std::optional<Fault> find_fault(const TileProgram& program, const HeadPatterns* pattern,
                                Completeness completeness) {
    return fault_of([&] {
        verify_so_far(program, pattern);
        if (completeness == Completeness::kFinished) {
            verify_finished(program);
        }
    });
}

std::optional<Fault> find_fault(const ScoreSummaryProgram& program) {
    return fault_of([&] { verify_summary(program); });
}

std::optional<Fault> find_fault(const StepProgram& program) {
    return fault_of([&] { verify_step(program); });
}

void verify(const ScoreSummaryProgram& program) {
    require(find_fault(program), "score summary");
}

void verify(const TileProgram& program) {
    require(find_fault(program, nullptr, Completeness::kFinished));
}

void verify(const TileProgram& program, const HeadPatterns& pattern) {
    require(find_fault(program, &pattern, Completeness::kFinished));
}

}  // namespace spion
