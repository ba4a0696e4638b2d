// The CUDA feed_forward kernel, run on the host.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>

#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/feed_forward_problem.h"
#include "tests/kernels/given_step.h"
#include "tests/kernels/guarded_output.h"
#include "tests/support/seed.h"

namespace emulated_feed_forward_paper {
void feed_forward(const SpionFeedForwardArguments&);
}
namespace emulated_feed_forward_wide {
void feed_forward(const SpionFeedForwardArguments&);
}

namespace spion {
namespace {

class EmulatedFeedForwardPart : public testing::TestWithParam<EmulatedFeedForward> {
  protected:
    void run(std::int64_t rows, std::int64_t rows_per_item, bool dropout, std::mt19937& random) {
        SCOPED_TRACE(testing::Message() << "rows " << rows << ", " << rows_per_item << " an item");
        const FeedForwardProblem problem(GetParam().shape, rows, dropout, random);
        auto hidden = guarded_output<std::uint16_t>(rows * problem.shape.hidden),
             gated = guarded_output<std::uint16_t>(rows * problem.shape.hidden),
             y = guarded_output<std::uint16_t>(rows * problem.shape.channels);
        emulation::forget_reads();
        for (const auto* input : {&problem.x, &problem.weight1, &problem.weight2}) {
            emulation::allow_reads(input->data(), input->size() * 2);
        }
        const GivenStep given(problem.dropout, random() % 2 == 0);
        const SpionFeedForwardArguments arguments{.x = problem.x.data(),
                                                  .weight1 = problem.weight1.data(),
                                                  .bias1 = problem.bias1.data(),
                                                  .weight2 = problem.weight2.data(),
                                                  .bias2 = problem.bias2.data(),
                                                  .hidden = hidden.data(),
                                                  .gated = gated.data(),
                                                  .y = y.data(),
                                                  .rows = rows,
                                                  .rows_per_item = rows_per_item,
                                                  .dropout = given.draws()};
        const auto kernel = std::string(GetParam().name) == "feed_forward_paper"
                                ? emulated_feed_forward_paper::feed_forward
                                : emulated_feed_forward_wide::feed_forward;
        emulation::launch((rows + rows_per_item - 1) / rows_per_item, 256,
                          fused_feed_forward_shared_bytes(problem.shape),
                          static_cast<unsigned>(random()), [&] { kernel(arguments); });
        problem.expect(without_guard(std::move(hidden)), without_guard(std::move(gated)),
                       without_guard(std::move(y)));
    }
};

TEST_P(EmulatedFeedForwardPart, MatchesTheReference) {
    const std::uint64_t drawn = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(drawn));
    std::mt19937 random(static_cast<unsigned>(drawn));
    run(1, 64, true, random);
    run(64, 64, false, random);
    // Several tiles an item, buffers used again; a last item and a last tile that are short.
    run(std::uniform_int_distribution<int>(450, 639)(random), 256, true, random);
}

INSTANTIATE_TEST_SUITE_P(FeedForwards, EmulatedFeedForwardPart,
                         testing::ValuesIn(emulated_feed_forwards()),
                         [](const auto& part) { return std::string(part.param.name); });

}  // namespace
}  // namespace spion
