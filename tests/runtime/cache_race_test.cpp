// The kernel cache among several threads and processes, and in folders that cannot be used.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "ir/error.h"
#include "runtime/cache.h"
#include "tests/runtime/cache_fixture.h"
#include "tests/support/environment.h"

namespace spion {
namespace {

TEST(KernelCache, ManyThreadsCompileAKeyOnce) {
    const ScratchFolder folder;
    KernelCache cache(folder.path());
    std::atomic<int> compilations = 0, right = 0;
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 8; ++i) {
            threads.emplace_back([&] {
                const CachedKernel kernel =
                    cache.get(some_source(), some_request(), [&](const CompileRequest& request) {
                        ++compilations;
                        std::this_thread::sleep_for(std::chrono::milliseconds(20));
                        return compiled(request);
                    });
                right += kernel.binary->code == compiled(some_request()).code ? 1 : 0;
            });
        }
    }
    EXPECT_EQ(compilations, 1);
    EXPECT_EQ(right, 8);
    EXPECT_EQ(cache.counters().compiled, 1);
    EXPECT_EQ(cache.counters().from_memory, 7);
}

TEST(KernelCache, AFailedCompilationIsReportedAndTriedAgain) {
    const ScratchFolder folder;
    KernelCache cache(folder.path());
    EXPECT_THROW(
        cache.get(some_source(), some_request(),
                  [](const CompileRequest&) -> KernelBinary { throw InternalError("rejected"); }),
        InternalError);
    EXPECT_EQ(cache.counters().compiled, 0);
    EXPECT_EQ(cache.get(some_source(), some_request(), compiled).origin, CacheOrigin::kCompiled);
}

// Runs `body` in `count` child processes at once; the number that returned true.
int in_processes(int count, const std::function<bool(int)>& body) {
    std::vector<pid_t> children;
    for (int i = 0; i < count; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            _exit(body(i) ? 0 : 1);
        }
        children.push_back(child);
    }
    int succeeded = 0;
    for (const pid_t child : children) {
        int status = -1;
        waitpid(child, &status, 0);
        succeeded += WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : 0;
    }
    return succeeded;
}

TEST(KernelCache, RacingProcessesLeaveOneGoodEntry) {
    for (const bool damaged_first : {false, true}) {
        const ScratchFolder folder;
        int compilations = 0;
        if (damaged_first) {
            overwrite(look_up(folder.path(), &compilations).folder / "kernel.cubin", "damaged");
        }
        const int succeeded = in_processes(6, [&](int child) {
            for (int round = 0; round < 20; ++round) {
                CompileRequest request = some_request();
                request.arch = fmt::format("sm_{}", round);
                int compiled_here = 0;
                const CachedKernel kernel =
                    look_up(folder.path(), &compiled_here, round == 0 ? some_request() : request);
                if (kernel.binary->code != compiled(request).code || kernel.folder.empty()) {
                    fmt::print(stderr, "child {} round {}\n", child, round);
                    return false;
                }
            }
            return true;
        });
        EXPECT_EQ(succeeded, 6);
        EXPECT_EQ(entries(folder.path()), 20U);
        compilations = 0;
        EXPECT_EQ(look_up(folder.path(), &compilations).origin, CacheOrigin::kDisk);
        EXPECT_EQ(compilations, 0);
    }
}

TEST(KernelCache, WithoutAFolderItKeepsInMemory) {
    KernelCache cache(std::nullopt);
    const CachedKernel made = cache.get(some_source(), some_request(), compiled);
    EXPECT_EQ(made.origin, CacheOrigin::kCompiled);
    EXPECT_TRUE(made.folder.empty());
    EXPECT_EQ(cache.get(some_source(), some_request(), compiled).origin, CacheOrigin::kMemory);
}

// In a child, because the note comes once a process.
TEST(KernelCache, AFolderThatCannotBeMadeCostsTimeAndOneLine) {
    const ScratchFolder folder;
    overwrite(folder.path() / "file", "in the way");
    const fs::path root = folder.path() / "file" / "cache", log = folder.path() / "stderr";
    const int succeeded = in_processes(1, [&](int) {
        if (std::freopen(log.c_str(), "w", stderr) == nullptr) {
            return false;
        }
        int compilations = 0;
        const bool empty = look_up(root, &compilations).folder.empty() &&
                           look_up(root, &compilations).folder.empty();
        std::fflush(stderr);
        return empty && compilations == 2;
    });
    EXPECT_EQ(succeeded, 1);
    EXPECT_EQ(contents(log),
              fmt::format("spion: compiled kernels are not kept: cache folder {} cannot be written "
                          "(Not a directory); set SPION_CACHE_DIR to one that can\n",
                          root.string()));
}

TEST(KernelCache, AReadOnlyFolderStillServesItsEntries) {
    const ScratchFolder folder;
    const fs::path root = folder.path() / "cache";
    int compilations = 0;
    const fs::path entry = look_up(root, &compilations).folder;
    constexpr auto kReadOnly = static_cast<fs::perms>(0555);
    for (const auto& item : fs::recursive_directory_iterator(entry)) {
        fs::permissions(item, kReadOnly);
    }
    for (const fs::path& path : {folder.path(), root, entry}) {
        fs::permissions(path, kReadOnly);
    }
    const int succeeded = in_processes(1, [&](int) {
        // Permissions do not bind root.
        if (geteuid() == 0 && setuid(65534) != 0) {
            return false;
        }
        CompileRequest other = some_request();
        other.text += "other";
        int compiled_here = 0;
        return KernelCache::problem_with(root) == "Permission denied" &&
               look_up(root, &compiled_here).origin == CacheOrigin::kDisk && compiled_here == 0 &&
               look_up(root, &compiled_here, other).folder.empty() && compiled_here == 1;
    });
    EXPECT_EQ(succeeded, 1);
    for (const fs::path& path : {folder.path(), root, entry, entry / "parts"}) {
        fs::permissions(path, fs::perms::owner_all);
    }
    EXPECT_EQ(entries(root), 1U);
}

TEST(CacheRoot, FollowsTheEnvironment) {
    const Environment home("HOME", "/home/someone");
    const Environment xdg("XDG_CACHE_HOME", "/caches");
    const Environment own("SPION_CACHE_DIR", "/own/cache");
    EXPECT_EQ(KernelCache::default_root(), "/own/cache");
    {
        const Environment unset("SPION_CACHE_DIR", std::nullopt);
        EXPECT_EQ(KernelCache::default_root(), "/caches/spion");
        const Environment relative("XDG_CACHE_HOME", "caches");
        EXPECT_EQ(KernelCache::default_root(), "/home/someone/.cache/spion");
        const Environment empty("XDG_CACHE_HOME", "");
        EXPECT_EQ(KernelCache::default_root(), "/home/someone/.cache/spion");
        const Environment homeless("HOME", std::nullopt);
        EXPECT_EQ(KernelCache::default_root(), std::nullopt);
    }
    const Environment empty("SPION_CACHE_DIR", "");
    EXPECT_EQ(KernelCache::default_root(), "/caches/spion");
}

TEST(CacheRoot, ANamedFolderThatCannotBeWrittenIsTheCallersError) {
    const ScratchFolder folder;
    overwrite(folder.path() / "file", "in the way");
    const fs::path wrong = folder.path() / "file" / "cache";
    {
        const Environment named("SPION_CACHE_DIR", wrong.string());
        try {
            KernelCache::checked_root();
            FAIL() << "was accepted";
        } catch (const UserError& error) {
            EXPECT_EQ(std::string(error.what()),
                      fmt::format("SPION_CACHE_DIR names {}, which cannot be written (Not a "
                                  "directory): set it to a folder that can, or unset it",
                                  wrong.string()));
        }
    }
    const Environment unset("SPION_CACHE_DIR", std::nullopt);
    const Environment xdg("XDG_CACHE_HOME", wrong.string());
    EXPECT_EQ(KernelCache::checked_root(), wrong / "spion");
    const Environment good("SPION_CACHE_DIR", (folder.path() / "made").string());
    EXPECT_EQ(KernelCache::checked_root(), folder.path() / "made");
    EXPECT_TRUE(fs::is_directory(folder.path() / "made"));
    EXPECT_EQ(entries(folder.path() / "made"), 0U);
}

}  // namespace
}  // namespace spion
