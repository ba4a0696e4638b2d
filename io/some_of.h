// A list of names for a message.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

namespace spion {

// "a, b, c and 12 more"; "nothing" for none.
inline std::string some_of(std::span<const std::string> names) {
    constexpr std::size_t kShown = 8;
    if (names.empty()) {
        return "nothing";
    }
    const std::size_t shown = std::min(names.size(), kShown);
    std::string text = fmt::format("{}", fmt::join(names.first(shown), ", "));
    return names.size() == shown ? text : text + fmt::format(" and {} more", names.size() - shown);
}

}  // namespace spion
