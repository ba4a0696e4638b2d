// The CUDA kernels of a fused layer, run on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/given_step.h"
#include "tests/kernels/guarded_output.h"
#include "tests/kernels/layer_problem.h"
#include "tests/kernels/norm_mean_problem.h"
#include "tests/support/seed.h"

#define DECLARE_KERNELS(name)                                       \
    namespace emulated_##name {                                     \
        void norm_linear_forward(const SpionNormLinearArguments&);  \
        void norm_linear_backward(const SpionNormLinearArguments&); \
        void layer_end_forward(const SpionLayerEndArguments&);      \
        void layer_end_backward(const SpionLayerEndArguments&);     \
        void norm_mean_forward(const SpionNormMeanArguments&);      \
        void norm_mean_backward(const SpionNormMeanArguments&);     \
    }
DECLARE_KERNELS(layer_paper)
DECLARE_KERNELS(layer_narrow)

namespace spion {
namespace {

// The kernels of one layer's shape.
struct Kernels {
    void (*norm_linear_forward)(const SpionNormLinearArguments&);
    void (*norm_linear_backward)(const SpionNormLinearArguments&);
    void (*layer_end_forward)(const SpionLayerEndArguments&);
    void (*layer_end_backward)(const SpionLayerEndArguments&);
    void (*norm_mean_forward)(const SpionNormMeanArguments&);
    void (*norm_mean_backward)(const SpionNormMeanArguments&);
};
#define KERNELS(name)                                                  \
    Kernels {                                                          \
        .norm_linear_forward = emulated_##name::norm_linear_forward,   \
        .norm_linear_backward = emulated_##name::norm_linear_backward, \
        .layer_end_forward = emulated_##name::layer_end_forward,       \
        .layer_end_backward = emulated_##name::layer_end_backward,     \
        .norm_mean_forward = emulated_##name::norm_mean_forward,       \
        .norm_mean_backward = emulated_##name::norm_mean_backward      \
    }
Kernels find(const std::string& name) {
    return name == "layer_paper" ? KERNELS(layer_paper) : KERNELS(layer_narrow);
}

class EmulatedLayerRows : public testing::TestWithParam<EmulatedLayer> {
  protected:
    void run(std::int64_t rows, std::int64_t rows_per_item, bool dropout, std::mt19937& random) {
        SCOPED_TRACE(testing::Message() << "rows " << rows << ", " << rows_per_item << " an item");
        const LayerProblem problem(GetParam().shape, rows, dropout, random);
        items_ = (rows + rows_per_item - 1) / rows_per_item;
        seed_ = static_cast<unsigned>(random());
        emulation::forget_reads();
        for (const auto* input : {&problem.x, &problem.o, &problem.d_y}) {
            emulation::allow_reads(input->data(), input->size() * 2);
        }
        forward(problem, rows_per_item);
        backward(problem, rows_per_item);
    }

    void run_mean(int batch, int length, bool first_only, std::mt19937& random) {
        SCOPED_TRACE(testing::Message() << batch << " samples of " << length);
        const NormMeanProblem problem(GetParam().shape, batch, length, first_only, random);
        seed_ = static_cast<unsigned>(random());
        emulation::forget_reads();
        emulation::allow_reads(problem.x.data(), problem.x.size() * 2);
        const auto count = static_cast<std::int64_t>(problem.d_y.size());
        auto units = guarded_output<float>(count), y = guarded_output<float>(count);
        SpionNormMeanArguments arguments = problem.arguments();
        arguments.units = units.data();
        arguments.y = y.data();
        items_ = batch;
        launch(FusedLayerKernel::kNormMeanForward, kernels_.norm_mean_forward, arguments);
        problem.expect_forward(without_guard(units), without_guard(y));

        auto d_x = guarded_output<std::uint16_t>(static_cast<std::int64_t>(problem.x.size()));
        auto partials = guarded_output<float>(2 * count);
        arguments.d_x = d_x.data();
        arguments.partials = partials.data();
        arguments.rows_per_item = 256;
        items_ = (std::int64_t{batch} * length + 255) / 256;
        launch(FusedLayerKernel::kNormMeanBackward, kernels_.norm_mean_backward, arguments);
        problem.expect_backward(without_guard(d_x), without_guard(partials));
    }

  private:
    template <typename Arguments>
    void launch(FusedLayerKernel which, void (*kernel)(const Arguments&),
                const Arguments& arguments) {
        emulation::launch(items_, fused_layer_threads(which),
                          fused_layer_shared_bytes(which, GetParam().shape), seed_,
                          [&] { kernel(arguments); });
    }

    void forward(const LayerProblem& problem, std::int64_t rows_per_item) {
        const std::int64_t narrow = problem.rows * problem.shape.channels;
        auto y = guarded_output<std::uint16_t>(3 * narrow),
             x_middle = guarded_output<std::uint16_t>(narrow),
             x_out = guarded_output<std::uint16_t>(narrow);
        auto mean = guarded_output<float>(problem.rows), rstd = guarded_output<float>(problem.rows);
        SpionNormLinearArguments first = problem.norm_linear();
        auto kept = guarded_output<unsigned>(static_cast<std::int64_t>(problem.kept.size()));
        const GivenStep given(first.draws, seed_ % 2 == 0);
        first.draws = given.draws();
        first.y = y.data();
        first.kept = kept.data();
        first.mean = mean.data();
        first.rstd = rstd.data();
        first.rows_per_item = rows_per_item;
        launch(FusedLayerKernel::kNormLinearForward, kernels_.norm_linear_forward, first);
        problem.expect_norm_linear(without_guard(y), without_guard(mean), without_guard(rstd),
                                   without_guard(kept));
        mean = guarded_output<float>(problem.rows), rstd = guarded_output<float>(problem.rows);
        SpionLayerEndArguments end = problem.layer_end();
        end.x_middle = x_middle.data();
        end.x_out = x_out.data();
        end.mean = mean.data();
        end.rstd = rstd.data();
        end.rows_per_item = rows_per_item;
        launch(FusedLayerKernel::kLayerEndForward, kernels_.layer_end_forward, end);
        problem.expect_layer_end(without_guard(x_middle), without_guard(x_out), without_guard(mean),
                                 without_guard(rstd));
    }

    void backward(const LayerProblem& problem, std::int64_t rows_per_item) {
        const std::int64_t narrow = problem.rows * problem.shape.channels;
        const auto in_place = [&] {
            auto d_x = guarded_output<std::uint16_t>(narrow);
            std::copy(problem.d_x.begin(), problem.d_x.end(), d_x.begin());
            emulation::allow_reads(d_x.data(), d_x.size() * 2);
            return d_x;
        };
        std::vector<float> mean = problem.mean, rstd = problem.rstd;
        emulation::allow_reads(mean.data(), mean.size() * sizeof(float));
        emulation::allow_reads(rstd.data(), rstd.size() * sizeof(float));
        auto d_x = in_place();
        auto partials = guarded_output<float>(items_ * norm_linear_partial(problem.shape));
        SpionNormLinearArguments first = problem.norm_linear();
        first.mean = mean.data();
        first.rstd = rstd.data();
        first.d_x = d_x.data();
        first.partials = partials.data();
        first.rows_per_item = rows_per_item;
        launch(FusedLayerKernel::kNormLinearBackward, kernels_.norm_linear_backward, first);
        problem.expect_norm_linear_gradients(without_guard(d_x), without_guard(partials));

        d_x = in_place();
        auto d_branch = guarded_output<std::uint16_t>(narrow);
        partials = guarded_output<float>(items_ * layer_end_partial(problem.shape));
        std::vector<std::uint16_t> x_middle = problem.x;
        emulation::allow_reads(x_middle.data(), x_middle.size() * 2);
        emulation::allow_reads(problem.kept.data(), problem.kept.size() * sizeof(unsigned));
        SpionLayerEndArguments end = problem.layer_end();
        end.x_middle = x_middle.data();
        end.mean = mean.data();
        end.rstd = rstd.data();
        end.d_x = d_x.data();
        end.d_branch = d_branch.data();
        end.partials = partials.data();
        end.rows_per_item = rows_per_item;
        launch(FusedLayerKernel::kLayerEndBackward, kernels_.layer_end_backward, end);
        problem.expect_layer_end_gradients(without_guard(d_x), without_guard(d_branch),
                                           without_guard(partials));
    }

    const Kernels kernels_ = find(GetParam().name);
    std::int64_t items_ = 0;
    unsigned seed_ = 0;
};

TEST_P(EmulatedLayerRows, MatchesTheReference) {
    const std::uint64_t drawn = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(drawn));
    std::mt19937 random(static_cast<unsigned>(drawn));
    run(1, 128, true, random);
    run(128, 128, false, random);
    // Several tiles a half and an item, every place filled again; a last item and a last tile that are
    // short.
    run(std::uniform_int_distribution<int>(650, 750)(random), 512, true, random);
}

TEST_P(EmulatedLayerRows, MeanOfTheNormMatchesTheReference) {
    const std::uint64_t drawn = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(drawn));
    std::mt19937 random(static_cast<unsigned>(drawn));
    for (const bool first_only : {false, true}) {
        run_mean(1, 1, first_only, random);
        run_mean(3, std::uniform_int_distribution<int>(100, 400)(random), first_only, random);
    }
}

INSTANTIATE_TEST_SUITE_P(Layers, EmulatedLayerRows, testing::ValuesIn(emulated_layers()),
                         [](const auto& layer) { return std::string(layer.param.name); });

}  // namespace
}  // namespace spion
