#include "train/phases.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "ir/parser.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"
#include "tests/train/tiny_run.h"

namespace spion {
namespace {

// Of a run of 24 steps that turns sparse after 10, with `density` on average.
void expect_schedule_restarts(const Outcome& result, double density) {
    int step = 0;
    for (const auto& row : result.rows) {
        if (row.at("split") != "train") continue;
        ++step;
        EXPECT_EQ(row.at("step"), std::to_string(step));
        EXPECT_NEAR(std::stod(row.at("density")), step <= 10 ? 1.0 : density, 1e-6);
        if (step == 1 || step == 11) {  // both start at 1/25 of the peak
            EXPECT_NEAR(std::stod(row.at("learning_rate")), 7e-4 / 25, 1e-9);
        }
        if (step == 4) {  // 4 steps of warm-up: the peak
            EXPECT_NEAR(std::stod(row.at("learning_rate")), 7e-4, 1e-9);
        }
        if (step == 24) {
            EXPECT_NEAR(std::stod(row.at("learning_rate")), 7e-4 / 25e4, 1e-12);
        }
    }
    EXPECT_EQ(step, 24);
}

TEST(Phases, TurnsSparseAtAFixedStepAndRestartsTheSchedule) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.transition_step = 10;
    const Outcome result = run(settings, folder.file("run"));
    EXPECT_EQ(result.report.transition_step, 10);
    EXPECT_EQ(result.report.steps_done, 24);
    EXPECT_EQ(result.report.transition_compiled, 0);  // tier 0 has been there since the start
    EXPECT_GT(result.report.stall.total_ms, 0);
    EXPECT_FALSE(result.report.interrupted);
    EXPECT_EQ(count(result, "dense", "train"), 10);
    EXPECT_EQ(count(result, "sparse", "train"), 14);
    EXPECT_EQ(count(result, "dense", "validation"), 2);   // after 4 and 8
    EXPECT_EQ(count(result, "sparse", "validation"), 4);  // after 12, 16, 20 and 24
    EXPECT_EQ(count(result, "sparse", "test"), 1);
    ASSERT_EQ(result.report.densities.size(), 2U);
    double density = 0;
    for (int layer = 0; layer < 2; ++layer) {
        const BlockPattern pattern =
            parse_bits(read_file(folder.file(fmt::format("run/patterns/layer{}.bits", layer))), 120,
                       16, "layer");
        EXPECT_EQ(pattern.density(), result.report.densities[static_cast<std::size_t>(layer)]);
        EXPECT_LT(pattern.density(), 0.7);
        for (int i = 0; i < pattern.rows(); ++i) EXPECT_TRUE(pattern.at(i, i));
        density += pattern.density() / 2;
    }
    expect_schedule_restarts(result, density);
    int kernels = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.file("run/kernels"))) {
        ++kernels;
        for (const char* file : {"kernel.ir", "kernel.ll", "kernel.o", "rebuild.sh"}) {
            EXPECT_GT(std::filesystem::file_size(entry.path() / file), 0U) << entry.path() / file;
        }
        const std::string ir = read_file(entry.path() / "kernel.ir");
        EXPECT_EQ(to_text(parse_ir(ir, "kernel.ir")), ir);
    }
    EXPECT_GE(kernels, 18);  // 14 of the step, 3 of attention, the score summary
    // Attention alone, sparse and dense, for inspection.
    ASSERT_EQ(result.report.attention_times.size(), 2U);
    ASSERT_TRUE(result.report.dense_time);
    for (const AttentionTime& time :
         {result.report.attention_times[0], result.report.attention_times[1],
          *result.report.dense_time}) {
        EXPECT_GT(time.forward_ms, 0);
        EXPECT_GT(time.backward_ms, 0);
    }
}

TEST(Phases, TurnsSparseWhenTheRuleHolds) {
    for (const ScoreMode scores : {ScoreMode::kExact, ScoreMode::kPooled}) {
        const ScratchFolder folder;
        TrainSettings settings = tiny_settings();
        settings.scores = scores;
        // A change of less than 1000000 % holds at the third evaluation, the first that can decide.
        settings.transition_change = 1000000;
        const Outcome result = run(settings, folder.file("run"));
        EXPECT_EQ(result.report.transition_step, 12);
        EXPECT_EQ(count(result, "dense", "train"), 12);
        EXPECT_EQ(count(result, "sparse", "train"), 12);
    }
}

TEST(Phases, StaysDenseWhenToldOrWhenTheRuleNeverHolds) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.dense = true;
    const Outcome told = run(settings, folder.file("told"));
    EXPECT_EQ(told.report.transition_step, std::nullopt);
    EXPECT_EQ(count(told, "dense", "train"), 24);
    EXPECT_EQ(count(told, "dense", "test"), 1);
    EXPECT_TRUE(told.report.densities.empty());
    EXPECT_EQ(told.report.attention_times.size(), 2U);
    EXPECT_FALSE(told.report.dense_time) << "the layers are dense themselves";
    EXPECT_FALSE(std::filesystem::exists(folder.file("told/patterns")));

    settings.dense = false;
    settings.eval_every = 10;  // two evaluations: the rule cannot decide
    const Outcome never = run(settings, folder.file("never"));
    EXPECT_EQ(never.report.transition_step, std::nullopt);
    EXPECT_EQ(count(never, "dense", "train"), 24);
}

TEST(Phases, TheSameSeedGivesTheSameLossesBitForBit) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.transition_step = 10;
    const std::string first = run(settings, folder.file("1")).summary_of_losses();
    EXPECT_EQ(run(settings, folder.file("2")).summary_of_losses(), first);
    settings.seed = 1;
    EXPECT_NE(run(settings, folder.file("3")).summary_of_losses(), first);
    // Before the transition a dense run and one that will turn sparse are the same.
    settings.seed = 0;
    settings.transition_step = 0;
    settings.dense = true;
    const std::string dense = run(settings, folder.file("4")).summary_of_losses();
    EXPECT_EQ(dense.substr(0, dense.find("11dense")), first.substr(0, first.find("11sparse")));
}

// Which layers are decided before the run ends is up to the machine, what they learn is not.
TEST(Phases, TierOneChangesNoLoss) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings();
    settings.transition_step = 4;
    settings.steps = 60;
    settings.tiers = 0;
    const Outcome without = run(settings, folder.file("0"));
    EXPECT_TRUE(without.report.tiers.empty());
    settings.tiers = 1;
    const Outcome with = run(settings, folder.file("1"));
    EXPECT_EQ(with.summary_of_losses(), without.summary_of_losses());
    EXPECT_LE(with.report.tiers.size(), 2U);
    bool taken = false;
    for (const TierVerdict& verdict : with.report.tiers) {
        EXPECT_GE(verdict.layer, 0);
        EXPECT_LT(verdict.layer, 2);
        EXPECT_EQ(verdict.why_not, "");
        EXPECT_EQ(verdict.taken, verdict.tier1_ms < verdict.tier0_ms);
        taken = taken || verdict.taken;
    }
    bool written = false;
    for (const auto& entry : std::filesystem::directory_iterator(folder.file("1/kernels"))) {
        written = written || entry.path().string().find("-baked") != std::string::npos;
    }
    EXPECT_EQ(written, taken);
}

TEST(Phases, EveryVariantAndSoftmaxTrains) {
    for (const Variant variant : {Variant::kCF, Variant::kF, Variant::kC}) {
        const ScratchFolder folder;
        TrainSettings settings = tiny_settings();
        settings.steps = 8;
        settings.transition_step = 4;
        settings.discovery.variant = variant;
        settings.discovery.density = 0.3;
        settings.softmax = variant == Variant::kF ? SoftmaxKind::kMasked : SoftmaxKind::kPrunedZero;
        const Outcome result = run(settings, folder.file("run"));
        EXPECT_EQ(result.report.transition_step, 4);
        EXPECT_EQ(result.report.not_finite_gradients, 0);
        for (const auto& row : result.rows) EXPECT_LT(std::stod(row.at("loss")), 4.0);
        if (variant == Variant::kC) {  // k = floor(64 * 0.3 - 8) = 11 blocks and the diagonal
            EXPECT_LE(result.report.densities[0], 19.0 / 64 + 0.05);
        }
    }
}

}  // namespace
}  // namespace spion
