// A bundle on a GPU: a process without NVRTC, a home or a cache computes what a compiling one does.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/api/cuda_calls.h"
#include "tests/api/expect_status.h"
#include "tests/support/scratch_folder.h"

namespace spion::test {
namespace {

constexpr std::uint64_t kSeed = 20261127;  // both processes make the same problem

oracle::Problem problem() {
    return rounded(oracle::random_problem(1000, 64, 2, 64, 2, 0.3, false, kSeed));
}

std::vector<std::uint8_t> computed(const Plan& plan) {
    const oracle::Problem asked = problem();
    const cuda::Stream stream;
    CudaCall call(plan, asked, stream.get());
    call.run(stream.get());
    stream.wait();
    EXPECT_EQ(oracle::faults(asked, call.outputs(), 1e-2), "");
    return call.bytes();
}

// Run by the other test in a process of its own.
TEST(ApiGpuBundle, DISABLED_ProcessWithoutACompiler) {
    const std::string folder = std::getenv("SPION_TEST_BUNDLE");
    const cuda::Primary primary;
    const Context context =
        Context::cuda(0, {.frozen = true, .memory_only = true, .bundle = folder});
    const Plan plan = context.plan(cuda_attention(problem()));
    EXPECT_EQ(plan.origin(), Origin::kBundle);
    EXPECT_EQ(context.counters().compiled, 0);
    const std::vector<std::uint8_t> bytes = computed(plan);
    std::ofstream(folder + ".out", std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    Attention other = cuda_attention(problem());
    other.head_dim = 128;
    expect_status<Frozen>([&] { context.plan(other); }, "a frozen context compiles nothing");
    // Not frozen, it says that there is no compiler.
    const Context thawed = Context::cuda(0, {.memory_only = true, .bundle = folder});
    expect_status<DeviceError>([&] { thawed.plan(other); }, "NVRTC");
}

TEST(ApiGpuBundle, ServesAProcessWithoutACompiler) {
    if (!cuda::available()) {
        GTEST_SKIP() << "no GPU with a driver";
    }
    const cuda::Primary primary;
    const Context context = Context::cuda(0, {.memory_only = true});
    const std::vector<std::uint8_t> wanted = computed(context.plan(cuda_attention(problem())));
    const ScratchFolder scratch;
    const std::string folder = (scratch.path() / "bundle").string();
    write_bundle(std::vector<Attention>{cuda_attention(problem())},
                 std::vector<std::string>{context.target(), "sm_80"}, folder);
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    const std::string command =
        "SPION_TEST_BUNDLE='" + folder +
        "' SPION_NVRTC_LIBRARY=/nowhere/libnvrtc.so HOME=/nowhere '" + self +
        "' --gtest_also_run_disabled_tests --gtest_filter='*DISABLED_ProcessWithoutACompiler'";
    EXPECT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream file(folder + ".out", std::ios::binary);
    const std::vector<std::uint8_t> seen{std::istreambuf_iterator<char>(file), {}};
    EXPECT_TRUE(seen == wanted) << "the bundle gave other bits";

    // Kernels for another device are not this one's.
    const std::string foreign = (scratch.path() / "foreign").string();
    write_bundle(std::vector<Attention>{cuda_attention(problem())},
                 std::vector<std::string>{"sm_80"}, foreign);
    const Context frozen =
        Context::cuda(0, {.frozen = true, .memory_only = true, .bundle = foreign});
    expect_status<Frozen>([&] { frozen.plan(cuda_attention(problem())); }, "sm_80: 3 kernels");
}

}  // namespace
}  // namespace spion::test
