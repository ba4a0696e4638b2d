// Which letters TOML 1.0 allows where: UTF-8 throughout, and ASCII alone outside strings and comments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spion {

// Whether `text` is well-formed UTF-8 (RFC 3629), as TOML demands of the whole file.
bool is_utf8(std::string_view text);

struct LetterFault {
    std::int64_t line = 1;    // from 1
    std::int64_t column = 1;  // from 1, in code points
    std::string what;         // what is wrong and how to mend it, as a clause
};

// The first byte that is not UTF-8, else the first letter beyond ASCII outside strings and comments;
// nullopt where there is neither. A byte-order mark at the beginning is skipped. A string that its
// line does not close ends the search, for no parser goes beyond it.
std::optional<LetterFault> find_letter_fault(std::string_view text);

}  // namespace spion
