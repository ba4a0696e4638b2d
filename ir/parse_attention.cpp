#include "ir/error.h"
#include "ir/parser_parts.h"
#include "ir/score_expression.h"
#include "ir/text_fields.h"

namespace spion {
namespace {

// A number that repeats its default is stored as 0, so that one operation is one value.
void store_defaults_as_0(Attention& attention) {
    if (attention.kv_heads == attention.heads) {
        attention.kv_heads = 0;
    }
    if (attention.kv_length == attention.length) {
        attention.kv_length = 0;
    }
    if (attention.value_dim == attention.head_dim) {
        attention.value_dim = 0;
    }
}

// Up to the next space, in its canonical text.
std::string expression_value(TextReader& reader, std::string_view name) {
    const std::string_view text = reader.text(name);
    try {
        return canonical_score(text);
    } catch (const UserError& error) {
        reader.fail_at_last(error.what());
    }
}

// What sequences that lie end to end have.
void read_sequences(TextReader& reader, Attention& attention) {
    if (reader.accept("varlen=")) {
        attention.varlen = name_value(reader, "varlen", parse_bool);
    }
    if (reader.accept("key_starts=")) {
        attention.key_starts = name_value(reader, "key_starts", parse_bool);
    }
    if (reader.accept("sequence_patterns=")) {
        attention.sequence_patterns =
            static_cast<int>(reader.integer("sequence_patterns", 1, kMostInt));
    }
}

// Users' own expressions.
void read_score(TextReader& reader, Attention& attention) {
    if (reader.accept("score=")) {
        attention.score = expression_value(reader, "score");
    }
    if (reader.accept("score_derivative=")) {
        attention.score_derivative = expression_value(reader, "score_derivative");
    }
}

}  // namespace

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
    if (reader.accept("relative_bias=")) {
        attention.relative_bias = static_cast<int>(reader.integer("relative_bias", 1, kMostInt));
    }
    if (reader.accept("Dv=")) {
        attention.value_dim = static_cast<int>(reader.integer("Dv", 1, kMostInt));
    }
    read_sequences(reader, attention);
    read_score(reader, attention);
    reader.next_line();
    store_defaults_as_0(attention);
    try {
        check(attention);
    } catch (const UserError& error) {
        reader.fail_at_line(line, error.what());
    }
    return attention;
}

}  // namespace spion
