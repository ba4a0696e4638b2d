// The words that the IR's text has for the values of an enum: one table, read both ways.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "ir/error.h"

namespace spion {

template <typename Enum, std::size_t kCount>
using Names = std::array<std::pair<Enum, std::string_view>, kCount>;

// kind: of the values, for people: "matrix unit".
template <typename Enum, std::size_t kCount>
std::string_view name_of(const Names<Enum, kCount>& names, Enum value, const char* kind) {
    for (const auto& [known, name] : names) {
        if (known == value) {
            return name;
        }
    }
    throw InternalError("{} {} has no name", kind, static_cast<int>(value));
}

template <typename Enum, std::size_t kCount>
Enum value_of(const Names<Enum, kCount>& names, std::string_view name, const char* kind) {
    std::string known;
    for (std::size_t i = 0; i < kCount; ++i) {
        if (names[i].second == name) {
            return names[i].first;
        }
        known += i == 0 ? "" : i + 1 == kCount ? " or " : ", ";
        known += names[i].second;
    }
    throw UserError("{} '{}' is not known: use {}", kind, name, known);
}

}  // namespace spion
