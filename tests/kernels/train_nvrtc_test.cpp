// Every CUDA kernel of the training step compiles for each architecture and spills no register;
// this needs NVRTC but no GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "ir/error.h"
#include "ir/target.h"
#include "runtime/cuda/nvrtc.h"
#include "tests/support/expect_error.h"
#include "train/fused_embedding.h"
#include "train/fused_feed_forward.h"
#include "train/fused_layer.h"
#include "train/fused_linear.h"
#include "train/kernels.h"

namespace spion {
namespace {

struct Job {
    KernelSource source;
    Target target;
};

std::string compile(const Job& job) {
    const auto& [source, target] = job;
    const std::string name = fmt::format("{} for {}", source.name, target.arch);
    const KernelBinary binary = compile_with_nvrtc({.entry = source.entry,
                                                    .text = source.text,
                                                    .includes = source.includes,
                                                    .arch = target.arch,
                                                    .features = target.features,
                                                    .options = nvrtc_options(),
                                                    .compiler = nvrtc_version()});
    if (binary.code.empty()) return name + ": no code";
    if (binary.registers == 0) return name + ": no register count in the log";
    if (binary.static_shared_bytes > 48 * 1024) return name + ": cannot be launched";
    if (binary.spill_bytes > 0) return fmt::format("{}: spills {}", name, binary.spill_bytes);
    if (binary.log.find(" 0 bytes gmem") == std::string::npos) {
        return fmt::format("{}: device variables, which constants must not be:\n{}", name,
                           binary.log);
    }
    return "";
}

void expect_all_compile(const std::vector<Job>& jobs) {
    std::atomic<std::size_t> next = 0;
    std::mutex mutex;
    const auto work = [&] {
        for (std::size_t i = next++; i < jobs.size(); i = next++) {
            std::string failure;
            try {
                failure = compile(jobs[i]);
            } catch (const std::exception& error) {
                failure = error.what();
            }
            const std::lock_guard lock(mutex);
            EXPECT_EQ(failure, "");
        }
    };
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) {
        threads.emplace_back(work);
    }
}

TEST(TrainNvrtc, EveryKernelCompilesWithoutSpills) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    const StepShape paper = {};
    const StepShape widest = {
        .channels = 1024, .feed_forward = 4096, .vocabulary = 512, .dropout = 0.1F};
    std::vector<Job> jobs;
    for (int i = 0; i < kStepKernels; ++i) {
        const auto kernel = static_cast<StepKernel>(i);
        for (const int capability : {80, 90, 120}) {
            const Target target = cuda_target(capability);
            jobs.push_back({step_kernel_source(kernel, paper, target), target});
        }
        jobs.push_back({step_kernel_source(kernel, {.dtype = DType::kFp16}, cuda_target(90)),
                        cuda_target(90)});
        // Some kernels are the same whatever the shape.
        const Target target = cuda_target(90);
        KernelSource wide = step_kernel_source(kernel, widest, target);
        if (wide.text == step_kernel_source(kernel, paper, target).text) continue;
        jobs.push_back({std::move(wide), target});
    }
    expect_all_compile(jobs);
}

// All shapes for which can_fuse says that there is a kernel.
TEST(TrainNvrtc, EveryFusedLinearCompilesWithoutSpills) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    std::vector<Job> jobs;
    for (const int capability : {80, 86, 90, 120}) {
        const Target target = cuda_target(capability);
        for (int out = 8; out <= 512; out += 8) {
            for (int in = 8; in <= 512; in += 8) {
                for (const bool gelu : {false, true}) {
                    const FusedLinearShape shape{
                        .out = out, .in = in, .gelu = gelu, .dropout = gelu ? 0.1F : 0.0F};
                    if (!can_fuse(shape, target)) continue;
                    jobs.push_back({fused_linear_source(shape, target), target});
                    if (capability != 90) continue;
                    FusedLinearShape half = shape;
                    half.dtype = DType::kFp16;
                    jobs.push_back({fused_linear_source(half, target), target});
                }
            }
        }
    }
    EXPECT_EQ(jobs.size(), 4U * (4 + 3) + 7);
    for (const int capability : {80, 90, 120}) {
        const Target target = cuda_target(capability);
        for (const auto& [channels, hidden] : {std::pair{64, 128}, {64, 256}, {128, 128}}) {
            const FusedFeedForwardShape shape{
                .channels = channels, .hidden = hidden, .dropout = 0.1F};
            if (!can_fuse(shape, target)) continue;
            jobs.push_back({fused_feed_forward_source(shape, target), target});
            FusedFeedForwardShape half = shape;
            half.dtype = DType::kFp16;
            jobs.push_back({fused_feed_forward_source(half, target), target});
        }
    }
    expect_all_compile(jobs);
}

TEST(TrainNvrtc, EveryFusedLayerCompilesWithoutSpills) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    const Target target = cuda_target(90);
    std::vector<Job> jobs;
    for (const int hidden : {64, 128}) {
        for (const DType dtype : {DType::kBf16, DType::kFp16}) {
            for (const float dropout : {0.0F, 0.1F}) {
                const FusedLayerShape shape{.hidden = hidden, .dropout = dropout, .dtype = dtype};
                ASSERT_TRUE(can_fuse(shape, target));
                for (int kernel = 0; kernel < kFusedLayerKernels; ++kernel) {
                    const auto which = static_cast<FusedLayerKernel>(kernel);
                    jobs.push_back({fused_layer_source(which, shape, target), target});
                }
            }
        }
    }
    expect_all_compile(jobs);
    EXPECT_FALSE(can_fuse(FusedLayerShape{.channels = 128}, target));
    EXPECT_FALSE(can_fuse(FusedLayerShape{.hidden = 256}, target));
    EXPECT_FALSE(can_fuse(FusedLayerShape{}, cuda_target(80)));
}

TEST(TrainNvrtc, EveryFusedEmbeddingCompilesWithoutSpills) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    std::vector<Job> jobs;
    for (const int capability : {80, 90, 120}) {
        const Target target = cuda_target(capability);
        for (const DType dtype : {DType::kBf16, DType::kFp16}) {
            for (const float dropout : {0.0F, 0.1F}) {
                const FusedEmbeddingShape shape{.dropout = dropout, .dtype = dtype};
                ASSERT_TRUE(can_fuse(shape, target));
                for (int kernel = 0; kernel < kFusedEmbeddingKernels; ++kernel) {
                    const auto which = static_cast<FusedEmbeddingKernel>(kernel);
                    jobs.push_back({fused_embedding_source(which, shape, target), target});
                }
            }
        }
    }
    expect_all_compile(jobs);
    EXPECT_TRUE(can_fuse(FusedEmbeddingShape{.vocabulary = 512}, cuda_target(90)));
    EXPECT_FALSE(can_fuse(FusedEmbeddingShape{.vocabulary = 1024}, cuda_target(90)));
    EXPECT_FALSE(can_fuse(FusedEmbeddingShape{.channels = 128}, cuda_target(90)));
}

TEST(TrainNvrtc, SaysWhenTheVocabularyDoesNotFit) {
    const StepShape shape = {.vocabulary = 50000};
    expect_error<UserError>(
        [&] { step_kernel_source(StepKernel::kEmbeddingBackward, shape, cuda_target(80)); },
        "a vocabulary of 50000 tokens is too large for the gradient of the embedding on sm_80, "
        "which has room for");
}

}  // namespace
}  // namespace spion
