#include "compiler/discovery/transition.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

bool observe(Transition& transition, std::vector<double> distances) {
    return transition.observe(distances);
}

TEST(Transition, ThirdEvaluationDecidesFirst) {
    Transition transition(1, TransitionSettings{});
    EXPECT_TRUE(transition.needs_maps());
    EXPECT_FALSE(observe(transition, {1.0}));  // second evaluation: one distance, no change yet
    EXPECT_TRUE(transition.changes().empty());
    EXPECT_TRUE(observe(transition, {1.1}));
    ASSERT_EQ(transition.changes().size(), 1U);
    EXPECT_NEAR(transition.changes()[0], 10.0, 1e-9);
}

TEST(Transition, TruncatesToWholePerCent) {
    const auto decides = [](double before, double after) {
        Transition transition(1, TransitionSettings{});
        observe(transition, {before});
        return observe(transition, {after});
    };
    EXPECT_TRUE(decides(1000.0, 1149.0));
    EXPECT_TRUE(decides(1000.0, 1149.9));
    EXPECT_FALSE(decides(1000.0, 1150.0));  // exactly 15
    EXPECT_TRUE(decides(1000.0, 851.0));    // a fall counts like a rise
    EXPECT_FALSE(decides(1000.0, 850.0));
    EXPECT_TRUE(decides(0.0, 0.0));
    EXPECT_FALSE(decides(0.0, 1e-9));
    EXPECT_FALSE(decides(1e-9, 0.0));  // 100 per cent
}

TEST(Transition, AllLayersAtTheSameEvaluation) {
    Transition transition(2, TransitionSettings{});
    EXPECT_FALSE(observe(transition, {1.0, 1.0}));
    EXPECT_FALSE(observe(transition, {1.0, 2.0}));  // layer 0 settles, layer 1 does not
    EXPECT_FALSE(observe(transition, {5.0, 2.0}));  // and the other way round
    EXPECT_TRUE(observe(transition, {5.1, 2.1}));
}

TEST(Transition, ThresholdIsASetting) {
    Transition strict(1, TransitionSettings{.fixed_step = 0, .percent = 5});
    observe(strict, {100.0});
    EXPECT_FALSE(observe(strict, {106.0}));
    EXPECT_TRUE(observe(strict, {106.0}));
}

TEST(Transition, FixedStepIgnoresTheMaps) {
    Transition transition(1, TransitionSettings{.fixed_step = 30, .percent = 15});
    EXPECT_FALSE(transition.needs_maps());
    EXPECT_FALSE(transition.reached(29));
    EXPECT_TRUE(transition.reached(30));
    EXPECT_TRUE(transition.reached(31));
    EXPECT_FALSE(observe(transition, {1.0}));
    EXPECT_FALSE(observe(transition, {1.0}));
    EXPECT_FALSE(Transition(1, TransitionSettings{}).reached(1000000));
}

TEST(Transition, RefusesBadInput) {
    expect_error<UserError>([] { Transition(1, {.fixed_step = -1, .percent = 15}); },
                            "transition step -1 is not allowed");
    expect_error<UserError>([] { Transition(1, {.fixed_step = 0, .percent = 0}); },
                            "transition threshold 0 per cent is not allowed: use 1 or more");
    expect_error<InternalError>([] { Transition(0, TransitionSettings{}); }, "0 layers");
    Transition transition(2, TransitionSettings{});
    expect_error<InternalError>([&] { observe(transition, {1.0}); }, "1 distances for 2 layers");
    expect_error<UserError>(
        [&] {
            observe(transition, {1.0, std::numeric_limits<double>::quiet_NaN()});
        },
        "the attention map of layer 1 moved by nan: training has diverged");
    expect_error<UserError>(
        [&] {
            observe(transition, {std::numeric_limits<double>::infinity(), 1.0});
        },
        "layer 0");
}

TEST(MapHistory, DistancesBetweenSuccessiveMaps) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<float> value(0.0F, 1.0F);
    MapHistory history(2);
    std::vector<std::vector<float>> last(2);
    for (int evaluation = 0; evaluation < 4; ++evaluation) {
        for (int layer = 0; layer < 2; ++layer) {
            std::vector<float> map(9 * 9);
            double sum = 0.0;
            for (std::size_t i = 0; i < map.size(); ++i) {
                map[i] = value(random);
                const double before = evaluation > 0 ? static_cast<double>(last[layer][i]) : 0.0;
                sum += std::pow(static_cast<double>(map[i]) - before, 2);
            }
            const std::optional<double> distance = history.advance(layer, map);
            ASSERT_EQ(distance.has_value(), evaluation > 0);
            if (distance) {
                EXPECT_NEAR(*distance, std::sqrt(sum), 1e-12);
            }
            last[layer] = map;
        }
    }
    expect_error<InternalError>([&] { history.advance(0, std::vector<float>(4)); },
                                "distance of maps of 4 and 81 elements");
}

}  // namespace
}  // namespace spion
