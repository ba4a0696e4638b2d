// What a file says, in a message: names and words that may be anything.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// '?' for each control character, "..." for what follows the first 80 bytes.
inline std::string printable(std::string_view text) {
    constexpr std::size_t kLongest = 80;
    std::string shown(text.substr(0, kLongest));
    for (char& c : shown) {
        const auto byte = static_cast<unsigned char>(c);
        c = byte < 0x20 || byte == 0x7F ? '?' : c;
    }
    return text.size() > kLongest ? shown + "..." : shown;
}

// "a, b, c and 12 more"; "nothing" for none.
inline std::string some_of(std::span<const std::string> names) {
    constexpr std::size_t kShown = 8;
    if (names.empty()) {
        return "nothing";
    }
    const std::size_t shown = std::min(names.size(), kShown);
    std::vector<std::string> first;
    std::transform(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown),
                   std::back_inserter(first), printable);
    const std::string text = fmt::format("{}", fmt::join(first, ", "));
    return names.size() == shown ? text : fmt::format("{} and {} more", text, names.size() - shown);
}

}  // namespace spion
