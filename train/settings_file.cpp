#include "train/settings_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <vector>

#include "ir/error.h"
#include "train/task.h"
#include "train/toml_letters.h"

// What is wrong with a text is an error that toml++ reports, in builds with assertions too.
#define TOML_ASSERT(expr) static_cast<void>(0)
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace spion {
namespace {

constexpr std::size_t kLargestSettings = std::size_t{1} << 20;  // bytes

std::string text_of_file(const std::filesystem::path& file) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(file, ignored);
    errno = 0;
    std::ifstream input(file, std::ios::binary);
    std::string text;
    if (!folder && input.is_open()) {
        text.resize(kLargestSettings + 1);
        input.read(text.data(), static_cast<std::streamsize>(text.size()));
        text.resize(static_cast<std::size_t>(input.gcount()));
    }
    if (text.size() > kLargestSettings) {
        throw UserError("the settings file {} has more than {} MiB; give a TOML file of settings",
                        file.string(), kLargestSettings >> 20);
    }
    if (folder || !input.is_open() || input.bad()) {
        throw UserError("the settings file {} cannot be read ({}); give a TOML file of settings",
                        file.string(), folder ? "it is a folder" : std::strerror(errno));
    }
    return text;
}

std::string place(const std::string& origin, const toml::source_region& source) {
    return fmt::format("{}:{}:{}", origin, source.begin.line, source.begin.column);
}

// What the parser found, in our words where its own do not say what a user did, and on one line: it
// quotes what it read, ends of lines too.
std::string meaning(std::string description) {
    std::replace_if(
        description.begin(), description.end(), [](char c) { return c >= 0 && c < ' '; }, ' ');
    constexpr std::string_view kTwice = "cannot redefine existing ";
    const std::size_t at = description.find(kTwice);
    const std::size_t open = at == std::string::npos ? at : description.find('\'', at);
    const std::size_t close = open == std::string::npos ? open : description.find('\'', open + 1);
    if (close == std::string::npos) return description;
    return fmt::format("the key {} is given twice", description.substr(open, close + 1 - open));
}

toml::table parse(std::string_view text, const std::string& origin) {
    // toml++ 3.3 is no judge of letters outside strings and comments.
    if (const std::optional<LetterFault> fault = find_letter_fault(text)) {
        throw UserError("{}:{}:{}: {}", origin, fault->line, fault->column, fault->what);
    }
    try {
        return toml::parse(text);
    } catch (const toml::parse_error& error) {
        throw UserError("{}: {}; give a TOML file of settings", place(origin, error.source()),
                        meaning(std::string(error.description())));
    }
}

// As apply_setting takes it; nullopt for tables, arrays, dates and times.
std::optional<std::string> text_of(const toml::node& value) {
    if (const auto* text = value.as_string()) return text->get();
    if (const auto* number = value.as_integer()) return fmt::format("{}", number->get());
    if (const auto* number = value.as_floating_point()) return fmt::format("{}", number->get());
    if (const auto* truth = value.as_boolean()) return truth->get() ? "true" : "false";
    return std::nullopt;
}

// The keys of a table as they follow each other in the file.
std::vector<const toml::key*> keys_of(const toml::table& table) {
    std::vector<const toml::key*> keys;
    for (const auto& [key, value] : table) keys.push_back(&key);
    std::sort(keys.begin(), keys.end(), [](const toml::key* a, const toml::key* b) {
        const toml::source_position &x = a->source().begin, &y = b->source().begin;
        return std::pair(x.line, x.column) < std::pair(y.line, y.column);
    });
    return keys;
}

std::vector<std::string> values_of(const toml::array& array, const std::string& given) {
    std::vector<std::string> values;
    for (const toml::node& value : array) {
        const std::optional<std::string> text = text_of(value);
        if (!text) throw UserError("{} is no list of numbers and words", given);
        values.push_back(*text);
    }
    return values;
}

SettingsTable content_of(const toml::table& table, const std::string& origin) {
    SettingsTable content;
    for (const toml::key* key : keys_of(table)) {
        const toml::node& value = *table.get(key->str());
        const std::string name(key->str());
        std::string given = fmt::format("{}: {}", place(origin, key->source()), name);
        if (const auto* inner = value.as_table()) {
            content.tables.emplace(name, SettingsTable::Table{given, content_of(*inner, origin)});
        } else if (const auto* list = value.as_array()) {
            content.lists.emplace(name, SettingsTable::List{given, values_of(*list, given)});
        } else if (std::optional<std::string> text = text_of(value)) {
            content.settings.push_back({name, std::move(*text), std::move(given)});
        } else {
            throw UserError("{} is a date, which no setting is", given);
        }
    }
    return content;
}

}  // namespace

SettingsTable read_settings_tables(const std::filesystem::path& file) {
    return content_of(parse(text_of_file(file), file.string()), file.string());
}

std::vector<FileSetting> read_settings_file(const std::filesystem::path& file) {
    return read_settings_text(text_of_file(file), file.string());
}

std::vector<FileSetting> read_settings_text(std::string_view text, const std::string& origin) {
    const toml::table table = parse(text, origin);
    std::vector<FileSetting> settings;
    for (const toml::key* key : keys_of(table)) {
        std::string given = fmt::format("{}: {}", place(origin, key->source()), key->str());
        std::optional<std::string> written = text_of(*table.get(key->str()));
        if (!written) throw UserError("{} is not of the form setting = value", given);
        settings.push_back({.name = std::string(key->str()),
                            .value = std::move(*written),
                            .given = std::move(given)});
    }
    return settings;
}

TrainSettings settings_of_run(const std::vector<FileSetting>& written) {
    std::string_view task = "listops";  // of a run from before there were others
    for (const FileSetting& setting : written) {
        if (setting.name != "task") continue;
        try {
            task = task_named(setting.value).name;
        } catch (const UserError& error) {
            throw UserError("{}: {}", setting.given, error.what());
        }
    }
    TrainSettings settings = preset_settings("paper", task);
    settings.attention_dropout = 0;  // of runs from before there was such a setting
    for (const FileSetting& setting : written) {
        apply_setting(settings, setting.name, setting.value, setting.given);
    }
    return settings;
}

void apply_settings_file(TrainSettings& settings, const std::filesystem::path& file) {
    for (const FileSetting& setting : read_settings_file(file)) {
        apply_setting(settings, setting.name, setting.value, setting.given);
    }
}

std::string toml_string(std::string_view text) {
    std::string result = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            result += '\\';
            result += c;
        } else if (byte < 0x20 || byte == 0x7F) {
            result += fmt::format("\\u{:04X}", byte);
        } else {
            result += c;
        }
    }
    return result + '"';
}

}  // namespace spion
