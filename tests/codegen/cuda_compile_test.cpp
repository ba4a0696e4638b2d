// Every kind of CUDA kernel compiles for every architecture without spilling, within the shared
// memory of the device. Needs NVRTC, no GPU. With SPION_TEST_ALL set, every kernel of every kind.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "runtime/cuda/nvrtc.h"
#include "tests/codegen/compile_jobs.h"
#include "tests/support/known_gpus.h"

namespace spion {
namespace {

using test::CompileJob;
using test::CompileJobs;

void check_compiled(const CompileJob& job) {
    const KernelBinary binary = compile_with_nvrtc({.entry = job.source.entry,
                                                    .text = job.source.text,
                                                    .includes = job.source.includes,
                                                    .arch = job.target.arch,
                                                    .features = "",
                                                    .options = nvrtc_options(),
                                                    .compiler = nvrtc_version()});
    EXPECT_FALSE(binary.code.empty());
    EXPECT_GT(binary.registers, 0) << binary.log;
    EXPECT_EQ(binary.spill_bytes, 0) << binary.log;
    const bool has_tables = job.source.text.find("SPION_BAKED_TABLES") != std::string::npos;
    EXPECT_EQ(binary.log.find(" 0 bytes gmem") == std::string::npos, has_tables) << binary.log;
    EXPECT_LE(binary.registers * job.geometry.threads, 65536);
    EXPECT_LE(binary.static_shared_bytes + job.geometry.shared_bytes,
              job.target.shared_bytes_per_block);
    EXPECT_EQ(binary.log.find("warning"), std::string::npos) << binary.log;
    if (std::getenv("SPION_TEST_VERBOSE") != nullptr) {
        std::printf("%s for %s: %d registers, %.0f ms\n", job.source.name.c_str(),
                    job.target.arch.c_str(), binary.registers, binary.compile_ms);
    }
}

// Compiles the jobs on two threads and checks each.
void compile_all(const CompileJobs& jobs) {
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t i = next++; i < jobs.size(); i = next++) {
            SCOPED_TRACE(jobs[i].source.name + " for " + jobs[i].target.arch + "\n" +
                         jobs[i].source.text);
            try {
                check_compiled(jobs[i]);
            } catch (const std::exception& error) {
                ADD_FAILURE() << error.what();
            }
        }
    };
    std::vector<std::jthread> threads;
    for (int i = 0; i < 2; ++i) threads.emplace_back(work);
}

class CudaCompile : public testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
        target = cuda_target(GetParam());
        if (const auto problem = nvrtc_problem(target.arch)) GTEST_SKIP() << *problem;
        target.compiler = nvrtc_release(target.arch);
    }
    Target target;
    const bool all = std::getenv("SPION_TEST_ALL") != nullptr;
};

TEST_P(CudaCompile, AttentionHasNoSpills) {
    compile_all(test::chosen_jobs(target, all));
}

TEST_P(CudaCompile, SpecialUnitsHaveNoSpillsAndAreNotSerialised) {
    std::map<MatrixUnit, std::size_t> counts;
    CompileJobs jobs;
    for (const MatrixUnit unit : kMatrixUnits) {
        if (!test::is_special(unit)) continue;
        const CompileJobs tiles = test::unit_jobs(unit, target);
        counts[unit] = tiles.size();
        jobs.insert(jobs.end(), tiles.begin(), tiles.end());
    }
    if (target.gpu.wgmma && target.compiler.major >= 13) {
        EXPECT_GT(counts[MatrixUnit::kWgmma], 20U);
        EXPECT_GE(counts[MatrixUnit::kMmaSyncTma], 7U);
    }
    compile_all(jobs);
}

TEST_P(CudaCompile, GradientsTogetherHaveNoSpillsAndAreNotSerialised) {
    compile_all(test::fused_backward_jobs(target));
}

TEST_P(CudaCompile, EveryOtherHeadDimensionHasNoSpills) {
    const CompileJobs jobs = test::other_dimension_jobs(target, all);
    if (GetParam() == 80 || GetParam() == 86 || GetParam() == 90 || GetParam() == 120) {
        EXPECT_GE(jobs.size(), 12U);
    }
    compile_all(jobs);
}

TEST_P(CudaCompile, PaddedDimensionsHaveNoSpills) {
    const CompileJobs jobs = test::padded_jobs(target);
    if (GetParam() == 80 || GetParam() == 90) {
        EXPECT_GE(jobs.size(), 36U);
    }
    for (const CompileJob& job : jobs) {
        const bool padded = job.source.text.find("kHeadDim = 128 }") == std::string::npos ||
                            job.source.text.find("kKeyDim = 128 }") == std::string::npos;
        EXPECT_TRUE(padded) << job.source.text;
    }
    compile_all(jobs);
}

// Sums of D = 80 in tiles of 128 columns.
TEST(CudaCompilePadded, SumsAreMultipliedAsWideAsD) {
    const Target target = cuda_target(90);
    if (const auto problem = nvrtc_problem(target.arch)) GTEST_SKIP() << *problem;
    int found = 0;
    for (const CompileJob& job : test::padded_jobs(target)) {
        const std::string& text = job.source.text;
        if (text.find("sm90/wgmma") == std::string::npos ||
            text.find("kKeyDim = 80 }") == std::string::npos ||
            job.source.entry == "attention_delta") {
            continue;
        }
        std::string ptx;
        compile_with_nvrtc({.entry = job.source.entry,
                            .text = text,
                            .includes = job.source.includes,
                            .arch = target.arch,
                            .features = "",
                            .options = nvrtc_options(),
                            .compiler = nvrtc_version()},
                           &ptx);
        EXPECT_NE(ptx.find("m64n80k16"), std::string::npos) << text;
        ++found;
    }
    EXPECT_GE(found, 4);
}

TEST_P(CudaCompile, ScoreSummaryHasNoSpills) {
    compile_all(test::summary_jobs(target));
}

TEST_P(CudaCompile, BakedAttentionHasNoSpills) {
    const CompileJobs jobs = test::baked_jobs(target);
    int constant_steps = 0;
    for (const CompileJob& job : jobs) {
        constant_steps += job.source.text.find("kSteps = -1 }") == std::string::npos ? 1 : 0;
    }
    EXPECT_EQ(2 * constant_steps, static_cast<int>(jobs.size()));
    compile_all(jobs);
}

TEST_P(CudaCompile, MaskedAttentionHasNoSpills) {
    const CompileJobs jobs = test::masked_jobs(target);
    if (GetParam() == 80 || GetParam() == 90 || GetParam() == 120) {
        EXPECT_GE(jobs.size(), 48U);
    }
    for (const CompileJob& job : jobs) {
        EXPECT_EQ(job.source.text.find("kMask = 0 "), std::string::npos);
    }
    compile_all(jobs);
}

TEST_P(CudaCompile, ChangedScoresHaveNoSpills) {
    const CompileJobs jobs = test::changed_jobs(target, false);
    if (GetParam() == 80 || GetParam() == 90 || GetParam() == 120) {
        EXPECT_GE(jobs.size(), 48U);
    }
    compile_all(jobs);
}

TEST_P(CudaCompile, ExpressionsOfScoresHaveNoSpills) {
    const CompileJobs jobs = test::changed_jobs(target, true);
    if (GetParam() == 80 || GetParam() == 90 || GetParam() == 120) {
        EXPECT_GE(jobs.size(), 48U);
    }
    for (const CompileJob& job : jobs) {
        EXPECT_NE(job.source.text.find("#define SPION_SCORE_EXPRESSION "), std::string::npos);
    }
    compile_all(jobs);
}

TEST_P(CudaCompile, PackedAttentionHasNoSpills) {
    const CompileJobs jobs = test::packed_jobs(target, all);
    if (GetParam() == 80 || GetParam() == 90 || GetParam() == 120) {
        EXPECT_GE(jobs.size(), 18U);
    }
    for (const CompileJob& job : jobs) {
        EXPECT_NE(job.source.text.find("#define SPION_PACKED_ROWS "), std::string::npos);
    }
    compile_all(jobs);
}

std::string arch_name(const testing::TestParamInfo<int>& info) {
    return "sm_" + std::to_string(info.param);
}

INSTANTIATE_TEST_SUITE_P(Architectures, CudaCompile, testing::ValuesIn(test::known_capabilities()),
                         arch_name);

}  // namespace
}  // namespace spion
