// Which layers tier 1 is tried on, and what becomes of it, on a device that tells given times.
#include "compiler/tune/tiers.h"

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>
#include <set>

#include "codegen/emit.h"
#include "compiler/compile_attention.h"
#include "compiler/lower.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/fake_device.h"

namespace spion {
namespace {

// "Compiles" to the text; the time between two marks depends on what was launched between them.
class TellingDevice : public test::FakeDevice {
  public:
    TellingDevice() : FakeDevice(test::any_target()) {}
    KernelBinary compile(const CompileRequest& request) override {
        const std::lock_guard lock(mutex_);
        const bool is_baked = request.text.find("kListed") != std::string::npos;
        if (is_baked && reject_baked) throw InternalError("a baked source is rejected");
        compiled_baked += is_baked ? 1 : 0;
        return FakeDevice::compile(request);
    }
    void launch(const LoadedKernel& kernel, const LaunchGeometry&, const void* arguments,
                std::size_t) override {
        const std::string& text = dynamic_cast<const test::FakeKernel&>(kernel).code;
        const bool is_baked = text.find("kListed") != std::string::npos;
        now += is_baked ? baked_ms : passed_ms;
        SpionAttentionArguments given;
        std::memcpy(&given, arguments, sizeof given);
        last_was_baked = is_baked;
        for (const void* data : {given.o.data, given.d_q.data, given.d_k.data, given.d_v.data,
                                 static_cast<void*>(given.lse), static_cast<void*>(given.delta)}) {
            written.insert(data);
        }
    }

    double passed_ms = 1, baked_ms = 1;
    bool reject_baked = false, last_was_baked = false;
    int compiled_baked = 0;
    std::set<const void*> written;

  private:
    std::mutex mutex_;
};

class TiersTest : public ::testing::Test {
  protected:
    static constexpr int kLength = 300, kBlock = 32;
    static inline const Attention kAttention{
        .heads = 3, .head_dim = 32, .length = kLength, .dtype = DType::kFp32, .scale = 0.2F};

    std::vector<TierVerdict> decide_all(const std::vector<BlockPattern>& patterns) {
        layers_ = compile_attention(kAttention, patterns, device_, cache_);
        device_.written.clear();
        BackgroundTiers tiers(layers_, device_, cache_);
        std::vector<TierVerdict> verdicts;
        while (tiers.pending()) {
            verdicts.push_back(tiers.decide([&](int) { return given(); }));
        }
        expect_error<InternalError>([&] { tiers.decide([&](int) { return given(); }); },
                                    "nothing to wait for");
        return verdicts;
    }
    SpionAttentionArguments given() {
        SpionAttentionArguments arguments{};
        arguments.batch = 2;
        arguments.lse = arguments.delta = &training_;
        for (SpionTensor* tensor : {&arguments.o, &arguments.d_q, &arguments.d_k, &arguments.d_v}) {
            tensor->data = &training_;
        }
        return arguments;
    }
    bool runs_baked(CompiledAttention& layer) {
        layer.forward(given());
        return device_.last_was_baked;
    }

    TellingDevice device_;
    KernelCache cache_{std::nullopt};
    std::vector<std::unique_ptr<CompiledAttention>> layers_;
    float training_ = 0;
};

TEST_F(TiersTest, TheFasterTierIsKept) {
    const std::vector<BlockPattern> patterns{BlockPattern::full(kLength, kBlock),
                                             BlockPattern::full(kLength, kBlock)};
    for (const double baked_ms : {0.5, 1.0, 1.5}) {
        device_.baked_ms = baked_ms;
        const auto verdicts = decide_all(patterns);
        ASSERT_EQ(verdicts.size(), 2U);
        for (int layer = 0; layer < 2; ++layer) {
            const TierVerdict& verdict = verdicts[static_cast<std::size_t>(layer)];
            EXPECT_EQ(verdict.layer, layer);
            EXPECT_EQ(verdict.why_not, "");
            EXPECT_EQ(verdict.taken, baked_ms < 1);
            EXPECT_DOUBLE_EQ(verdict.tier0_ms, 3);
            EXPECT_DOUBLE_EQ(verdict.tier1_ms, 3 * baked_ms);
            EXPECT_NE(verdict.text().find(baked_ms < 1 ? "tier 1 taken: 1.5000 ms a pass, tier 0 3"
                                                       : "tier 1 dropped, it is not faster: "),
                      std::string::npos)
                << verdict.text();
            EXPECT_EQ(device_.written.count(&training_), 0U);
        }
        for (const auto& layer : layers_) {
            EXPECT_EQ(runs_baked(*layer), baked_ms < 1);
        }
    }
}

TEST_F(TiersTest, LayersNotWorthTryingAreNotCompiled) {
    device_.baked_ms = 0.1;
    const auto verdicts =
        decide_all({BlockPattern::empty(kLength, kBlock), BlockPattern::full(kLength, kBlock)});
    ASSERT_EQ(verdicts.size(), 2U);
    EXPECT_FALSE(verdicts[0].taken);
    EXPECT_EQ(verdicts[0].text(), "layer 0: tier 1 is not worth trying: the pattern is empty");
    EXPECT_TRUE(verdicts[1].taken);
    EXPECT_FALSE(runs_baked(*layers_[0]));
    EXPECT_EQ(device_.compiled_baked, 3);
}

TEST_F(TiersTest, AFailedCompilationIsThrownAtTheStepBoundary) {
    device_.reject_baked = true;
    const std::vector<BlockPattern> patterns{BlockPattern::full(kLength, kBlock)};
    layers_ = compile_attention(kAttention, patterns, device_, cache_);
    BackgroundTiers tiers(layers_, device_, cache_);
    expect_error<InternalError>([&] { tiers.decide([&](int) { return given(); }); },
                                "a baked source is rejected");
    EXPECT_FALSE(runs_baked(*layers_[0]));
}

TEST_F(TiersTest, AnotherPatternsKernelsAreRefused) {
    const std::vector<BlockPattern> patterns{BlockPattern::full(kLength, kBlock),
                                             BlockPattern::empty(kLength, kBlock)};
    const auto layers = compile_attention(kAttention, patterns, device_, cache_);
    expect_error<InternalError>([&] { layers[0]->hand_over_to(std::move(*layers[1])); },
                                "of another operation");
}

// The rule's two sides, on programs of given numbers of steps and entries.
TEST(WhyNotTier1, FollowsItsRule) {
    const auto programs = [](int tiles, int gather_blocks_a_tile) {
        TileProgram program;
        program.streamed_rows = 64;
        program.gather_rows = 32;
        program.offsets = {0};
        for (int tile = 0; tile < tiles; ++tile) {
            program.order.push_back(tile);
            for (int i = 0; i < gather_blocks_a_tile; ++i) program.gather_blocks.push_back(i);
            program.offsets.push_back(static_cast<int>(program.gather_blocks.size()));
        }
        return LayerPrograms{PlannedProgram{program}, PlannedProgram{program},
                             PlannedProgram{program}};
    };
    EXPECT_EQ(why_not_tier1(programs(4, 0)), "the pattern is empty");
    EXPECT_EQ(why_not_tier1(programs(4, 1)), "");
    EXPECT_EQ(why_not_tier1(programs(4, 40)), "");  // 20 steps of 2 gather blocks
    EXPECT_EQ(why_not_tier1(programs(4, 41)),
              "work items take 21 steps on average, and above 20 reading tables costs nothing");
    // 2 * 3276 + 1 + 8 * 3276 entries are 7 below the limit; a tile more is beyond it.
    EXPECT_EQ(why_not_tier1(programs(3276, 8)), "");
    EXPECT_EQ(why_not_tier1(programs(3277, 8)),
              "attention_forward: its tables have 32771 entries, and 32768 at most are baked");
}

}  // namespace
}  // namespace spion
