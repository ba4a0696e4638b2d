#include "codegen/source_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace spion {

std::string source_name(const TileProgram& program) {
    const Attention& attention = program.attention;
    return fmt::format("{}-b{}-D{}-{}-{}{}{}", to_string(program.role), program.block,
                       attention.head_dim, to_string(attention.dtype), to_string(attention.softmax),
                       program.packed_rows() > 1 ? "-packed" : "",
                       program.tables == Tables::kBaked ? "-baked" : "");
}

std::string text_without_walk(const TileProgram& program) {
    const std::string text = to_text(program);
    return text.substr(0, text.find("walk "));
}

std::string comment_of(std::string_view lines, std::string_view mark) {
    std::string text;
    while (!lines.empty()) {
        const std::size_t end = std::min(lines.find('\n'), lines.size());
        fmt::format_to(std::back_inserter(text), "{}{}\n", mark, lines.substr(0, end));
        lines.remove_prefix(std::min(end + 1, lines.size()));
    }
    return text;
}

}  // namespace spion
