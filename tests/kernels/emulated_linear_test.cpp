// The CUDA linear_backward kernel, run on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/linear_problem.h"
#include "tests/support/seed.h"

namespace emulated_linear_qkv {
void linear_backward(const SpionLinearBackwardArguments&);
}
namespace emulated_linear_gelu {
void linear_backward(const SpionLinearBackwardArguments&);
}
namespace emulated_linear_wide {
void linear_backward(const SpionLinearBackwardArguments&);
}

namespace spion {
namespace {

using Kernel = void (*)(const SpionLinearBackwardArguments&);

Kernel find(const std::string& name) {
    if (name == "linear_qkv") return emulated_linear_qkv::linear_backward;
    if (name == "linear_gelu") return emulated_linear_gelu::linear_backward;
    return emulated_linear_wide::linear_backward;
}

class EmulatedLinearBackward : public testing::TestWithParam<EmulatedLinear> {
  protected:
    // Poisoned outputs with a guard behind them.
    void run(std::int64_t rows, std::int64_t rows_per_item, bool dropout, std::mt19937& random) {
        SCOPED_TRACE(testing::Message() << "rows " << rows << ", " << rows_per_item << " an item");
        const LinearProblem problem(GetParam().shape, rows, dropout, random);
        const std::int64_t items = (rows + rows_per_item - 1) / rows_per_item;
        const auto count = static_cast<std::size_t>(rows * problem.shape.in);
        const auto partials = static_cast<std::size_t>(items * fused_linear_partial(problem.shape));
        constexpr std::size_t kGuard = 64;
        std::vector<std::uint16_t> d_x(count + kGuard, 0xFFFF);
        std::vector<float> shares(partials + kGuard, std::nanf(""));
        emulation::forget_reads();
        for (const auto* input : {&problem.d_y, &problem.hidden, &problem.x}) {
            emulation::allow_reads(input->data(), input->size() * 2);
        }
        const SpionLinearBackwardArguments arguments{.d_y = problem.d_y.data(),
                                                     .hidden = problem.hidden.data(),
                                                     .x = problem.x.data(),
                                                     .weight = problem.weight.data(),
                                                     .d_x = d_x.data(),
                                                     .partials = shares.data(),
                                                     .rows = rows,
                                                     .rows_per_item = rows_per_item,
                                                     .dropout = problem.dropout};
        const Kernel kernel = find(GetParam().name);
        emulation::launch(items, 256, fused_linear_shared_bytes(problem.shape),
                          static_cast<unsigned>(random()), [&] { kernel(arguments); });
        EXPECT_TRUE(std::all_of(d_x.begin() + static_cast<std::ptrdiff_t>(count), d_x.end(),
                                [](std::uint16_t bits) { return bits == 0xFFFF; }));
        EXPECT_TRUE(std::all_of(shares.begin() + static_cast<std::ptrdiff_t>(partials),
                                shares.end(), [](float value) { return std::isnan(value); }));
        d_x.resize(count);
        shares.resize(partials);
        problem.expect(d_x, shares);
    }
};

TEST_P(EmulatedLinearBackward, MatchesTheReference) {
    const std::uint64_t drawn = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(drawn));
    std::mt19937 random(static_cast<unsigned>(drawn));
    run(1, 64, true, random);
    run(64, 64, false, random);
    // Several tiles an item, each stage filled again; a last item and a last tile that are short.
    run(std::uniform_int_distribution<int>(450, 639)(random), 256, true, random);
}

INSTANTIATE_TEST_SUITE_P(Linears, EmulatedLinearBackward, testing::ValuesIn(emulated_linears()),
                         [](const auto& linear) { return std::string(linear.param.name); });

}  // namespace
}  // namespace spion
