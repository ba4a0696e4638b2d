#include "runtime/cache_folders.h"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cmath>

#include "ir/error.h"
#include "runtime/environment.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

// The folders of a list like $PATH; empty places in it name none.
std::vector<fs::path> folders_in(std::string_view list) {
    std::vector<fs::path> folders;
    while (!list.empty()) {
        const std::string_view name = list.substr(0, list.find(':'));
        list.remove_prefix(std::min(name.size() + 1, list.size()));
        if (!name.empty()) {
            folders.push_back(fs::absolute(name));
        }
    }
    return folders;
}

std::optional<fs::path> usual_folder() {
    if (const auto folder = environment_value("XDG_CACHE_HOME");
        folder && fs::path(*folder).is_absolute()) {
        return fs::path(*folder) / "spion";
    }
    if (const auto folder = environment_value("HOME")) {
        return fs::path(*folder) / ".cache" / "spion";
    }
    return std::nullopt;
}

}  // namespace

CacheFolders cache_folders() {
    CacheFolders folders;
    if (const auto limit = environment_value("SPION_CACHE_LIMIT")) {
        folders.limit = parse_size(*limit, "SPION_CACHE_LIMIT");
    }
    if (const auto list = environment_value("SPION_CACHE_DIR")) {
        std::vector<fs::path> named = folders_in(*list);
        const bool keeps = list->front() != ':';  // ":/baked" keeps nothing
        if (keeps && !named.empty()) {
            folders.kept = named.front();
            named.erase(named.begin());
        }
        folders.read_only = std::move(named);
        return folders;
    }
    folders.kept = usual_folder();
    return folders;
}

std::optional<std::string> why_not_trusted(const fs::path& folder) {
    struct stat facts = {};
    if (environment_switch("SPION_CACHE_TRUST") || stat(folder.c_str(), &facts) != 0) {
        return std::nullopt;
    }
    if (facts.st_uid != geteuid() && facts.st_uid != 0) {
        return fmt::format("belongs to user {} and not to you, {}", facts.st_uid, geteuid());
    }
    if ((facts.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
        return fmt::format("may be written by others than its owner (mode {:04o})",
                           facts.st_mode & 07777);
    }
    return std::nullopt;
}

std::uintmax_t parse_size(std::string_view text, std::string_view origin) {
    double number = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    std::string_view unit(stop, static_cast<std::size_t>(end - stop));
    constexpr std::string_view kUnits = "KMGT";
    const std::size_t power = unit.empty() ? 0 : kUnits.find(unit.front()) + 1;
    const double bytes = std::ldexp(number, 10 * static_cast<int>(power));
    constexpr double kMost = 0x1p60;
    // npos + 1 is 0: a letter that is no unit.
    if (error != std::errc{} || unit.size() > 1 || (power == 0 && !unit.empty()) ||
        !(number >= 0 && bytes <= kMost)) {
        throw UserError("{} is {}: give a number of bytes, or one with K, M, G or T, such as 2G",
                        origin, text);
    }
    return static_cast<std::uintmax_t>(bytes);
}

}  // namespace spion
