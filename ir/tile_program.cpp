#include "ir/tile_program.h"

#include <algorithm>
#include <iterator>

#include "ir/error.h"
#include "ir/names.h"

namespace spion {
namespace {

constexpr Names<KernelRole, 5> kRoles = {
    {{KernelRole::kForward, "attention_forward"},
     {KernelRole::kQueryGradient, "attention_query_gradient"},
     {KernelRole::kKeyValueGradient, "attention_key_value_gradient"},
     {KernelRole::kDelta, "attention_delta"},
     {KernelRole::kGradients, "attention_gradients"}}};
constexpr Names<Tables, 2> kTables = {{{Tables::kPassed, "passed"}, {Tables::kBaked, "baked"}}};
constexpr Names<RowClass, 5> kClasses = {{{RowClass::kEmpty, "empty"},
                                          {RowClass::kDense, "dense"},
                                          {RowClass::kBand, "band"},
                                          {RowClass::kRuns, "runs"},
                                          {RowClass::kIrregular, "irregular"}}};

// The gather blocks of a work item and their bits (all 1 in a program that is not packed).
struct Item {
    const TileProgram& program;
    std::size_t begin, end;  // of gather blocks

    std::int32_t gather_block(std::size_t at) const { return program.gather_blocks[at]; }
    std::uint32_t bits(std::size_t at) const {
        return program.block_row_masks.empty() ? 1U : program.block_row_masks[at];
    }
    // Whether the gather block is marked as partial.
    bool partial(std::size_t at) const {
        return !program.coverages.empty() && program.coverages[at] != Coverage::kFull;
    }
    // One past the run that starts at `at`.
    std::size_t run_end(std::size_t at) const {
        std::size_t next = at + 1;
        while (next < end && gather_block(next) == gather_block(next - 1) + 1 &&
               bits(next) == bits(at)) {
            ++next;
        }
        return next;
    }
};

Item item_of(const TileProgram& program, int item) {
    const auto at = static_cast<std::size_t>(item);
    return {program, static_cast<std::size_t>(program.offsets[at]),
            static_cast<std::size_t>(program.offsets[at + 1])};
}

std::string bit_text(const TileProgram& program, std::uint32_t bits) {
    std::string text;
    for (int r = 0; r < program.packed_rows() && !program.block_row_masks.empty(); ++r) {
        text += text.empty() ? "/" : "";
        text += (bits >> r & 1U) != 0 ? '1' : '0';
    }
    return text;
}

// " 0 1 5..9 10~", with bits " 0/01 1/11 5..9/10 10/11~".
void append_gather_blocks(std::string& text, const Item& item) {
    for (std::size_t at = item.begin; at < item.end;) {
        std::size_t run_end = at + 1;  // of equal marks too
        for (const std::size_t most = item.run_end(at);
             run_end < most && item.partial(run_end) == item.partial(at);) {
            ++run_end;
        }
        const std::size_t end = run_end - at >= 3 ? run_end : at + 1;
        fmt::format_to(std::back_inserter(text), " {}", item.gather_block(at));
        if (end > at + 1) {
            fmt::format_to(std::back_inserter(text), "..{}", item.gather_block(end - 1));
        }
        text += bit_text(item.program, item.bits(at));
        text += item.partial(at) ? "~" : "";
        at = end;
    }
}

}  // namespace

std::string_view to_string(KernelRole role) {
    return name_of(kRoles, role, "kernel role");
}
std::string_view to_string(Tables tables) {
    return name_of(kTables, tables, "kind of tables");
}
std::string_view to_string(RowClass row_class) {
    return name_of(kClasses, row_class, "row class");
}

KernelRole parse_kernel_role(std::string_view name) {
    return value_of(kRoles, name, "kernel role");
}
Tables parse_tables(std::string_view name) {
    return value_of(kTables, name, "kind of tables");
}
RowClass parse_row_class(std::string_view name) {
    return value_of(kClasses, name, "row class");
}

TileShape shape_of(const TileProgram& program) {
    return {.stationary_rows = program.stationary_rows,
            .streamed_rows = program.streamed_rows,
            .gather_rows = program.gather_rows,
            .warps = program.warps,
            .stages = program.stages,
            .unit = program.unit,
            .packed_rows = program.packed_rows()};
}

Coverage gather_block_coverage(const TileProgram& program, int item, std::size_t at) {
    const std::int64_t length = stationary_length(program.attention, program.role);
    const std::int64_t first = program.tile(item) * program.stationary_rows;
    const std::int64_t rows = std::min<std::int64_t>(program.stationary_rows, length - first);
    if (!program.block_row_masks.empty()) {
        const std::int64_t block_rows = (rows + program.block - 1) / program.block;
        const std::uint32_t all = block_rows >= 32 ? ~0U : (1U << block_rows) - 1;
        if ((program.block_row_masks[at] & all) != all) {
            return Coverage::kPartial;
        }
    }
    const std::int64_t streamed = std::int64_t{program.gather_blocks[at]} * program.gather_rows;
    const std::int64_t end = streamed + program.gather_rows;
    const ScoreRectangle rectangle = walks_columns(program.role)
                                         ? ScoreRectangle{streamed, end, first, first + rows}
                                         : ScoreRectangle{first, first + rows, streamed, end};
    return coverage(program.attention, rectangle) == Coverage::kFull ? Coverage::kFull
                                                                     : Coverage::kPartial;
}

Coverage block_coverage(const TileProgram& program) {
    const bool known = program.tables == Tables::kBaked &&
                       program.coverages.size() == program.gather_blocks.size();
    const auto is_full = [](Coverage covered) { return covered == Coverage::kFull; };
    return known && std::all_of(program.coverages.begin(), program.coverages.end(), is_full)
               ? Coverage::kFull
               : Coverage::kPartial;
}

Coverage step_coverage(const TileProgram& program) {
    if (block_coverage(program) == Coverage::kFull) {
        const int gather_blocks = program.streamed_rows / program.gather_rows;
        const bool whole =
            std::all_of(program.offsets.begin(), program.offsets.end(),
                        [&](std::int32_t offset) { return offset % gather_blocks == 0; });
        if (whole) {
            return Coverage::kFull;
        }
    }
    // A step of several gather blocks may be the last of its work item, and then has fewer.
    if (program.gather_rows != program.streamed_rows) {
        return Coverage::kPartial;
    }
    const Attention& attention = program.attention;
    const std::int64_t streamed = streamed_length(attention, program.role);
    const std::int64_t all = (streamed + program.gather_rows - 1) / program.gather_rows *
                             program.gather_rows;  // with what the last gather block lacks
    const bool columns = walks_columns(program.role);
    // The corner that a causal mask keeps least of stands for all.
    return coverage(attention, {.row_begin = 0,
                                .row_end = columns ? all : attention.length,
                                .key_begin = 0,
                                .key_end = columns ? attention.key_value_length() : all});
}

RowClass row_class(const TileProgram& program, int index) {
    const Item item = item_of(program, index);
    const std::size_t count = item.end - item.begin;
    std::size_t runs = 0;
    for (std::size_t at = item.begin; at < item.end; at = item.run_end(at)) {
        ++runs;
    }
    const std::int64_t all =
        (streamed_length(program.attention, program.role) + program.gather_rows - 1) /
        program.gather_rows;
    if (count == 0) {
        return RowClass::kEmpty;
    }
    if (runs == 1) {
        return static_cast<std::int64_t>(count) == all ? RowClass::kDense : RowClass::kBand;
    }
    return count >= 2 * runs ? RowClass::kRuns : RowClass::kIrregular;
}

std::string walk_line(const TileProgram& program) {
    std::int64_t longest = 0;
    std::int64_t empty = 0;
    for (int i = 0; i < program.tiles(); ++i) {
        const Item item = item_of(program, i);
        longest = std::max(longest, static_cast<std::int64_t>(item.end - item.begin));
        empty += item.end == item.begin ? 1 : 0;
    }
    std::string line = fmt::format("walk tiles={} gather_blocks={} longest={} empty={}",
                                   program.tiles(), program.gather_blocks.size(), longest, empty);
    if (!program.coverages.empty()) {
        fmt::format_to(
            std::back_inserter(line), " partial={}",
            std::count(program.coverages.begin(), program.coverages.end(), Coverage::kPartial));
    }
    return line;
}

std::string to_text(const TileProgram& program, bool tables) {
    std::string text = fmt::format("program role={}\n{}\nshape block={}", to_string(program.role),
                                   to_text(program.attention), program.block);
    if (program.stationary_rows != 0) {
        fmt::format_to(
            std::back_inserter(text),
            " stationary_rows={} streamed_rows={} gather_rows={} warps={} stages={} unit={} "
            "tables={}",
            program.stationary_rows, program.streamed_rows, program.gather_rows, program.warps,
            program.stages, to_string(program.unit), to_string(program.tables));
    }
    text += '\n';
    if (program.order.empty()) {
        return text;
    }
    text += walk_line(program) + "\n";
    for (int i = 0; tables && i < program.tiles(); ++i) {
        text += "tile ";
        if (program.attention.pattern_count() > 1) {
            fmt::format_to(std::back_inserter(text), "{}.", program.pattern(i));
        }
        fmt::format_to(std::back_inserter(text), "{}", program.tile(i));
        if (!program.classes.empty()) {
            fmt::format_to(std::back_inserter(text), " {}",
                           to_string(program.classes[static_cast<std::size_t>(i)]));
        }
        text += ':';
        append_gather_blocks(text, item_of(program, i));
        text += '\n';
    }
    return text;
}

}  // namespace spion
