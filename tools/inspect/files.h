// Whole files, for the readers of a folder.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>

#include "ir/error.h"
#include "runtime/whole_file.h"

namespace spion::inspect {

// nullopt when there is no such file. Throws UserError when it is there but cannot be read.
inline std::optional<std::string> read_if_there(const std::filesystem::path& file) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored)) {
        return std::nullopt;
    }
    std::string problem;
    std::optional<std::string> text = read_whole_file(file, kLargestKeptBinary, &problem);
    if (!text) throw UserError("{} {}; make it readable or remove it", file.string(), problem);
    return text;
}

// The same for JSON objects; throws UserError that says where a damaged one breaks.
inline std::optional<nlohmann::json> read_json_if_there(const std::filesystem::path& file) {
    const std::optional<std::string> text = read_if_there(file);
    if (!text) {
        return std::nullopt;
    }
    nlohmann::json json = nlohmann::json::parse(*text, nullptr, false);
    if (!json.is_object()) {
        throw UserError("{} is damaged: it is not a JSON object; remove it to go on without it",
                        file.string());
    }
    return json;
}

// A member when it is there and T holds it.
template <typename T>
std::optional<T> member(const nlohmann::json& json, const char* name) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) {
        return std::nullopt;
    }
    if constexpr (std::is_same_v<T, bool>) {
        return found->is_boolean() ? std::optional(found->get<bool>()) : std::nullopt;
    } else if constexpr (std::is_same_v<T, std::string>) {
        return found->is_string() ? std::optional(found->get<std::string>()) : std::nullopt;
    } else if constexpr (std::is_same_v<T, double>) {
        return found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
    } else {
        return whole_number<T>(*found);
    }
}

}  // namespace spion::inspect
