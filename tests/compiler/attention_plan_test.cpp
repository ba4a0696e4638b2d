// What calls of a plan launch: the order of waiting and reading, the order of work, and whose tables
// they take.
#include "compiler/attention_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/sm90_arguments.h"
#include "tests/support/fake_device.h"

namespace spion {
namespace {

struct Launched {
    LaunchGeometry geometry;
    SpionSm90Arguments arguments;
};

// An sm_90a that keeps what it is given.
class KeepingDevice : public test::FakeDevice {
  public:
    std::array<std::uint64_t, 16> tensor_map(const TensorBoxes&) const override { return {}; }
    void launch_on(ForeignStream, const LoadedKernel&, const LaunchGeometry& geometry,
                   const void* arguments, std::size_t bytes) const override {
        launched.push_back({geometry, {}});
        std::memcpy(&launched.back().arguments, arguments, bytes);
    }
    mutable std::vector<Launched> launched;
};

class AttentionPlanTest : public testing::Test {
  protected:
    static constexpr std::int64_t kLength = 1024;
    static constexpr int kBlock = 64, kRows = 16;

    AttentionPlan plan(float scale = 0.5F, std::optional<BlockPattern> typical = {}) {
        const Attention attention{
            .heads = 8, .head_dim = 64, .length = kLength, .dtype = DType::kBf16, .scale = scale};
        return make_plan({.attention = attention, .block = kBlock, .typical = std::move(typical)},
                         device_, cache_);
    }
    // The diagonal, and all of the last row.
    static BlockPattern uneven() {
        std::vector<std::uint8_t> bits(kRows * kRows);
        for (int row = 0; row < kRows; ++row) {
            for (int column = 0; column < kRows; ++column) {
                bits[static_cast<std::size_t>(row) * kRows + column] =
                    row == column || row == kRows - 1 ? 1 : 0;
            }
        }
        return BlockPattern(kLength, kBlock, std::move(bits));
    }
    static std::vector<std::int32_t> tables_of(const AttentionPlan& plan) {
        std::vector<std::int32_t> tables(plan.table_bytes() / sizeof(std::int32_t));
        plan.write_tables(uneven(), tables);
        return tables;
    }
    std::vector<Launched> run(const AttentionPlan& plan, PlanPass pass,
                              const std::vector<std::int32_t>& tables, bool with_head,
                              bool settled) {
        SpionAttentionArguments args = {};
        args.batch = 2;
        SpionTensor* const tensors[] = {&args.q,   &args.k,   &args.v,   &args.o,
                                        &args.d_o, &args.d_q, &args.d_k, &args.d_v};
        for (SpionTensor* tensor : tensors) {
            *tensor = {memory_, 8 * kLength * 64, kLength * 64, 64};
        }
        float lse = 0;
        args.lse = &lse;
        PlanCall call{.tables = tables.data(), .workspace = memory_, .tables_settled = settled};
        if (with_head) call.head = TableHead(tables.data(), kTableHead);
        device_.launched.clear();
        plan.run(pass, args, call, device_, nullptr);
        return device_.launched;
    }

    KeepingDevice device_;
    KernelCache cache_{std::nullopt};
    alignas(64) char memory_[64] = {};
};

// Only the first may meet a kernel that still writes tables. What follows it starts when it has
// waited.
TEST_F(AttentionPlanTest, TheFirstKernelWaitsBeforeItReadsTables) {
    const AttentionPlan made = plan();
    const std::vector<std::int32_t> tables = tables_of(made);
    for (const PlanPass pass : {PlanPass::kForward, PlanPass::kBackward}) {
        for (const bool settled : {false, true}) {
            const std::vector<Launched> launched = run(made, pass, tables, true, settled);
            ASSERT_EQ(launched.size(), pass == PlanPass::kForward ? 1U : 2U);
            for (std::size_t i = 0; i < launched.size(); ++i) {
                EXPECT_TRUE(launched[i].geometry.overlaps_previous);
                EXPECT_EQ(launched[i].arguments.waits_first, i == 0 && !settled ? 1U : 0U);
            }
        }
    }
}

// As by a plan that was made for the pattern, where the tables' head is known.
TEST_F(AttentionPlanTest, WorkIsOrderedForThePatternAtHand) {
    const AttentionPlan made = plan(), for_it = plan(0.5F, uneven());
    const auto together = [&](const AttentionPlan& plan, bool with_head) {
        const std::vector<std::int32_t> tables = tables_of(plan);
        return run(plan, PlanPass::kForward, tables, with_head, true)[0].arguments.lpt_heads;
    };
    ASSERT_NE(together(made, false), together(for_it, false)) << "nothing to tell apart";
    EXPECT_EQ(together(made, true), together(for_it, false));
    EXPECT_EQ(together(for_it, true), together(for_it, false));
}

TEST_F(AttentionPlanTest, KnowsItsTablesByTheirHead) {
    const AttentionPlan made = plan(), other = plan(0.25F);
    std::vector<std::int32_t> tables = tables_of(made);
    const auto problem = [&](const AttentionPlan& plan) {
        return plan.problem_with_tables(TableHead(tables.data(), kTableHead));
    };
    EXPECT_EQ(made.table_bytes(), other.table_bytes());
    EXPECT_EQ(problem(made), "");
    EXPECT_EQ(problem(other),
              "were written for another plan, of other heads, dimensions, lengths or options");
    tables[1] = kTableLayout - 1;
    EXPECT_EQ(problem(made), "are of layout 1, not 2");
    tables[0] = 0;
    EXPECT_EQ(problem(made), "are no tables of spion");
}

}  // namespace
}  // namespace spion
