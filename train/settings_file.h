// Settings as a TOML file: any file of TOML 1.0 whose top level holds settings, and the text that
// such a file is written with.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "train/settings.h"

namespace spion {

struct FileSetting {
    std::string name;
    std::string value;  // as apply_setting takes it
    std::string given;  // "FILE:LINE:COLUMN: name"
};

// Each "setting = value" of the file, in its order; names and values are not looked at. A number may
// be written as a string too. Throws UserError, beginning with "FILE:LINE:COLUMN: " where there is a
// place, for a file that cannot be read or is a folder, for what is not TOML (a key that is given
// twice, for one), and for tables, arrays and dates.
std::vector<FileSetting> read_settings_file(const std::filesystem::path& file);

// Likewise of a text; `origin` takes the file's place in messages.
std::vector<FileSetting> read_settings_text(std::string_view text, const std::string& origin);

// A file whose tables hold more than settings.
struct SettingsTable {
    struct List {
        std::string given;
        std::vector<std::string> values;
    };
    struct Table;
    std::vector<FileSetting> settings;
    std::map<std::string, List> lists;    // of numbers, strings and truths
    std::map<std::string, Table> tables;  // by name
};
struct SettingsTable::Table {
    std::string given;
    SettingsTable content;
};

// The file with its tables and lists. Throws as read_settings_file does for what is neither.
SettingsTable read_settings_tables(const std::filesystem::path& file);

// The settings of a run whose config.toml these are: the paper's for its task, changed by them. Throws
// as apply_setting does.
TrainSettings settings_of_run(const std::vector<FileSetting>& written);

// Applies them. Throws as that and as apply_setting does.
void apply_settings_file(TrainSettings& settings, const std::filesystem::path& file);

// A basic string of TOML, quotes included, that reads back as `text`, which must be UTF-8.
std::string toml_string(std::string_view text);

}  // namespace spion
