#include "runtime/cache_folders.h"

#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <system_error>
#include <vector>

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

std::optional<std::string> why_not_owned(const struct stat& facts) {
    if (facts.st_uid == geteuid() || facts.st_uid == 0) return std::nullopt;
    return fmt::format("belongs to user {} and not to you, {}", facts.st_uid, geteuid());
}

// One entry of the database of users or groups, its text in `text`; false where there is none. `read` is
// a call that ends in _r: those without it share one result among all threads.
template <typename Entry, typename Read>
bool read_entry(Entry& entry, std::vector<char>& text, const Read& read) {
    for (text.resize(1024);; text.resize(2 * text.size())) {
        Entry* found = nullptr;
        if (read(&entry, text.data(), text.size(), &found) != ERANGE) return found != nullptr;
    }
}

// A group of the user's own, as many systems make one for each user and then let it write.
bool is_group_of_one(gid_t group) {
    passwd user{};
    struct group facts {};
    std::vector<char> user_text, group_text;
    if (!read_entry(user, user_text,
                    [](auto... place) { return getpwuid_r(geteuid(), place...); }) ||
        user.pw_gid != group || !read_entry(facts, group_text, [&](auto... place) {
            return getgrgid_r(group, place...);
        })) {
        return false;
    }
    const std::string name = user.pw_name;
    if (name != facts.gr_name) return false;
    for (char** member = facts.gr_mem; *member != nullptr; ++member) {
        if (name != *member) return false;
    }
    return true;
}

std::optional<std::string> why_others_may_write(const struct stat& facts) {
    if (const auto reason = why_not_owned(facts)) return reason;
    if ((facts.st_mode & (S_IWGRP | S_IWOTH)) == 0) return std::nullopt;
    return fmt::format("may be written by others than its owner (mode {:04o})",
                       facts.st_mode & 07777);
}

// Why others could give names in a folder to other things. In a sticky one they can do that to their
// own alone.
std::optional<std::string> why_names_may_change(const struct stat& facts) {
    const auto reason = why_others_may_write(facts);
    const bool sticky = (facts.st_mode & S_ISVTX) != 0;
    const bool own_group = (facts.st_mode & S_IWOTH) == 0 && is_group_of_one(facts.st_gid);
    return !why_not_owned(facts) && (sticky || own_group) ? std::nullopt : reason;
}

// The names of a path, the last one first.
std::vector<fs::path> names_of(const fs::path& path) {
    std::vector<fs::path> names;
    for (const fs::path& name : path.relative_path()) {
        if (!name.empty() && name != ".") names.push_back(name);
    }
    std::reverse(names.begin(), names.end());
    return names;
}

// Goes from / to `path` as the kernel does, link by link, and looks at everything that could be made
// to lead elsewhere. What is not there is nobody's.
std::optional<std::string> why_way_not_trusted(const fs::path& path) {
    constexpr int kMostLinks = 40;  // Linux's own limit
    int links = 0;
    fs::path at = "/";
    std::vector<fs::path> left = names_of(path);
    while (true) {
        struct stat facts = {};
        if (stat(at.c_str(), &facts) != 0) return std::nullopt;
        if (!S_ISDIR(facts.st_mode)) return std::nullopt;  // whoever opens it says so
        if (left.empty()) return why_others_may_write(facts);
        if (!S_ISDIR(facts.st_mode)) return std::nullopt;
        if (const auto reason = why_names_may_change(facts)) {
            return fmt::format("lies in {}, which {}", at.string(), *reason);
        }
        const fs::path name = left.back();
        left.pop_back();
        if (name == "..") {
            at = at.parent_path();
            continue;
        }
        const fs::path next = at / name;
        if (lstat(next.c_str(), &facts) != 0) return std::nullopt;
        if (!S_ISLNK(facts.st_mode)) {
            at = next;
            continue;
        }
        if (const auto reason = why_not_owned(facts)) {
            return fmt::format("is reached by the link {}, which {}", next.string(), *reason);
        }
        std::error_code error;
        const fs::path target = fs::read_symlink(next, error);
        if (error || ++links > kMostLinks) return std::nullopt;  // it cannot be opened either
        if (target.is_absolute()) at = "/";
        const std::vector<fs::path> more = names_of(target);
        left.insert(left.end(), more.begin(), more.end());
    }
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
    if (environment_switch("SPION_CACHE_TRUST")) return std::nullopt;
    std::error_code error;
    const fs::path path = fs::absolute(folder, error);
    return error ? std::nullopt : why_way_not_trusted(path);
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
