// FusedLayer on a GPU, against the reference and against itself.
#include <vector>

#include "ir/error.h"
#include "tests/kernels/emulated_linears.h"
#include "tests/kernels/fused_gpu_fixture.h"
#include "tests/kernels/layer_problem.h"
#include "tests/kernels/norm_mean_problem.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

using FusedLayerGpuTest = FusedKernelGpuTest;

// The problem's inputs on the device, and the arguments that point to them.
struct Uploaded {
    std::vector<Buffer> buffers;
    SpionNormLinearArguments norm_linear;
    SpionLayerEndArguments layer_end;
};

class FusedLayerRows : public FusedLayerGpuTest {
  protected:
    Uploaded inputs(const LayerProblem& problem) {
        Uploaded on{
            .buffers = {}, .norm_linear = problem.norm_linear(), .layer_end = problem.layer_end()};
        const auto put = [&](const auto& values) {
            on.buffers.push_back(upload(values));
            return on.buffers.back().data();
        };
        on.norm_linear.x = on.layer_end.x = on.layer_end.x_middle = put(problem.x);
        on.norm_linear.gamma = static_cast<float*>(put(problem.gamma));
        on.norm_linear.beta = static_cast<float*>(put(problem.beta));
        on.layer_end.gamma = on.norm_linear.gamma;
        on.layer_end.beta = on.norm_linear.beta;
        on.norm_linear.weight = put(problem.qkv_weight);
        on.norm_linear.bias = static_cast<float*>(put(problem.qkv_bias));
        on.norm_linear.d_y = put(problem.d_y);
        on.layer_end.o = put(problem.o);
        on.layer_end.out_weight = put(problem.out_weight);
        on.layer_end.out_bias = static_cast<float*>(put(problem.out_bias));
        on.layer_end.weight1 = put(problem.weight1);
        on.layer_end.bias1 = static_cast<float*>(put(problem.bias1));
        on.layer_end.weight2 = put(problem.weight2);
        on.layer_end.bias2 = static_cast<float*>(put(problem.bias2));
        if (!problem.kept.empty()) on.layer_end.kept = static_cast<unsigned*>(put(problem.kept));
        return on;
    }

    void forward(const FusedLayer& fused, const LayerProblem& problem, const Uploaded& on) {
        const std::int64_t narrow = problem.rows * problem.shape.channels;
        const Buffer y = poisoned<std::uint16_t>(3 * narrow),
                     x_middle = poisoned<std::uint16_t>(narrow),
                     x_out = poisoned<std::uint16_t>(narrow);
        Buffer mean = poisoned<float>(problem.rows), rstd = poisoned<float>(problem.rows);
        SpionNormLinearArguments first = on.norm_linear;
        const Buffer kept = problem.kept.empty()
                                ? Buffer()
                                : poisoned<unsigned>(static_cast<long>(problem.kept.size()));
        first.y = y.data();
        first.kept = kept.as<unsigned>();
        first.mean = mean.as<float>();
        first.rstd = rstd.as<float>();
        fused.norm_linear_forward(first);
        problem.expect_norm_linear(download<std::uint16_t>(y), download<float>(mean),
                                   download<float>(rstd),
                                   kept ? download<unsigned>(kept) : std::vector<unsigned>());
        mean = poisoned<float>(problem.rows), rstd = poisoned<float>(problem.rows);
        SpionLayerEndArguments end = on.layer_end;
        end.x_middle = x_middle.data();
        end.x_out = x_out.data();
        end.mean = mean.as<float>();
        end.rstd = rstd.as<float>();
        fused.layer_end_forward(end);
        problem.expect_layer_end(download<std::uint16_t>(x_middle), download<std::uint16_t>(x_out),
                                 download<float>(mean), download<float>(rstd));
    }

    // What one launch of both backward passes leaves.
    struct Gradients {
        std::vector<std::uint16_t> d_x, d_x_end, d_branch;
        std::vector<float> partials, partials_end;
        bool operator==(const Gradients&) const = default;
    };
    Gradients backward(const FusedLayer& fused, const LayerProblem& problem, const Uploaded& on) {
        const std::int64_t items = fused_layer_items(problem.rows);
        const Buffer mean = upload(problem.mean), rstd = upload(problem.rstd),
                     d_x = upload(problem.d_x), d_x_end = upload(problem.d_x);
        const Buffer d_branch = poisoned<std::uint16_t>(problem.rows * problem.shape.channels),
                     partials = poisoned<float>(items * norm_linear_partial(problem.shape)),
                     partials_end = poisoned<float>(items * layer_end_partial(problem.shape));
        SpionNormLinearArguments first = on.norm_linear;
        first.mean = mean.as<float>();
        first.rstd = rstd.as<float>();
        first.d_x = d_x.data();
        first.partials = partials.as<float>();
        fused.norm_linear_backward(first);
        SpionLayerEndArguments end = on.layer_end;
        end.mean = mean.as<float>();
        end.rstd = rstd.as<float>();
        end.d_x = d_x_end.data();
        end.d_branch = d_branch.data();
        end.partials = partials_end.as<float>();
        fused.layer_end_backward(end);
        return {.d_x = download<std::uint16_t>(d_x),
                .d_x_end = download<std::uint16_t>(d_x_end),
                .d_branch = download<std::uint16_t>(d_branch),
                .partials = download<float>(partials),
                .partials_end = download<float>(partials_end)};
    }
};

TEST_F(FusedLayerRows, MatchTheReferenceAndRepeatThemselves) {
    for (const EmulatedLayer& layer : emulated_layers()) {
        if (!can_fuse(layer.shape, device_->target())) GTEST_SKIP() << device_->target().arch;
        const FusedLayer fused(*device_, cache_, layer.shape);
        for (const std::int64_t rows : {1L, 128L, static_cast<long>(uniform(129, 9000)), 40960L}) {
            SCOPED_TRACE(testing::Message() << layer.name << " rows " << rows);
            const LayerProblem problem(layer.shape, rows, rows % 2 == 0, random_);
            const Uploaded on = inputs(problem);
            forward(fused, problem, on);
            const Gradients gradients = backward(fused, problem, on);
            problem.expect_norm_linear_gradients(gradients.d_x, gradients.partials);
            problem.expect_layer_end_gradients(gradients.d_x_end, gradients.d_branch,
                                               gradients.partials_end);
            for (int repeat = 0; repeat < 3; ++repeat) {
                EXPECT_TRUE(backward(fused, problem, on) == gradients);
            }
        }
    }
}

class FusedNormMean : public FusedLayerGpuTest {
  protected:
    void run(const FusedLayer& fused, const NormMeanProblem& problem) {
        const auto count = static_cast<std::int64_t>(problem.d_y.size());
        const Buffer x = upload(problem.x), gamma = upload(problem.gamma),
                     beta = upload(problem.beta), d_y = upload(problem.d_y),
                     lengths = upload(problem.lengths);
        const Buffer units = poisoned<float>(count), y = poisoned<float>(count),
                     d_x = poisoned<std::uint16_t>(static_cast<std::int64_t>(problem.x.size())),
                     partials = poisoned<float>(2 * count);
        SpionNormMeanArguments arguments = problem.arguments();
        arguments.x = x.data();
        arguments.gamma = gamma.as<float>();
        arguments.beta = beta.as<float>();
        arguments.d_y = d_y.as<float>();
        arguments.lengths = lengths.as<int>();
        arguments.units = units.as<float>();
        arguments.y = y.as<float>();
        arguments.d_x = d_x.data();
        arguments.partials = partials.as<float>();
        fused.norm_mean_forward(arguments);
        fused.norm_mean_backward(arguments);
        problem.expect_forward(download<float>(units), download<float>(y));
        problem.expect_backward(download<std::uint16_t>(d_x), download<float>(partials));
    }
};

TEST_F(FusedNormMean, MatchesTheReference) {
    const FusedLayerShape shape = emulated_layers().front().shape;
    if (!can_fuse(shape, device_->target())) GTEST_SKIP() << device_->target().arch;
    const FusedLayer fused(*device_, cache_, shape);
    for (const bool first_only : {false, true}) {
        run(fused, {shape, 1, 1, first_only, random_});
        run(fused, {shape, uniform(2, 40), uniform(2, 900), first_only, random_});
    }
}

TEST_F(FusedLayerGpuTest, RefusesWhatHasNoKernel) {
    expect_error<InternalError>([&] { FusedLayer(*device_, cache_, {.channels = 128}); },
                                "no fused kernels for a layer of 128 and 128 channels");
}

}  // namespace
}  // namespace spion
