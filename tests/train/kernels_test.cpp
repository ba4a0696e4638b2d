// What the training step's kernels refuse to be compiled for.
#include "train/kernels.h"

#include <gtest/gtest.h>

#include <limits>

#include "ir/error.h"
#include "ir/parser.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

TEST(StepShape, AcceptsItsLimits) {
    check(StepShape{});
    check(StepShape{.channels = 8, .feed_forward = 4096, .vocabulary = 1, .dropout = 0.0F});
    check(StepShape{.channels = 1024, .feed_forward = 8, .vocabulary = 65536, .dropout = 0.99F});
}

TEST(StepShape, RefusesWhatIsOutsideThem) {
    expect_error<UserError>([] { check(StepShape{.channels = 60}); },
                            "a model width of 60 is not allowed: choose a multiple of 8 from 8 to "
                            "1024");
    expect_error<UserError>([] { check(StepShape{.channels = 1032}); }, "a model width of 1032");
    expect_error<UserError>([] { check(StepShape{.channels = 0}); }, "a model width of 0");
    expect_error<UserError>([] { check(StepShape{.feed_forward = 4104}); },
                            "a feed-forward width of 4104 is not allowed");
    expect_error<UserError>([] { check(StepShape{.vocabulary = 0}); },
                            "a vocabulary of 0 tokens is not allowed: choose 1 to 65536");
    expect_error<UserError>([] { check(StepShape{.dropout = 1.0F}); },
                            "a dropout of 1 is not allowed");
    expect_error<UserError>(
        [] { check(StepShape{.dropout = std::numeric_limits<float>::quiet_NaN()}); },
        "a dropout of nan is not allowed");
    expect_error<UserError>([] { check(StepShape{.epsilon = 0.0F}); },
                            "a layer norm epsilon of 0 is not allowed");
}

Target here() {
#ifdef SPION_HOST_BACKEND
    return {.back_end = BackEnd::kHost, .arch = "znver4", .features = ""};
#else
    return cuda_target(90);
#endif
}

TEST(StepKernel, TheirIrIsReadBack) {
    const StepShape shape{.channels = 40, .dropout = 0.0F, .epsilon = 3e-6F};
    for (int kernel = 0; kernel < kStepKernels; ++kernel) {
        const KernelSource source =
            step_kernel_source(static_cast<StepKernel>(kernel), shape, here());
        const IrModule ir = parse_ir(source.ir, source.name);
        EXPECT_EQ(to_text(ir), source.ir);
        ASSERT_EQ(ir.steps.size(), 1U) << source.ir;
        EXPECT_EQ(ir.steps.front().name, source.entry);
    }
    EXPECT_EQ(step_kernel_source(StepKernel::kResidualNormForward, shape, here()).ir,
              "program role=train_residual_norm_forward\n"
              "shape kChannels=40 kDropout=0 kEpsilon=3e-06\n");
}

}  // namespace
}  // namespace spion
