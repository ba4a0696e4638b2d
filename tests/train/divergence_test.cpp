// Where training's values stopped being finite, from values that are planted.
#include "train/divergence.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "kernels/train_arguments.h"
#include "tests/support/seed.h"
#include "tests/train/model_on_device.h"

namespace spion {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class PlantedDivergence : public ::testing::Test {
  protected:
    // A step with `value` at the first element of the parameter of that name.
    void step_with(const std::string& name, float value) {
        std::vector<float> values = on_.read(on_.model.parameters().values());
        values.at(static_cast<std::size_t>(parameter(name).offset)) = value;
        on_.model.parameters().upload(values);
        on_.model.upload(random_batch(settings_, random_));
        on_.model.compute_gradients(0, on_.results);
    }
    const ParameterInfo& parameter(const std::string& name) {
        for (const ParameterInfo& candidate : on_.model.layout().table()) {
            if (candidate.name == name) return candidate;
        }
        throw std::out_of_range(name);
    }
    // A value of the gradients that an earlier step left.
    void plant_gradient(std::int64_t at, float value) {
        on_.device().copy_in(on_.model.parameters().gradient(at), &value, sizeof(value));
    }
    Divergence find(const StepRecord& record, bool latest) {
        return find_divergence(record, latest, on_.model, on_.device());
    }

    ModelSettings settings_ = tiny_model(0.1, 5);
    std::mt19937_64 random_{test::fresh_seed()};
    ModelOnDevice on_{DeviceChoice::kCpu, settings_, sparse_pattern(), SoftmaxKind::kPrunedZero};
};

TEST_F(PlantedDivergence, IsFoundInTheForwardPassFirst) {
    step_with("layer1.qkv.weight", kNaN);
    const Divergence found =
        find({.step = 7, .loss = double{kNaN}, .not_finite = 3, .items = {0}}, true);
    EXPECT_EQ(found.layer, 1);
    EXPECT_EQ(found.tensor, "q, k, v");
    EXPECT_NE(found.sentence().find("training has diverged in layer 1 (q, k, v) at step 7: the "
                                    "loss is nan and 3 of "),
              std::string::npos)
        << found.sentence();
}

// The head comes after every layer, so its gradients are those that tell.
TEST_F(PlantedDivergence, IsFoundInTheGradientsWhenAllLayersAreFinite) {
    step_with("head2.weight", kNaN);
    ASSERT_TRUE(std::isnan(on_.mean_loss()));
    const Divergence found =
        find({.step = 1, .loss = on_.mean_loss(), .not_finite = 9, .items = {0}}, true);
    EXPECT_EQ(found.layer, std::nullopt);
    EXPECT_EQ(found.tensor.rfind("head", 0), 0U) << found.tensor;
}

TEST_F(PlantedDivergence, NamesTheTensorWhoseGradientIsComputedFirst) {
    step_with("head2.bias", 0.5F);
    const auto& table = on_.model.layout().table();
    for (int repeat = 0; repeat < 12; ++repeat) {
        on_.model.compute_gradients(0, on_.results);
        const std::size_t a = random_() % table.size(), b = random_() % table.size();
        for (const std::size_t which : {a, b}) {
            const ParameterInfo& parameter = table[which];
            const float value = random_() % 2 == 0 ? kNaN : -std::numeric_limits<float>::infinity();
            plant_gradient(
                parameter.offset + static_cast<std::int64_t>(
                                       random_() % static_cast<std::uint64_t>(parameter.count())),
                value);
        }
        const ParameterInfo& first = table[std::max(a, b)];
        const Divergence found =
            find({.step = 2, .loss = 1.0, .not_finite = 2, .items = {0}}, true);
        EXPECT_EQ(found.tensor, first.name);
        const bool in_layer = first.name.rfind("layer", 0) == 0;
        EXPECT_EQ(found.layer, in_layer ? std::optional(first.name[5] - '0') : std::nullopt);
        EXPECT_EQ(found.reason.rfind("2 of ", 0), 0U) << found.reason;
    }
}

// When later steps have overwritten the buffers, the counts of AdamW's work items are what is left.
TEST_F(PlantedDivergence, OfAnEarlierStepNamesAllTensorsOfTheItem) {
    const auto& table = on_.model.layout().table();
    for (std::size_t which = 0; which < table.size(); ++which) {
        const std::int64_t at = table[which].offset;
        const int item = static_cast<int>(at / kSpionAdamValuesPerItem);
        const Divergence found =
            find({.step = 3, .loss = 1.0, .not_finite = 1, .items = {0, item}}, false);
        EXPECT_NE((" or " + found.tensor + " or ").find(" or " + table[which].name + " or "),
                  std::string::npos)
            << found.tensor;
    }
}

TEST(Diverged, IsAStepWhoseLossOrGradientsAreNotFinite) {
    EXPECT_FALSE(has_diverged({.step = 1, .loss = 2.3, .items = {}}));
    EXPECT_TRUE(has_diverged({.step = 1, .loss = kInfinity, .items = {}}));
    EXPECT_TRUE(has_diverged({.step = 1, .loss = double{kNaN}, .items = {}}));
    EXPECT_TRUE(has_diverged({.step = 1, .loss = 2.3, .not_finite = 1, .items = {4}}));
}

TEST(Diverged, MapsAreFiniteOrSayWhetherTheScoresAre) {
    const std::vector<double> fine = {0.0, 1e300, -1e300, 0.5};
    const std::vector<float> scores = {0.0F, 3e38F, -3e38F, 1.0F};
    EXPECT_EQ(find_divergence(20, 3, fine, scores), std::nullopt);
    for (const double wrong : {double{kNaN}, kInfinity, -kInfinity}) {
        std::vector<double> pooled = fine;
        pooled[2] = wrong;
        const auto overflow = find_divergence(20, 3, pooled, scores);
        ASSERT_TRUE(overflow.has_value());
        EXPECT_TRUE(overflow->ended_training);
        EXPECT_EQ(overflow->sentence(),
                  "training has diverged in layer 3 at step 20: its attention scores are finite, "
                  "but too large to be summed in fp32; lower the learning rate (--lr)");
        std::vector<float> bad = scores;
        bad[0] = kNaN;
        for (const std::vector<float>& given : {bad, std::vector<float>{}}) {
            EXPECT_EQ(find_divergence(20, 3, pooled, given)->reason,
                      "its attention scores are not finite");
        }
    }
}

}  // namespace
}  // namespace spion
