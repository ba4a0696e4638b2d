// `spion cache`: lists, checks and removes what spion keeps, and nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "compiler/tune/tuning.h"
#include "ir/error.h"
#include "tests/runtime/cache_fixture.h"
#include "tests/support/environment.h"
#include "tests/support/run_command.h"

namespace spion {
namespace {

using nlohmann::json;

class CacheCommand : public testing::Test {
  protected:
    ScratchFolder scratch_;
    fs::path root_ = scratch_.path() / "cache";
    Environment named_{"SPION_CACHE_DIR", root_.string()};

    // A whole entry; another one for each number.
    fs::path add_entry(int number) {
        CompileRequest request = some_request();
        request.text += fmt::format("// {}\n", number);
        int compilations = 0;
        return look_up(root_, &compilations, request).folder;
    }
    // Its key is all of `digit`.
    fs::path add_tuning(char digit) {
        const std::string key(32, digit);
        const Tuning tuning{.shape = {.stationary_rows = 64,
                                      .streamed_rows = 32,
                                      .gather_rows = 32,
                                      .warps = 4,
                                      .stages = 2},
                            .milliseconds = 1.25,
                            .kernel = "attention_forward-b64",
                            .device = "a device of the test",
                            .batch = 3};
        write_tuning(tuning_file(root_, key), key, tuning);
        return tuning_file(root_, key);
    }
    void overwrite_in(const fs::path& path, const std::string& bytes) {
        fs::create_directories(path.parent_path());
        overwrite(path, bytes);
    }
};

TEST_F(CacheCommand, AnEmptyCacheIsNoError) {
    for (const char* command : {"cache list", "cache verify", "cache clear"}) {
        const CommandResult result = run_command(command);
        EXPECT_EQ(result.exit_code, 0) << result.err;
        EXPECT_NE(result.out.find(root_.string()), std::string::npos) << result.out;
    }
    EXPECT_EQ(json::parse(run_command("cache list --json").out), json::array());
    expect_refused("cache list --dir " + scratch_.file("nowhere"), {"--dir", "nowhere"});
    expect_refused("cache", {"list", "verify", "clear"});
    const Environment unset("SPION_CACHE_DIR", std::nullopt);
    const Environment no_xdg("XDG_CACHE_HOME", std::nullopt), no_home("HOME", std::nullopt);
    expect_refused("cache list", {"SPION_CACHE_DIR", "--dir"});
}

TEST_F(CacheCommand, ListsEveryEntry) {
    const fs::path first = add_entry(1), second = add_entry(2);
    fs::create_directories(root_ / "foreign");
    const json rows = json::parse(run_command("cache list --json").out);
    ASSERT_EQ(rows.size(), 2U);
    std::set<std::string> folders;
    for (const json& row : rows) {
        folders.insert(row.at("folder"));
        EXPECT_EQ(row.at("name"), "attention_forward-b64_D32");
        EXPECT_EQ(row.at("target"), "sm_90a");
        EXPECT_EQ(row.at("compile_ms"), 1.5);
        EXPECT_EQ(row.at("problem"), "");
        EXPECT_GT(row.at("bytes"), 100);
        EXPECT_LT(row.at("age_seconds"), 600.0);
    }
    EXPECT_EQ(folders, (std::set<std::string>{first, second}));
    const CommandResult table = run_command("cache list --dir " + root_.string());
    EXPECT_EQ(std::count(table.out.begin(), table.out.end(), '\n'), 4) << table.out;
    EXPECT_NE(table.out.find("2 kernels"), std::string::npos) << table.out;
}

TEST_F(CacheCommand, VerifyFindsEveryKindOfDamage) {
    add_entry(0);
    EXPECT_EQ(run_command("cache verify").exit_code, 0);
    const std::vector<std::pair<std::string, std::string>> damages = {
        {"kernel.cubin", "shorter"},
        {"kernel.cu", "other source"},
        {"parts/math.cuh", "other"},
        {"manifest.json", "{\"key\": \"half"},
    };
    for (std::size_t i = 0; i < damages.size(); ++i) {
        const fs::path entry = add_entry(static_cast<int>(i) + 1);
        overwrite(entry / damages[i].first, damages[i].second);
        const CommandResult result = run_command("cache verify");
        EXPECT_EQ(result.exit_code, 1) << damages[i].first;
        EXPECT_NE(result.out.find(entry.string() + ": "), std::string::npos) << result.out;
        EXPECT_NE(result.out.find(fmt::format("{} kernels and 0 tunings in {}, {} damaged", i + 2,
                                              root_.string(), i + 1)),
                  std::string::npos)
            << result.out;
    }
    const fs::path entry = add_entry(99);
    std::string code = contents(entry / "kernel.cubin");
    code.back() = static_cast<char>(code.back() ^ 1);
    overwrite(entry / "kernel.cubin", code);
    EXPECT_NE(run_command("cache verify").out.find("another digest"), std::string::npos);
    json manifest = json::parse(contents(add_entry(100) / "manifest.json"));
    manifest["options"].push_back("-lineinfo");
    overwrite(add_entry(100) / "manifest.json", manifest.dump());
    EXPECT_NE(run_command("cache verify").out.find("its key was made from"), std::string::npos);
}

TEST_F(CacheCommand, ClearLeavesForeignFilesAlone) {
    add_entry(1);
    const fs::path damaged = add_entry(2);
    fs::remove(damaged / "manifest.json");
    const std::string key(32, 'a');
    const std::vector<fs::path> foreign = {
        root_ / "notes.txt", root_ / "folder" / "kernel.cu", root_ / ("photos." + key) / "a.jpg",
        root_ / ("short." + key.substr(1)) / "manifest.json", root_ / ("file." + key)};
    for (const fs::path& path : foreign) {
        overwrite_in(path, "mine");
    }
    overwrite_in(scratch_.path() / "elsewhere" / "manifest.json", "mine");
    fs::create_directory_symlink(scratch_.path() / "elsewhere", root_ / ("link." + key));
    overwrite_in(root_ / "tmp.AbCdEf" / "kernel.cu", "half-written");
    fs::create_directory_symlink(scratch_.path() / "elsewhere", root_ / "tuning");
    const CommandResult result = run_command("cache clear");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, fmt::format("removed 2 kernels and 0 tunings from {}\n", root_.string()));
    for (const fs::path& path : foreign) {
        EXPECT_EQ(contents(path), "mine") << path;
    }
    EXPECT_EQ(contents(root_ / ("link." + key) / "manifest.json"), "mine");
    EXPECT_FALSE(fs::exists(root_ / "tmp.AbCdEf"));
    EXPECT_EQ(json::parse(run_command("cache list --json").out).size(), 0U);
}

TEST_F(CacheCommand, PrunesByLastUseAndSize) {
    for (int i = 0; i < 3; ++i) {
        fs::last_write_time(add_entry(i) / "manifest.json",
                            fs::file_time_type::clock::now() - std::chrono::hours(24 * 20 * i));
    }
    add_tuning('a');
    expect_refused("cache prune", {"nothing says what to remove: give --unused-for 30d"});
    expect_refused("cache prune --unused-for 30", {"--unused-for is 30: give a number with s, m"});
    expect_refused("cache prune --unused-for -3d", {"--unused-for is -3d: give a number"});
    expect_refused("cache prune --max-size 3X", {"--max-size is 3X: give a number of bytes"});
    const json rows = json::parse(run_command("cache list --json").out);
    double longest = 0;
    for (const json& row : rows) {
        if (row.at("kind") == "kernel") {
            longest = std::max(longest, row.at("unused_seconds").get<double>());
            EXPECT_LT(row.at("age_seconds"), 3600.0) << "a use is no writing";
        }
    }
    EXPECT_NEAR(longest, 40 * 24 * 3600.0, 3600.0);
    const CommandResult aged = run_command("cache prune --unused-for 30d");
    EXPECT_EQ(aged.exit_code, 0) << aged.err;
    EXPECT_NE(aged.out.find("removed 1 kernel of "), std::string::npos) << aged.out;
    EXPECT_NE(aged.out.find(" from " + root_.string() + ", 2 kernels of "), std::string::npos)
        << aged.out;
    const CommandResult all = run_command("cache prune --max-size 0 --unused-for 1w");
    EXPECT_NE(all.out.find("removed 2 kernels of "), std::string::npos) << all.out;
    EXPECT_EQ(json::parse(run_command("cache list --json").out).size(), 1U) << "the tuning stays";
}

TEST_F(CacheCommand, KnowsTunings) {
    const fs::path whole = add_tuning('a'), damaged = add_tuning('b');
    overwrite(damaged, contents(damaged).substr(0, 60));
    for (const char* name : {"notes.txt", "0123.txt", "tuning"}) {
        overwrite_in(root_ / "tuning" / name, "mine");
    }
    overwrite_in(tuning_file(root_, std::string(32, 'c')).string() + ".123", "half-written");
    const json rows = json::parse(run_command("cache list --json").out);
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0].at("kind"), "tuning");
    EXPECT_EQ(rows[0].at("name"), "attention_forward-b64");
    EXPECT_EQ(rows[0].at("key"), std::string(32, 'a'));
    EXPECT_EQ(rows[0].at("device"), "a device of the test");
    EXPECT_EQ(rows[0].at("batch"), 3);
    EXPECT_EQ(rows[0].at("streamed_rows"), 32);
    EXPECT_EQ(rows[0].at("milliseconds"), 1.25);
    EXPECT_EQ(rows[0].at("file"), whole.string());
    EXPECT_EQ(rows[0].at("problem"), "");
    EXPECT_EQ(rows[1].at("problem"),
              "its facts are not those that its key and digest were made "
              "from");
    add_entry(1);
    const std::string table = run_command("cache list").out;
    EXPECT_NE(table.find("64/32 x2"), std::string::npos) << table;
    EXPECT_NE(table.find("1 kernel and 2 tunings, "), std::string::npos) << table;
    const CommandResult verify = run_command("cache verify");
    EXPECT_EQ(verify.exit_code, 1);
    EXPECT_NE(verify.out.find(damaged.string() + ": its facts"), std::string::npos) << verify.out;
    EXPECT_NE(verify.out.find("1 kernel and 2 tunings in " + root_.string() + ", 1 damaged"),
              std::string::npos)
        << verify.out;
    EXPECT_EQ(run_command("cache clear").out,
              fmt::format("removed 1 kernel and 2 tunings from {}\n", root_.string()));
    EXPECT_EQ(entries(root_ / "tuning"), 3U) << "foreign files stay";
    fs::remove_all(root_ / "tuning");
    add_tuning('d');
    run_command("cache clear");
    EXPECT_FALSE(fs::exists(root_ / "tuning"));
}

}  // namespace
}  // namespace spion
