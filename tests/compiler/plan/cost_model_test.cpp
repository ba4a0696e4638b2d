// The cost model against measured times, and the laws that it must keep on any pattern.
#include "compiler/plan/cost_model.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "codegen/emit.h"
#include "compiler/plan/tile_candidates.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/compiler/plan/tile_cases.h"
#include "tests/support/lower_planned.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

// A kernel that could run: pattern, operation, target and one of its shapes.
struct Case {
    BlockPattern pattern;
    Target target;
    KernelRole role;
    Attention attention;
    TileShape shape;

    KernelPlan plan() const {
        return test::Launch{attention, role, pattern.block(), target}.plan_of(shape);
    }
    double seconds(std::int64_t batch) const { return seconds_on(pattern, batch); }
    // With another pattern of the same length and block.
    double seconds_on(const BlockPattern& other, std::int64_t batch) const {
        return predict(lower(attention, other, role, target, shape), batch, target).seconds;
    }
};

Case pick_case(std::mt19937_64& random, const Target& target, int most_blocks) {
    const BlockPattern pattern = pick_pattern(random, pick_block(random), most_blocks);
    const KernelRole role = pick_role(random);
    Attention attention = pick_attention(random, pattern.length());
    if (target.back_end == BackEnd::kHost) {
        attention.dtype = DType::kFp32;
    }
    std::vector<TileShape> shapes;
    for (const TileCandidate& candidate :
         test::candidates_of(attention, pattern, role, target, 1)) {
        if (candidate.prediction) {
            shapes.push_back(candidate.shape);
        }
    }
    const int chosen = pick(random, 0, static_cast<int>(shapes.size()) - 1);
    return {.pattern = pattern,
            .target = target,
            .role = role,
            .attention = attention,
            .shape = shapes.at(static_cast<std::size_t>(chosen))};
}

// `rounds` random cases, given to check(case, random).
template <typename Check>
void on_random_cases(int rounds, int most_blocks, const Check& check) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < rounds; ++round) {
        check(pick_case(random, pick_target(random), most_blocks), random);
    }
}

TEST(CostModel, IsWithinAFactorOfTwoOfWhatWasMeasured) {
    for (const MeasuredCase& row : kMeasured) {
        SCOPED_TRACE(row.name);
        const BlockPattern pattern = row.pattern();
        const auto milliseconds = [&](KernelRole role) {
            return 1e3 * predict(lower(row.attention(), pattern, role, row.target()), row.batch,
                                 row.target())
                             .seconds;
        };
        const double forward = milliseconds(KernelRole::kForward);
        const double backward =
            milliseconds(KernelRole::kQueryGradient) + milliseconds(KernelRole::kKeyValueGradient);
        std::printf("%-13s forward %.4f / %.4f = %.2f   backward %.4f / %.4f = %.2f\n", row.name,
                    forward, row.forward_ms, forward / row.forward_ms, backward, row.backward_ms,
                    backward / row.backward_ms);
        EXPECT_LT(std::fabs(std::log2(forward / row.forward_ms)), 1) << forward;
        EXPECT_LT(std::fabs(std::log2(backward / row.backward_ms)), 1) << backward;
    }
}

TEST(CostModel, MoreBlocksNeverTakeLess) {
    on_random_cases(200, 20, [](const Case& c, std::mt19937_64& random) {
        const int batch = pick(random, 1, 300);
        const auto blocks = static_cast<std::size_t>(c.pattern.rows());
        std::vector<std::uint8_t> bits(blocks * blocks);
        for (std::size_t i = 0; i < bits.size(); ++i) {
            const bool had =
                c.pattern.at(static_cast<int>(i / blocks), static_cast<int>(i % blocks));
            bits[i] = had || pick(random, 0, 9) == 0 ? 1 : 0;
        }
        const BlockPattern after(c.pattern.length(), c.pattern.block(), bits);
        const double less = c.seconds(batch), more = c.seconds_on(after, batch);
        EXPECT_GT(less, 0);
        EXPECT_LE(less, more * (1 + 1e-12))
            << c.pattern.to_bits() << after.to_bits() << to_string(c.role) << c.target.arch << batch
            << " rows " << c.shape.stationary_rows << "/" << c.shape.streamed_rows;
    });
}

TEST(CostModel, AGreaterBatchNeverTakesLess) {
    on_random_cases(100, 20, [](const Case& c, std::mt19937_64& random) {
        double before = 0;
        for (std::int64_t batch = 1; batch < 5000; batch += 1 + batch * pick(random, 0, 2)) {
            const double now = c.seconds(batch);
            EXPECT_LE(before, now * (1 + 1e-12)) << "batch " << batch << " on " << c.target.arch;
            before = now;
        }
    });
}

TEST(CostModel, CountsTheWalkOfTheLoweredProgram) {
    on_random_cases(100, 12, [](const Case& c, std::mt19937_64& /*random*/) {
        const BlockPattern& pattern = c.pattern;
        const int columns = c.plan().columns;
        const int packed = c.shape.packed_rows;
        const StreamedRows rows = streamed_rows(pattern, c.role, packed);
        const WalkSummary walk = summarise(rows, c.shape, columns);
        EXPECT_EQ(walk, summarise(lower(c.attention, pattern, c.role, c.target, c.shape), columns))
            << pattern.to_bits();
        std::int64_t elements = 0;
        for (int row = 0; row < pattern.rows(); ++row) {
            elements += pattern.elements_in_row(row) * pattern.block_rows(row);
        }
        if (packed == 1 && pattern.length() % pattern.block() == 0) {
            EXPECT_EQ(walk.streamed * c.shape.stationary_rows, elements);
        }
    });
}

TEST(CostModel, CountsBytesAndWorkExactly) {
    // Two block rows of 64 with 1 and 2 blocks; B = 3, H = 2, D = 32, bf16: rows of 64 bytes.
    const BlockPattern pattern(128, 64, {1, 0, 1, 1});
    const Attention attention{
        .heads = 2, .head_dim = 32, .length = 128, .dtype = DType::kBf16, .scale = 1};
    const TileShape shape{64, 64, 64, 4, 2};
    const auto of = [&](KernelRole role) {
        return predict(lower(attention, pattern, role, cuda_target(90), shape), 3, cuda_target(90));
    };
    const Prediction forward = of(KernelRole::kForward);
    EXPECT_EQ(forward.memory_bytes, 6 * (128 * (4 * 64 + 4)));  // Q, K, V, O, LSE
    EXPECT_EQ(forward.cache_bytes, 6 * (128 * (2 * 64 + 4) + 192 * 2 * 64));
    EXPECT_EQ(forward.flop, 6 * 3 * 64 * 64 * 32 * 4);
    EXPECT_EQ(forward.exponentials, 6 * 3 * 64 * 64);
    EXPECT_DOUBLE_EQ(forward.waves, 12.0 / (132 * 4));
    const KernelPlan plan =
        test::Launch{attention, KernelRole::kForward, 64, cuda_target(90)}.plan_of(shape);
    EXPECT_EQ(plan.blocks, 4);
    EXPECT_DOUBLE_EQ(plan.occupancy, 0.25);
    EXPECT_EQ(of(KernelRole::kQueryGradient).memory_bytes, 6 * 128 * (6 * 64 + 8));
    EXPECT_EQ(of(KernelRole::kQueryGradient).flop, 1.5 * forward.flop);
    EXPECT_EQ(of(KernelRole::kKeyValueGradient).memory_bytes, 6 * 128 * (6 * 64 + 8));
    EXPECT_EQ(of(KernelRole::kKeyValueGradient).flop, 2 * forward.flop);
}

// dV, then dK: 5 products instead of 4, and everything that streams past does so twice.
TEST(CostModel, CountsBothWalksOfGradientsMadeApart) {
    const BlockPattern pattern(128, 64, {1, 0, 1, 1});
    const TileShape shape{64, 32, 32, 4, 2};
    const auto of = [&](int head_dim) {
        const Attention attention{
            .heads = 2, .head_dim = head_dim, .length = 128, .dtype = DType::kBf16, .scale = 1};
        return predict(
            lower(attention, pattern, KernelRole::kKeyValueGradient, cuda_target(90), shape), 3,
            cuda_target(90));
    };
    const Prediction together = of(160), apart = of(176);
    EXPECT_EQ(together.flop, 6 * 3 * 64 * 64 * 160 * 2 * 4);
    EXPECT_EQ(apart.flop, 6 * 3 * 64 * 64 * 176 * 2 * 5);
    EXPECT_EQ(apart.exponentials, 2 * together.exponentials);
    EXPECT_EQ(together.cache_bytes, 6 * (128 * (4 * 320 + 8) + 192 * 2 * 320));
    EXPECT_EQ(apart.cache_bytes, 6 * (128 * (4 * 352 + 8) + 2 * 192 * 2 * 352));
    EXPECT_EQ(apart.memory_bytes, 6 * (128 * (6 * 352 + 8)));  // the rest is in the cache
}

TEST(CostModel, ReadsAgainFromMemoryWhatTheCacheCannotHold) {
    // K and V of a head are 2 MB here; sm_86 has 6 MB of L2 and runs several heads at once.
    const BlockPattern pattern = BlockPattern::full(8192, 64);
    const Attention attention{
        .heads = 16, .head_dim = 64, .length = 8192, .dtype = DType::kBf16, .scale = 1};
    const auto bytes = [&](int capability) {
        return predict(lower(attention, pattern, KernelRole::kForward, cuda_target(capability)), 8,
                       cuda_target(capability))
            .memory_bytes;
    };
    EXPECT_EQ(bytes(90), bytes(89));
    EXPECT_EQ(bytes(90), 128.0 * 8192 * (4 * 128 + 4));
    Target many = cuda_target(86);
    many.sm_count = 1000;
    const TileProgram program = lower(attention, pattern, KernelRole::kForward, many);
    EXPECT_GT(predict(program, 8, many).memory_bytes, 2 * bytes(90));
}

TEST(CostModel, NamesWhatBinds) {
    const Attention attention{
        .heads = 2, .head_dim = 128, .length = 4096, .dtype = DType::kBf16, .scale = 1};
    const BlockPattern empty = BlockPattern::empty(4096, 64), full = BlockPattern::full(4096, 64);
    const auto bound = [&](const BlockPattern& pattern, std::int64_t batch, DType dtype) {
        Attention other = attention;
        other.dtype = dtype;
        return to_string(predict(lower(other, pattern, KernelRole::kForward, cuda_target(90)),
                                 batch, cuda_target(90))
                             .bound);
    };
    EXPECT_EQ(bound(empty, 1, DType::kBf16), "latency");
    EXPECT_EQ(bound(full, 64, DType::kFp32), "shared memory");
    EXPECT_EQ(bound(empty, 64, DType::kFp32), "memory");
}

#ifdef SPION_CUDA_BACKEND
TEST(CostModel, KnowsTheEmittersSharedMemory) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 100; ++round) {
        const Case c = pick_case(random, pick_gpu(random), 4);
        const TileProgram program = lower(c.attention, c.pattern, c.role, c.target, c.shape);
        EXPECT_EQ(c.plan().shared_bytes, geometry(program, c.target).shared_bytes);
    }
}
#endif

}  // namespace
}  // namespace spion
