// Bundles: made for listed targets, opened read-only, and nothing is compiled beside one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/api/expect_status.h"
#include "tests/api/host_calls.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"

namespace spion::test {
namespace {

namespace fs = std::filesystem;

class ApiBundle : public testing::Test {
  protected:
    ApiBundle() { write_bundle(std::vector<Attention>{attention()}, hosts(), path()); }

    static std::vector<std::string> hosts() { return {"host"}; }
    static Attention attention() {
        return {.heads = 2, .head_dim = 32, .length = 200, .block = 32, .dtype = DType::kFp32};
    }
    std::string path() const { return (scratch_.path() / "bundle").string(); }
    Context frozen_context() const {
        return Context::host({.frozen = true, .memory_only = true, .bundle = path()});
    }
    fs::path binary_of(std::size_t which) const {
        for (const fs::directory_entry& entry : fs::directory_iterator(path())) {
            if (entry.is_directory() && which-- == 0) return entry.path() / "kernel.o";
        }
        return {};
    }

    const ScratchFolder scratch_;
};

TEST_F(ApiBundle, ServesAFrozenContextThatCompilesNothing) {
    const Context context = frozen_context();
    const Plan plan = context.plan(attention());
    EXPECT_EQ(plan.origin(), Origin::kBundle);
    EXPECT_EQ(context.counters().compiled, 0);
    EXPECT_EQ(context.counters().from_bundle, 3);
    const oracle::Problem problem =
        oracle::random_problem(200, 32, 2, 32, 2, 0.3, false, fresh_seed());
    const Pattern pattern = pattern_of(problem);
    const oracle::Outputs outputs = run_on_host(plan, pattern, problem);
    EXPECT_EQ(oracle::faults(problem, outputs, 1e-5), "");
    // The same bits as kernels that were compiled here.
    const Plan compiled = Context::host({.memory_only = true}).plan(attention());
    EXPECT_EQ(compiled.origin(), Origin::kCompiled);
    const oracle::Outputs same = run_on_host(compiled, pattern, problem);
    EXPECT_EQ(same.o, outputs.o);
    EXPECT_EQ(same.d_k, outputs.d_k);
}

// The kernels of the gradients of sinks and of a bias are in it as well.
TEST_F(ApiBundle, HasTheKernelsOfScoreGradients) {
    oracle::Problem shape = oracle::random_problem(200, 32, 2, 32, 2, 0.3, false, fresh_seed());
    const oracle::Problem problem =
        oracle::random_problem(shape, {.sinks = true, .reach = 60}, 0.3, fresh_seed());
    const Attention attention = attention_of(problem);
    const std::string other = path() + "-of-scores";
    write_bundle(std::vector<Attention>{attention}, hosts(), other);
    const Context context = Context::host({.frozen = true, .memory_only = true, .bundle = other});
    const Plan plan = context.plan(attention);
    EXPECT_EQ(context.counters().from_bundle, 5);
    EXPECT_EQ(oracle::faults(problem, run_on_host(plan, pattern_of(problem), problem), 1e-5), "");
}

TEST_F(ApiBundle, IsOpenedReadOnly) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path())) {
        fs::permissions(entry.path(),
                        fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write,
                        fs::perm_options::remove);
    }
    const fs::file_time_type before = fs::last_write_time(path());
    EXPECT_EQ(frozen_context().plan(attention()).origin(), Origin::kBundle);
    EXPECT_EQ(fs::last_write_time(path()), before);
    EXPECT_NE(check_bundle(path()).find("format 1"), std::string::npos);
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path())) {
        fs::permissions(entry.path(), fs::perms::owner_write, fs::perm_options::add);
    }
}

TEST_F(ApiBundle, LacksWhatItWasNotMadeFor) {
    Attention other = attention();
    other.head_dim = 48;
    expect_status<Frozen>([&] { frozen_context().plan(other); },
                          "a frozen context compiles nothing");
    expect_status<Frozen>([&] { frozen_context().plan(other); }, "3 kernels");  // what it has
    // Not frozen, the others are compiled.
    const Context context = Context::host({.memory_only = true, .bundle = path()});
    EXPECT_EQ(context.plan(other).origin(), Origin::kCompiled);
    EXPECT_EQ(context.plan(attention()).origin(), Origin::kBundle);
}

TEST_F(ApiBundle, SaysWhatIsDamaged) {
    const fs::path binary = binary_of(0);
    ASSERT_TRUE(fs::exists(binary));
    std::fstream file(binary, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100);
    file.put('\x5A');
    file.put('\xA5');
    file.close();
    expect_status<DeviceError>([&] { check_bundle(path()); }, "is damaged");
    expect_status<DeviceError>([&] { frozen_context().plan(attention()); }, "is damaged");
    fs::remove(binary);
    expect_status<DeviceError>([&] { check_bundle(path()); }, "cannot be read");
    std::ofstream(fs::path(path()) / "manifest.json")
        << R"({"bundle_format": 1e300, "spion": "1", "kernels": [], "targets": []})";
    expect_status<DeviceError>([&] { frozen_context(); }, "manifest of bundle");
    std::ofstream(fs::path(path()) / "manifest.json") << "{";
    expect_status<DeviceError>([&] { frozen_context(); }, "manifest of bundle");
    fs::remove(fs::path(path()) / "manifest.json");
    expect_status<DeviceError>([&] { frozen_context(); },
                               "is no bundle that can be read: its manifest.json is not there");
}

TEST_F(ApiBundle, OfAnotherFormatIsRefused) {
    const fs::path manifest = fs::path(path()) / "manifest.json";
    std::ifstream in(manifest);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    const std::string format = "\"bundle_format\": 1";
    const std::size_t at = text.find(format);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, format.size(), "\"bundle_format\": 2");
    std::ofstream(manifest) << text;
    expect_status<UserError>([&] { frozen_context(); }, "is of format 2");
}

TEST_F(ApiBundle, IsNotWrittenOverAnother) {
    const std::vector<Attention> attentions{attention()};
    expect_status<UserError>([&] { write_bundle(attentions, hosts(), path()); }, "exists already");
    const std::string other = (scratch_.path() / "other").string();
    expect_status<UserError>([&] { write_bundle({}, hosts(), other); }, "has no kernels");
    expect_status<UserError>([&] { write_bundle(attentions, {}, other); }, "has no kernels");
    const std::vector<std::string> unknown{"sm_1"};
    expect_status<UserError>([&] { write_bundle(attentions, unknown, other); }, "sm_1");
    EXPECT_FALSE(fs::exists(other));
}

}  // namespace
}  // namespace spion::test
