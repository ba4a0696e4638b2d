// The random bits of dropout, and the mask that they make on the device.
#include <cmath>

#include "kernels/random.h"
#include "tests/kernels/train_fixture.h"
#include "tests/kernels/train_reference.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// Known answers of Philox 4x32-10 (Salmon et al., the authors' test vectors).
TEST(TrainRandom, GivesTheKnownAnswersOfPhilox) {
    const SpionRandomBits zeros = spion_random_bits(0, 0, 0, 0);
    EXPECT_EQ(zeros.word[0], 0x6627E8D5U);
    EXPECT_EQ(zeros.word[1], 0xE169C58DU);
    EXPECT_EQ(zeros.word[2], 0xBC57AC4CU);
    EXPECT_EQ(zeros.word[3], 0x9B00DBD8U);
    const SpionRandomBits ones = spion_random_bits(~0ULL, ~0U, ~0U, ~0ULL);
    EXPECT_EQ(ones.word[0], 0x408F276DU);
    EXPECT_EQ(ones.word[1], 0x41C83B0EU);
    EXPECT_EQ(ones.word[2], 0xA20BC7C6U);
    EXPECT_EQ(ones.word[3], 0x6D5451FDU);
}

TEST(TrainRandom, ThresholdIsTheProbabilityInSixteenBits) {
    EXPECT_EQ(spion_dropout_threshold(0.0F), 0U);
    EXPECT_EQ(spion_dropout_threshold(0.5F), 32768U);
    EXPECT_EQ(spion_dropout_threshold(0.1F), 6554U);
}

class TrainDropout : public StepKernelTest {
  protected:
    // What a residual sum of ones on zeros leaves: the mask, scaled.
    Values mask(const StepShape& shape, std::size_t rows, const SpionDropout& dropout) {
        const auto channels = static_cast<std::size_t>(shape.channels);
        const std::size_t count = rows * channels;
        const Buffer x = upload_activations(Values(count, 0.0));
        const Buffer branch = upload_activations(Values(count, 1.0));
        const Buffer x_out = poisoned_activations(count), y = poisoned_activations(count);
        const Buffer ones = upload_floats(Values(channels, 1.0));
        const Buffer mean = poisoned_floats(rows), rstd = poisoned_floats(rows);
        SpionNormArguments arguments = {};
        arguments.x = x.data();
        arguments.branch = branch.data();
        arguments.x_out = x_out.data();
        arguments.gamma = arguments.beta = ones.as<float>();
        arguments.y = y.data();
        arguments.mean = mean.as<float>();
        arguments.rstd = rstd.as<float>();
        arguments.rows = static_cast<long long>(rows);
        arguments.dropout = as_given(dropout);
        kernels(shape).residual_norm_forward(arguments);
        return activations(x_out, count);
    }
};

TEST_F(TrainDropout, DropsAtTheGivenRateAndNeverTheSameTwice) {
    for (const int which : {0, 1}) {
        const StepShape& shape = shapes()[static_cast<std::size_t>(which)];
        const double p = shape.dropout;
        SCOPED_TRACE("p=" + std::to_string(p));
        SpionDropout dropout = random_dropout(true);
        const Values first = mask(shape, 2000, dropout);
        dropout.stream ^= 1;
        const Values second = mask(shape, 2000, dropout);
        double dropped = 0.0, both = 0.0, neighbours = 0.0;
        for (std::size_t i = 0; i < first.size(); ++i) {
            ASSERT_TRUE(first[i] == 0.0 ||
                        std::abs(first[i] - 1.0 / (1.0 - p)) < activation_tolerance() / (1.0 - p));
            dropped += first[i] == 0.0;
            both += first[i] == 0.0 && second[i] == 0.0;
            neighbours += i > 0 && first[i] == 0.0 && first[i - 1] == 0.0;
        }
        // Independent draws: within five standard deviations of the rate, of its square between two
        // streams, and of its square between neighbours (whose pairs overlap: twice the variance).
        const auto n = static_cast<double>(first.size());
        const double pair = p * p;
        EXPECT_NEAR(dropped / n, p, 5.0 * std::sqrt(p * (1.0 - p) / n) + 1.0 / 65536.0);
        EXPECT_NEAR(both / n, pair, 5.0 * std::sqrt(pair * (1.0 - pair) / n) + 1.0 / 32768.0);
        EXPECT_NEAR(neighbours / n, pair, 10.0 * std::sqrt(pair / n) + 1.0 / 32768.0);
        EXPECT_EQ(mask(shape, 2000, dropout), second) << "not repeatable";
        dropout.step += 1;
        EXPECT_NE(mask(shape, 2000, dropout), second) << "the step does not count";
        dropout.step -= 1;
        dropout.seed += 1;
        EXPECT_NE(mask(shape, 2000, dropout), second) << "the seed does not count";
    }
}

TEST_F(TrainDropout, KeepsEverythingInEvaluation) {
    for (const StepShape& shape : shapes()) {
        const Values all = mask(shape, 100, random_dropout(false));
        EXPECT_EQ(all, Values(all.size(), 1.0));
    }
}

}  // namespace
}  // namespace spion
