// Which folders are used, whether what lies in them may be run, and how they are kept small.
#include "runtime/cache_folders.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "ir/error.h"
#include "runtime/cache_listing.h"
#include "runtime/cache_prune.h"
#include "tests/runtime/cache_fixture.h"
#include "tests/support/environment.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

CompileRequest request_of(int number) {
    CompileRequest request = some_request();
    request.arch = fmt::format("sm_{}", number);
    return request;
}

void set_unused_for(const fs::path& folder, std::chrono::hours age) {
    fs::last_write_time(folder / "manifest.json", fs::file_time_type::clock::now() - age);
}

// Exit codes of `body` in so many processes at once.
std::vector<int> in_processes(int count, const std::function<int(int)>& body) {
    std::vector<pid_t> children;
    for (int i = 0; i < count; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            _exit(body(i));
        }
        children.push_back(child);
    }
    std::vector<int> codes;
    for (const pid_t child : children) {
        int status = -1;
        waitpid(child, &status, 0);
        codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    }
    return codes;
}

TEST(CacheFolders, TheFirstKeepsAndTheOthersAreRead) {
    const Environment limit("SPION_CACHE_LIMIT", "2G");
    {
        const Environment list("SPION_CACHE_DIR", "/own:/baked::/older");
        const CacheFolders folders = cache_folders();
        EXPECT_EQ(folders.kept, "/own");
        EXPECT_EQ(folders.read_only, (std::vector<fs::path>{"/baked", "/older"}));
        EXPECT_EQ(folders.limit, std::uintmax_t{2} << 30);
    }
    const Environment list("SPION_CACHE_DIR", ":/baked");
    EXPECT_EQ(cache_folders().kept, std::nullopt);
    EXPECT_EQ(cache_folders().read_only, std::vector<fs::path>{"/baked"});
    const Environment wrong("SPION_CACHE_LIMIT", "much");
    expect_error<UserError>([] { cache_folders(); }, "SPION_CACHE_LIMIT is much: give a number of");
}

TEST(CacheFolders, ReadsSizes) {
    EXPECT_EQ(parse_size("0", "x"), 0U);
    EXPECT_EQ(parse_size("1536", "x"), 1536U);
    EXPECT_EQ(parse_size("1.5K", "x"), 1536U);
    EXPECT_EQ(parse_size("3M", "x"), std::uintmax_t{3} << 20);
    EXPECT_EQ(parse_size("2T", "x"), std::uintmax_t{2} << 40);
    for (const char* wrong : {"", "-1", "G", "2X", "2GB", "nan", "inf", "1e300", "2G "}) {
        SCOPED_TRACE(wrong);
        expect_error<UserError>([&] { parse_size(wrong, "--max-size"); },
                                fmt::format("--max-size is {}: give a number of bytes", wrong));
    }
}

// A baked folder serves what it has, and nothing is written to it.
TEST(CacheFolders, ReadOnlyOnesServeTheirEntries) {
    const ScratchFolder scratch;
    const fs::path own = scratch.path() / "own", baked = scratch.path() / "baked";
    int compilations = 0;
    look_up(baked, &compilations, request_of(1));
    ASSERT_EQ(compilations, 1);
    const auto get = [&](KernelCache& cache, const CompileRequest& request) {
        return cache.get(some_source(), request, [&](const CompileRequest& seen) {
            ++compilations;
            return compiled(seen);
        });
    };
    KernelCache cache(CacheFolders{.kept = own, .read_only = {scratch.path() / "none", baked}});
    const CachedKernel found = get(cache, request_of(1));
    EXPECT_EQ(found.origin, CacheOrigin::kDisk);
    EXPECT_EQ(found.folder.parent_path(), baked);
    EXPECT_EQ(compilations, 1);
    EXPECT_FALSE(fs::exists(own));
    EXPECT_EQ(get(cache, request_of(2)).folder.parent_path(), own);
    EXPECT_EQ(entries(baked), 1U);
    // Without a folder of its own it keeps in memory.
    KernelCache reader(CacheFolders{.read_only = {baked}});
    EXPECT_EQ(get(reader, request_of(1)).origin, CacheOrigin::kDisk);
    EXPECT_EQ(get(reader, request_of(2)).origin, CacheOrigin::kCompiled);
    EXPECT_EQ(get(reader, request_of(2)).origin, CacheOrigin::kMemory);
    EXPECT_EQ(entries(baked), 1U);
}

TEST(CacheFolders, RefusesFoldersThatOthersMayWrite) {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path() / "open";
    fs::create_directory(folder);
    const Environment named("SPION_CACHE_DIR", folder.string());
    fs::permissions(folder, static_cast<fs::perms>(0755));
    EXPECT_EQ(why_not_trusted(folder), std::nullopt);
    EXPECT_EQ(KernelCache::checked_folders().kept, folder);
    for (const int mode : {0775, 0757, 01777}) {
        fs::permissions(folder, static_cast<fs::perms>(mode));
        expect_error<UserError>(
            [] { KernelCache::checked_folders(); },
            fmt::format("SPION_CACHE_DIR names {}, which may be written by others than its owner "
                        "(mode {:04o}): what lies in it would be run: name a folder of your own",
                        folder.string(), mode));
        const Environment layers("SPION_CACHE_DIR", scratch.file("own") + ":" + folder.string());
        EXPECT_THROW(KernelCache::checked_folders(), UserError);
        const Environment trust("SPION_CACHE_TRUST", "1");
        EXPECT_EQ(KernelCache::checked_folders().read_only, std::vector<fs::path>{folder});
    }
}

// Whoever may write in a folder above could put another cache in this one's place.
TEST(CacheFolders, RefusesFoldersBelowOnesThatOthersMayWrite) {
    const ScratchFolder scratch;
    const fs::path above = scratch.path() / "above", folder = above / "between" / "cache";
    fs::create_directories(folder);
    for (const fs::path& each : {above, above / "between", folder}) {
        fs::permissions(each, static_cast<fs::perms>(0755));
    }
    const Environment named("SPION_CACHE_DIR", folder.string());
    const auto permit = [](const fs::path& path, int mode) {
        fs::permissions(path, static_cast<fs::perms>(mode));
    };
    EXPECT_EQ(why_not_trusted(folder), std::nullopt);
    for (const int mode : {0757, 0777, 02777}) {
        permit(above, mode);
        const std::string reason =
            fmt::format("lies in {}, which may be written by others than its owner (mode {:04o})",
                        fs::canonical(above).string(), mode);
        EXPECT_EQ(why_not_trusted(folder), reason);
        EXPECT_EQ(why_not_trusted(above / "between" / "not there"), reason);
        EXPECT_EQ(why_not_trusted(above / "between" / "." / ".." / "between" / "cache"), reason);
        expect_error<UserError>(
            [] { KernelCache::checked_folders(); },
            fmt::format("SPION_CACHE_DIR names {}, which {}: what lies in it would be run: name a "
                        "folder of your own that only you may write, or set SPION_CACHE_TRUST=1",
                        folder.string(), reason));
        const Environment trust("SPION_CACHE_TRUST", "1");
        EXPECT_EQ(KernelCache::checked_folders().kept, folder);
    }
    permit(above, 01777);  // as /tmp is
    EXPECT_EQ(why_not_trusted(folder), std::nullopt);
    permit(above / "between", 0777);
    EXPECT_NE(why_not_trusted(folder), std::nullopt);
    permit(above / "between", 0755);
    permit(folder, 01777);
    EXPECT_NE(why_not_trusted(folder), std::nullopt) << "in the folder itself they could add";
}

// As systems whose users each have a group let them make folders.
TEST(CacheFolders, AGroupMayWriteAboveIfItIsTheUsersAlone) {
    const passwd* const user = getpwuid(geteuid());
    const group* const own = user == nullptr ? nullptr : getgrgid(user->pw_gid);
    if (geteuid() != 0 || own == nullptr || *own->gr_mem != nullptr) {
        GTEST_SKIP() << "only root can give a folder to another group";
    }
    const ScratchFolder scratch;
    const fs::path above = scratch.path() / "above";
    fs::create_directories(above / "cache");
    fs::permissions(above / "cache", static_cast<fs::perms>(0755));
    const auto reason = [&](gid_t group) {
        EXPECT_EQ(chown(above.c_str(), 0, group), 0);
        fs::permissions(above, static_cast<fs::perms>(0775));
        return why_not_trusted(above / "cache");
    };
    EXPECT_EQ(reason(user->pw_gid), std::nullopt);
    EXPECT_EQ(reason(65534), fmt::format("lies in {}, which may be written by others than its "
                                         "owner (mode 0775)",
                                         fs::canonical(above).string()));
}

TEST(CacheFolders, FollowsLinksOnTheWay) {
    const ScratchFolder scratch;
    const fs::path open = scratch.path() / "open", safe = scratch.path() / "safe";
    fs::create_directories(open);
    fs::create_directories(safe / "cache");
    for (const fs::path& each : {safe, safe / "cache"}) {
        fs::permissions(each, static_cast<fs::perms>(0755));
    }
    fs::create_symlink("../safe", open / "relative");
    fs::create_symlink(open / "relative", scratch.path() / "absolute");
    const fs::path folder = scratch.path() / "absolute" / "cache";
    fs::permissions(open, static_cast<fs::perms>(0755));
    EXPECT_EQ(why_not_trusted(folder), std::nullopt);
    fs::permissions(open, static_cast<fs::perms>(0777));
    EXPECT_EQ(why_not_trusted(folder),
              fmt::format("lies in {}, which may be written by others than its owner (mode 0777)",
                          fs::canonical(open).string()));
    EXPECT_EQ(why_not_trusted(safe / "cache"), std::nullopt);
    EXPECT_EQ(why_not_trusted("/dev/null/cache"), std::nullopt) << "nothing can lie there";
    fs::create_symlink("circle", safe / "circle");
    EXPECT_EQ(why_not_trusted(safe / "circle" / "cache"), std::nullopt);
    fs::permissions(open, static_cast<fs::perms>(01777));
    EXPECT_EQ(why_not_trusted(folder), std::nullopt);
    if (geteuid() == 0) {
        ASSERT_EQ(lchown((open / "relative").c_str(), 65534, 65534), 0);
        EXPECT_EQ(why_not_trusted(folder),
                  fmt::format("is reached by the link {}, which belongs to user 65534 and not to "
                              "you, 0",
                              (fs::canonical(open) / "relative").string()));
    }
}

TEST(CacheFolders, RefusesFoldersOfOtherUsers) {
    if (geteuid() != 0) {
        GTEST_SKIP() << "only root can give a folder to another user";
    }
    const ScratchFolder scratch;
    const fs::path folder = scratch.path() / "theirs";
    fs::create_directory(folder);
    ASSERT_EQ(chown(folder.c_str(), 65534, 65534), 0);
    {
        const Environment named("SPION_CACHE_DIR", folder.string());
        expect_error<UserError>(
            [] { KernelCache::checked_folders(); },
            fmt::format("SPION_CACHE_DIR names {}, which belongs to user 65534 and not to you, 0: "
                        "what lies in it would be run: name a folder of your own that only you may "
                        "write, or set SPION_CACHE_TRUST=1 to take this one",
                        folder.string()));
        const Environment trust("SPION_CACHE_TRUST", "1");
        EXPECT_EQ(KernelCache::checked_folders().kept, folder);
    }
    // The usual folder is done without, and a line says so.
    const Environment unset("SPION_CACHE_DIR", std::nullopt);
    const Environment xdg("XDG_CACHE_HOME", scratch.path().string());
    fs::rename(folder, scratch.path() / "spion");
    const fs::path log = scratch.path() / "stderr";
    EXPECT_EQ(in_processes(1,
                           [&](int) {
                               const bool opened =
                                   std::freopen(log.c_str(), "w", stderr) != nullptr;
                               const bool none = !KernelCache::checked_folders().kept;
                               std::fflush(stderr);
                               return opened && none ? 0 : 1;
                           }),
              std::vector<int>{0});
    EXPECT_NE(contents(log).find("belongs to user 65534 and not to you, 0; what lies in it would"),
              std::string::npos)
        << contents(log);
    // What root wrote is root's to answer for, whoever reads it.
    fs::permissions(scratch.path(), static_cast<fs::perms>(0755));
    ASSERT_EQ(chown((scratch.path() / "spion").c_str(), 0, 0), 0);
    EXPECT_EQ(in_processes(1,
                           [&](int) {
                               return setuid(65534) == 0 &&
                                              !why_not_trusted(scratch.path() / "spion")
                                          ? 0
                                          : 1;
                           }),
              std::vector<int>{0});
}

TEST(CacheFolders, AFolderToBeReadHasToBeThere) {
    const ScratchFolder scratch;
    const Environment named("SPION_CACHE_DIR", scratch.file("own") + ":" + scratch.file("none"));
    expect_error<UserError>([] { KernelCache::checked_folders(); },
                            fmt::format("SPION_CACHE_DIR names {} to be read, which is no folder",
                                        scratch.file("none")));
}

TEST(CachePrune, RemovesByLastUse) {
    const ScratchFolder scratch;
    const fs::path root = scratch.path() / "cache";
    int compilations = 0;
    std::vector<fs::path> folders;
    for (int i = 0; i < 4; ++i) {
        folders.push_back(look_up(root, &compilations, request_of(i)).folder);
        set_unused_for(folders.back(), std::chrono::hours(10 * (i + 1)));
    }
    overwrite(root / "notes.txt", "mine");
    look_up(root, &compilations, request_of(3));  // a use
    EXPECT_EQ(compilations, 4);
    const Pruned pruned = prune_entries(root, {.unused_seconds = 15 * 3600.0});
    EXPECT_EQ(pruned.kernels, 2U);
    EXPECT_EQ(pruned.kernels_left, 2U);
    EXPECT_TRUE(fs::exists(folders[0]));
    EXPECT_FALSE(fs::exists(folders[1]));
    EXPECT_FALSE(fs::exists(folders[2]));
    EXPECT_TRUE(fs::exists(folders[3]));
    EXPECT_EQ(contents(root / "notes.txt"), "mine");
    EXPECT_EQ(entries(root), 3U);
    // A use is no writing: the age stays that of the entry.
    const std::vector<CacheEntry> listed = list_entries(root);
    for (const CacheEntry& entry : listed) {
        EXPECT_LT(entry.age_seconds, 3600) << entry.folder;
        EXPECT_EQ(entry.unused_seconds > 3600, entry.folder == folders[0]) << entry.folder;
    }
}

TEST(CachePrune, RemovesByVolumeTheLeastRecentlyUsedFirst) {
    const ScratchFolder scratch;
    const fs::path root = scratch.path() / "cache";
    int compilations = 0;
    std::vector<fs::path> folders;
    for (int i = 0; i < 4; ++i) {
        folders.push_back(look_up(root, &compilations, request_of(i)).folder);
        set_unused_for(folders.back(), std::chrono::hours(10 - i));
    }
    const std::uintmax_t one = entry_uses(root).front().bytes;
    EXPECT_EQ(prune_entries(root, {.bytes = 100 * one}).kernels, 0U);
    const Pruned pruned = prune_entries(root, {.bytes = 2 * one + one / 2});
    EXPECT_EQ(pruned.kernels, 2U);
    EXPECT_LE(pruned.bytes_left, 2 * one + one / 2);
    EXPECT_FALSE(fs::exists(folders[0]));
    EXPECT_FALSE(fs::exists(folders[1]));
    EXPECT_TRUE(fs::exists(folders[2]));
    EXPECT_EQ(prune_entries(root, {.bytes = 0, .spare = folders[2]}).kernels, 1U);
    EXPECT_TRUE(fs::exists(folders[2]));
    EXPECT_EQ(prune_entries(scratch.path() / "none", {.bytes = 0}).kernels, 0U);
}

TEST(CachePrune, TheLimitIsKeptWhenKernelsAreAdded) {
    const ScratchFolder scratch;
    const fs::path root = scratch.path() / "cache";
    int compilations = 0;
    look_up(root, &compilations, request_of(0));
    const std::uintmax_t one = entry_uses(root).front().bytes;
    KernelCache cache(CacheFolders{.kept = root, .limit = 3 * one + one / 2});
    for (int i = 1; i < 10; ++i) {
        for (const EntryUse& use : entry_uses(root)) {  // as if each lookup were an hour apart
            const fs::path manifest = use.folder / "manifest.json";
            fs::last_write_time(manifest, fs::last_write_time(manifest) - std::chrono::hours(1));
        }
        cache.get(some_source(), request_of(i), compiled);
    }
    EXPECT_EQ(entry_uses(root).size(), 3U);
    for (int i = 0; i < 10; ++i) {
        compilations = 0;
        look_up(root, &compilations, request_of(i));
        EXPECT_EQ(compilations, i < 7 ? 1 : 0) << i;
    }
    // Smaller than any entry: what was just made stays, or the next process would make it again.
    KernelCache tiny(CacheFolders{.kept = root, .limit = 1});
    EXPECT_TRUE(fs::exists(tiny.get(some_source(), request_of(77), compiled).folder));
    EXPECT_EQ(entry_uses(root).size(), 1U);
}

// Processes that add under a limit, prune and read at once: every lookup gets the right kernel, and
// nothing half-removed is left.
TEST(CachePrune, RacesWithReadersAndWriters) {
    const ScratchFolder scratch;
    const fs::path root = scratch.path() / "cache";
    int compilations = 0;
    look_up(root, &compilations, request_of(0));
    const std::uintmax_t limit = 3 * entry_uses(root).front().bytes;
    const std::vector<int> codes = in_processes(4, [&](int child) {
        for (int round = 0; round < 60; ++round) {
            const CompileRequest request = request_of((round * (child + 1)) % 7);
            KernelCache cache(CacheFolders{.kept = root, .limit = limit});
            const CachedKernel kernel = cache.get(some_source(), request, compiled);
            if (kernel.binary->code != compiled(request).code) {
                return 1;
            }
            if (child == 0) {
                prune_entries(root, {.unused_seconds = 0.0});
            }
        }
        return 0;
    });
    EXPECT_EQ(codes, std::vector<int>(4, 0));
    prune_entries(root, {.bytes = limit});
    for (const auto& item : fs::directory_iterator(root)) {
        EXPECT_FALSE(item.path().filename().string().starts_with("tmp.")) << item.path();
    }
    std::uintmax_t bytes = 0;
    for (const CacheEntry& entry : list_entries(root)) {
        EXPECT_EQ(verify_entry(entry), "") << entry.folder;
        bytes += entry.bytes;
    }
    EXPECT_LE(bytes, limit);
}

}  // namespace
}  // namespace spion
