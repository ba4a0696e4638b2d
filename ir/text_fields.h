// The fields of a line of IR, each "name=value" in its place, for the readers of ir/parser_parts.h.
// Every failure is TextReader's.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "ir/error.h"
#include "ir/text_reader.h"

namespace spion {

constexpr std::int64_t kMostInt = std::numeric_limits<std::int32_t>::max();

std::int64_t integer_field(TextReader& reader, std::string_view name, std::int64_t low,
                           std::int64_t high = kMostInt);
int int_field(TextReader& reader, std::string_view name, int low);
float float_field(TextReader& reader, std::string_view name);

// " name=": every field of a line has its place.
void field_name(TextReader& reader, std::string_view name);

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
    field_name(reader, name);
    return name_value(reader, name, parse);
}

// "true" or "false"; throws UserError.
bool parse_bool(std::string_view name);

}  // namespace spion
