// The judge itself: it must pass what is right and name what is not. No device is needed.
#include "tools/oracle/attention_case.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/support/seed.h"
#include "tests/tools/pick_attention.h"
#include "tools/oracle/reference_attention.h"
#include "tools/storage.h"

namespace spion {
namespace {

// An attention with padded samples, an empty row of the pattern and -inf among its LSE.
AttentionCase sample_case(DType dtype) {
    AttentionCase problem =
        plain_attention(dtype, parse_bits("1001\n0000\n0110\n1011\n", 60, 16, "sample"));
    problem.attention.softmax = SoftmaxKind::kMasked;
    problem.attention.key_padding = true;
    problem.lengths = {60, 20};
    problem.seed = test::fresh_seed();
    return problem;
}

std::vector<float> rounded(DType dtype, const std::vector<double>& values) {
    std::vector<float> result;
    for (const double value : values) {
        result.push_back(round_to(dtype, static_cast<float>(value)));
    }
    return result;
}

// What a device that computes exactly and stores the dtype would give.
AttentionOutputs exact_outputs(const AttentionCase& problem, const AttentionInputs& inputs) {
    const ReferenceResult reference = reference_attention({.attention = problem.attention,
                                                           .pattern = problem.pattern,
                                                           .batch = problem.batch,
                                                           .lengths = problem.lengths,
                                                           .q = inputs.q,
                                                           .k = inputs.k,
                                                           .v = inputs.v,
                                                           .d_o = inputs.d_o});
    const DType dtype = problem.attention.dtype;
    return {.o = rounded(dtype, reference.o),
            .d_q = rounded(dtype, reference.d_q),
            .d_k = rounded(dtype, reference.d_k),
            .d_v = rounded(dtype, reference.d_v),
            .lse = rounded(DType::kFp32, reference.lse)};
}

class Judge : public ::testing::TestWithParam<DType> {
  protected:
    const TensorError& error(const std::string& name) {
        errors_ = compare_outputs(problem_, inputs_, outputs_);
        for (const TensorError& candidate : errors_) {
            if (candidate.name == name) {
                return candidate;
            }
        }
        throw std::out_of_range(name);
    }

    AttentionCase problem_ = sample_case(GetParam());
    AttentionInputs inputs_ = random_inputs(problem_);
    AttentionOutputs outputs_ = exact_outputs(problem_, inputs_);
    std::vector<TensorError> errors_;
};

TEST_P(Judge, PassesExactResultsAsTheDtypeStoresThem) {
    SCOPED_TRACE(to_text(problem_));
    for (const TensorError& error : compare_outputs(problem_, inputs_, outputs_)) {
        EXPECT_TRUE(error.passed()) << error.name << " " << error.relative;
        EXPECT_EQ(error.tolerance, tolerance(GetParam()));
    }
}

TEST_P(Judge, MeasuresTheErrorOfOneTensorAlone) {
    SCOPED_TRACE(to_text(problem_));
    // dV is measured against its own norm alone. dQ and dK, whose terms can cancel, may be measured
    // against a larger one: an error in dK is at most what its own norm makes of it.
    const auto spoil = [](std::vector<float>& tensor) {
        double squares = 0;
        for (const float value : tensor) {
            squares += double(value) * value;
        }
        tensor[7] += static_cast<float>(0.5 * std::sqrt(squares));
    };
    spoil(outputs_.d_v);
    EXPECT_NEAR(error("dv").relative, 0.5, 0.02);
    EXPECT_FALSE(error("dv").passed());
    EXPECT_TRUE(error("dk").passed());
    EXPECT_TRUE(error("dq").passed());
    EXPECT_TRUE(error("o").passed());
    spoil(outputs_.d_k);
    EXPECT_LE(error("dk").relative, 0.52);
    EXPECT_FALSE(error("dk").passed());
}

TEST_P(Judge, NamesTheWorstElement) {
    SCOPED_TRACE(to_text(problem_));
    const std::int64_t heads = problem_.attention.heads, length = problem_.attention.length,
                       head_dim = problem_.attention.head_dim;
    const std::int64_t index = ((1 * heads + 0) * length + 17) * head_dim + 5;
    const auto at = static_cast<std::size_t>(index);
    const float right = outputs_.d_v[at];
    outputs_.d_v[at] = right + 40;
    EXPECT_EQ(error("dv").worst, index);
    EXPECT_EQ(error("dv").got, outputs_.d_v[at]);
    EXPECT_NEAR(error("dv").wanted, right, 0.01 * std::abs(right));
    EXPECT_EQ(place_text(problem_, "dv", index), "[1, 0, 17, 5]");
    EXPECT_EQ(place_text(problem_, "lse", (1 * heads + 0) * length + 17), "[1, 0, 17]");
    // A faulty element is worse than any that is far off, and of several the first is named.
    outputs_.d_v[at - 3] = outputs_.d_v[at + 3] = std::nanf("");
    EXPECT_EQ(error("dv").worst, index - 3);
    EXPECT_TRUE(std::isnan(error("dv").got));
    EXPECT_EQ(error("dv").faulty, 2);
}

TEST_P(Judge, CountsEveryElementThatWasNeverWritten) {
    outputs_.o[3] = std::nanf("");
    outputs_.o[4] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(error("o").faulty, 2);
    EXPECT_FALSE(error("o").passed());
    EXPECT_TRUE(error("dv").passed());
}

TEST_P(Judge, WantsTheInfinitiesOfLseExactly) {
    std::size_t row = 0;  // of the pattern's empty row of blocks
    while (!std::isinf(outputs_.lse[row])) {
        ++row;
    }
    outputs_.lse[row] = -1e30F;
    EXPECT_EQ(error("lse").faulty, 1);
    outputs_.lse[row] = std::numeric_limits<float>::infinity();
    EXPECT_EQ(error("lse").faulty, 1);
    outputs_.lse[row] = -std::numeric_limits<float>::infinity();
    EXPECT_TRUE(error("lse").passed());
}

INSTANTIATE_TEST_SUITE_P(DType, Judge,
                         ::testing::Values(DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16),
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

TEST(JudgeOfNothing, WantsZerosWhereEverythingIsZero) {
    const AttentionCase problem = plain_attention(DType::kFp32, BlockPattern::empty(20, 16));
    const AttentionInputs inputs = random_inputs(problem);
    AttentionOutputs outputs = exact_outputs(problem, inputs);
    EXPECT_TRUE(compare_outputs(problem, inputs, outputs)[0].passed());
    outputs.o[0] = 1e-30F;
    EXPECT_FALSE(compare_outputs(problem, inputs, outputs)[0].passed());
}

// One key a row: P = 1, so dS cancels to zero and what is left of it is rounding error.
TEST(JudgeOfNothing, AllowsTheRoundingErrorOfTermsThatCancel) {
    AttentionCase problem = plain_attention(DType::kFp32, BlockPattern::full(40, 16));
    problem.attention.softmax = SoftmaxKind::kMasked;
    problem.attention.key_padding = true;
    problem.lengths = {1, 1};
    const AttentionInputs inputs = random_inputs(problem);
    AttentionOutputs outputs = exact_outputs(problem, inputs);
    outputs.d_q[0] += 1e-7F;
    EXPECT_TRUE(compare_outputs(problem, inputs, outputs)[2].passed());
    outputs.d_q[0] += 1e-2F;
    EXPECT_FALSE(compare_outputs(problem, inputs, outputs)[2].passed());
}

// One key a row: the LSE is that key's score, here a sum of products that cancel.
TEST(JudgeOfNothing, AllowsTheRoundingErrorOfScoresThatCancel) {
    AttentionCase problem = plain_attention(DType::kFp32, BlockPattern::full(40, 16));
    problem.attention.softmax = SoftmaxKind::kMasked;
    problem.attention.key_padding = true;
    problem.lengths = {1, 1};
    AttentionInputs inputs = random_inputs(problem);
    const int width = problem.attention.head_dim;
    for (std::size_t at = 0; at < inputs.q.size(); at += width) {
        for (int d = 0; d < width; d += 2) {
            inputs.q[at + d] = inputs.q[at + d + 1] = 1;
        }
    }
    for (std::size_t d = 0; d < inputs.k.size(); d += 2) {
        inputs.k[d + 1] = -inputs.k[d];
    }
    AttentionOutputs outputs = exact_outputs(problem, inputs);
    outputs.lse[0] += 1e-6F;
    EXPECT_TRUE(compare_outputs(problem, inputs, outputs)[1].passed());
    outputs.lse[0] += 1e-2F;
    EXPECT_FALSE(compare_outputs(problem, inputs, outputs)[1].passed());
}

TEST(CaseReport, NamesEveryFailure) {
    CaseReport report{.repeatable = true, .in_bounds = true};
    report.errors = {{.name = "o", .relative = 1e-6, .tolerance = 1e-5},
                     {.name = "dq", .relative = 2e-5, .tolerance = 1e-5, .faulty = 3}};
    EXPECT_FALSE(report.passed());
    EXPECT_EQ(report.failures(),
              "dq: relative error 2.000e-05, tolerance 1e-05, 3 faulty elements\n");
    report.errors.pop_back();
    EXPECT_TRUE(report.passed());
    EXPECT_EQ(report.failures(), "");
    report.repeatable = false;
    EXPECT_FALSE(report.passed());
    EXPECT_EQ(report.failures(), "a second run gave other bytes\n");
    report = CaseReport{.errors = report.errors, .repeatable = true, .in_bounds = false};
    EXPECT_FALSE(report.passed());
    EXPECT_EQ(report.failures(), "memory outside the outputs was written\n");
}

}  // namespace
}  // namespace spion
