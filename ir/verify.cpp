#include "ir/verify.h"

#include <cmath>

#include "ir/ceil_div.h"
#include "ir/element_spans.h"
#include "ir/error.h"
#include "ir/verify_parts.h"

namespace spion {
namespace {

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

// Blocks of kFullBlock are those of a full pattern.
void verify_full_walk(const TileProgram& program) {
    const std::int64_t streamed =
        ceil_div(streamed_length(program.attention, program.role), program.gather_rows);
    if (program.block == BlockPattern::kFullBlock &&
        std::ssize(program.gather_blocks) != program.tiles() * streamed) {
        broken(kProgram, "{} gather blocks for {} tiles: in blocks of {} each has all {}",
               program.gather_blocks.size(), program.tiles(), program.block, streamed);
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

void verify_belongs(const TileProgram& program, const HeadPatterns& pattern) {
    if (pattern.count() != program.attention.pattern_count()) {
        broken(kProgram, "{} patterns in a text of {}", program.attention.pattern_count(),
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
    verify_operation(program.attention,
                     program.block == BlockPattern::kFullBlock ? 128 : program.block);
    // Whatever blocks a full pattern is cut into, it is the same.
    std::optional<HeadPatterns> cut;
    if (pattern != nullptr && program.block != pattern->block() && pattern->are_full()) {
        cut = pattern->in_blocks_of(program.block);
        pattern = &*cut;
    }
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
        verify_full_walk(program);
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
    // Until block rows are packed into a tile, it has the warps of one alone.
    if (program.unit == MatrixUnit::kWgmma && program.warps % 4 != 0) {
        broken(kProgram, "wgmma with {} warps, a multiple of 4 is needed", program.warps);
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
    if (program.attention.relative_bias > 0) {
        broken(kProgram,
               "a score summary with relative_bias={}: it has no way to be given one, leave it out",
               program.attention.relative_bias);
    }
    if (!program.attention.score.empty()) {
        broken(kProgram,
               "a score summary with score={}: patterns are found in maps of plain scores",
               program.attention.score);
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
