#include "train/phases.h"

#include <gtest/gtest.h>

#include <map>
#include <sstream>

#include "ir/error.h"
#include "tests/train/host.h"
#include "tests/train/temporary_folder.h"

namespace spion {
namespace {

TrainSettings tiny_settings() {
    TrainSettings settings;
    settings.device = DeviceChoice::kCpu;
    settings.steps = 24;
    settings.batch = 4;
    settings.eval_every = 4;
    settings.length = 120;  // not a multiple of the block
    settings.layers = 2;
    settings.heads = 1;
    settings.head_dim = settings.d_model = 16;
    settings.feed_forward = 24;
    settings.warmup = 4;
    settings.discovery.block = 16;
    settings.discovery.quantile = 0.8;
    settings.list_ops = {.train_samples = 64,
                         .validation_samples = 6,
                         .test_samples = 10,
                         .min_length = 20,
                         .max_length = 110};
    return settings;
}

struct Outcome {
    TrainReport report;
    std::vector<std::map<std::string, std::string>> rows;  // metrics.csv by column name
    std::string summary_of_losses() const {
        std::string text;
        for (const auto& row : rows) {
            text += row.at("step") + row.at("phase") + row.at("split") + ' ' + row.at("loss") +
                    ' ' + row.at("accuracy") + ' ' + row.at("learning_rate") + '\n';
        }
        return text;
    }
};

std::vector<std::string> cells(const std::string& line) {
    std::vector<std::string> result(1);
    for (const char c : line) {
        if (c == ',') {
            result.emplace_back();
        } else {
            result.back() += c;
        }
    }
    return result;
}

Outcome run(const TrainSettings& settings, const std::filesystem::path& path) {
    check(settings);
    const auto device = open_device(settings.device);
    const Dataset data = generate_list_ops(settings.list_ops, 2);
    KernelCache cache(test_cache_root());
    RunFolder folder(path);
    std::FILE* quiet = std::fopen("/dev/null", "w");
    Progress progress(quiet, false);
    Outcome result{.report = train(settings, data, *device, cache, folder, progress), .rows = {}};
    std::fclose(quiet);
    std::istringstream metrics(read_file(folder.metrics_file()));
    std::string line;
    std::getline(metrics, line);
    const auto names = cells(line);
    while (std::getline(metrics, line)) {
        const auto values = cells(line);
        EXPECT_EQ(values.size(), names.size()) << line;
        auto& row = result.rows.emplace_back();
        for (std::size_t i = 0; i < names.size(); ++i) row[names[i]] = values.at(i);
    }
    return result;
}

int count(const Outcome& run, const std::string& phase, const std::string& split) {
    int found = 0;
    for (const auto& row : run.rows) {
        if (row.at("phase") == phase && row.at("split") == split) ++found;
    }
    return found;
}

TEST(Phases, TurnsSparseAtAFixedStepAndRestartsTheSchedule) {
    const TemporaryFolder folder;
    TrainSettings settings = tiny_settings();
    settings.transition_step = 10;
    const Outcome result = run(settings, folder.path() / "run");
    EXPECT_EQ(result.report.transition_step, 10);
    EXPECT_EQ(result.report.steps_done, 24);
    EXPECT_FALSE(result.report.interrupted);
    EXPECT_EQ(count(result, "dense", "train"), 10);
    EXPECT_EQ(count(result, "sparse", "train"), 14);
    EXPECT_EQ(count(result, "dense", "validation"), 2);   // after 4 and 8
    EXPECT_EQ(count(result, "sparse", "validation"), 4);  // after 12, 16, 20 and 24
    EXPECT_EQ(count(result, "sparse", "test"), 1);
    ASSERT_EQ(result.report.densities.size(), 2U);
    double density = 0;
    for (int layer = 0; layer < 2; ++layer) {
        const BlockPattern pattern = parse_bits(
            read_file(folder.path() / "run/patterns" / fmt::format("layer{}.bits", layer)), 120, 16,
            "layer");
        EXPECT_EQ(pattern.density(), result.report.densities[static_cast<std::size_t>(layer)]);
        EXPECT_LT(pattern.density(), 0.7);
        for (int i = 0; i < pattern.rows(); ++i) EXPECT_TRUE(pattern.at(i, i));
        density += pattern.density() / 2;
    }
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
    int kernels = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path() / "run/kernels")) {
        ++kernels;
        for (const char* file : {"kernel.ir", "kernel.ll", "kernel.o"}) {
            EXPECT_GT(std::filesystem::file_size(entry.path() / file), 0U) << entry.path() / file;
        }
    }
    EXPECT_GE(kernels, 18);  // 14 of the step, 3 of attention, the score summary
}

TEST(Phases, TurnsSparseWhenTheRuleHolds) {
    for (const ScoreMode scores : {ScoreMode::kExact, ScoreMode::kPooled}) {
        const TemporaryFolder folder;
        TrainSettings settings = tiny_settings();
        settings.scores = scores;
        // A change of less than 1000000 % holds at the third evaluation, the first that can decide.
        settings.transition_change = 1000000;
        const Outcome result = run(settings, folder.path() / "run");
        EXPECT_EQ(result.report.transition_step, 12);
        EXPECT_EQ(count(result, "dense", "train"), 12);
        EXPECT_EQ(count(result, "sparse", "train"), 12);
    }
}

TEST(Phases, StaysDenseWhenToldOrWhenTheRuleNeverHolds) {
    const TemporaryFolder folder;
    TrainSettings settings = tiny_settings();
    settings.dense = true;
    const Outcome told = run(settings, folder.path() / "told");
    EXPECT_EQ(told.report.transition_step, std::nullopt);
    EXPECT_EQ(count(told, "dense", "train"), 24);
    EXPECT_EQ(count(told, "dense", "test"), 1);
    EXPECT_TRUE(told.report.densities.empty());
    EXPECT_FALSE(std::filesystem::exists(folder.path() / "told/patterns"));

    settings.dense = false;
    settings.eval_every = 10;  // two evaluations: the rule cannot decide
    const Outcome never = run(settings, folder.path() / "never");
    EXPECT_EQ(never.report.transition_step, std::nullopt);
    EXPECT_EQ(count(never, "dense", "train"), 24);
}

TEST(Phases, TheSameSeedGivesTheSameLossesBitForBit) {
    const TemporaryFolder folder;
    TrainSettings settings = tiny_settings();
    settings.transition_step = 10;
    const std::string first = run(settings, folder.path() / "1").summary_of_losses();
    EXPECT_EQ(run(settings, folder.path() / "2").summary_of_losses(), first);
    settings.seed = 1;
    EXPECT_NE(run(settings, folder.path() / "3").summary_of_losses(), first);
    // Before the transition a dense run and one that will turn sparse are the same.
    settings.seed = 0;
    settings.transition_step = 0;
    settings.dense = true;
    const std::string dense = run(settings, folder.path() / "4").summary_of_losses();
    EXPECT_EQ(dense.substr(0, dense.find("11dense")), first.substr(0, first.find("11sparse")));
}

TEST(Phases, EveryVariantAndSoftmaxTrains) {
    for (const Variant variant : {Variant::kCF, Variant::kF, Variant::kC}) {
        const TemporaryFolder folder;
        TrainSettings settings = tiny_settings();
        settings.steps = 8;
        settings.transition_step = 4;
        settings.discovery.variant = variant;
        settings.discovery.density = 0.3;
        settings.softmax = variant == Variant::kF ? SoftmaxKind::kMasked : SoftmaxKind::kPrunedZero;
        const Outcome result = run(settings, folder.path() / "run");
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
