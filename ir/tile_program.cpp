#include "ir/tile_program.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "ir/error.h"

namespace spion {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

std::span<const std::int32_t> granules_of(const TileProgram& program, int item) {
    return {program.granules.data() + program.offsets[item],
            program.granules.data() + program.offsets[item + 1]};
}

// Ascending numbers, runs of three and more as first..last: " 0 1 5..9".
void append_runs(std::string& text, std::span<const std::int32_t> numbers) {
    for (std::size_t i = 0; i < numbers.size();) {
        std::size_t end = i + 1;
        while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) {
            ++end;
        }
        if (end - i >= 3) {
            fmt::format_to(std::back_inserter(text), " {}..{}", numbers[i], numbers[end - 1]);
            i = end;
        } else {
            fmt::format_to(std::back_inserter(text), " {}", numbers[i]);
            ++i;
        }
    }
}

void verify_shape(const TileProgram& program) {
    try {
        check(program.attention);
    } catch (const UserError& error) {
        throw InternalError("tile program: {}", error.what());
    }
    const int block = program.block;
    if (block != 16 && block != 32 && block != 64 && block != 128) {
        throw InternalError("tile program: block {} is not 16, 32, 64 or 128", block);
    }
    if (program.stationary_rows < 1 || block % program.stationary_rows != 0) {
        throw InternalError("tile program: stationary_rows {} does not divide block {}",
                            program.stationary_rows, block);
    }
    if (program.granule < 1 || block % program.granule != 0) {
        throw InternalError("tile program: granule {} does not divide block {}", program.granule,
                            block);
    }
    if (program.streamed_rows < 1 || program.streamed_rows % program.granule != 0) {
        throw InternalError("tile program: streamed_rows {} is not a multiple of granule {}",
                            program.streamed_rows, program.granule);
    }
    if (program.warps < 1 || program.stages < 1) {
        throw InternalError("tile program: {} warps and {} stages, at least one of each is needed",
                            program.warps, program.stages);
    }
    if (program.warps > 1 && program.stationary_rows != 16 * program.warps) {
        throw InternalError("tile program: {} warps for {} stationary rows, 16 rows a warp needed",
                            program.warps, program.stationary_rows);
    }
}

void verify_order(const TileProgram& program) {
    const std::int64_t tiles = ceil_div(program.attention.length, program.stationary_rows);
    if (program.tiles() != tiles) {
        throw InternalError("tile program: order has {} tiles, L={} in {} stationary rows has {}",
                            program.tiles(), program.attention.length, program.stationary_rows,
                            tiles);
    }
    std::vector<bool> seen(static_cast<std::size_t>(tiles), false);
    for (std::size_t item = 0; item < program.order.size(); ++item) {
        const std::int32_t tile = program.order[item];
        if (tile < 0 || tile >= tiles || seen[static_cast<std::size_t>(tile)]) {
            throw InternalError("tile program: order is no permutation: work item {} is tile {} {}",
                                item, tile,
                                tile < 0 || tile >= tiles ? "out of range" : "a second time");
        }
        seen[static_cast<std::size_t>(tile)] = true;
    }
}

void verify_walk(const TileProgram& program) {
    const std::vector<std::int32_t>& offsets = program.offsets;
    if (offsets.size() != program.order.size() + 1 || offsets.front() != 0 ||
        offsets.back() != static_cast<std::int64_t>(program.granules.size())) {
        throw InternalError("tile program: {} offsets do not span {} work items and {} granules",
                            offsets.size(), program.order.size(), program.granules.size());
    }
    if (!std::is_sorted(offsets.begin(), offsets.end())) {
        const auto at = std::is_sorted_until(offsets.begin(), offsets.end());
        throw InternalError("tile program: offsets decrease at work item {}",
                            at - offsets.begin() - 1);
    }
    const std::int64_t limit = ceil_div(program.attention.length, program.granule);
    for (int item = 0; item < program.tiles(); ++item) {
        std::int32_t previous = -1;
        for (std::int32_t granule : granules_of(program, item)) {
            if (granule <= previous) {
                throw InternalError("tile program: tile {}: granule {} follows {}, not ascending",
                                    program.order[item], granule, previous);
            }
            if (granule >= limit) {
                throw InternalError("tile program: tile {}: granule {} starts beyond L={}",
                                    program.order[item], granule, program.attention.length);
            }
            previous = granule;
        }
    }
}

// `pattern` as the role walks it: transposed for kKeyValueGradient.
void verify_coverage(const TileProgram& program, const BlockPattern& pattern) {
    const int granules_a_block = program.block / program.granule;
    for (int item = 0; item < program.tiles(); ++item) {
        const int tile = program.order[item];
        const int row = static_cast<int>(static_cast<std::int64_t>(tile) * program.stationary_rows /
                                         program.block);
        const std::span<const std::int32_t> listed = granules_of(program, item);
        for (std::int32_t granule : listed) {
            if (!pattern.at(row, granule / granules_a_block)) {
                throw InternalError("tile program: tile {} streams granule {} outside the pattern",
                                    tile, granule);
            }
        }
        for (std::int32_t column : pattern.row(row)) {
            const auto parts =
                static_cast<int>(ceil_div(pattern.block_rows(column), program.granule));
            for (int part = 0; part < parts; ++part) {
                const int granule = column * granules_a_block + part;
                if (!std::binary_search(listed.begin(), listed.end(), granule)) {
                    throw InternalError("tile program: tile {} lacks granule {} of the pattern",
                                        tile, granule);
                }
            }
        }
    }
}

}  // namespace

std::string_view to_string(KernelRole role) {
    switch (role) {
        case KernelRole::kForward:
            return "attention_forward";
        case KernelRole::kQueryGradient:
            return "attention_query_gradient";
        case KernelRole::kKeyValueGradient:
            return "attention_key_value_gradient";
    }
    throw InternalError("kernel role {} has no name", static_cast<int>(role));
}

std::string to_text(const TileProgram& program, bool tables) {
    std::int64_t longest = 0;
    std::int64_t empty = 0;
    for (int item = 0; item < program.tiles(); ++item) {
        const auto length = static_cast<std::int64_t>(granules_of(program, item).size());
        longest = std::max(longest, length);
        empty += length == 0 ? 1 : 0;
    }
    std::string text = fmt::format(
        "program role={}\n{}\n"
        "shape block={} stationary_rows={} streamed_rows={} granule={} warps={} stages={}\n"
        "walk tiles={} granules={} longest={} empty={}\n",
        to_string(program.role), to_text(program.attention), program.block, program.stationary_rows,
        program.streamed_rows, program.granule, program.warps, program.stages, program.tiles(),
        program.granules.size(), longest, empty);
    for (int item = 0; tables && item < program.tiles(); ++item) {
        fmt::format_to(std::back_inserter(text), "tile {}:", program.order[item]);
        append_runs(text, granules_of(program, item));
        text += '\n';
    }
    return text;
}

void verify(const TileProgram& program) {
    verify_shape(program);
    verify_order(program);
    verify_walk(program);
}

void verify(const TileProgram& program, const BlockPattern& pattern) {
    verify(program);
    if (pattern.length() != program.attention.length || pattern.block() != program.block) {
        throw InternalError(
            "tile program: L={} block={} was made for another pattern than L={} block={}",
            program.attention.length, program.block, pattern.length(), pattern.block());
    }
    if (program.role == KernelRole::kKeyValueGradient) {
        verify_coverage(program, pattern.transpose());
    } else {
        verify_coverage(program, pattern);
    }
}

}  // namespace spion
