// Training on a GPU: activations of 16 bits, so the checks are coarser than those on the host.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/cuda/cuda_device.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"
#include "tests/train/graph_runs.h"
#include "tests/train/model_on_device.h"
#include "tests/train/tiny_run.h"

namespace spion {
namespace {

class TrainOnGpu : public testing::Test {
  protected:
    void SetUp() override {
        if (const auto problem = cuda_problem()) GTEST_SKIP() << *problem;
    }
};

// Of fusable_model: the embedding's, and a whole layer's and its output projection's or those of three
// maps.
std::size_t fused_kernels() {
    return can_fuse(FusedLayerShape{}, open_device(DeviceChoice::kCuda)->target())
               ? kFusedEmbeddingKernels + kFusedLayerKernels + 1
               : kFusedEmbeddingKernels + 3;
}

// A step of `width` against the gradient lowers the loss by width * |gradient|.
void expect_gradient_predicts_loss(const ModelSettings& settings, std::size_t fused_kernels) {
    std::mt19937_64 random(settings.seed);
    ModelOnDevice gpu(DeviceChoice::kCuda, settings, sparse_pattern(), SoftmaxKind::kPrunedZero);
    EXPECT_EQ(gpu.model.fused_kernels().size(), fused_kernels);
    gpu.model.upload(random_batch(settings, random));
    const std::vector<float> values = gpu.read(gpu.model.parameters().values());
    gpu.model.compute_gradients(5, gpu.results);
    std::vector<float> gradients = gpu.read(gpu.model.parameters().gradients());
    if (settings.loss_scale > 0) {
        for (float& gradient : gradients) gradient /= static_cast<float>(settings.loss_scale);
    }
    const double norm = norm_of({gradients.begin(), gradients.end()});
    ASSERT_GT(norm, 0.01);
    const double width = 0.02 / norm;  // a change of 0.04 between both ends, far above bf16's noise
    std::vector<double> direction(gradients.begin(), gradients.end());
    for (double& component : direction) component /= norm;
    const auto loss_at = [&](double t) { return gpu.loss_along(values, direction, t); };
    const double slope = (loss_at(width) - loss_at(-width)) / (2 * width);
    EXPECT_NEAR(slope, norm, 0.15 * norm);
}

TEST_F(TrainOnGpu, TheGradientPredictsTheLoss) {
    expect_gradient_predicts_loss(tiny_model(0.1, test::fresh_seed()), 0);
}

TEST_F(TrainOnGpu, TheGradientOfFusedLinearMapsPredictsTheLoss) {
    expect_gradient_predicts_loss(fusable_model(0.1, test::fresh_seed()), fused_kernels());
}

// Partial sums of fused layers are added up together, those of more than kSummedLayers in two launches,
// and a layer's by themselves where somebody is told of them.
TEST_F(TrainOnGpu, GradientsToldLayerByLayerAreThoseOfOneLaunch) {
    ModelSettings settings = fusable_model(0.1, test::fresh_seed());
    settings.shape.layers = kSummedLayers + 1;
    std::mt19937_64 random(settings.seed);
    ModelOnDevice gpu(DeviceChoice::kCuda, settings, sparse_pattern(), SoftmaxKind::kPrunedZero);
    gpu.model.upload(random_batch(settings, random));
    gpu.model.compute_gradients(5, gpu.results);
    const std::vector<float> together = gpu.read(gpu.model.parameters().gradients());
    EXPECT_GT(norm_of({together.begin(), together.end()}), 0.01);
    std::int64_t told = 0;
    gpu.model.accumulate_gradients(5, 0, 1, gpu.results,
                                   [&](std::int64_t, std::int64_t count) { told += count; });
    EXPECT_EQ(told, gpu.model.parameters().size());
    EXPECT_EQ(gpu.read(gpu.model.parameters().gradients()), together);
}

TEST_F(TrainOnGpu, TheScaledGradientInFp16PredictsTheLoss) {
    for (ModelSettings settings :
         {tiny_model(0.1, test::fresh_seed()), fusable_model(0.1, test::fresh_seed())}) {
        settings.precision = Precision::kFp16;
        settings.loss_scale = 1024;
        const bool fused = settings.shape.feed_forward == 128;
        expect_gradient_predicts_loss(settings, fused ? fused_kernels() : 0);
    }
}

// A scale that fp16's gradients overflow at, and the same losses again.
TEST_F(TrainOnGpu, TrainsInFp16AndLeavesOutWhatOverflows) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings(DeviceChoice::kCuda);
    settings.transition_step = 10;
    settings.precision = Precision::kFp16;
    settings.loss_scale = 1U << 24;
    const Outcome first = run(settings, folder.file("1"));
    EXPECT_EQ(first.report.transition_step, 10);
    EXPECT_EQ(first.report.not_finite_gradients, 0);
    EXPECT_GT(first.report.skipped_steps, 0);
    EXPECT_LT(first.report.skipped_steps, settings.steps);
    EXPECT_EQ(run(settings, folder.file("2")).summary_of_losses(), first.summary_of_losses());
}

#ifdef SPION_HOST_BACKEND
// Parameter by parameter: only rounding to bf16 tells the gradients apart.
TEST_F(TrainOnGpu, GradientsOfFusedLinearMapsAreThoseOfTheHost) {
    const ModelSettings settings = fusable_model(0.1, test::fresh_seed());
    const auto gradients = [&](DeviceChoice choice) {
        std::mt19937_64 random(settings.seed);
        ModelOnDevice on(choice, settings, sparse_pattern(), SoftmaxKind::kPrunedZero);
        on.model.upload(random_batch(settings, random));
        on.model.compute_gradients(5, on.results);
        return on.read(on.model.parameters().gradients());
    };
    const std::vector<float> gpu = gradients(DeviceChoice::kCuda);
    const std::vector<float> host = gradients(DeviceChoice::kCpu);
    const ParameterLayout layout(settings.shape);
    for (const ParameterInfo& parameter : layout.table()) {
        double difference = 0, size = 0;
        for (std::int64_t i = 0; i < parameter.count(); ++i) {
            const auto at = static_cast<std::size_t>(parameter.offset + i);
            difference += std::pow(gpu[at] - host[at], 2);
            size += std::pow(host[at], 2);
        }
        EXPECT_LE(std::sqrt(difference), 0.05 * std::sqrt(size) + 1e-4) << parameter.name;
    }
}
#endif

// Until the transition the losses of one pattern a layer up to rounding, and all again the same.
TEST_F(TrainOnGpu, FindsAPatternAHead) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings(DeviceChoice::kCuda);
    settings.transition_step = 10;
    settings.heads = 2;
    settings.d_model = 32;
    settings.discovery.filter = 1;
    const Outcome shared = run(settings, folder.file("shared"));
    settings.per_head = true;
    const Outcome first = run(settings, folder.file("1"));
    EXPECT_EQ(first.report.transition_step, 10);
    EXPECT_EQ(first.report.transition_compiled, 0);
    EXPECT_EQ(first.report.not_finite_gradients, 0);
    const Checkpoint last = read_checkpoint(folder.file("1/checkpoints/step-00000024.safetensors"));
    ASSERT_EQ(last.patterns.size(), 2U);
    EXPECT_EQ(last.patterns[0].count(), 2);
    ASSERT_EQ(first.rows.size(), shared.rows.size());
    for (std::size_t i = 0; i < first.rows.size(); ++i) {
        if (first.rows[i].at("phase") != "dense") continue;
        EXPECT_NEAR(std::stod(first.rows[i].at("loss")), std::stod(shared.rows[i].at("loss")), 0.05)
            << "row " << i;
    }
    EXPECT_EQ(run(settings, folder.file("2")).summary_of_losses(), first.summary_of_losses());
}

Outcome run_on_gpu(const TrainSettings& settings, const std::filesystem::path& folder,
                   const Checkpoint* from) {
    return run(settings, folder, from);
}

TEST_F(TrainOnGpu, GraphsGiveTheBitsOfSingleLaunches) {
    for (const auto& [name, settings] : graph_runs(DeviceChoice::kCuda)) {
        SCOPED_TRACE(name);
        expect_graphs_change_nothing(settings, run_on_gpu);
    }
}

TEST_F(TrainOnGpu, GraphsLeaveOutWhatOverflowsInFp16) {
    for (auto& [name, settings] : graph_runs(DeviceChoice::kCuda)) {
        if (name != "plain" && name != "wide") continue;
        SCOPED_TRACE(name);
        settings.precision = Precision::kFp16;
        settings.loss_scale = 1U << 30;
        const Outcome run = expect_graphs_change_nothing(settings, run_on_gpu);
        EXPECT_GT(run.report.skipped_steps, 0);
        EXPECT_LT(run.report.skipped_steps, settings.steps);
    }
}

TEST_F(TrainOnGpu, FitsATinyBatch) {
    expect_fits_a_tiny_batch(DeviceChoice::kCuda, 200, 0.1);
}

TEST_F(TrainOnGpu, TheSameSeedGivesTheSameLossesBitForBitInAllPhases) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings(DeviceChoice::kCuda);
    settings.transition_step = 10;
    const Outcome first = run(settings, folder.file("1"));
    EXPECT_EQ(first.report.transition_step, 10);
    EXPECT_EQ(first.report.not_finite_gradients, 0);
    EXPECT_EQ(count(first, "dense", "train"), 10);
    EXPECT_EQ(count(first, "sparse", "train"), 14);
    EXPECT_EQ(run(settings, folder.file("2")).summary_of_losses(), first.summary_of_losses());
    for (const char* file : {"kernel.ir", "kernel.cu", "kernel.cubin"}) {
        for (const auto& entry : std::filesystem::directory_iterator(folder.file("1/kernels"))) {
            EXPECT_GT(std::filesystem::file_size(entry.path() / file), 0U) << entry.path() / file;
        }
    }
}

#ifdef SPION_HOST_BACKEND
// The same dropout masks, batches and first values: only rounding to bf16 tells the runs apart.
TEST_F(TrainOnGpu, FollowsTheHost) {
    const ScratchFolder folder;
    TrainSettings settings = tiny_settings(DeviceChoice::kCuda);
    settings.transition_step = 10;
    const Outcome gpu = run(settings, folder.file("gpu"));
    settings.device = DeviceChoice::kCpu;
    const Outcome host = run(settings, folder.file("host"));
    ASSERT_EQ(gpu.rows.size(), host.rows.size());
    for (std::size_t i = 0; i < gpu.rows.size(); ++i) {
        EXPECT_NEAR(std::stod(gpu.rows[i].at("loss")), std::stod(host.rows[i].at("loss")), 0.05)
            << "row " << i;
    }
}
#endif

}  // namespace
}  // namespace spion
