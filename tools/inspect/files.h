// Whole files, for the readers of a folder.
#pragma once

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ir/error.h"

namespace spion::inspect {

// nullopt when there is no such file. Throws UserError when it is there but cannot be read.
inline std::optional<std::string> read_if_there(const std::filesystem::path& file) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored)) {
        return std::nullopt;
    }
    errno = 0;
    std::ifstream input(file, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(input), {}};
    if (!input.is_open() || input.bad()) {
        throw UserError("{} cannot be read: {}; make it readable", file.string(),
                        std::strerror(errno));
    }
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

// A member when it is there and of the right type.
template <typename T>
std::optional<T> member(const nlohmann::json& json, const char* name) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) {
        return std::nullopt;
    }
    const bool fits = std::is_same_v<T, bool>          ? found->is_boolean()
                      : std::is_same_v<T, std::string> ? found->is_string()
                                                       : found->is_number();
    return fits ? std::optional<T>(found->get<T>()) : std::nullopt;
}

}  // namespace spion::inspect
