// Every kind of CUDA kernel compiles for every architecture without spilling, within the shared
// memory of the device. Needs NVRTC, no GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <thread>
#include <vector>

#include "codegen/emit.h"
#include "compiler/plan/summary_tile.h"
#include "runtime/cuda/nvrtc.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/support/lower_planned.h"

namespace spion {
namespace {

struct Job {
    KernelSource source;
    EmittedGeometry geometry;
    Target target;
};

constexpr DType kTypes[] = {DType::kBf16, DType::kFp16, DType::kTf32, DType::kFp32};
constexpr int kHeadDims[] = {16, 32, 64, 128};
constexpr int kBlocks[] = {64, 32, 16, 128};
constexpr int kArchitectures[] = {80, 86, 89, 90, 100, 120};

// Varies what the loops of the callers do not: switches, block and length.
Attention attention_of(DType dtype, int head_dim, int variant) {
    return {.heads = 2,
            .head_dim = head_dim,
            .length = variant % 3 == 0 ? 1000 : 1024,
            .dtype = dtype,
            .scale = default_scale(head_dim),
            .softmax = variant % 2 == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked,
            .key_padding = variant / 2 % 2 == 0};
}

Job job_of(const TileProgram& program, const Target& target) {
    return {emit(program, target), geometry(program, target), target};
}

Job attention_job(DType dtype, int head_dim, KernelRole role, const Target& target, int variant) {
    const Attention attention = attention_of(dtype, head_dim, variant);
    const BlockPattern pattern = BlockPattern::full(attention.length, kBlocks[variant % 4]);
    return job_of(lower(attention, pattern, role, target), target);
}

Job summary_job(DType dtype, int head_dim, const Target& target, int variant) {
    const int block = kBlocks[variant % 4];
    const Attention attention = attention_of(dtype, head_dim, variant);
    const ScoreSummaryProgram program{.attention = attention,
                                      .block = block,
                                      .filter = variant % 2 == 0 ? 31 : 1,
                                      .tile = choose_summary_tile(attention, block, target)};
    return {emit(program, target), geometry(program, target), target};
}

void check_compiled(const Job& job) {
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
void compile_all(const std::vector<Job>& jobs) {
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

constexpr KernelRole kRoles[] = {KernelRole::kForward, KernelRole::kQueryGradient,
                                 KernelRole::kKeyValueGradient};

class CudaCompile : public testing::TestWithParam<int> {
  protected:
    void SetUp() override {
        if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    }
};

// sm_90a gets every element type and head dimension, the others a third each, so that sm_80, 86 and
// 89 see all between them; with SPION_TEST_ALL set, every architecture gets everything.
TEST_P(CudaCompile, AttentionHasNoSpills) {
    const Target target = cuda_target(GetParam());
    const auto* place = std::find(std::begin(kArchitectures), std::end(kArchitectures), GetParam());
    const auto third = static_cast<int>(place - std::begin(kArchitectures)) % 3;
    const bool all = GetParam() == 90 || std::getenv("SPION_TEST_ALL") != nullptr;
    std::vector<Job> jobs;
    int variant = GetParam();
    for (int type = 0; type < 4; ++type) {
        for (int dim = 0; dim < 4; ++dim) {
            for (KernelRole role : kRoles) {
                ++variant;
                if (!all && (type + dim) % 3 != third) continue;
                jobs.push_back(attention_job(kTypes[type], kHeadDims[dim], role, target, variant));
            }
        }
    }
    compile_all(jobs);
}

// Full patterns in 16-bit types: every tile that can run and that `wanted` takes.
std::vector<Job> tile_jobs(std::initializer_list<int> head_dims, std::initializer_list<int> blocks,
                           const Target& target,
                           const std::function<bool(int block, const TileShape&)>& wanted) {
    std::vector<Job> jobs;
    int variant = 0;
    for (const int dim : head_dims) {
        for (const int block : blocks) {
            for (const KernelRole role : kRoles) {
                ++variant;
                const Attention attention =
                    attention_of(variant % 2 == 0 ? DType::kBf16 : DType::kFp16, dim, variant);
                const BlockPattern pattern = BlockPattern::full(attention.length, block);
                for (const TileCandidate& candidate :
                     test::candidates_of(attention, pattern, role, target, 4)) {
                    if (candidate.plan.problem.empty() && wanted(block, candidate.shape)) {
                        jobs.push_back(job_of(
                            lower(attention, pattern, role, target, candidate.shape), target));
                    }
                }
            }
        }
    }
    return jobs;
}

// Every tile for wgmma that the plan lets through; stages change addresses only, and blocks of 128
// in tiles of 64 by 64 rows are those of 64. Blocks up to 32 are packed.
TEST_P(CudaCompile, WgmmaHasNoSpillsAndIsNotSerialised) {
    const Target target = cuda_target(GetParam());
    if (!target.gpu.wgmma) return;
    const std::vector<Job> jobs =
        tile_jobs({32, 64, 128}, {16, 32, 64, 128}, target, [](int block, const TileShape& shape) {
            const bool as_of_64 =
                block == 128 && shape.stationary_rows == 64 && shape.streamed_rows == 64;
            return shape.unit == MatrixUnit::kWgmma && (shape.stages == 2 || block < 64) &&
                   !as_of_64;
        });
    EXPECT_GT(jobs.size(), 20U);
    compile_all(jobs);
}

TEST_P(CudaCompile, GradientsTogetherHaveNoSpillsAndAreNotSerialised) {
    const Target target = cuda_target(GetParam());
    if (!target.gpu.wgmma) return;
    std::vector<Job> jobs;
    for (int variant = 0; variant < 8; ++variant) {  // dtype, padding and softmax vary with it
        const Attention attention = attention_of(variant < 4 ? DType::kBf16 : DType::kFp16,
                                                 variant % 2 == 0 ? 64 : 128, variant / 2);
        const BlockPattern pattern = BlockPattern::full(attention.length, 128);
        for (const KernelRole role : {KernelRole::kDelta, KernelRole::kGradients}) {
            jobs.push_back(job_of(lower(attention, pattern, role, target), target));
        }
    }
    compile_all(jobs);
}

// Every tile that a warp can have for itself; stages change addresses only.
TEST_P(CudaCompile, WarpItemsHaveNoSpills) {
    const Target target = cuda_target(GetParam());
    if (!target.gpu.wgmma) return;
    const std::vector<Job> jobs =
        tile_jobs({32, 64}, {16, 32}, target, [](int /*block*/, const TileShape& shape) {
            return shape.unit == MatrixUnit::kMmaWarp && shape.stages <= 3;
        });
    EXPECT_EQ(jobs.size(), 14U);
    compile_all(jobs);
}

// The head dimensions between: every kernel in a 16-bit type and one of them in a 4-byte type,
// spread over sm_80, 86, 90a and 120; with SPION_TEST_ALL set, everything everywhere.
TEST_P(CudaCompile, EveryOtherHeadDimensionHasNoSpills) {
    constexpr int kFewArchitectures[] = {80, 86, 90, 120};
    const auto* place =
        std::find(std::begin(kFewArchitectures), std::end(kFewArchitectures), GetParam());
    const bool all = std::getenv("SPION_TEST_ALL") != nullptr;
    if (!all && place == std::end(kFewArchitectures)) return;
    const auto quarter = static_cast<int>(place - std::begin(kFewArchitectures));
    const Target target = cuda_target(GetParam());
    std::vector<Job> jobs;
    for (int head_dim = 16; head_dim <= kMaxHeadDim; head_dim += 16) {
        if (std::count(std::begin(kHeadDims), std::end(kHeadDims), head_dim) > 0) continue;
        const int step = head_dim / 16;
        for (int type = 0; type < 4; ++type) {
            for (int role = 0; role < 4; ++role) {
                const int variant = GetParam() + step + type + role;
                const bool mine =
                    type < 2 ? (step + type + role) % 4 == quarter && type == step % 2
                             : role == step / 4 && type == 2 + step % 2 && step % 4 == quarter;
                if (!all && !mine) continue;
                jobs.push_back(role == 3 ? summary_job(kTypes[type], head_dim, target, variant)
                                         : attention_job(kTypes[type], head_dim, kRoles[role],
                                                         target, variant));
            }
        }
    }
    EXPECT_GE(jobs.size(), 12U);
    compile_all(jobs);
}

TEST_P(CudaCompile, ScoreSummaryHasNoSpills) {
    const Target target = cuda_target(GetParam());
    std::vector<Job> jobs;
    for (int i = 0; i < 4; ++i) {
        jobs.push_back(summary_job(kTypes[i], kHeadDims[(i + GetParam()) % 4], target, i));
    }
    compile_all(jobs);
}

// Tier 1, with rows of one length (constant trip counts) and of several.
TEST_P(CudaCompile, BakedAttentionHasNoSpills) {
    if (GetParam() != 80 && GetParam() != 90 && GetParam() != 120) return;
    const Target target = cuda_target(GetParam());
    std::vector<Job> jobs;
    int variant = GetParam();
    for (const int dim : kHeadDims) {
        for (KernelRole role : kRoles) {
            const DType dtype = kTypes[variant % 4];
            Attention attention = attention_of(dtype, dim, variant);
            const int block = kBlocks[variant++ % 4];
            const bool uniform = variant % 2 == 0;
            if (uniform) attention.length = 1024;  // no ragged edge
            const auto blocks = static_cast<int>((attention.length + block - 1) / block);
            std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks));
            for (int i = 0; i < blocks; ++i) {
                for (int j = 0; j < (uniform ? 3 : 1 + i % 5); ++j) {
                    bits[static_cast<std::size_t>(i * blocks + (i + j) % blocks)] = 1;
                }
            }
            attention.key_padding = attention.key_padding && !uniform;
            LaunchOptions options;
            options.tables = Tables::kBaked;
            const BlockPattern pattern(attention.length, block, std::move(bits));
            jobs.push_back(job_of(lower(attention, pattern, role, target, options), target));
            EXPECT_EQ(jobs.back().source.text.find("kSteps = -1") == std::string::npos, uniform);
        }
    }
    compile_all(jobs);
}

// A pattern whose neighbouring block rows share blocks.
BlockPattern shared_pattern(std::int64_t length, int block) {
    const auto blocks = static_cast<int>((length + block - 1) / block);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks));
    for (int i = 0; i < blocks; ++i) {
        bits[static_cast<std::size_t>(i * blocks + i)] = 1;
        bits[static_cast<std::size_t>(i * blocks + i / 4)] = 1;
    }
    return BlockPattern(length, block, std::move(bits));
}

// Packed tiles of single warps, with tables and baked: every role and head dimension with one
// number of block rows and one element type; with SPION_TEST_ALL set, every one.
TEST_P(CudaCompile, PackedAttentionHasNoSpills) {
    if (GetParam() != 80 && GetParam() != 90 && GetParam() != 120) return;
    const bool all = std::getenv("SPION_TEST_ALL") != nullptr;
    constexpr std::array<std::array<int, 2>, 6> kPackings = {
        {{16, 2}, {32, 2}, {16, 4}, {64, 2}, {32, 4}, {16, 8}}};  // block, block rows
    const Target target = cuda_target(GetParam());
    std::vector<Job> jobs;
    int variant = GetParam();
    for (int dim = 16; dim <= 128; dim += 16) {
        for (std::size_t one = 0; one < std::size(kRoles) * kPackings.size() * 4; ++one) {
            const KernelRole role = kRoles[one % 3];
            if (!all && one >= std::size(kRoles)) break;
            const auto [block, rows] = kPackings[all ? one / 3 % 6 : variant % 6];
            const Attention attention =
                attention_of(kTypes[all ? one / 18 : variant / 6 % 4], dim, variant);
            const BlockPattern pattern = shared_pattern(attention.length, block);
            const auto candidates = test::candidates_of(attention, pattern, role, target, 4, rows);
            const auto place =
                std::find_if(candidates.begin(), candidates.end(), [&](const TileCandidate& c) {
                    return c.shape.packed_rows == rows && c.shape.unit != MatrixUnit::kWgmma &&
                           c.prediction;
                });
            variant += 5;
            if (place == candidates.end()) continue;
            LaunchOptions options;
            options.shape = place->shape;
            options.tables = variant % 3 == 0 ? Tables::kBaked : Tables::kPassed;
            jobs.push_back(job_of(lower(attention, pattern, role, target, options), target));
            EXPECT_NE(jobs.back().source.text.find(fmt::format("SPION_PACKED_ROWS {}", rows)),
                      std::string::npos);
        }
    }
    EXPECT_GE(jobs.size(), 18U);
    compile_all(jobs);
}

std::string arch_name(const testing::TestParamInfo<int>& info) {
    return "sm_" + std::to_string(info.param);
}

INSTANTIATE_TEST_SUITE_P(Architectures, CudaCompile, testing::ValuesIn(kArchitectures), arch_name);

}  // namespace
}  // namespace spion
