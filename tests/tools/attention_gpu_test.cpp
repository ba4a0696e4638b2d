// The CUDA back end against the float64 reference.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <tuple>

#include "compiler/tile_candidates.h"
#include "tests/runtime/gpu_fixture.h"
#include "tests/support/environment.h"
#include "tests/support/seed.h"
#include "tests/tools/pick_attention.h"
#include "tools/attention_case.h"

namespace spion {
namespace {

template <typename Parameter>
class GpuCase : public GpuTest, public ::testing::WithParamInterface<Parameter> {
  protected:
    void expect_passes(const AttentionCase& problem) {
        const CaseReport report = check_case(problem, *device_, cache_);
        EXPECT_TRUE(report.passed()) << to_text(problem) << "\n"
                                     << problem.pattern.to_bits() << report.failures();
    }

    KernelCache cache_{std::nullopt};
};

const auto kDTypes = ::testing::Values(DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16);

using GpuAttention = GpuCase<std::tuple<DType, int>>;  // dtype, head dim

// Each block edge with one softmax kind, the kinds in turn; which one begins is up to the seed.
TEST_P(GpuAttention, EqualsTheReferenceOnRandomProblems) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    int kind = pick(random, 0, 1);
    for (const int block : {16, 32, 64, 128}) {
        kind = 1 - kind;
        expect_passes(pick_attention(random, dtype, head_dim, block,
                                     kind == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked));
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuAttention,
                         ::testing::Combine(kDTypes, ::testing::Values(16, 32, 48, 64, 80, 96, 128,
                                                                       160, 192, 256)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

class GpuWgmma : public GpuCase<std::tuple<DType, int>> {  // 16-bit dtype, head dim
  protected:
    TileShape pick_wgmma_tile(std::mt19937_64& random, const AttentionCase& problem,
                              KernelRole role) {
        std::vector<TileShape> shapes;
        for (const TileCandidate& candidate :
             tile_candidates(problem.attention, problem.pattern, role, device_->target(), 1)) {
            if (candidate.shape.wgmma && candidate.infeasible.empty()) {
                shapes.push_back(candidate.shape);
            }
        }
        return shapes.at(static_cast<std::size_t>(pick(random, 0, std::ssize(shapes) - 1)));
    }
};

// Any tile for wgmma, whatever the cost model prefers, tables passed and baked.
TEST_P(GpuWgmma, AnyTileEqualsTheReference) {
    if (!has_wgmma(device_->target())) {
        return;  // nothing to hold against the reference on this GPU
    }
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (int round = 0; round < 8; ++round) {
        const AttentionCase problem =
            pick_attention(random, dtype, head_dim, round % 2 == 0 ? 64 : 128,
                           round / 2 % 2 == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        CompileOptions options;
        options.tables = pick(random, 0, 1) == 0 ? Tables::kPassed : Tables::kBaked;
        std::string tiles;
        for (std::size_t role = 0; role < options.shapes.size(); ++role) {
            options.shapes[role] = pick_wgmma_tile(random, problem, static_cast<KernelRole>(role));
            tiles += fmt::format(" {}/{} x{}", options.shapes[role]->stationary_rows,
                                 options.shapes[role]->streamed_rows, options.shapes[role]->stages);
        }
        const CaseReport report = check_case(problem, *device_, cache_, options);
        EXPECT_TRUE(report.passed()) << to_text(problem) << " tiles" << tiles << "\n"
                                     << problem.pattern.to_bits() << report.failures();
    }
}

// Scores so far apart that the largest so far grows by more than 2^10 within a walk, again and
// again.
TEST_P(GpuWgmma, ScoresFarApartEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const int block : {64, 128}) {
        for (const SoftmaxKind softmax : {SoftmaxKind::kPrunedZero, SoftmaxKind::kMasked}) {
            const int blocks = 768 / block;
            std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks), 1);
            for (int i = 0; i < blocks; i += 2) {  // every other row has a pruned block
                bits[static_cast<std::size_t>(i * blocks + pick(random, 0, blocks - 1))] = 0;
            }
            AttentionCase problem = plain_attention(dtype, BlockPattern(768, block, bits));
            problem.attention.head_dim = head_dim;
            problem.attention.scale = 6 * default_scale(head_dim);
            problem.attention.softmax = softmax;
            problem.seed = random();
            expect_passes(problem);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuWgmma,
                         ::testing::Combine(::testing::Values(DType::kBf16, DType::kFp16),
                                            ::testing::Values(32, 64, 128)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

// mma.sync stays right where wgmma is the choice.
TEST_P(GpuWgmma, WithoutItTheOtherUnitEqualsTheReference) {
    const Environment without("SPION_WGMMA", "0");
    device_ = std::make_unique<CudaDevice>();
    EXPECT_FALSE(has_wgmma(device_->target()));
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const int block : {64, 128}) {
        expect_passes(pick_attention(random, dtype, head_dim, block, SoftmaxKind::kPrunedZero));
    }
}

using GpuAttentionCorners = GpuCase<DType>;

TEST_P(GpuAttentionCorners, EqualTheReference) {
    for (const AttentionCase& problem : corner_cases(GetParam())) {
        expect_passes(problem);
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuAttentionCorners, kDTypes,
                         [](const auto& tested) { return std::string(to_string(tested.param)); });

}  // namespace
}  // namespace spion
