#include <utility>

#include "ir/ceil_div.h"
#include "ir/error.h"
#include "ir/parser_parts.h"
#include "ir/text_fields.h"

namespace spion {
namespace {

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
    const std::int64_t rows = ceil_div(length, block), columns = ceil_div(keys, block);
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

}  // namespace

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

}  // namespace spion
