#include "ir/text_fields.h"

#include <fmt/format.h>

namespace spion {

void field_name(TextReader& reader, std::string_view name) {
    reader.literal(fmt::format("{}=", name));
}

std::int64_t integer_field(TextReader& reader, std::string_view name, std::int64_t low,
                           std::int64_t high) {
    field_name(reader, name);
    return reader.integer(name, low, high);
}

int int_field(TextReader& reader, std::string_view name, int low) {
    return static_cast<int>(integer_field(reader, name, low));
}

bool parse_bool(std::string_view name) {
    if (name != "true" && name != "false") {
        throw UserError("'{}' is neither true nor false", name);
    }
    return name == "true";
}

float float_field(TextReader& reader, std::string_view name) {
    field_name(reader, name);
    return reader.number(fmt::format("{} as a number", name));
}

}  // namespace spion
