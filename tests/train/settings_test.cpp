#include "train/settings.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

#include "compiler/compile_attention.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/fake_device.h"
#include "train/training.h"

namespace spion {
namespace {

TEST(TrainSettings, DefaultsAreThePapers) {
    const TrainSettings s = preset_settings("paper");
    EXPECT_EQ(s.length, 2048);
    EXPECT_EQ(s.vocabulary, 32);
    EXPECT_EQ(s.layers, 4);
    EXPECT_EQ(s.batch, 256);
    EXPECT_EQ(s.discovery.block, 64);
    EXPECT_EQ(s.discovery.filter, 31);
    EXPECT_EQ(s.discovery.quantile, 0.98);
    EXPECT_EQ(s.discovery.density, 0.04);
    EXPECT_EQ(s.discovery.variant, Variant::kCF);
    EXPECT_EQ(s.learning_rate, 7e-4);
    EXPECT_EQ(s.warmup, 1000);
    EXPECT_EQ(s.steps, 30000);
    EXPECT_EQ(s.eval_every, 500);
    EXPECT_EQ(s.transition_change, 15);
    EXPECT_EQ(s.softmax, SoftmaxKind::kPrunedZero);
    EXPECT_EQ(s.list_ops.train_samples, 96000);
}

// Every setting's text is read back as the same value, from two different starting points.
TEST(TrainSettings, EverySettingSurvivesItsToml) {
    TrainSettings changed = preset_settings("demo");
    changed.data = "a \"folder\"";
    changed.dense = true;
    changed.scores = ScoreMode::kPooled;
    changed.softmax = SoftmaxKind::kMasked;
    changed.pooling = Pooling::kCls;
    changed.sine_embedding = true;
    changed.embedding_deviation = 0.5;
    changed.precision = Precision::kFp16;
    changed.loss_scale = 512;
    changed.device = DeviceChoice::kCuda;
    changed.discovery.variant = Variant::kC;
    for (const TrainSettings& from : {TrainSettings{}, changed}) {
        TrainSettings to = preset_settings(from.steps == 30000 ? "demo" : "paper");
        std::set<std::string_view> names;
        for (const Setting* setting : train_settings()) {
            EXPECT_TRUE(names.insert(setting->name).second) << setting->name;
            std::string text = setting->toml(from);
            if (text.starts_with('"')) {
                text = text == "\"a \\\"folder\\\"\"" ? from.data : text.substr(1, text.size() - 2);
            }
            apply_setting(to, setting->name, text, "test");
        }
        EXPECT_EQ(to_toml(to), to_toml(from));
    }
}

void expect_refused(const std::string& name, const std::string& value, const std::string& text) {
    TrainSettings settings;
    expect_error<UserError>(
        [&] { apply_setting(settings, name, value, fmt::format("--{}", name)); }, text);
}

TEST(TrainSettings, RefuseValuesOutOfRange) {
    expect_refused("steps", "0", "--steps is '0', but it takes a whole number of at least 1");
    expect_refused("steps", "10x", "--steps is '10x', but it takes a whole number of at least 1");
    expect_refused("quantile", "1.5", "--quantile is '1.5', but it takes a number from 0 to 1");
    expect_refused("quantile", "nan", "--quantile is 'nan', but it takes a number from 0 to 1");
    expect_refused("scores", "all", "--scores is 'all', but it takes exact or pooled");
    expect_refused("dense", "yes", "--dense is 'yes', but it takes true or false");
    expect_refused("quantil", "0.5",
                   "--quantil is no setting of train listops; the nearest is 'quantile'");
    expect_error<UserError>([] { preset_settings("tiny"); },
                            "--preset is 'tiny', but it takes paper or demo");
}

void expect_contradiction(void (*change)(TrainSettings&), const std::string& text) {
    TrainSettings settings;
    change(settings);
    expect_error<UserError>([&] { check(settings); }, text);
}

TEST(TrainSettings, RefuseContradictions) {
    expect_contradiction([](TrainSettings& s) { s.heads = 4; }, "4 * 32 = 128");
    expect_contradiction([](TrainSettings& s) { s.d_model = 2 * (s.head_dim = 44); },
                         "head dimension 44 is not supported: use a multiple of 8 from 16 to 256");
    expect_contradiction([](TrainSettings& s) { s.warmup = 40000; }, "40000 steps of only 30000");
    expect_contradiction([](TrainSettings& s) { s.transition_step = 30000; },
                         "before the last of the 30000 steps");
    expect_contradiction([](TrainSettings& s) { s.length = 1000; }, "max-length is 2000");
    expect_contradiction([](TrainSettings& s) { s.length = 20000; }, "--scores pooled");
    expect_contradiction([](TrainSettings& s) { s.discovery.block = 48; }, "48");
    expect_contradiction([](TrainSettings& s) { s.feed_forward = 100; }, "100");
}

TEST(TrainSettings, DenseNeedsNoTransition) {
    TrainSettings settings = preset_settings("demo");
    settings.dense = true;
    settings.steps = settings.transition_step;
    EXPECT_NO_THROW(check(settings));
}

TEST(TrainSettings, AcceptBothPresets) {
    EXPECT_NO_THROW(check(preset_settings("paper")));
    EXPECT_NO_THROW(check(preset_settings("demo")));
}

TEST(TrainSettings, RefusalsSayWhereAWordStood) {
    TrainSettings settings;
    for (const auto& [name, words] :
         {std::pair("device", "auto, cpu or cuda"), std::pair("softmax", "masked or pruned_zero"),
          std::pair("variant", "cf, f or c"), std::pair("embedding", "normal or sine")}) {
        const std::string given = fmt::format("run.toml:3:1: {}", name);
        try {
            apply_setting(settings, name, "wrong", given);
            ADD_FAILURE() << name << " took a wrong word";
        } catch (const UserError& error) {
            EXPECT_TRUE(std::string(error.what()).starts_with(given)) << error.what();
            EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
        }
    }
}

// Where full patterns may be cut: the dense phase keeps their blocks for the sparse one, a training that
// stays dense does not.
TEST(TrainSettings, DensePhasesHaveTheKernelsOfSparseOnes) {
    test::FakeDevice device(cuda_target(90));
    TrainSettings s = preset_settings("paper");
    for (const bool per_head : {false, true}) {
        s.per_head = per_head;
        KernelCache cache{std::nullopt};
        const auto compile = [&](const HeadPatterns& patterns) {
            return compile_attention(attention_of(s, DType::kBf16), {&patterns, 1}, device, cache,
                                     compile_options(s));
        };
        compile(full_patterns(s));
        EXPECT_EQ(cache.counters().compiled, 3);
        compile(HeadPatterns(std::vector<BlockPattern>(
            static_cast<std::size_t>(attention_of(s, DType::kBf16).patterns),
            BlockPattern::empty(s.length, s.discovery.block))));
        EXPECT_EQ(cache.counters().compiled, 3);
        s.dense = true;
        EXPECT_EQ(compile(full_patterns(s)).front()->part(KernelRole::kForward).program.block,
                  BlockPattern::kFullBlock);
        s.autotune = true;  // and goes on by tile shapes
        EXPECT_TRUE(compile_options(s).shared);
        s.dense = s.autotune = false;
    }
}

}  // namespace
}  // namespace spion
