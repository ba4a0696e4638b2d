// The kernel cache: keys, entries and what damages them. Kernels are compiled by a stand-in.
#include "runtime/cache.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "runtime/offline.h"
#include "tests/runtime/cache_fixture.h"
#include "tests/support/environment.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

TEST(CacheKey, ChangesWithEveryField) {
    const std::vector<std::function<void(CompileRequest&)>> changes = {
        [](auto& r) { r.entry += "x"; },
        [](auto& r) { r.text += " "; },
        [](auto& r) { r.includes[0].name += "x"; },
        [](auto& r) { r.includes[0].text += "x"; },
        [](auto& r) { r.includes[1].text.clear(); },
        [](auto& r) { r.includes.pop_back(); },
        [](auto& r) {
            r.includes.push_back({"", ""});
        },
        [](auto& r) { std::swap(r.includes[0], r.includes[1]); },
        [](auto& r) { r.arch = "sm_90"; },
        [](auto& r) { r.features += ",+fma"; },
        [](auto& r) { r.options.pop_back(); },
        [](auto& r) { r.options.emplace_back(); },
        [](auto& r) { std::swap(r.options[0], r.options[1]); },
        [](auto& r) {
            r.options = {"-std=c++20", "-Xptxas -v"};
        },
        [](auto& r) { r.compiler += ".88"; },
    };
    std::set<std::string> keys{cache_key(some_request())};
    for (std::size_t i = 0; i < changes.size(); ++i) {
        CompileRequest request = some_request();
        changes[i](request);
        EXPECT_TRUE(keys.insert(cache_key(request)).second) << "change " << i;
    }
    EXPECT_EQ(cache_key(some_request()), cache_key(some_request()));
    EXPECT_EQ(cache_key(some_request()).size(), 32U);
}

// Moving a character over the border of two neighbouring fields must not give the same key.
TEST(CacheKey, KnowsWhereFieldsEnd) {
    CompileRequest base = some_request();
    const std::vector<std::pair<std::string*, std::string*>> neighbours = {
        {&base.entry, &base.text},
        {&base.text, &base.includes[0].name},
        {&base.includes[0].name, &base.includes[0].text},
        {&base.includes[0].text, &base.includes[1].name},
        {&base.includes[1].text, &base.arch},
        {&base.arch, &base.features},
        {&base.features, &base.options[0]},
        {&base.options[0], &base.options[1]},
        {&base.options[2], &base.compiler},
    };
    const std::string original = cache_key(base);
    for (const auto& [left, right] : neighbours) {
        const std::string old_left = *left, old_right = *right;
        right->insert(right->begin(), left->back());
        left->pop_back();
        EXPECT_NE(cache_key(base), original) << old_left << " | " << old_right;
        *left = old_left;
        *right = old_right;
    }
    EXPECT_EQ(cache_key(base), original);
}

TEST(KernelCache, KeepsInMemoryAndOnDisk) {
    const ScratchFolder folder;
    int compilations = 0;
    const auto compile = [&](const CompileRequest& request) {
        ++compilations;
        return compiled(request);
    };
    KernelCache first(folder.path() / "deep" / "root");
    const CachedKernel made = first.get(some_source(), some_request(), compile);
    EXPECT_EQ(made.origin, CacheOrigin::kCompiled);
    EXPECT_EQ(first.get(some_source(), some_request(), compile).origin, CacheOrigin::kMemory);
    EXPECT_EQ(first.counters().compiled, 1);
    EXPECT_EQ(first.counters().from_memory, 1);
    EXPECT_EQ(first.counters().from_disk, 0);

    KernelCache second(folder.path() / "deep" / "root");
    const CachedKernel kept = second.get(some_source(), some_request(), compile);
    EXPECT_EQ(kept.origin, CacheOrigin::kDisk);
    EXPECT_EQ(second.counters().compiled, 0);
    EXPECT_EQ(second.counters().from_disk, 1);
    EXPECT_EQ(compilations, 1);
    EXPECT_EQ(kept.folder, made.folder);
    const KernelBinary expected = compiled(some_request());
    EXPECT_EQ(kept.binary->code, expected.code);
    EXPECT_EQ(kept.binary->registers, expected.registers);
    EXPECT_EQ(kept.binary->static_shared_bytes, expected.static_shared_bytes);
    EXPECT_EQ(kept.binary->spill_bytes, expected.spill_bytes);
    EXPECT_EQ(kept.binary->compile_ms, expected.compile_ms);
    EXPECT_TRUE(kept.binary->log.starts_with("ptxas info : Used 40 registers"));

    CompileRequest other = some_request();
    other.text += "// other\n";
    const CachedKernel third = second.get(some_source(), other, compile);
    EXPECT_EQ(third.origin, CacheOrigin::kCompiled);
    EXPECT_EQ(third.binary->code, compiled(other).code);
    EXPECT_EQ(entries(folder.path() / "deep" / "root"), 2U);
}

TEST(KernelCache, AnEntryIsReadableByPeople) {
    const ScratchFolder folder;
    int compilations = 0;
    const fs::path entry = look_up(folder.path(), &compilations).folder;
    EXPECT_EQ(entry.filename(), "attention_forward-b64_D32." + cache_key(some_request()));
    EXPECT_EQ(contents(entry / "kernel.cu"), some_request().text);
    EXPECT_EQ(contents(entry / "kernel.ir"), some_source().ir);
    EXPECT_EQ(contents(entry / "parts/math.cuh"), "math");
    EXPECT_EQ(contents(entry / "kernel.cubin"), compiled(some_request()).code);
    const auto manifest = nlohmann::json::parse(contents(entry / "manifest.json"));
    EXPECT_EQ(manifest.at("entry"), "attention_forward");
    EXPECT_EQ(manifest.at("arch"), "sm_90a");
    EXPECT_EQ(manifest.at("options").size(), 3U);
    EXPECT_EQ(manifest.at("compiler"), "nvrtc 13.0");

    CompileRequest host = some_request();
    host.compiler = "llvm 19.1.7";
    const fs::path host_entry = look_up(folder.path(), &compilations, host).folder;
    EXPECT_TRUE(fs::exists(host_entry / "kernel.ll"));
    EXPECT_TRUE(fs::exists(host_entry / "kernel.o"));
}

// Each breaks a whole entry in its own way.
using Damage = std::function<void(const fs::path& entry)>;

void change_manifest(const fs::path& entry, const std::function<void(nlohmann::json&)>& change) {
    auto manifest = nlohmann::json::parse(contents(entry / "manifest.json"));
    change(manifest);
    overwrite(entry / "manifest.json", manifest.dump());
}

const std::vector<std::pair<std::string, Damage>>& damages() {
    static const std::vector<std::pair<std::string, Damage>> kDamages = {
        {"a bit of the binary flipped",
         [](const fs::path& entry) {
             std::string code = contents(entry / "kernel.cubin");
             const std::size_t place = test::fresh_seed() % code.size();
             code[place] = static_cast<char>(code[place] ^ 1);
             overwrite(entry / "kernel.cubin", code);
         }},
        {"binary truncated",
         [](const fs::path& entry) { fs::resize_file(entry / "kernel.cubin", 3); }},
        {"binary empty", [](const fs::path& entry) { overwrite(entry / "kernel.cubin", ""); }},
        {"binary missing", [](const fs::path& entry) { fs::remove(entry / "kernel.cubin"); }},
        {"manifest missing", [](const fs::path& entry) { fs::remove(entry / "manifest.json"); }},
        {"manifest empty", [](const fs::path& entry) { overwrite(entry / "manifest.json", ""); }},
        {"manifest truncated",
         [](const fs::path& entry) {
             fs::resize_file(entry / "manifest.json", fs::file_size(entry / "manifest.json") / 2);
         }},
        {"manifest not an object",
         [](const fs::path& entry) { overwrite(entry / "manifest.json", "[1, 2]"); }},
        {"manifest of wrong types",
         [](const fs::path& entry) {
             change_manifest(entry, [](auto& manifest) { manifest["registers"] = "many"; });
         }},
        {"manifest of numbers that no int holds",
         [](const fs::path& entry) {
             change_manifest(entry, [](auto& manifest) { manifest["registers"] = 1e300; });
         }},
        {"manifest of a size below zero",
         [](const fs::path& entry) {
             change_manifest(entry, [](auto& manifest) { manifest["binary_bytes"] = -1; });
         }},
        {"manifest is a folder",
         [](const fs::path& entry) {
             fs::remove(entry / "manifest.json");
             fs::create_directory(entry / "manifest.json");
         }},
        {"manifest of another kernel",
         [](const fs::path& entry) {
             change_manifest(entry, [](auto& manifest) {
                 manifest["key"] = "00000000000000000000000000000000";
             });
         }},
        {"manifest that points outside",
         [](const fs::path& entry) {
             change_manifest(entry, [](auto& manifest) { manifest["binary"] = "../kernel.cubin"; });
         }},
        {"entry empty",
         [](const fs::path& entry) {
             fs::remove_all(entry);
             fs::create_directory(entry);
         }},
        {"entry is a file",
         [](const fs::path& entry) {
             fs::remove_all(entry);
             overwrite(entry, "not a folder");
         }},
    };
    return kDamages;
}

TEST(KernelCache, DamagedEntriesAreRebuilt) {
    const ScratchFolder folder;
    int compilations = 0;
    const fs::path entry = look_up(folder.path(), &compilations).folder;
    for (const auto& [name, damage] : damages()) {
        damage(entry);
        compilations = 0;
        const CachedKernel rebuilt = look_up(folder.path(), &compilations);
        EXPECT_EQ(rebuilt.origin, CacheOrigin::kCompiled) << name;
        EXPECT_EQ(compilations, 1) << name;
        EXPECT_EQ(rebuilt.binary->code, compiled(some_request()).code) << name;
        const CachedKernel again = look_up(folder.path(), &compilations);
        EXPECT_EQ(again.origin, CacheOrigin::kDisk) << name;
        EXPECT_EQ(again.binary->code, compiled(some_request()).code) << name;
        EXPECT_EQ(compilations, 1) << name;
        EXPECT_EQ(entries(folder.path()), 1U) << name << " left something behind";
    }
}

TEST(KernelCache, WhatADeadProcessLeftIsRemovedWhenOld) {
    const ScratchFolder folder;
    const fs::path old = folder.path() / "tmp.oldold", fresh = folder.path() / "tmp.freshf";
    fs::create_directory(old);
    overwrite(old / "kernel.cu", "half");
    fs::create_directory(fresh);
    fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(2));
    int compilations = 0;
    look_up(folder.path(), &compilations);
    EXPECT_FALSE(fs::exists(old));
    EXPECT_TRUE(fs::exists(fresh));
}

// What prints is no part of the key: a kernel kept in silence serves the talkative, and back.
TEST(KernelCache, TalkingChangesNoKey) {
    const ScratchFolder folder;
    int compilations = 0;
    look_up(folder.path(), &compilations);
    const Environment verbose("SPION_VERBOSE", "1");
    testing::internal::CaptureStderr();
    const CachedKernel kernel = look_up(folder.path(), &compilations);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(kernel.origin, CacheOrigin::kDisk);
    EXPECT_EQ(compilations, 1);
    EXPECT_TRUE(said.starts_with(
        "spion: attention_forward-b64/D32 for sm_90a: read from the disk cache in "))
        << said;
    EXPECT_NE(said.find(kernel.folder.string()), std::string::npos) << said;
}

TEST(KernelCache, AnEntrySaysHowToRebuildIt) {
    const ScratchFolder folder;
    int compilations = 0;
    const fs::path entry = look_up(folder.path(), &compilations).folder;
    EXPECT_EQ(contents(entry / "rebuild.sh"),
              "cd -- \"$(dirname -- \"$0\")\" || exit\n"
              "nvcc -cubin -arch=sm_90a -std=c++20 -I. kernel.cu -o kernel.rebuilt.cubin\n");
    CompileRequest host = some_request();
    host.compiler = "llvm 19.1.7";
    const fs::path line = look_up(folder.path(), &compilations, host).folder / "rebuild.sh";
#ifdef SPION_HOST_BACKEND
    EXPECT_EQ(contents(line), rebuild_script(rebuild_command(host)));
    EXPECT_NE(contents(line).find("\nllvm-link-"), std::string::npos) << contents(line);
#else
    EXPECT_FALSE(fs::exists(line));
#endif
    CompileRequest other = some_request();
    other.compiler = "a compiler of the test";
    EXPECT_FALSE(fs::exists(look_up(folder.path(), &compilations, other).folder / "rebuild.sh"));
}

}  // namespace
}  // namespace spion
