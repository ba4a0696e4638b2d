#include "train/toml_letters.h"

#include <fmt/format.h>

namespace spion {
namespace {

struct CodePoint {
    std::size_t bytes = 0;  // 0: none begins here
    unsigned code = 0;
};

CodePoint code_point_at(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    const unsigned first = byte(at);
    const int more = first < 0x80       ? 0
                     : first >> 5 == 6  ? 1
                     : first >> 4 == 14 ? 2
                     : first >> 3 == 30 ? 3
                                        : -1;
    if (more < 0) return {};
    unsigned code = more == 0 ? first : first & (0x3FU >> more);
    for (int n = 1; n <= more; ++n) {
        const unsigned next = byte(at + static_cast<std::size_t>(n));
        if (next >> 6 != 2) return {};
        code = code << 6 | (next & 0x3FU);
    }
    constexpr unsigned kSmallest[] = {0, 0x80, 0x800, 0x10000};  // shorter forms must be used
    if (code < kSmallest[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return {};
    return {.bytes = static_cast<std::size_t>(more) + 1, .code = code};
}

// The byte at which UTF-8 ends; the text's size if all of it is UTF-8.
std::size_t end_of_utf8(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const CodePoint letter = code_point_at(text, at);
        if (letter.bytes == 0) break;
        at += letter.bytes;
    }
    return at;
}

// The byte after the string whose first quote is at `at`; npos where it is not closed on its line,
// or, with three quotes, at all.
std::size_t end_of_string(std::string_view text, std::size_t at) {
    const char quote = text[at];
    const std::string three(3, quote);
    const bool long_form = text.substr(at, 3) == three;
    if (!long_form && text.substr(at, 2) == std::string(2, quote)) return at + 2;
    for (std::size_t i = at + (long_form ? 3 : 1); i < text.size(); ++i) {
        if (text[i] == '\\' && quote == '"') {
            ++i;
        } else if (!long_form && (text[i] == quote || text[i] == '\n')) {
            return text[i] == quote ? i + 1 : std::string_view::npos;
        } else if (long_form && text.substr(i, 3) == three) {
            // One or two more belong to the string.
            std::size_t end = i + 3;
            while (end < text.size() && end < i + 5 && text[end] == quote) ++end;
            return end;
        }
    }
    return std::string_view::npos;
}

// The first byte beyond ASCII outside strings and comments; npos for none.
std::size_t find_bare_letter(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const char c = text[at];
        if (static_cast<unsigned char>(c) >= 0x80) return at;
        if (c == '#') {
            at = text.find('\n', at);
        } else if (c == '"' || c == '\'') {
            at = end_of_string(text, at);
        } else {
            ++at;
        }
    }
    return std::string_view::npos;
}

LetterFault fault_at(std::string_view text, std::size_t at, std::string what) {
    LetterFault fault{.what = std::move(what)};
    for (const char c : text.substr(0, at)) {
        const bool continues = (static_cast<unsigned char>(c) >> 6) == 2;
        fault.line += c == '\n' ? 1 : 0;
        fault.column = c == '\n' ? 1 : fault.column + (continues ? 0 : 1);
    }
    return fault;
}

}  // namespace

bool is_utf8(std::string_view text) {
    return end_of_utf8(text) == text.size();
}

std::optional<LetterFault> find_letter_fault(std::string_view text) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    if (const std::size_t at = end_of_utf8(text); at < text.size()) {
        return fault_at(text, at,
                        fmt::format("the byte 0x{:02X} begins no letter of UTF-8, in which TOML is "
                                    "written; save the file as UTF-8",
                                    static_cast<unsigned char>(text[at])));
    }
    if (const std::size_t at = find_bare_letter(text); at != std::string_view::npos) {
        return fault_at(text, at,
                        fmt::format("the letter U+{:04X} stands outside strings and comments, "
                                    "where TOML has ASCII alone; put it between quotes",
                                    code_point_at(text, at).code));
    }
    return std::nullopt;
}

}  // namespace spion
