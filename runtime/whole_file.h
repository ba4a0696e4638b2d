// Files that somebody else may have written, as text and as JSON: bounded, and with types and
// ranges looked at.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

namespace spion {

// No text of ours comes near it: manifests, reports, sources and logs have up to some MiB.
constexpr std::size_t kLargestKeptText = std::size_t{64} << 20;      // bytes
constexpr std::size_t kLargestKeptBinary = std::size_t{1024} << 20;  // bytes

// The bytes of a regular file; nullopt where there is none, it cannot be read or has more than
// `most` bytes. `problem`, unless null, then says which, as a clause.
std::optional<std::string> read_whole_file(const std::filesystem::path& file, std::size_t most,
                                           std::string* problem = nullptr);

// The number that `value` is, if it is a whole one that T holds.
template <std::integral T>
std::optional<T> whole_number(const nlohmann::json& value) {
    if (value.is_number_unsigned()) {
        const auto number = value.get<std::uint64_t>();
        return std::in_range<T>(number) ? std::optional(static_cast<T>(number)) : std::nullopt;
    }
    if (!value.is_number_integer()) return std::nullopt;
    const auto number = value.get<std::int64_t>();
    return std::in_range<T>(number) ? std::optional(static_cast<T>(number)) : std::nullopt;
}

}  // namespace spion
