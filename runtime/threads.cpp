#include "runtime/threads.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "ir/error.h"
#include "runtime/environment.h"
#include "runtime/output.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

int processors_of_affinity() {
    for (int most = 1024; most <= 1 << 20; most *= 2) {
        cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(most));
        const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(most));
        const bool known = set != nullptr && sched_getaffinity(0, bytes, set) == 0;
        const int count = known ? CPU_COUNT_S(bytes, set) : 0;
        const bool too_small = !known && errno == EINVAL;
        CPU_FREE(set);
        if (count > 0) return count;
        if (!too_small) break;
    }
    return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

// Processors that "quota period" allow; infinity for "max" and what is no quota.
double processors_of(const std::string& quota, const std::string& period) {
    double allowed = 0, every = 0;
    const auto read = [](const std::string& text, double& value) {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc();
    };
    if (!read(quota, allowed) || !read(period, every) || allowed <= 0 || every <= 0) {
        return std::numeric_limits<double>::infinity();
    }
    return allowed / every;
}

double quota_of_folder(const fs::path& folder) {
    std::string quota, period;
    std::ifstream(folder / "cpu.max") >> quota >> period;
    double least = processors_of(quota, period);
    std::string old_quota, old_period;
    std::ifstream(folder / "cpu.cfs_quota_us") >> old_quota;
    std::ifstream(folder / "cpu.cfs_period_us") >> old_period;
    return std::min(least, processors_of(old_quota, old_period));
}

// The least quota of `group` and of the groups above it, below a mount of control groups. In a
// container `group` may be the host's name, of which nothing is mounted; the mount itself counts.
double quota_of(const fs::path& mount, const fs::path& group) {
    double least = quota_of_folder(mount);
    fs::path folder = mount;
    for (const fs::path& part : group.relative_path()) {
        folder /= part;
        least = std::min(least, quota_of_folder(folder));
    }
    return least;
}

// From the lines "hierarchy:controllers:group" of /proc/self/cgroup; version 2 has no controllers.
double quota_of_process(const fs::path& root) {
    double least = std::numeric_limits<double>::infinity();
    const fs::path mounts = root / "sys/fs/cgroup";
    std::ifstream groups(root / "proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const fs::path group = line.substr(second + 1);
        if (controllers.empty()) {
            least = std::min(least, quota_of(mounts, group));
            least = std::min(least, quota_of(mounts / "unified", group));
        } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
            least = std::min(least, quota_of(mounts / controllers, group));
            least = std::min(least, quota_of(mounts / "cpu", group));
        }
    }
    return least;
}

int parse_thread_count(std::string_view text, std::string_view given) {
    int count = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (error != std::errc() || end != text.data() + text.size() || count < 1 ||
        count > kMostThreads) {
        throw UserError("{} is '{}', but it takes a whole number from 1 to {}", given, text,
                        kMostThreads);
    }
    return count;
}

std::atomic<int> chosen_count = 0;  // --threads; 0: not given

}  // namespace

int usable_processors(const fs::path& root) {
    const int affinity = processors_of_affinity();
    const double quota = std::ceil(quota_of_process(root));
    return quota < affinity ? std::max(1, static_cast<int>(quota)) : affinity;
}

int thread_count() {
    if (const int chosen = chosen_count) return chosen;
    if (const auto given = environment_value("SPION_THREADS")) {
        return parse_thread_count(*given, "SPION_THREADS");
    }
    static const int usable = usable_processors();
    return usable;
}

void set_thread_count(std::string_view number, std::string_view given) {
    chosen_count = parse_thread_count(number, given);
}

std::thread try_to_start_thread(const std::function<void()>& work) {
    try {
        return std::thread(work);
    } catch (const std::system_error&) {
        return {};
    } catch (const std::bad_alloc&) {
        return {};
    }
}

std::thread start_thread(const std::function<void()>& work, std::string_view needed_for) {
    std::thread thread = try_to_start_thread(work);
    if (!thread.joinable()) {
        throw DeviceError(
            "the system allows no further thread, which is needed for {}: raise the limit on "
            "processes (ulimit -u) or on memory (ulimit -v)",
            needed_for);
    }
    return thread;
}

void run_on_threads(int count, const std::function<void()>& work) {
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<std::size_t>(std::max(0, count - 1)));
    for (int i = 1; i < count; ++i) {
        std::thread helper = try_to_start_thread(work);
        if (!helper.joinable()) {
            note_fewer_threads(count, i);
            break;
        }
        helpers.push_back(std::move(helper));
    }
    work();
    for (std::thread& helper : helpers) helper.join();
}

void note_fewer_threads(int wanted, int started) {
    static std::atomic_flag noted = ATOMIC_FLAG_INIT;
    if (noted.test_and_set()) return;
    say("spion: {} threads were wanted, but the system allows only {} (a limit on processes "
        "or memory); going on with these\n",
        wanted, started);
}

}  // namespace spion
