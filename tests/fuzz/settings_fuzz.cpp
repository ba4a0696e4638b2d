// libFuzzer target: any bytes are refused with the file's name or read as settings, whose strings
// survive being written as TOML again.
#include <string>
#include <vector>

#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "train/settings_file.h"
#include "train/toml_letters.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace spion;
    static const FuzzFolder folder;
    const std::filesystem::path file = folder.write("settings.toml", text_of(data, size));
    std::vector<FileSetting> settings;
    try {
        settings = read_settings_file(file);
    } catch (const UserError& error) {
        const bool named = std::string_view(error.what()).starts_with(file.string());
        require_whole(named ? "" : std::string("refused without its name: ") + error.what());
        return 0;
    }
    std::string written;
    for (const FileSetting& setting : settings) {
        require_whole(is_utf8(setting.name) && is_utf8(setting.value) ? "" : "it is not UTF-8");
        written += toml_string(setting.name) + " = " + toml_string(setting.value) + "\n";
    }
    const std::vector<FileSetting> again = read_settings_file(folder.write("again.toml", written));
    require_whole(again.size() == settings.size() ? "" : "another number of settings:\n" + written);
    for (std::size_t i = 0; i < again.size(); ++i) {
        const bool same = again[i].name == settings[i].name && again[i].value == settings[i].value;
        require_whole(same ? "" : "it reads back as something else:\n" + written);
    }
    return 0;
}
