// How many threads this process uses, and how they are started.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>
#include <thread>

namespace spion {

// Processors that this process may use, at least 1: those of its affinity, or fewer where a CPU
// quota of a control group above it allows less (cgroup 2: cpu.max; cgroup 1: cpu.cfs_quota_us over
// cpu.cfs_period_us; a part of a processor counts as one). root: where proc/ and sys/ are, for
// tests.
int usable_processors(const std::filesystem::path& root = "/");

// The number of threads wanted: set_thread_count's, else SPION_THREADS, else usable_processors().
// The host's thread pool, its cost model and everything that compiles or prepares data in parallel
// ask here. Throws UserError for a SPION_THREADS that is no whole number from 1 to kMostThreads.
int thread_count();

constexpr int kMostThreads = 4096;

// Sets it for this process: --threads. Throws UserError for a number out of range, which `given`
// names.
void set_thread_count(std::string_view number, std::string_view given);

// Starts a thread; nothing where the system allows no further one (a limit on processes or memory).
std::thread try_to_start_thread(const std::function<void()>& work);

// The same for a thread that there must be: throws DeviceError that says what it was needed for
// and which limits to raise.
std::thread start_thread(const std::function<void()>& work, std::string_view needed_for);

// Calls `work` on `count` threads, the caller's included, and returns when all are done. Where the
// system allows fewer, these do it, and a line on stderr says so, once. `work` must not throw.
void run_on_threads(int count, const std::function<void()>& work);

// That line.
void note_fewer_threads(int wanted, int started);

}  // namespace spion
