// Patterns of heads in training: what they are found in, what is kept of them, what they refuse.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "compiler/discovery/fixed_patterns.h"
#include "io/pattern_file.h"
#include "io/safetensors.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_case.h"
#include "tests/support/reference_discovery.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"
#include "tests/train/tiny_run.h"
#include "train/report.h"
#include "train/settings_file.h"
#include "train/trained_model.h"

namespace spion {
namespace {

TrainSettings two_heads() {
    TrainSettings settings = tiny_settings();
    settings.heads = 2;
    settings.d_model = 32;
    settings.per_head = true;
    settings.transition_step = 10;
    settings.learning_rate = 0.02;  // so that heads come to differ in ten steps, and no filter
    settings.discovery.filter = 1;  // to make them alike
    settings.discovery.quantile = 0.5;
    return settings;
}

std::vector<double> map_of(const std::string& file) {
    std::istringstream text(read_file(file));
    std::vector<double> map;
    for (std::string line; std::getline(text, line);) {
        for (const std::string& cell : cells(line)) map.push_back(std::stod(cell));
    }
    return map;
}

HeadPatterns patterns_of(const std::string& run, int layer, int heads) {
    std::vector<BlockPattern> patterns;
    for (int head = 0; head < heads; ++head) {
        patterns.push_back(
            open_pattern(fmt::format("{}/patterns/layer{}.json:{}", run, layer, head), {}).pattern);
    }
    return HeadPatterns(std::move(patterns));
}

std::string losses_until(const Outcome& outcome, const std::string& row) {
    const std::string all = outcome.summary_of_losses();
    return all.substr(0, all.find(row));
}

TEST(PerHead, FindsThePatternOfEachHeadsMap) {
    const ScratchFolder folder;
    TrainSettings settings = two_heads();
    settings.tensorboard = true;
    const std::string path = folder.file("heads");
    const Outcome heads = run(settings, path);
    ASSERT_EQ(heads.report.transition_step, 10);
    EXPECT_EQ(heads.report.transition_compiled, 0);  // the dense phase has these kernels
    const Checkpoint last = read_checkpoint(path + "/checkpoints/step-00000024.safetensors");
    bool differ = false;
    for (int layer = 0; layer < 2; ++layer) {
        const HeadPatterns patterns = patterns_of(path, layer, 2);
        EXPECT_EQ(last.patterns.at(layer), patterns);
        std::vector<double> counts, mean;
        for (int head = 0; head < 2; ++head) {
            const std::vector<double> pooled =
                map_of(fmt::format("{}/patterns/layer{}.head{}.csv", path, layer, head));
            const std::string bits =
                reference_pattern(pooled, reference_threshold(pooled, settings.discovery.quantile));
            EXPECT_EQ(patterns[head].to_bits(), bits);
            counts.push_back(static_cast<double>(std::count(bits.begin(), bits.end(), '1')));
            mean.resize(pooled.size());
            for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += pooled[i] / 2;
        }
        // The layer's own map, of which the transition's rule knows.
        const std::vector<double> own =
            map_of(fmt::format("{}/maps/layer{}-step00000010.csv", path, layer));
        ASSERT_EQ(own.size(), mean.size());
        for (std::size_t i = 0; i < own.size(); ++i) EXPECT_NEAR(mean[i], own[i], 1e-5 * own[i]);
        EXPECT_NEAR(heads.report.densities.at(layer), patterns.density(), 1e-12);
        EXPECT_NEAR(heads.report.balances.at(layer),
                    2 * std::max(counts[0], counts[1]) / (counts[0] + counts[1]), 1e-12);
        differ = differ || patterns[0] != patterns[1];
    }
    EXPECT_TRUE(differ) << "no layer's heads differ: the run says nothing";
    for (const auto& file : std::filesystem::directory_iterator(path + "/tensorboard")) {
        EXPECT_NE(read_file(file.path()).find("balance"), std::string::npos) << file.path();
    }
    // Until the transition nothing is another.
    settings.per_head = false;
    const Outcome shared = run(settings, folder.file("shared"));
    EXPECT_EQ(losses_until(heads, "11sparse"), losses_until(shared, "11sparse"));
    EXPECT_NE(heads.summary_of_losses(), shared.summary_of_losses());
    EXPECT_EQ(shared.report.balances, (std::vector<double>{1, 1}));
}

TEST(PerHead, TurnsSparseByTheSameRule) {
    const ScratchFolder folder;
    for (const ScoreMode mode : {ScoreMode::kExact, ScoreMode::kPooled}) {
        TrainSettings settings = two_heads();
        settings.transition_step = 0;
        settings.transition_change = 1000000;  // holds at the third evaluation
        settings.scores = mode;
        settings.causal = mode == ScoreMode::kPooled;
        const std::string path = folder.file(mode == ScoreMode::kExact ? "exact" : "pooled");
        const Outcome outcome = run(settings, path);
        EXPECT_EQ(outcome.report.transition_step, 12);
        EXPECT_GT(outcome.report.stall.maps_ms, 0);
        const HeadPatterns patterns = patterns_of(path, 0, 2);
        for (const BlockPattern& pattern : patterns) {
            for (int row = 0; row < pattern.rows() && settings.causal; ++row) {
                for (const std::int32_t column : pattern.row(row)) EXPECT_LE(column, row);
            }
        }
    }
}

// What was learnt is what is asked.
TEST(PerHead, IsEvaluatedAsItWasTrained) {
    const ScratchFolder folder;
    const TrainSettings settings = two_heads();
    const Outcome outcome = run(settings, folder.file("run"));
    const Checkpoint last =
        read_checkpoint(folder.file("run/checkpoints/step-00000024.safetensors"));
    const auto device = open_device(settings.device);
    KernelCache cache(test_cache_root());
    TrainedModel model(last, settings.batch, *device, cache);
    const TaskData data = task_named("listops").load(settings, [](std::string_view) {});
    const Evaluation found = evaluate(model.model(), *device, *data.test, settings.batch);
    EXPECT_EQ(found.loss, outcome.report.test->loss);
    EXPECT_EQ(found.accuracy, outcome.report.test->accuracy);
}

TEST(PerHead, TakesPatternsThatAreFixed) {
    const ScratchFolder folder;
    TrainSettings settings = two_heads();
    settings.steps = 6;
    settings.warmup = 2;
    settings.transition_step = 0;
    settings.sparse_from_start = true;
    settings.discovery.density = 0.6;
    settings.pattern = "bigbird";
    run(settings, folder.file("random"));
    for (int layer = 0; layer < 2; ++layer) {
        const HeadPatterns patterns = patterns_of(folder.file("random"), layer, 2);
        EXPECT_NE(patterns[0], patterns[1]);
        for (int head = 0; head < 2; ++head) {
            EXPECT_EQ(patterns[head], fixed_pattern(FixedPattern::kBigBird, 120, 16, 0.6,
                                                    settings.seed + 2 * layer + head));
        }
    }
    settings.pattern = folder.file("random/patterns/layer1.json");
    run(settings, folder.file("file"));
    for (int layer = 0; layer < 2; ++layer) {
        EXPECT_EQ(patterns_of(folder.file("file"), layer, 2),
                  patterns_of(folder.file("random"), 1, 2));
    }
    settings.pattern = folder.write("one.bits", BlockPattern::full(120, 16).to_bits());
    for (const bool from_start : {true, false}) {  // said before the first step, too
        settings.sparse_from_start = from_start;
        settings.transition_step = from_start ? 0 : 4;
        const std::string path = folder.file(from_start ? "one" : "later");
        expect_error<UserError>(
            [&] { run(settings, path); },
            fmt::format(
                "per-head gives head 0 the pattern {0}:0, but {0}: holds one pattern: leave "
                "out :0; give a JSON file with a pattern for each head, or leave per-head "
                "away",
                settings.pattern));
        EXPECT_EQ(read_file(path + "/metrics.csv").find("dense"), std::string::npos);
    }
}

TEST(PerHead, RefusesWhatDoesNotCombine) {
    for (const char* pattern : {"window", "strided", "fixed"}) {
        TrainSettings settings = two_heads();
        settings.pattern = pattern;
        expect_error<UserError>(
            [&] { check(settings); },
            fmt::format("per-head gives each head a pattern of its own, but {} is the same for "
                        "all: take --pattern discovered, bigbird or a JSON file with a pattern for "
                        "each head, or leave per-head away",
                        pattern));
        settings.per_head = false;
        EXPECT_NO_THROW(check(settings));
    }
    TrainSettings settings;
    apply_setting(settings, "per-head", "true", "--per-head");
    EXPECT_TRUE(settings.per_head);
    EXPECT_NE(to_toml(settings).find("\nper-head = true\n"), std::string::npos);
    expect_error<UserError>([&] { apply_setting(settings, "per-head", "kv", "--per-head"); },
                            "--per-head is 'kv', but it takes true or false");
    EXPECT_EQ(attention_of(settings, DType::kFp32).patterns, settings.heads);
    EXPECT_EQ(full_patterns(settings).count(), settings.heads);
    settings.dense = true;  // one for all: nothing is found
    EXPECT_EQ(attention_of(settings, DType::kFp32).patterns, 1);
    EXPECT_EQ(full_patterns(settings).count(), 1);
}

// A checkpoint of random values and patterns, in the sparse phase.
Checkpoint random_checkpoint(std::mt19937_64& random, bool per_head) {
    Checkpoint checkpoint;
    TrainSettings& settings = checkpoint.settings;
    settings = two_heads();
    settings.per_head = per_head;
    checkpoint.classes = 10;
    checkpoint.state.step = checkpoint.state.transition_step.emplace(10) + 1;
    const ParameterLayout layout(model_shape(settings, 10));
    checkpoint.values.resize(static_cast<std::size_t>(layout.size()));
    for (const ParameterInfo& parameter : layout.table()) {  // between them lies nothing
        for (std::int64_t i = 0; i < parameter.count(); ++i) {
            checkpoint.values.at(parameter.offset + i) = static_cast<float>(pick(random, -99, 99));
        }
    }
    checkpoint.first_moment = checkpoint.second_moment = checkpoint.values;
    for (int layer = 0; layer < settings.layers; ++layer) {
        std::vector<BlockPattern> patterns;
        for (int head = 0; head < (per_head ? settings.heads : 1); ++head) {
            std::vector<std::uint8_t> bits(64);
            for (std::uint8_t& bit : bits) bit = pick(random, 0, 1) == 1 ? 1 : 0;
            patterns.emplace_back(settings.length, settings.discovery.block, std::move(bits));
        }
        checkpoint.patterns.emplace_back(std::move(patterns));
    }
    return checkpoint;
}

TEST(PerHead, SurvivesItsCheckpoint) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const ScratchFolder folder;
    for (const bool per_head : {true, false}) {
        const Checkpoint checkpoint = random_checkpoint(random, per_head);
        const std::string file = folder.file(per_head ? "heads.safetensors" : "one.safetensors");
        write_checkpoint(file, checkpoint);
        const Checkpoint read = read_checkpoint(file);
        EXPECT_EQ(read.patterns, checkpoint.patterns);
        EXPECT_EQ(read.values, checkpoint.values);
        EXPECT_EQ(read.settings.per_head, per_head);
        // What needs no new format is written in the old one.
        EXPECT_EQ(safetensors_metadata(read_file(file), file).at("spion_checkpoint"),
                  per_head ? "2" : "1");
    }
    // Patterns that are not those of the settings.
    std::string bytes = read_file(folder.file("heads.safetensors"));
    const std::string shape = "\"shape\":[2,8,8]";
    ASSERT_NE(bytes.find(shape), std::string::npos);
    bytes.replace(bytes.find(shape), shape.size(), "\"shape\":[16,8] ");
    const std::string changed = folder.write("changed.safetensors", bytes);
    expect_error<UserError>([&] { read_checkpoint(changed); },
                            "tensor pattern.layer0 has shape (16, 8), but a model of its settings "
                            "has (2, 8, 8)");
}

// A run from before there was such a setting.
TEST(PerHead, IsNotInSettingsOfEarlierRuns) {
    std::string toml = to_toml(two_heads());
    const std::string line = "per-head = true\n";
    toml.erase(toml.find(line), line.size());
    EXPECT_FALSE(settings_of_run(read_settings_text(toml, "config.toml")).per_head);
}

TEST(PerHead, SaysHowFullAndHowUnevenTheHeadsAre) {
    const BlockPattern full = BlockPattern::full(32, 16);
    const BlockPattern diagonal(32, 16, {1, 0, 0, 1});
    const std::string text =
        pattern_text(3, HeadPatterns(std::vector<BlockPattern>{full, diagonal}), 64);
    EXPECT_EQ(text,
              "layer 3: 2 patterns, densities 0.5000 to 1.0000, mean 0.7500, the fullest has 1.33 "
              "times the mean\nhead 0: 4 of 4 blocks, density 100.0 %\n" +
                  full.to_art(64) + "head 1: 2 of 4 blocks, density 50.0 %\n" +
                  diagonal.to_art(64));
    EXPECT_EQ(pattern_text(3, diagonal, 64),
              "layer 3: 2 of 4 blocks, density 50.0 %\n" + diagonal.to_art(64));
    const ScratchFolder folder;
    TrainReport report;
    report.transition_step = 5;
    report.densities = {0.5, 0.25};
    report.balances = {1.5, 1.25};
    TrainSettings settings = two_heads();
    const auto device = open_device(DeviceChoice::kCpu);
    const auto said = [&] {
        return report_text(report, settings, {}, RunFolder::of_another(folder.file("run")));
    };
    EXPECT_NE(said().find("density 37.5 % on average, the fullest head 1.38 times its layer's mean "
                          "(1.50 in the most uneven layer); training stood still"),
              std::string::npos)
        << said();
    settings.per_head = false;
    EXPECT_NE(said().find("density 37.5 % on average; training"), std::string::npos) << said();
    const auto json = nlohmann::json::parse(report_json(report, settings, {}, *device));
    EXPECT_EQ(json.at("balances"), (std::vector<double>{1.5, 1.25}));
}

}  // namespace
}  // namespace spion
