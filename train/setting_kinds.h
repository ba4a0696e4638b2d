// The kinds of settings that tables are made of: numbers, words and flags, each with the text that
// sets it and the TOML that it is written as.
#pragma once

#include <charconv>
#include <concepts>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>

#include "ir/error.h"
#include "train/settings.h"
#include "train/settings_file.h"

namespace spion {

// Reads the whole of `text` as a number in [low, high].
template <typename T>
T parse_number(std::string_view text, T low, T high, std::string_view given) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() ||
        !(value >= low && value <= high)) {
        constexpr std::string_view kind = std::is_floating_point_v<T> ? "number" : "whole number";
        if (high == std::numeric_limits<T>::max()) {
            throw UserError("{} is '{}', but it takes a {} of at least {}", given, text, kind, low);
        }
        throw UserError("{} is '{}', but it takes a {} from {} to {}", given, text, kind, low,
                        high);
    }
    return value;
}

inline bool parse_bool(std::string_view text, std::string_view given) {
    if (text == "true" || text == "1") return true;
    if (text == "false" || text == "0") return false;
    throw UserError("{} is '{}', but it takes true or false", given, text);
}

// A number as TOML; beyond its 64 bits with a sign, as a string, which is read as well.
template <typename T>
std::string toml_number(T value) {
    if constexpr (std::is_unsigned_v<T>) {
        if (value > static_cast<T>(std::numeric_limits<std::int64_t>::max())) {
            return fmt::format("\"{}\"", value);
        }
    }
    return fmt::format("{}", value);
}

// `field` returns a reference to the setting's variable inside a TrainSettings.
template <typename Field>
using FieldType = std::remove_cvref_t<std::invoke_result_t<Field, TrainSettings&>>;

template <typename Field>
Setting number(std::string_view group, std::string_view name, std::string_view help, Field field,
               FieldType<Field> low,
               FieldType<Field> high = std::numeric_limits<FieldType<Field>>::max()) {
    return {.group = group,
            .name = name,
            .help = help,
            .is_flag = false,
            .parse =
                [=](TrainSettings& settings, std::string_view text, std::string_view given) {
                    field(settings) = parse_number<FieldType<Field>>(text, low, high, given);
                },
            .toml =
                [=](const TrainSettings& settings) {
                    return toml_number(field(const_cast<TrainSettings&>(settings)));
                }};
}

// A setting whose words are read by `read` and written by `write`.
template <typename Read, typename Write>
Setting words(std::string_view group, std::string_view name, std::string_view help, Read read,
              Write write) {
    return {.group = group,
            .name = name,
            .help = help,
            .is_flag = false,
            .parse = read,
            .toml = [=](const TrainSettings& settings) { return toml_string(write(settings)); }};
}

template <typename Field>
Setting flag(std::string_view group, std::string_view name, std::string_view help, Field field) {
    return {.group = group,
            .name = name,
            .help = help,
            .is_flag = true,
            .parse = [=](TrainSettings& settings, std::string_view text,
                         std::string_view given) { field(settings) = parse_bool(text, given); },
            .toml =
                [=](const TrainSettings& settings) {
                    return field(const_cast<TrainSettings&>(settings)) ? "true" : "false";
                }};
}

#define SPION_FIELD(member) ([](TrainSettings & s) -> auto& { return s.member; })

}  // namespace spion
