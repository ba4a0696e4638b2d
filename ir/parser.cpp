#include "ir/parser.h"

#include <limits>
#include <utility>

#include "ir/element_spans.h"
#include "ir/error.h"
#include "ir/text_reader.h"

namespace spion {
namespace {

constexpr std::int64_t kMostInt = std::numeric_limits<std::int32_t>::max();
// Gather blocks of one text, 256 MiB of them: a short text can name many.
constexpr std::size_t kMostGatherBlocks = std::size_t{1} << 26;

// " name=": every field of a line has its place.
void field(TextReader& reader, std::string_view name) {
    reader.literal(fmt::format("{}=", name));
}

std::int64_t integer_field(TextReader& reader, std::string_view name, std::int64_t low,
                           std::int64_t high = kMostInt) {
    field(reader, name);
    return reader.integer(name, low, high);
}

int int_field(TextReader& reader, std::string_view name, int low) {
    return static_cast<int>(integer_field(reader, name, low));
}

// A field whose value is one of a few names; `parse` throws UserError that lists them.
template <typename Parse>
auto name_value(TextReader& reader, std::string_view name, Parse parse) {
    const std::string_view word = reader.word(name);
    try {
        return parse(word);
    } catch (const UserError& error) {
        reader.fail_at_last(error.what());
    }
}

template <typename Parse>
auto name_field(TextReader& reader, std::string_view name, Parse parse) {
    field(reader, name);
    return name_value(reader, name, parse);
}

bool parse_bool(std::string_view name) {
    if (name != "true" && name != "false") {
        throw UserError("'{}' is neither true nor false", name);
    }
    return name == "true";
}

float float_field(TextReader& reader, std::string_view name) {
    field(reader, name);
    return reader.number(fmt::format("{} as a number", name));
}

Attention read_attention(TextReader& reader) {
    const int line = reader.line();
    reader.literal("attention");
    Attention attention;
    attention.heads = int_field(reader, "H", 1);
    attention.head_dim = int_field(reader, "D", 1);
    attention.length = integer_field(reader, "L", 1);
    attention.dtype = name_field(reader, "dtype", parse_dtype);
    attention.scale = float_field(reader, "scale");
    attention.softmax = name_field(reader, "softmax", parse_softmax_kind);
    attention.key_padding = name_field(reader, "key_padding", parse_bool);
    attention.dropout = float_field(reader, "dropout");
    if (reader.accept("mask=")) {
        attention.mask = name_value(reader, "mask", parse_element_mask);
    }
    if (reader.accept("kv_heads=")) {
        attention.kv_heads = static_cast<int>(reader.integer("kv_heads", 1, kMostInt));
    }
    if (reader.accept("kv_length=")) {
        attention.kv_length = reader.integer("kv_length", 1, kMostInt);
    }
    if (reader.accept("patterns=")) {
        attention.patterns = static_cast<int>(reader.integer("patterns", 1, kMostInt));
    }
    if (reader.accept("softcap=")) {
        attention.softcap = reader.number("softcap as a number");
    }
    if (reader.accept("alibi=")) {
        attention.alibi = name_value(reader, "alibi", parse_bool);
    }
    if (reader.accept("sink=")) {
        attention.sink = name_value(reader, "sink", parse_bool);
    }
    if (reader.accept("Dv=")) {
        attention.value_dim = static_cast<int>(reader.integer("Dv", 1, kMostInt));
    }
    if (reader.accept("varlen=")) {
        attention.varlen = name_value(reader, "varlen", parse_bool);
    }
    reader.next_line();
    try {
        check(attention);
    } catch (const UserError& error) {
        reader.fail_at_line(line, error.what());
    }
    return attention;
}

// "pattern L=<length> block=<edge>", with " kv_length=<keys>" where there are more or fewer keys
// than queries, then a line of bits a block row.
BlockPattern read_pattern(TextReader& reader) {
    const int line = reader.line();
    reader.literal("pattern");
    const std::int64_t length = integer_field(reader, "L", 1);
    const int block = int_field(reader, "block", 1);
    if (block != 16 && block != 32 && block != 64 && block != 128) {
        reader.fail_at_last(fmt::format("block is {}, expected 16, 32, 64 or 128", block));
    }
    const std::int64_t keys =
        reader.accept("kv_length=") ? reader.integer("kv_length", 1, kMostInt) : length;
    reader.next_line();
    const std::int64_t rows = (length + block - 1) / block, columns = (keys + block - 1) / block;
    std::vector<std::uint8_t> bits;  // [rows][columns]
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::string expected = fmt::format(
            "{} bits, as many as there are blocks (block row {} of {})", columns, row, rows);
        const std::string_view word = reader.word(expected);
        const bool all_bits = word.find_first_not_of("01") == std::string_view::npos;
        if (!all_bits || static_cast<std::int64_t>(word.size()) != columns) {
            reader.fail_at_last("expected " + expected);
        }
        for (char bit : word) {
            bits.push_back(bit == '1' ? 1 : 0);
        }
        reader.next_line();
    }
    try {
        return BlockPattern(length, keys, block, std::move(bits));
    } catch (const UserError& error) {
        reader.fail_at_line(line, error.what());
    }
}

HeadPatterns read_patterns(TextReader& reader) {
    const int line = reader.line();
    std::vector<BlockPattern> patterns;
    do {
        patterns.push_back(read_pattern(reader));
    } while (reader.has_line() && reader.at_word("pattern"));
    try {
        return HeadPatterns(std::move(patterns));
    } catch (const UserError& error) {
        reader.fail_at_line(line, error.what());
    }
}

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
    if (program.attention.patterns > 1) {
        pattern = reader.integer("pattern index", 0, program.attention.patterns - 1);
        reader.literal(".");
    }
    // Of several patterns, a tile beyond its own would be another's.
    const std::int64_t last =
        program.attention.patterns > 1 ? program.pattern_tiles() - 1 : kMostInt;
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

// After its role; `line` is where the program begins.
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

ScoreSummaryProgram read_summary(TextReader& reader) {
    ScoreSummaryProgram program;
    program.attention = read_attention(reader);
    const int line = reader.line();
    reader.literal("shape");
    program.block = int_field(reader, "block", 1);
    program.tile = int_field(reader, "tile", 1);
    program.filter = int_field(reader, "filter", 1);
    reader.next_line();
    if (const std::optional<Fault> fault = find_fault(program)) {
        reader.fail_at_line(line, fault->rule);
    }
    return program;
}

StepProgram read_step(TextReader& reader, std::string_view name, int line) {
    StepProgram program{.name = std::string(name), .constants = {}};
    reader.literal("shape");
    while (!reader.at_line_end()) {
        const std::string_view constant = reader.name("the name of a constant");
        reader.literal("=");
        const float value = reader.number(fmt::format("{} as a number", constant));
        program.constants.push_back({.name = std::string(constant), .value = value});
    }
    reader.next_line();
    if (const std::optional<Fault> fault = find_fault(program)) {
        reader.fail_at_line(line, fault->rule);
    }
    return program;
}

// The role of a program of attention.
KernelRole read_role(TextReader& reader) {
    const std::string_view role = reader.word("role");
    try {
        return parse_kernel_role(role);
    } catch (const UserError& error) {
        reader.fail_at_last(fmt::format("{}, score_summary or train_NAME", error.what()));
    }
}

// "program role=<role>" and what follows, into the list of its kind.
void read_program(TextReader& reader, IrModule& ir, Completeness completeness) {
    const int line = reader.line();
    reader.literal("program");
    field(reader, "role");
    if (reader.at_word("score_summary")) {
        reader.literal("score_summary");
        reader.next_line();
        ir.summaries.push_back(read_summary(reader));
    } else if (reader.accept("train_")) {
        const std::string_view name = reader.name("the name of a step kernel");
        reader.next_line();
        ir.steps.push_back(read_step(reader, name, line));
    } else {
        const KernelRole role = read_role(reader);
        reader.next_line();
        ir.programs.push_back(read_tile_program(reader, role, line, ir.pattern, completeness));
    }
}

}  // namespace

IrModule parse_ir(std::string_view text, std::string_view origin, Completeness completeness) {
    TextReader reader(text, origin);
    IrModule ir;
    while (reader.has_line()) {
        if (!ir.attention && !ir.pattern && !ir.has_programs() && reader.at_word("attention")) {
            ir.attention = read_attention(reader);
        } else if (!ir.pattern && !ir.has_programs() && reader.at_word("pattern")) {
            const int line = reader.line();
            ir.pattern = read_patterns(reader);
            if (ir.attention && !fits(*ir.pattern, *ir.attention)) {
                reader.fail_at_line(
                    line,
                    ir.pattern->count() != ir.attention->patterns
                        ? fmt::format("there are {} patterns, and the attention has {}",
                                      ir.pattern->count(), ir.attention->patterns)
                        : fmt::format("the pattern has {}, the attention {}",
                                      lengths_text(ir.pattern->length(), ir.pattern->key_length()),
                                      lengths_text(ir.attention->length,
                                                   ir.attention->key_value_length())));
            }
        } else if (reader.at_word("program")) {
            read_program(reader, ir, completeness);
        } else {
            reader.fail_here(
                "expected an attention line, then a pattern section, then programs, each of them "
                "optional");
        }
    }
    if (!ir.attention && !ir.pattern && !ir.has_programs()) {
        reader.fail_here("expected 'attention', 'pattern' or 'program', found the end of the text");
    }
    return ir;
}

std::string to_text(const IrModule& ir) {
    std::string text;
    if (ir.attention) {
        text += to_text(*ir.attention) + "\n";
    }
    const bool has_patterns = ir.pattern.has_value();
    for (int p = 0; has_patterns && p < ir.pattern->count(); ++p) {
        const BlockPattern& pattern = (*ir.pattern)[p];
        text += fmt::format("pattern L={} block={}", pattern.length(), pattern.block());
        if (pattern.key_length() != pattern.length()) {
            text += fmt::format(" kv_length={}", pattern.key_length());
        }
        text += '\n';
        text += pattern.to_bits();
    }
    for (const TileProgram& program : ir.programs) {
        text += to_text(program);
    }
    for (const ScoreSummaryProgram& program : ir.summaries) {
        text += to_text(program);
    }
    for (const StepProgram& program : ir.steps) {
        text += to_text(program);
    }
    return text;
}

}  // namespace spion
