// The orchestrator on a device that records what it is asked to do: what is compiled, how often,
// and with which tables and geometry kernels are launched.
#include "compiler/compile_attention.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <set>

#include "codegen/emit.h"
#include "ir/error.h"
#include "tests/support/fake_device.h"
#include "tests/support/lower_planned.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

struct Launch {
    std::string entry;
    LaunchGeometry geometry;
    SpionAttentionArguments arguments;
};

class RecordingDevice : public test::FakeDevice {
  public:
    RecordingDevice() : FakeDevice(test::any_target()) {}
    KernelBinary compile(const CompileRequest& request) override {
        const std::lock_guard lock(mutex_);
        requests.push_back(request);
        if (request.entry == rejected_entry) {
            throw InternalError("{} is rejected", request.entry);
        }
        return FakeDevice::compile(request);
    }
    std::vector<std::string> compile_options() override { return {"-a", "-b"}; }
    std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                       const KernelBinary& binary) override {
        EXPECT_FALSE(binary.code.empty());
        ++loads;
        return FakeDevice::load(entry, binary);
    }
    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const void* arguments,
                std::size_t bytes) override {
        ASSERT_EQ(bytes, sizeof(SpionAttentionArguments));
        launches.push_back({kernel.entry(), geometry, {}});
        std::memcpy(&launches.back().arguments, arguments, bytes);
    }

    std::vector<CompileRequest> requests;
    std::atomic<int> loads = 0;
    std::vector<Launch> launches;
    std::string rejected_entry;

  private:
    std::mutex mutex_;
};

class CompileTest : public ::testing::Test {
  protected:
    void SetUp() override { random_.seed(test::fresh_seed()); }
    // A pattern with about a third of its blocks.
    BlockPattern pattern() {
        const int rows = static_cast<int>((kLength + kBlock - 1) / kBlock);
        std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows) * rows);
        for (auto& bit : bits) {
            bit = random_() % 3 == 0 ? 1 : 0;
        }
        return BlockPattern(kLength, kBlock, std::move(bits));
    }
    Attention attention() const {
        return {.heads = 3,
                .head_dim = 32,
                .length = kLength,
                .dtype = DType::kFp32,
                .scale = default_scale(32)};
    }

    static constexpr int kLength = 300, kBlock = 32;
    std::mt19937 random_;
    RecordingDevice device_;
    KernelCache cache_{std::nullopt};
};

TEST_F(CompileTest, LayersShareTheKernelsThatAreEqual) {
    const std::vector<BlockPattern> patterns{pattern(), pattern(), pattern(), pattern()};
    const auto layers = compile_attention(attention(), patterns, device_, cache_);
    ASSERT_EQ(layers.size(), 4U);
    std::set<std::string> keys;
    for (const CompileRequest& request : device_.requests) {
        EXPECT_TRUE(keys.insert(cache_key(request)).second) << "compiled twice: " << request.entry;
        EXPECT_EQ(request.arch, device_.target().arch);
        EXPECT_EQ(request.features, device_.target().features);
        EXPECT_EQ(request.options, (std::vector<std::string>{"-a", "-b"}));
        EXPECT_EQ(request.compiler, "fake 1");
        EXPECT_FALSE(request.includes.empty());
    }
    EXPECT_EQ(device_.requests.size(), 3U);  // the pattern is passed as tables
    EXPECT_EQ(device_.loads, 3);
    EXPECT_EQ(cache_.counters().compiled, 3);
    for (const KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        const JitKernel& first = layers[0]->part(role).jit;
        EXPECT_EQ(first.cached.origin, CacheOrigin::kCompiled);
        EXPECT_EQ(first.kernel->entry(), to_string(role));
        EXPECT_EQ(layers[2]->part(role).jit.kernel, first.kernel);
        EXPECT_EQ(layers[2]->part(role).jit.cached.origin, CacheOrigin::kMemory);
        EXPECT_EQ(layers[2]->part(role).jit.cached.binary, first.cached.binary);
    }
    compile_attention(attention(), patterns, device_, cache_);
    EXPECT_EQ(device_.requests.size(), 3U);
    EXPECT_EQ(cache_.counters().from_memory, 3);
}

TEST_F(CompileTest, LaunchesCarryTheirProgramsTables) {
    const std::vector<BlockPattern> patterns{pattern(), BlockPattern::empty(kLength, kBlock)};
    const auto layers = compile_attention(attention(), patterns, device_, cache_);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        device_.launches.clear();
        float lse = 0;
        SpionAttentionArguments arguments{};
        arguments.lse = &lse;
        arguments.batch = 5;
        layers[layer]->forward(arguments);
        layers[layer]->backward(arguments);
        ASSERT_EQ(device_.launches.size(), 3U);
        for (int i = 0; i < 3; ++i) {
            const auto role = static_cast<KernelRole>(i);
            const Launch& launch = device_.launches[static_cast<std::size_t>(i)];
            const TileProgram expected =
                lower(attention(), patterns[layer], role, device_.target());
            EXPECT_EQ(layers[layer]->part(role).program, expected);
            EXPECT_EQ(launch.entry, to_string(role));
            EXPECT_EQ(launch.geometry.work_items, std::int64_t{5} * 3 * expected.tiles());
            const EmittedGeometry emitted = geometry(expected, device_.target());
            EXPECT_EQ(launch.geometry.threads, emitted.threads);
            EXPECT_EQ(launch.geometry.shared_bytes, emitted.shared_bytes);
            EXPECT_EQ(launch.arguments.lse, &lse);
            EXPECT_EQ(launch.arguments.tiles, expected.tiles());
            const auto holds = [](const int* table, const std::vector<std::int32_t>& values) {
                return std::equal(values.begin(), values.end(), table);
            };
            EXPECT_TRUE(holds(launch.arguments.order, expected.order));
            EXPECT_TRUE(holds(launch.arguments.offsets, expected.offsets));
            EXPECT_TRUE(holds(launch.arguments.gather_blocks, expected.gather_blocks));
            EXPECT_NE(launch.arguments.gather_blocks, nullptr);
        }
    }
}

TEST_F(CompileTest, LengthsAndKeyPaddingMustAgree) {
    const std::vector<BlockPattern> patterns{pattern()};
    const int lengths[1] = {7};
    for (const bool key_padding : {false, true}) {
        Attention operation = attention();
        operation.key_padding = key_padding;
        const auto layers = compile_attention(operation, patterns, device_, cache_);
        SpionAttentionArguments arguments{};
        arguments.batch = 1;
        arguments.lengths = key_padding ? lengths : nullptr;
        EXPECT_NO_THROW(layers[0]->forward(arguments));
        EXPECT_NO_THROW(layers[0]->backward(arguments));
        arguments.lengths = key_padding ? nullptr : lengths;
        try {
            layers[0]->forward(arguments);
            FAIL() << "was launched";
        } catch (const UserError& error) {
            const std::string message = error.what();
            EXPECT_NE(message.find(key_padding ? "with key padding, but it is called without"
                                               : "without key padding, but it is called with"),
                      std::string::npos)
                << message;
        }
        EXPECT_THROW(layers[0]->backward(arguments), UserError);
        arguments.lengths = key_padding ? lengths : nullptr;
        arguments.batch = 0;
        EXPECT_THROW(layers[0]->forward(arguments), UserError);
    }
}

TEST_F(CompileTest, AFailureReachesTheCaller) {
    device_.rejected_entry = "attention_query_gradient";
    const std::vector<BlockPattern> patterns{pattern(), pattern()};
    try {
        compile_attention(attention(), patterns, device_, cache_);
        FAIL() << "compiled";
    } catch (const InternalError& error) {
        EXPECT_NE(std::string(error.what()).find("attention_query_gradient is rejected"),
                  std::string::npos);
    }
    device_.rejected_entry.clear();
    EXPECT_EQ(compile_attention(attention(), patterns, device_, cache_).size(), 2U);
}

TEST_F(CompileTest, APatternOfAnotherLengthIsRefused) {
    const std::vector<BlockPattern> patterns{BlockPattern::full(kLength + 1, kBlock)};
    EXPECT_THROW(compile_attention(attention(), patterns, device_, cache_), UserError);
    EXPECT_TRUE(device_.requests.empty());
}

}  // namespace
}  // namespace spion
