// FusedLinear on a GPU, against the reference and against itself.
#include <algorithm>

#include "ir/error.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/feed_forward_problem.h"
#include "tests/kernels/fused_gpu_fixture.h"
#include "tests/kernels/linear_problem.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

using FusedLinearGpuTest = FusedKernelGpuTest;

TEST_F(FusedLinearGpuTest, MatchesTheReferenceAndRepeatsItself) {
    for (const EmulatedLinear& linear : emulated_linears()) {
        const FusedLinear fused(*device_, cache_, linear.shape);
        for (const std::int64_t rows : {1L, 64L, static_cast<long>(uniform(65, 20000)), 40960L}) {
            SCOPED_TRACE(testing::Message() << linear.name << " rows " << rows);
            const LinearProblem problem(linear.shape, rows, rows % 2 == 0, random_);
            const Buffer d_y = upload(problem.d_y), hidden = upload(problem.hidden),
                         x = upload(problem.x), weight = upload(problem.weight);
            const Buffer d_x(*device_, problem.d_x.size() * 2);
            const Buffer partials(*device_, static_cast<std::size_t>(fused_linear_items(rows)) *
                                                problem.partials.size() * sizeof(float));
            std::vector<std::uint16_t> first_d_x;
            std::vector<float> first_partials;
            for (int repeat = 0; repeat < 3; ++repeat) {
                poison(d_x);
                poison(partials);
                fused.backward({.d_y = d_y.data(),
                                .hidden = hidden.data(),
                                .x = x.data(),
                                .weight = weight.data(),
                                .d_x = d_x.data(),
                                .partials = partials.as<float>(),
                                .rows = rows,
                                .rows_per_item = 0,
                                .dropout = problem.dropout});
                const auto now_d_x = download<std::uint16_t>(d_x);
                const auto now_partials = download<float>(partials);
                if (repeat == 0) {
                    problem.expect(now_d_x, now_partials);
                    first_d_x = now_d_x;
                    first_partials = now_partials;
                }
                EXPECT_EQ(now_d_x, first_d_x);
                EXPECT_EQ(now_partials, first_partials);
            }
        }
    }
}

TEST_F(FusedLinearGpuTest, TheFeedForwardPartMatchesTheReference) {
    for (const EmulatedFeedForward& part : emulated_feed_forwards()) {
        const FusedFeedForward fused(*device_, cache_, part.shape);
        for (const std::int64_t rows : {1L, 64L, static_cast<long>(uniform(65, 20000)), 60000L}) {
            SCOPED_TRACE(testing::Message() << part.name << " rows " << rows);
            const FeedForwardProblem problem(part.shape, rows, rows % 2 == 0, random_);
            const Buffer x = upload(problem.x), weight1 = upload(problem.weight1),
                         weight2 = upload(problem.weight2), bias1 = upload(problem.bias1),
                         bias2 = upload(problem.bias2);
            const Buffer hidden = poisoned<std::uint16_t>(rows * part.shape.hidden),
                         gated = poisoned<std::uint16_t>(rows * part.shape.hidden),
                         y = poisoned<std::uint16_t>(rows * part.shape.channels);
            fused.forward({.x = x.data(),
                           .weight1 = weight1.data(),
                           .bias1 = bias1.as<float>(),
                           .weight2 = weight2.data(),
                           .bias2 = bias2.as<float>(),
                           .hidden = hidden.data(),
                           .gated = gated.data(),
                           .y = y.data(),
                           .rows = rows,
                           .rows_per_item = 0,
                           .dropout = problem.dropout});
            problem.expect(download<std::uint16_t>(hidden), download<std::uint16_t>(gated),
                           download<std::uint16_t>(y));
        }
    }
}

TEST_F(FusedLinearGpuTest, RefusesWhatHasNoKernel) {
    expect_error<InternalError>([&] { FusedLinear(*device_, cache_, {.out = 40, .in = 64}); },
                                "no fused kernel for a linear map of 64 to 40");
}

}  // namespace
}  // namespace spion
