// The families of sm_90a against the float64 reference, whatever the cost model prefers.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "tests/compiler/plan/plan_of.h"
#include "tests/support/environment.h"
#include "tests/support/seed.h"
#include "tests/support/softmax_kinds.h"
#include "tests/tools/gpu_case.h"
#include "tests/tools/pick_attention.h"
#include "tools/oracle/random_pattern.h"

namespace spion {
namespace {

// Tiles of one unit of sm_90a's kernels, whatever the cost model prefers.
class GpuTiles : public GpuCase<std::tuple<DType, int>> {  // 16-bit dtype, head dim
  protected:
    // nullopt, the cost model's choice, for roles that `unit` multiplies no tile of.
    std::optional<TileShape> pick_tile(std::mt19937_64& random, const AttentionCase& problem,
                                       KernelRole role, MatrixUnit unit) {
        std::vector<TileShape> shapes;
        for (const TileCandidate& candidate :
             test::candidates_of(problem.attention, problem.pattern, role, device_->target(), 1)) {
            if (candidate.shape.unit == unit && candidate.plan.problem.empty()) {
                shapes.push_back(candidate.shape);
            }
        }
        if (shapes.empty()) {
            return std::nullopt;
        }
        return shapes[static_cast<std::size_t>(pick(random, 0, std::ssize(shapes) - 1))];
    }

    // Blocks of these edges, both softmax kinds, tables passed and baked.
    void expect_any_tile_passes(MatrixUnit unit, const std::vector<int>& blocks,
                                ElementMask mask = ElementMask::kNone, bool grouped = false,
                                bool changed = false) {
        const std::uint64_t seed = test::fresh_seed();
        SCOPED_TRACE(test::seed_note(seed));
        std::mt19937_64 random(seed);
        const auto [dtype, head_dim] = GetParam();
        const std::size_t rounds = 4 * blocks.size();
        std::size_t picked = 0;
        for (std::size_t round = 0; round < rounds; ++round) {
            const SoftmaxKind softmax =
                round / blocks.size() % 2 == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked;
            AttentionCase problem = with_mask(
                random,
                pick_attention(random, dtype, head_dim, blocks[round % blocks.size()], softmax),
                mask);
            if (grouped) {
                problem = with_grouped_heads(random, problem);
            }
            if (changed) {
                problem = with_changed_scores(random, problem);
            }
            CompileOptions options;
            options.tables = pick(random, 0, 1) == 0 ? Tables::kPassed : Tables::kBaked;
            std::string tiles;
            for (std::size_t role = 0; role < options.shapes.size(); ++role) {
                options.shapes[role] =
                    pick_tile(random, problem, static_cast<KernelRole>(role), unit);
                if (const auto& shape = options.shapes[role]) {
                    ++picked;
                    tiles += fmt::format(" {}/{} x{} of {}", shape->stationary_rows,
                                         shape->streamed_rows, shape->stages, shape->packed_rows);
                }
            }
            const CaseReport report = check_case(problem, *device_, cache_, options);
            EXPECT_TRUE(report.passed()) << to_text(problem) << " tiles" << tiles << "\n"
                                         << problem.pattern.front().to_bits() << report.failures();
        }
        EXPECT_GE(changed ? 2 * picked : picked, rounds);
    }
};

class GpuWgmma : public GpuTiles {};

// Blocks below 64 are packed.
TEST_P(GpuWgmma, AnyTileEqualsTheReference) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    expect_any_tile_passes(MatrixUnit::kWgmma, {16, 32, 64, 128});
}

// Tiles of the blocks into which full patterns are cut, and gradients summed together, of any length
// and number of keys; what is computed is the same bits every time.
TEST_P(GpuWgmma, AnyTileOfFullPatternsEqualsTheReference) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    int large = 0;
    for (int round = 0; round < 16; ++round) {
        const int block = 16 << round % 4;
        AttentionCase problem =
            with_other_keys(random, pick_attention(random, dtype, head_dim, block,
                                                   static_cast<SoftmaxKind>(round / 4 % 2)));
        problem.attention.length = pick(random, 1, 900);
        problem.pattern = BlockPattern::full(problem.attention.length,
                                             problem.attention.key_value_length(), block);
        CompileOptions options;
        options.tables = round < 12 ? Tables::kPassed : Tables::kBaked;
        if (round < 8 && head_dim > 32) {
            options.roles = kFusedBackwardRoles;
        }
        std::vector<TileShape> shapes;
        for (const TileCandidate& candidate :
             plan_launch(problem.attention, problem.pattern, KernelRole::kForward,
                         device_->target(), {.cut_full = true})
                 .candidates) {
            if (candidate.shape.stationary_rows > 128 && candidate.plan.problem.empty()) {
                shapes.push_back(candidate.shape);
            }
        }
        if (!shapes.empty()) {
            options.shapes[0] =
                shapes[static_cast<std::size_t>(pick(random, 0, std::ssize(shapes) - 1))];
            ++large;
        }
        const CaseReport report = check_case(problem, *device_, cache_, options);
        EXPECT_TRUE(report.passed()) << to_text(problem) << report.failures();
    }
    EXPECT_EQ(large, head_dim <= 64 ? 16 : 0);  // D = 128 has no registers for four warpgroups
}

TEST_P(GpuWgmma, AnyTileEqualsTheReferenceUnderMasks) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    for (const ElementMask mask : kMasks) {
        expect_any_tile_passes(MatrixUnit::kWgmma, {32, 64, 128}, mask);
    }
}

TEST_P(GpuWgmma, AnyTileEqualsTheReferenceWithGroupedHeads) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    for (const ElementMask mask : {ElementMask::kNone, ElementMask::kCausal}) {
        expect_any_tile_passes(MatrixUnit::kWgmma, {32, 64, 128}, mask, true);
    }
}

TEST_P(GpuWgmma, AnyTileEqualsTheReferenceWithChangedScores) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    for (const ElementMask mask : {ElementMask::kNone, ElementMask::kSpans}) {
        expect_any_tile_passes(MatrixUnit::kWgmma, {32, 64, 128}, mask, false, true);
    }
    expect_any_tile_passes(MatrixUnit::kWgmma, {64}, ElementMask::kNone, true, true);
}

// Scores so far apart that the largest so far grows by more than 2^10 within a walk, again and
// again.
TEST_P(GpuWgmma, ScoresFarApartEqualTheReference) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const int block : {64, 128}) {
        for (const SoftmaxKind softmax : test::softmax_kinds()) {
            const int blocks = 768 / block;
            const auto count = static_cast<std::size_t>(blocks);
            std::vector<std::uint8_t> bits(count * count, 1);
            for (int i = 0; i < blocks; i += 2) {  // every other row has a pruned block
                const int at = i * blocks + pick(random, 0, blocks - 1);
                bits[static_cast<std::size_t>(at)] = 0;
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

class GpuWarpItems : public GpuTiles {};

TEST_P(GpuWarpItems, AnyTileEqualsTheReference) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    expect_any_tile_passes(MatrixUnit::kMmaSyncTma, {16, 32});
}

TEST_P(GpuWarpItems, AnyTileEqualsTheReferenceUnderMasks) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    for (const ElementMask mask : kMasks) {
        expect_any_tile_passes(MatrixUnit::kMmaSyncTma, {16, 32}, mask);
    }
}

TEST_P(GpuWarpItems, AnyTileEqualsTheReferenceWithGroupedHeads) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    for (const ElementMask mask : {ElementMask::kNone, ElementMask::kSpans}) {
        expect_any_tile_passes(MatrixUnit::kMmaSyncTma, {16, 32}, mask, true);
    }
}

TEST_P(GpuWarpItems, AnyTileEqualsTheReferenceWithChangedScores) {
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    for (const ElementMask mask : {ElementMask::kNone, ElementMask::kCausal}) {
        expect_any_tile_passes(MatrixUnit::kMmaSyncTma, {16, 32}, mask, false, true);
    }
    expect_any_tile_passes(MatrixUnit::kMmaSyncTma, {32}, ElementMask::kNone, true, true);
}

INSTANTIATE_TEST_SUITE_P(All, GpuWarpItems,
                         ::testing::Combine(::testing::Values(DType::kBf16, DType::kFp16),
                                            ::testing::Values(32, 64)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

// mma.sync from thread blocks of one item stays right where sm_90a has other kernels.
TEST_P(GpuWgmma, WithoutItTheOtherUnitEqualsTheReference) {
    const Environment without("SPION_WGMMA", "0");
    device_ = std::make_unique<CudaDevice>();
    EXPECT_FALSE(device_->target().gpu.wgmma);
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const auto [dtype, head_dim] = GetParam();
    for (const int block : {32, 64, 128}) {
        expect_passes(pick_attention(random, dtype, head_dim, block, SoftmaxKind::kPrunedZero));
    }
}

// All gradients summed together, in the order of turns, whatever the cost model prefers.
class GpuFusedBackward : public GpuCase<std::tuple<DType, int>> {  // 16-bit dtype, head dim
  protected:
    void expect_fused(const AttentionCase& problem) {
        CompileOptions options;
        options.roles = kFusedBackwardRoles;
        const CaseReport report = check_case(problem, *device_, cache_, options);
        EXPECT_TRUE(report.passed()) << to_text(problem) << "\n"
                                     << problem.pattern.front().to_bits() << report.failures();
    }
};

TEST_P(GpuFusedBackward, EqualsTheReference) {
    const auto [dtype, head_dim] = GetParam();
    if (!device_->target().gpu.wgmma) {
        return;  // nothing to hold against the reference on this GPU
    }
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 8; ++round) {
        const AttentionCase problem =
            pick_attention(random, dtype, head_dim, 128,
                           round % 2 == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked);
        expect_fused(
            with_mask(random, problem, round < 4 ? ElementMask::kNone : ElementMask::kCausal));
    }
}

// Many thread blocks with shares in the same rows, under a full pattern, a random one, one with rows
// and columns that have nothing, and one with a block a row.
TEST_P(GpuFusedBackward, ManyThreadBlocksKeepTheirTurns) {
    const auto [dtype, head_dim] = GetParam();
    if (!device_->target().gpu.wgmma) {
        return;
    }
    constexpr std::int64_t kLength = 1500;
    std::vector<std::uint8_t> crossed(12 * 12, 0), diagonal = crossed;
    for (std::size_t i = 0; i < 12; ++i) {
        crossed[i * 12 + 3] = crossed[7 * 12 + i] = i % 5 != 0;
        diagonal[i * 12 + i] = 1;
    }
    for (const BlockPattern& pattern :
         {BlockPattern::full(kLength, 128), random_pattern(kLength, 128, 0.4, 3),
          BlockPattern(kLength, 128, crossed), BlockPattern(kLength, 128, diagonal)}) {
        expect_fused({.attention = {.heads = 6,
                                    .head_dim = head_dim,
                                    .length = kLength,
                                    .dtype = dtype,
                                    .scale = default_scale(head_dim),
                                    .key_padding = true},
                      .pattern = pattern,
                      .batch = 4,
                      .lengths = {kLength, 0, 700, 1499}});
    }
}

INSTANTIATE_TEST_SUITE_P(All, GpuFusedBackward,
                         ::testing::Combine(::testing::Values(DType::kBf16, DType::kFp16),
                                            ::testing::Values(64, 128)),
                         [](const auto& tested) {
                             return std::string(to_string(std::get<0>(tested.param))) + "_D" +
                                    std::to_string(std::get<1>(tested.param));
                         });

}  // namespace
}  // namespace spion
