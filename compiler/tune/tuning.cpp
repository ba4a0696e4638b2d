#include "compiler/tune/tuning.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>

#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/atomic_file.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtension = ".txt";
constexpr std::size_t kKeyDigits = 32;

// What of an entry its digest covers.
std::string entry_text(const std::string& key, const Tuning& tuning) {
    const TileShape& shape = tuning.shape;
    return fmt::format(
        "tuning {}\nkernel {}\ndevice {}\nbatch {}\nstationary_rows {}\nstreamed_rows {}\n"
        "gather_rows {}\nwarps {}\nstages {}\nunit {}\npacked_rows {}\n"
        "milliseconds {:.6f}\n",
        key, tuning.kernel, tuning.device, tuning.batch, shape.stationary_rows, shape.streamed_rows,
        shape.gather_rows, shape.warps, shape.stages, to_string(shape.unit), shape.packed_rows,
        tuning.milliseconds);
}

// Takes "name value" off the front of `text`; "" unless that is its first line.
std::string_view take_line(std::string_view& text, std::string_view name) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    return line.starts_with(name) && line.substr(name.size()).starts_with(' ')
               ? line.substr(name.size() + 1)
               : std::string_view();
}

template <typename Number>
void take_number(std::string_view& text, std::string_view name, Number& value) {
    const std::string_view digits = take_line(text, name);
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
}

// Any unit for a word that is none, as printing shows.
MatrixUnit unit_named(std::string_view word) {
    for (const MatrixUnit unit : kMatrixUnits) {
        if (to_string(unit) == word) {
            return unit;
        }
    }
    return {};
}

// What a text says, whole or not: whether it is whole shows in printing it again.
Tuning read_fields(std::string_view text) {
    Tuning tuning{.kernel = {}, .device = {}, .from_cache = true};
    take_line(text, "tuning");
    tuning.kernel = take_line(text, "kernel");
    tuning.device = take_line(text, "device");
    take_number(text, "batch", tuning.batch);
    take_number(text, "stationary_rows", tuning.shape.stationary_rows);
    take_number(text, "streamed_rows", tuning.shape.streamed_rows);
    take_number(text, "gather_rows", tuning.shape.gather_rows);
    take_number(text, "warps", tuning.shape.warps);
    take_number(text, "stages", tuning.shape.stages);
    tuning.shape.unit = unit_named(take_line(text, "unit"));
    take_number(text, "packed_rows", tuning.shape.packed_rows);
    take_number(text, "milliseconds", tuning.milliseconds);
    return tuning;
}

bool is_key(std::string_view text) {
    return text.size() == kKeyDigits &&
           text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// "<key>.txt", or what a writer that died has left: a name of runtime/atomic_file.h or
// "<key>.txt.<process>".
enum class Name { kEntry, kAside, kForeign };

Name kind_of(const fs::path& file) {
    const std::string name = file.filename().string();
    std::error_code ignored;
    if (is_unfinished(file)) {
        return fs::symlink_status(file, ignored).type() == fs::file_type::regular ? Name::kAside
                                                                                  : Name::kForeign;
    }
    if (name.size() < kKeyDigits + kExtension.size() || !is_key(name.substr(0, kKeyDigits)) ||
        name.substr(kKeyDigits, kExtension.size()) != kExtension ||
        fs::symlink_status(file, ignored).type() != fs::file_type::regular) {
        return Name::kForeign;
    }
    const std::string rest = name.substr(kKeyDigits + kExtension.size());
    if (rest.empty()) {
        return Name::kEntry;
    }
    const bool process = rest.size() > 1 && rest.front() == '.' &&
                         rest.find_first_not_of("0123456789", 1) == std::string::npos;
    return process ? Name::kAside : Name::kForeign;
}

std::vector<fs::path> files_in(const fs::path& folder) {
    std::vector<fs::path> files;
    std::error_code error;
    if (fs::symlink_status(folder, error).type() != fs::file_type::directory) {
        return files;
    }
    for (fs::directory_iterator item(folder, error), end; !error && item != end;
         item.increment(error)) {
        files.push_back(item->path());
    }
    if (error) {
        throw DeviceError("the cache folder {} cannot be read: {}", folder.string(),
                          error.message());
    }
    std::sort(files.begin(), files.end());
    return files;
}

fs::path folder_in(const fs::path& root) {
    return root / "tuning";
}

}  // namespace

fs::path tuning_file(const fs::path& root, const std::string& key) {
    return folder_in(root) / (key + std::string(kExtension));
}

std::optional<Tuning> read_tuning(const fs::path& file, const std::string& key,
                                  std::string* problem) {
    const auto miss = [problem](const char* reason) {
        if (problem != nullptr) {
            *problem = reason;
        }
        return std::nullopt;
    };
    std::error_code error;
    std::ifstream stream(file, std::ios::binary);
    if (!fs::is_regular_file(file, error) || !stream) {
        return miss("it cannot be read");
    }
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const Tuning tuning = read_fields(text);
    const std::string wanted = entry_text(key, tuning);
    if (text != wanted + "digest " + digest_of(wanted) + "\n") {
        return miss("its facts are not those that its key and digest were made from");
    }
    return tuning;
}

void write_tuning(const fs::path& file, const std::string& key, const Tuning& tuning) {
    const std::string text = entry_text(key, tuning);
    try {
        const std::string entry = fmt::format("{}digest {}\n", text, digest_of(text));
        const NamedBytes whole{.path = file, .bytes = entry};
        write_files({&whole, 1}, "");
    } catch (const UserError&) {
        // Measured again next time.
    }
}

std::vector<TuningEntry> list_tunings(const fs::path& root) {
    std::vector<TuningEntry> entries;
    for (const fs::path& file : files_in(folder_in(root))) {
        if (kind_of(file) != Name::kEntry) {
            continue;
        }
        TuningEntry entry{.file = file, .key = file.stem().string(), .problem = {}, .tuning = {}};
        if (std::optional<Tuning> tuning = read_tuning(file, entry.key, &entry.problem)) {
            entry.tuning = std::move(*tuning);
        }
        std::error_code error;
        const std::uintmax_t bytes = fs::file_size(file, error);
        const auto written = fs::last_write_time(file, error);
        if (!error) {  // else it has just vanished
            entry.bytes = bytes;
            const std::chrono::duration<double> age = fs::file_time_type::clock::now() - written;
            entry.age_seconds = std::max(0.0, age.count());  // the clock may have gone back
        }
        entries.push_back(std::move(entry));
    }
    return entries;
}

std::size_t clear_tunings(const fs::path& root) {
    std::size_t removed = 0;
    for (const fs::path& file : files_in(folder_in(root))) {
        const Name kind = kind_of(file);
        if (kind == Name::kForeign) {
            continue;
        }
        std::error_code error;
        fs::remove(file, error);
        if (error) {
            throw DeviceError("{} cannot be removed: {}; {} tunings were", file.string(),
                              error.message(), removed);
        }
        removed += kind == Name::kEntry ? 1 : 0;
    }
    std::error_code ignored;
    if (fs::is_empty(folder_in(root), ignored)) {
        fs::remove(folder_in(root), ignored);
    }
    return removed;
}

}  // namespace spion
