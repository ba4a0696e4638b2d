// The CUDA linear_backward kernel, run on the host.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>

#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/given_step.h"
#include "tests/kernels/guarded_output.h"
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
    void run(std::int64_t rows, std::int64_t rows_per_item, bool dropout, std::mt19937& random) {
        SCOPED_TRACE(testing::Message() << "rows " << rows << ", " << rows_per_item << " an item");
        const LinearProblem problem(GetParam().shape, rows, dropout, random);
        const std::int64_t items = (rows + rows_per_item - 1) / rows_per_item;
        auto d_x = guarded_output<std::uint16_t>(rows * problem.shape.in);
        auto partials = guarded_output<float>(items * fused_linear_partial(problem.shape));
        emulation::forget_reads();
        for (const auto* input : {&problem.d_y, &problem.hidden, &problem.x}) {
            emulation::allow_reads(input->data(), input->size() * 2);
        }
        const GivenStep given(problem.dropout, random() % 2 == 0);
        const SpionLinearBackwardArguments arguments{.d_y = problem.d_y.data(),
                                                     .hidden = problem.hidden.data(),
                                                     .x = problem.x.data(),
                                                     .weight = problem.weight.data(),
                                                     .d_x = d_x.data(),
                                                     .partials = partials.data(),
                                                     .rows = rows,
                                                     .rows_per_item = rows_per_item,
                                                     .dropout = given.draws()};
        const Kernel kernel = find(GetParam().name);
        emulation::launch(items, 256, fused_linear_shared_bytes(problem.shape),
                          static_cast<unsigned>(random()), [&] { kernel(arguments); });
        problem.expect(without_guard(std::move(d_x)), without_guard(std::move(partials)));
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
