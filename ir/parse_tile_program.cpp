#include <utility>

#include "ir/error.h"
#include "ir/parser_parts.h"
#include "ir/text_fields.h"

namespace spion {
namespace {

// Gather blocks of one text, 256 MiB of them: a short text can name many.
constexpr std::size_t kMostGatherBlocks = std::size_t{1} << 26;

// "shape block=<edge>" of a program without tiles, or all of its fields.
void read_shape(TextReader& reader, TileProgram& program) {
    reader.literal("shape");
    program.block = int_field(reader, "block", 1);
    program.stationary_rows = program.streamed_rows = program.gather_rows = 0;
    program.warps = program.stages = 0;
    if (!reader.at_line_end()) {
        program.stationary_rows = int_field(reader, "stationary_rows", 1);
        program.streamed_rows = int_field(reader, "streamed_rows", 1);
        program.gather_rows = int_field(reader, "gather_rows", 1);
        program.warps = int_field(reader, "warps", 1);
        program.stages = int_field(reader, "stages", 1);
        program.unit = name_field(reader, "unit", parse_matrix_unit);
        program.tables = name_field(reader, "tables", parse_tables);
    }
    reader.next_line();
}

// Bit r is character r of "0110".
std::uint32_t read_bits(TextReader& reader, int rows) {
    const std::string expected =
        fmt::format("a bit for each of the {} block rows of the tile", rows);
    const std::string_view word = reader.word(expected);
    std::uint32_t bits = 0;
    if (static_cast<int>(word.size()) != rows ||
        word.find_first_not_of("01") != std::string_view::npos) {
        reader.fail_at_last("expected " + expected);
    }
    for (int r = 0; r < rows; ++r) {
        bits |= (word[static_cast<std::size_t>(r)] == '1' ? 1U : 0U) << r;
    }
    return bits;
}

// "5", "5..9", each with "/0110" when packed, and where gather blocks are `marked` with "~" when
// partial.
void read_gather_blocks(TextReader& reader, TileProgram& program, bool marked) {
    const std::int64_t last =
        (streamed_length(program.attention, program.role) + program.gather_rows - 1) /
            program.gather_rows -
        1;
    const std::int64_t first = reader.integer("gather block", 0, last);
    const std::int64_t end =
        (reader.accept("..") ? reader.integer("last gather block", first, last) : first) + 1;
    const auto count = static_cast<std::size_t>(end - first);
    if (program.gather_blocks.size() + count > kMostGatherBlocks) {
        reader.fail_at_last(fmt::format("more than {} gather blocks in a text", kMostGatherBlocks));
    }
    for (std::int64_t gather_block = first; gather_block < end; ++gather_block) {
        program.gather_blocks.push_back(static_cast<std::int32_t>(gather_block));
    }
    if (program.packed_rows() > 1) {
        reader.literal("/");
        program.block_row_masks.resize(program.block_row_masks.size() + count,
                                       read_bits(reader, program.packed_rows()));
    }
    if (marked) {
        const bool partial = reader.accept("~");
        program.coverages.resize(program.coverages.size() + count,
                                 partial ? Coverage::kPartial : Coverage::kFull);
    }
}

// "tile <index> [<class>]: <gather blocks>"
void read_tile(TextReader& reader, TileProgram& program, bool marked) {
    reader.literal("tile");
    std::int64_t pattern = 0;
    if (program.attention.pattern_count() > 1) {
        pattern = reader.integer("pattern index", 0, program.attention.pattern_count() - 1);
        reader.literal(".");
    }
    // Of several patterns, a tile beyond its own would be another's.
    const std::int64_t last =
        program.attention.pattern_count() > 1 ? program.pattern_tiles() - 1 : kMostInt;
    const std::int64_t tile = reader.integer("tile index", 0, last);
    const std::int64_t entry = pattern * program.pattern_tiles() + tile;
    if (entry > kMostInt) {
        reader.fail_at_last("more tiles than 32 bits number");
    }
    program.order.push_back(static_cast<std::int32_t>(entry));
    if (!reader.accept(":")) {
        const std::string_view name = reader.word("a row class or ':'");
        try {
            program.classes.push_back(parse_row_class(name));
        } catch (const UserError& error) {
            reader.fail_at_last(error.what());
        }
        reader.literal(":");
    }
    if (!program.classes.empty() && program.classes.size() != program.order.size()) {
        reader.fail_at_line(reader.line(), "expected a row class for every tile, or for none");
    }
    while (!reader.at_line_end()) {
        read_gather_blocks(reader, program, marked);
    }
    program.offsets.push_back(static_cast<std::int32_t>(program.gather_blocks.size()));
    reader.next_line();
}

// "walk" with its counts and the tile lines; returns their line numbers.
std::vector<int> read_walk(TextReader& reader, TileProgram& program) {
    const int line = reader.line();
    if (program.stationary_rows == 0) {
        reader.fail_here("a program without tiles has no walk: expected all fields of its shape");
    }
    reader.literal("walk");
    std::string summary = "walk";
    for (const char* count : {"tiles", "gather_blocks", "longest", "empty"}) {
        summary += fmt::format(" {}={}", count, integer_field(reader, count, 0));
    }
    const bool marked = !reader.at_line_end();
    if (marked) {
        summary += fmt::format(" partial={}", integer_field(reader, "partial", 0));
    }
    reader.next_line();
    std::vector<int> lines;  // of the tiles
    program.offsets = {0};
    while (reader.has_line() && reader.at_word("tile")) {
        lines.push_back(reader.line());
        read_tile(reader, program, marked);
    }
    if (summary != walk_line(program)) {
        reader.fail_at_line(line, fmt::format("the counts do not fit the tiles: expected '{}'",
                                              walk_line(program)));
    }
    return lines;
}

}  // namespace

TileProgram read_tile_program(TextReader& reader, KernelRole role, int line,
                              const std::optional<HeadPatterns>& pattern,
                              Completeness completeness) {
    TileProgram program;
    program.role = role;
    program.attention = read_attention(reader);
    read_shape(reader, program);
    std::vector<int> lines;
    const bool walked = reader.has_line() && reader.at_word("walk");
    // The walk's rules divide by what the shape gives.
    std::optional<Fault> fault = find_fault(program, nullptr);
    if (!fault && walked) {
        lines = read_walk(reader, program);
    }
    if (!fault) {
        fault = find_fault(program, pattern ? &*pattern : nullptr, completeness);
    }
    if (fault) {
        const auto item = static_cast<std::size_t>(fault->item);
        reader.fail_at_line(fault->item >= 0 && item < lines.size() ? lines[item] : line,
                            fault->rule);
    }
    return program;
}

}  // namespace spion
