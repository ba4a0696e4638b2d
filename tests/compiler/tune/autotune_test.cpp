// Measuring tile shapes on a device whose clock the test sets.
#include "compiler/tune/autotune.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "compiler/compile_attention.h"
#include "ir/error.h"
#include "tests/compiler/plan/tile_cases.h"
#include "tests/support/fake_device.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// Every launch takes what `milliseconds_of` says of the kernel's text.
class ClockedDevice : public test::FakeDevice {
  public:
    ClockedDevice() : FakeDevice(host_with(2)) {}
    KernelBinary compile(const CompileRequest& request) override {
        ++compiled;
        return FakeDevice::compile(request);
    }
    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const void* arguments,
                std::size_t) override {
        SpionAttentionArguments args;
        std::memcpy(&args, arguments, sizeof(args));
        EXPECT_EQ(geometry.work_items % (std::int64_t{args.batch} * args.tiles), 0);
        EXPECT_NE(args.gather_blocks, nullptr);
        EXPECT_NE(args.q.data, nullptr);
        ++launches;
        now += milliseconds_of(dynamic_cast<const test::FakeKernel&>(kernel).code);
    }

    std::function<double(const std::string& code)> milliseconds_of;
    std::atomic<int> compiled = 0;
    int launches = 0;
};

// Of a launch that is planned for the device.
Tuning autotune(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                Device& device, KernelCache& cache, const PlanOptions& planning,
                const AutotuneOptions& options = {}) {
    return autotune(attention, pattern,
                    plan_launch(attention, pattern, role, device.target(), planning), device, cache,
                    options);
}

class AutotuneTest : public ::testing::Test {
  protected:
    void SetUp() override {
        // A text names its shape, so distinct shapes take distinct, arbitrary, repeatable times.
        device_.milliseconds_of = [this](const std::string& code) {
            const double time =
                1 + static_cast<double>((std::hash<std::string>{}(code) ^ salt_) % 1000) * 1e-3;
            fastest_ = std::min(fastest_, time);
            return time;
        };
    }
    Tuning tune(const BlockPattern& pattern, std::int64_t batch = 2) {
        KernelCache cache{folder_.file("cache")};
        return autotune(attention_, pattern, KernelRole::kForward, device_, cache, {.batch = batch},
                        {.candidates = 3, .repeat = 3});
    }
    std::vector<std::filesystem::path> entries() const {
        std::vector<std::filesystem::path> files;
        for (const auto& item :
             std::filesystem::directory_iterator(folder_.file("cache") + "/tuning")) {
            files.push_back(item.path());
        }
        return files;
    }

    ScratchFolder folder_;
    ClockedDevice device_;
    std::size_t salt_ = std::random_device{}();
    double fastest_ = 1e9;
    Attention attention_{.heads = 2,
                         .head_dim = 32,
                         .length = 200,
                         .dtype = DType::kFp32,
                         .scale = 1,
                         .key_padding = true};
    BlockPattern pattern_ = BlockPattern::full(200, 64);
};

TEST_F(AutotuneTest, TakesTheFastestOfTheBestAndRemembersIt) {
    const Tuning first = tune(pattern_);
    EXPECT_FALSE(first.from_cache);
    EXPECT_EQ(device_.compiled, 3);
    EXPECT_NEAR(first.milliseconds, fastest_, 1e-9) << "salt " << salt_;
    ASSERT_EQ(entries().size(), 1U);
    const int launches = device_.launches;
    EXPECT_GT(launches, 3 * 3);

    const Tuning second = tune(pattern_);
    EXPECT_TRUE(second.from_cache);
    EXPECT_EQ(second.shape, first.shape);
    EXPECT_NEAR(second.milliseconds, first.milliseconds, 1e-6);
    EXPECT_EQ(device_.launches, launches);
}

TEST_F(AutotuneTest, AnythingElseIsMeasuredAfresh) {
    tune(pattern_);
    EXPECT_FALSE(tune(BlockPattern(200, 64, std::vector<std::uint8_t>(16, 0))).from_cache);
    EXPECT_FALSE(tune(pattern_, 3).from_cache);
    device_.fake_name = "another clock";
    EXPECT_FALSE(tune(pattern_).from_cache);
    device_.fake_target.sm_count = 3;
    EXPECT_FALSE(tune(pattern_).from_cache);
    attention_.softmax = SoftmaxKind::kMasked;
    EXPECT_FALSE(tune(pattern_).from_cache);
    EXPECT_EQ(entries().size(), 6U);
    EXPECT_TRUE(tune(pattern_).from_cache);
}

TEST_F(AutotuneTest, ADamagedEntryIsAMiss) {
    const Tuning good = tune(pattern_);
    const auto file = entries().at(0);
    std::ifstream stream(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const std::string key = file.stem().string();
    const auto holds = [&](const std::string& bytes) {
        std::ofstream(file, std::ios::binary) << bytes;
        return read_tuning(file, key);
    };
    ASSERT_TRUE(holds(text));
    EXPECT_EQ(holds(text)->shape, good.shape);
    EXPECT_EQ(holds(text)->kernel, "attention_forward-b64-D32-fp32-pruned_zero");
    EXPECT_EQ(holds(text)->device, device_.name());
    EXPECT_EQ(holds(text)->batch, 2);
    for (std::size_t i = 0; i < text.size(); ++i) {
        EXPECT_FALSE(holds(text.substr(0, i))) << "cut at " << i;
        std::string changed = text;
        changed[i] = static_cast<char>(changed[i] ^ 1);
        EXPECT_FALSE(holds(changed)) << "byte " << i;
    }
    EXPECT_FALSE(holds(text + " "));
    EXPECT_FALSE(holds(""));
    std::ofstream(file, std::ios::binary) << text;
    EXPECT_FALSE(read_tuning(file, std::string(32, '0')));
    EXPECT_FALSE(read_tuning(file.parent_path(), key));

    holds(text.substr(0, 20));
    EXPECT_FALSE(tune(pattern_).from_cache);
    EXPECT_TRUE(tune(pattern_).from_cache);
}

TEST_F(AutotuneTest, WithoutAFolderItIsMeasuredEveryTime) {
    KernelCache cache(std::nullopt);
    for (int n = 0; n < 2; ++n) {
        EXPECT_FALSE(autotune(attention_, pattern_, KernelRole::kForward, device_, cache,
                              {.batch = 1}, {.candidates = 2, .repeat = 1})
                         .from_cache);
    }
}

TEST_F(AutotuneTest, CompileAttentionTakesItsShapes) {
    KernelCache cache{folder_.file("cache")};
    CompileOptions options;
    options.autotune = true;
    options.batch = 2;
    const auto layers = compile_attention(attention_, {&pattern_, 1}, device_, cache, options);
    EXPECT_EQ(entries().size(), 3U);
    for (const KernelRole role : kEveryRole) {
        const Tuning tuned = autotune(attention_, pattern_, role, device_, cache, {.batch = 2});
        EXPECT_TRUE(tuned.from_cache);
        EXPECT_EQ(shape_of(layers[0]->part(role).program), tuned.shape);
    }
}

#ifdef SPION_CUDA_BACKEND
TEST_F(AutotuneTest, TriesPackedTiles) {
    device_.fake_target = cuda_target(80);
    device_.milliseconds_of = [](const std::string& code) {
        return code.find("SPION_PACKED_ROWS") == std::string::npos ? 2 : 1;
    };
    attention_.dtype = DType::kBf16;
    const BlockPattern pattern = BlockPattern::full(200, 16);
    KernelCache cache{folder_.file("cache")};
    const auto tuned = [&](std::optional<int> packed_rows) {
        return autotune(attention_, pattern, KernelRole::kForward, device_, cache,
                        {.batch = 32, .packed_rows = packed_rows});
    };
    EXPECT_GT(tuned({}).shape.packed_rows, 1);
    EXPECT_EQ(tuned(1).shape.packed_rows, 1);
    EXPECT_EQ(tuned(4).shape.packed_rows, 4);
    EXPECT_TRUE(tuned(4).from_cache);
    EXPECT_EQ(tuned(4).shape.packed_rows, 4);
}
#endif

TEST_F(AutotuneTest, RunsOnTheHost) {
    const auto host = open_device(DeviceChoice::kCpu);
    KernelCache cache{folder_.file("cache")};
    const Tuning tuned = autotune(attention_, pattern_, KernelRole::kQueryGradient, *host, cache,
                                  {.batch = 1}, {.candidates = 2, .repeat = 1});
    EXPECT_GT(tuned.milliseconds, 0);
    EXPECT_FALSE(tuned.from_cache);
    EXPECT_EQ(tuned.shape.warps, 1);
}

// Launches are given what their kernels read: a state, slopes, sinks, biases and room for their sums.
TEST_F(AutotuneTest, MeasuresChangedScores) {
    const auto host = open_device(DeviceChoice::kCpu);
    KernelCache cache{std::nullopt};
    attention_.dropout = 0.1F;
    attention_.alibi = attention_.sink = true;
    attention_.relative_bias = 50;
    for (const KernelRole role : {KernelRole::kForward, KernelRole::kQueryGradient}) {
        const Tuning tuned = autotune(attention_, pattern_, role, *host, cache, {.batch = 2},
                                      {.candidates = 2, .repeat = 1});
        EXPECT_GT(tuned.milliseconds, 0);
    }
}

}  // namespace
}  // namespace spion
