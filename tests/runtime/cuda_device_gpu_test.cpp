// Memory, copies, launches and marks of a GPU.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <thread>
#include <vector>

#include "ir/error.h"
#include "runtime/cuda/context_scope.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/staging.h"
#include "tests/runtime/gpu_fixture.h"

namespace spion {
namespace {

struct AxpyArguments {
    const float* x;  // [count]
    float* y;        // [count]
    float a;
    int count;
};

constexpr const char* kAxpy = R"(
struct Arguments { const float* x; float* y; float a; int count; };
extern "C" __global__ void axpy(const __grid_constant__ Arguments args) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < args.count) args.y[i] += args.a * args.x[i];
}
)";

// Each block reverses its 1024 * 25 floats through 100 KiB of dynamic shared memory.
constexpr const char* kReverse = R"(
struct Arguments { const float* x; float* y; float a; int count; };
extern "C" __global__ void reverse(const __grid_constant__ Arguments args) {
    extern __shared__ float part[];
    const long long first = static_cast<long long>(blockIdx.x) * args.count;
    for (int i = threadIdx.x; i < args.count; i += blockDim.x) part[i] = args.x[first + i];
    __syncthreads();
    for (int i = threadIdx.x; i < args.count; i += blockDim.x)
        args.y[first + i] = part[args.count - 1 - i];
}
)";

// Waits until the host sets x[0], which it can read there, and gives up after five seconds: then
// y[0] becomes 1.
constexpr const char* kWait = R"(
struct Arguments { const float* x; float* y; float a; int count; };
extern "C" __global__ void wait(const __grid_constant__ Arguments args) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    const volatile float* flag = args.x;
    while (*flag == 0.0F) {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
        if (now - start > 5000000000ULL) {
            args.y[0] = 1.0F;
            return;
        }
    }
}
)";

using CudaDeviceTest = GpuTest;

TEST_F(CudaDeviceTest, DescribesItself) {
    const Target& target = device_->target();
    EXPECT_EQ(target.back_end, BackEnd::kCuda);
    EXPECT_GE(target.compute_capability, 80);
    EXPECT_GT(target.sm_count, 0);
    EXPECT_GE(target.shared_bytes_per_block, 99 * 1024);
    EXPECT_EQ(target.arch == "sm_90a", target.compute_capability == 90) << target.arch;
    EXPECT_FALSE(device_->name().empty());
    EXPECT_GT(device_->memory_bytes(), device_->l2_bytes());
    EXPECT_GT(device_->l2_bytes(), 0U);
}

TEST_F(CudaDeviceTest, CopiesFillsAndCountsItsPeak) {
    const std::size_t before = device_->peak_bytes();
    EXPECT_EQ(before, 0U);
    std::vector<unsigned char> sent(static_cast<std::size_t>(uniform(1, 1 << 20)));
    for (unsigned char& byte : sent) {
        byte = static_cast<unsigned char>(random_());
    }
    std::vector<unsigned char> received(sent.size());
    {
        Buffer first(*device_, sent.size());
        device_->copy_in(first.data(), sent.data(), sent.size());
        device_->copy_out(received.data(), first.data(), sent.size());
        EXPECT_EQ(received, sent);
        Buffer second(*device_, 1000);
        device_->fill(first.data(), 0xA5, sent.size());
        device_->copy_out(received.data(), first.data(), sent.size());
        EXPECT_EQ(received, std::vector<unsigned char>(sent.size(), 0xA5));
    }
    Buffer third(*device_, 10);
    EXPECT_EQ(device_->peak_bytes(), sent.size() + 1000);
}

TEST_F(CudaDeviceTest, CopiesDoNotWaitForTheWorkBeforeThem) {
    const auto wait = kernel("wait", kWait);
    // The device leaves no context behind in its callers' threads.
    driver_abi::Context context = nullptr;
    check_driver(driver().cuDevicePrimaryCtxRetain(&context, 0), "the first GPU's context");
    const ContextScope scope(driver(), context);
    void* flag = nullptr;
    check_driver(driver().cuMemAllocHost_v2(&flag, sizeof(float)), "page-locked memory");
    *static_cast<volatile float*>(flag) = 0.0F;
    Buffer gave_up(*device_, sizeof(float));
    device_->fill(gave_up.data(), 0, gave_up.bytes());
    std::vector<unsigned char> sent(static_cast<std::size_t>(uniform(1 << 20, 2 << 20)));
    for (unsigned char& byte : sent) byte = static_cast<unsigned char>(random_());
    Buffer target(*device_, 3 * sent.size());
    const AxpyArguments arguments{static_cast<float*>(flag), gave_up.as<float>(), 0, 0};
    device_->launch(*wait, {.work_items = 1, .threads = 1, .shared_bytes = 0}, arguments);
    const std::vector<unsigned char> kept = sent;
    for (std::size_t n = 0; n < 3; ++n) {
        device_->copy_in(target.as<std::byte>() + n * sent.size(), sent.data(), sent.size());
        std::fill(sent.begin(), sent.end(), 0xEE);  // ours again
        sent = kept;
    }
    *static_cast<volatile float*>(flag) = 1.0F;
    float result = -1;
    device_->copy_out(&result, gave_up.data(), sizeof(float));
    EXPECT_EQ(result, 0.0F) << "the host came back only after the kernel";
    std::vector<unsigned char> received(target.bytes());
    device_->copy_out(received.data(), target.data(), received.size());
    for (std::size_t n = 0; n < 3; ++n) {
        EXPECT_TRUE(std::equal(kept.begin(), kept.end(),
                               received.begin() + static_cast<std::ptrdiff_t>(n * kept.size())));
    }
    driver().cuMemFreeHost(flag);
    driver().cuDevicePrimaryCtxRelease_v2(0);
}

// The kernel ends when the second copy is there, which waits for what was launched before the first alone.
TEST_F(CudaDeviceTest, CopiesAheadGoBesideTheWorkOfTheCopyBefore) {
    const auto wait = kernel("wait", kWait);
    Buffer flag(*device_, sizeof(float)), gave_up(*device_, sizeof(float));
    device_->fill(flag.data(), 0, flag.bytes());
    device_->fill(gave_up.data(), 0, gave_up.bytes());
    const float zero = 0, one = 1;
    device_->copy_in_ahead(flag.data(), &zero, sizeof zero);
    const AxpyArguments arguments{flag.as<float>(), gave_up.as<float>(), 0, 0};
    device_->launch(*wait, {.work_items = 1, .threads = 1, .shared_bytes = 0}, arguments);
    device_->copy_in_ahead(flag.data(), &one, sizeof one);
    float result = -1;
    device_->copy_out(&result, gave_up.data(), sizeof result);
    EXPECT_EQ(result, 0.0F) << "the copy came only after the kernel";
    device_->copy_out(&result, flag.data(), sizeof result);
    EXPECT_EQ(result, 1.0F);
}

// Two buffers in turns, each read before it is filled again, and after it was.
TEST_F(CudaDeviceTest, CopiesAheadAreSeenInOrder) {
    const auto axpy = kernel("axpy", kAxpy);
    const int count = 50000, rounds = 40;
    const auto floats = static_cast<std::size_t>(count);
    std::array<Buffer, 2> sent = {Buffer(*device_, 4 * floats), Buffer(*device_, 4 * floats)};
    Buffer sum(*device_, 4 * floats);
    device_->fill(sum.data(), 0, sum.bytes());
    for (int n = 0; n < rounds; ++n) {
        const Buffer& target = sent[static_cast<std::size_t>(n % 2)];
        const std::vector<float> values(floats, static_cast<float>(n));
        device_->copy_in_ahead(target.data(), values.data(), 4 * floats);
        const AxpyArguments arguments{target.as<float>(), sum.as<float>(),
                                      static_cast<float>(n % 7), count};
        device_->launch(*axpy, {.work_items = (count + 127) / 128, .threads = 128}, arguments);
    }
    float expected = 0;
    for (int n = 0; n < rounds; ++n) expected += static_cast<float>(n * (n % 7));
    std::vector<float> result(floats);
    device_->copy_out(result.data(), sum.data(), 4 * floats);
    EXPECT_EQ(result, std::vector<float>(floats, expected));
}

TEST_F(CudaDeviceTest, CopiesLargerThanTheStagingMemoryArriveWhole) {
    std::vector<unsigned char> sent(3 * kStagingHalfBytes + 4321);
    for (unsigned char& byte : sent) byte = static_cast<unsigned char>(random_());
    const std::vector<unsigned char> kept = sent;
    Buffer target(*device_, sent.size());
    device_->copy_in(target.data(), sent.data(), sent.size());
    std::fill(sent.begin(), sent.end(), 0);
    device_->copy_out(sent.data(), target.data(), sent.size());
    EXPECT_EQ(sent, kept);
}

TEST_F(CudaDeviceTest, RunsAKernelInOrderWithCopies) {
    const auto axpy = kernel("axpy", kAxpy);
    EXPECT_EQ(axpy->entry(), "axpy");
    const int count = uniform(1, 100000);
    std::vector<float> x(static_cast<std::size_t>(count)), y(x.size()), expected(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<float>(uniform(-1000, 1000));
        y[i] = static_cast<float>(uniform(-1000, 1000));
        expected[i] = y[i] + 2 * 3 * x[i];  // whole numbers: exact
    }
    Buffer device_x(*device_, x.size() * 4), device_y(*device_, x.size() * 4);
    device_->copy_in(device_x.data(), x.data(), x.size() * 4);
    device_->copy_in(device_y.data(), y.data(), x.size() * 4);
    const AxpyArguments arguments{device_x.as<float>(), device_y.as<float>(), 3.0F, count};
    const LaunchGeometry geometry{
        .work_items = (count + 127) / 128, .threads = 128, .shared_bytes = 0};
    device_->launch(*axpy, geometry, arguments);
    device_->launch(*axpy, geometry, arguments);
    std::vector<float> result(x.size());
    device_->copy_out(result.data(), device_y.data(), x.size() * 4);
    EXPECT_EQ(result, expected);
    device_->launch(*axpy, {.work_items = 0, .threads = 128, .shared_bytes = 0}, arguments);
    device_->synchronize();
}

TEST_F(CudaDeviceTest, GrantsDynamicSharedMemoryBeyond48KiB) {
    const auto reverse = kernel("reverse", kReverse);
    const int row = device_->target().shared_bytes_per_block / 4, rows = 7;
    std::vector<float> x(static_cast<std::size_t>(row) * rows);
    std::iota(x.begin(), x.end(), 0.0F);
    Buffer device_x(*device_, x.size() * 4), device_y(*device_, x.size() * 4);
    device_->copy_in(device_x.data(), x.data(), x.size() * 4);
    for (const int part : {row / 5, row}) {  // first within 48 KiB, then the most there is
        const AxpyArguments arguments{device_x.as<float>(), device_y.as<float>(), 0, part};
        device_->launch(*reverse, {.work_items = rows, .threads = 256, .shared_bytes = part * 4},
                        arguments);
        std::vector<float> result(static_cast<std::size_t>(part) * rows);
        device_->copy_out(result.data(), device_y.data(), result.size() * 4);
        for (int i = 0; i < part * rows; ++i) {
            const int mirrored = i / part * part + part - 1 - i % part;
            ASSERT_EQ(result[static_cast<std::size_t>(i)], static_cast<float>(mirrored)) << i;
        }
    }
}

TEST_F(CudaDeviceTest, RefusesWhatItCannotLaunch) {
    const auto axpy = kernel("axpy", kAxpy);
    const AxpyArguments arguments{nullptr, nullptr, 0, 0};
    for (const LaunchGeometry& wrong :
         {LaunchGeometry{.work_items = 1, .threads = 4096, .shared_bytes = 0},
          LaunchGeometry{.work_items = std::int64_t{1} << 31, .threads = 32, .shared_bytes = 0},
          LaunchGeometry{.work_items = 1, .threads = 32, .shared_bytes = 1 << 20}}) {
        try {
            device_->launch(*axpy, wrong, arguments);
            FAIL() << "was launched";
        } catch (const DeviceError& error) {
            EXPECT_NE(std::string(error.what()).find("kernel 'axpy' cannot be launched"),
                      std::string::npos)
                << error.what();
        }
    }
    device_->launch(*axpy, {.work_items = 1, .threads = 32, .shared_bytes = 0}, arguments);
    EXPECT_NO_THROW(device_->synchronize());
}

TEST_F(CudaDeviceTest, OutOfMemorySaysHowMuchAndHowToMendIt) {
    try {
        Buffer buffer(*device_, std::size_t{1} << 45);
        FAIL() << "32 TiB were allocated";
    } catch (const DeviceError& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find("32768.000 GiB wanted"), std::string::npos) << message;
        EXPECT_NE(message.find("smaller batch"), std::string::npos) << message;
    }
    EXPECT_NO_THROW(Buffer(*device_, 1 << 20));
}

TEST_F(CudaDeviceTest, MarksMeasureTheWorkBetweenThem) {
    Buffer buffer(*device_, std::size_t{256} << 20);
    device_->mark(0);
    device_->fill(buffer.data(), 0, 1024);
    device_->mark(1);
    for (int i = 0; i < 20; ++i) {
        device_->fill(buffer.data(), 0, buffer.bytes());
    }
    device_->mark(63);
    // 5 GiB of writes cannot be faster than 100 TB/s, nor can one small fill take as long.
    EXPECT_GT(device_->milliseconds_between(1, 63), 0.05);
    EXPECT_GE(device_->milliseconds_between(0, 1), 0.0);
    EXPECT_LT(device_->milliseconds_between(0, 1), device_->milliseconds_between(0, 63));
    EXPECT_THROW(device_->milliseconds_between(0, 5), InternalError);
    EXPECT_THROW(device_->mark(64), InternalError);
}

TEST_F(CudaDeviceTest, KernelsLoadOnOtherThreads) {
    std::vector<std::unique_ptr<LoadedKernel>> kernels(4);
    {
        std::vector<std::jthread> threads;
        for (auto& loaded : kernels) {
            threads.emplace_back([&] { loaded = kernel("axpy", kAxpy); });
        }
    }
    float one = 1, result = 0;
    Buffer x(*device_, 4), y(*device_, 4);
    device_->copy_in(x.data(), &one, 4);
    device_->fill(y.data(), 0, 4);
    for (const auto& loaded : kernels) {
        device_->launch(*loaded, {.work_items = 1, .threads = 32, .shared_bytes = 0},
                        AxpyArguments{x.as<float>(), y.as<float>(), 1, 1});
    }
    device_->copy_out(&result, y.data(), 4);
    EXPECT_EQ(result, 4.0F);
}

TEST_F(CudaDeviceTest, ABinaryForAnotherGpuIsRefusedWithAReason) {
    const std::string other = device_->target().compute_capability == 80 ? "sm_90a" : "sm_80";
    const KernelBinary binary = device_->compile({.entry = "axpy",
                                                  .text = kAxpy,
                                                  .includes = {},
                                                  .arch = other,
                                                  .features = "",
                                                  .options = device_->compile_options(),
                                                  .compiler = device_->compiler_version()});
    if (device_->target().compute_capability / 10 == 8) {
        GTEST_SKIP() << "GPUs of one major capability run each other's code";
    }
    try {
        device_->load("axpy", binary);
        FAIL() << "was loaded";
    } catch (const DeviceError& error) {
        EXPECT_NE(std::string(error.what()).find("kernel 'axpy' cannot be loaded: CUDA_ERROR_NO_"),
                  std::string::npos)
            << error.what();
    }
}

}  // namespace
}  // namespace spion
