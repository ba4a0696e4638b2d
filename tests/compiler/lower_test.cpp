
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "codegen/emit.h"
#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/known_gpus.h"
#include "tests/support/lower_planned.h"
#include "tests/support/meetings.h"
#include "tests/support/random_case.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

constexpr std::array kRoles = {KernelRole::kForward, KernelRole::kQueryGradient,
                               KernelRole::kKeyValueGradient};
constexpr std::array kDTypes = {DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16};

Target host() {
    return Target{.back_end = BackEnd::kHost, .arch = "znver4", .features = "", .sm_count = 2};
}

Attention attention_for(const BlockPattern& pattern, int head_dim = 32,
                        DType dtype = DType::kBf16) {
    return Attention{.heads = 2,
                     .head_dim = head_dim,
                     .length = pattern.length(),
                     .dtype = dtype,
                     .scale = default_scale(head_dim)};
}

std::vector<Target> every_target() {
    std::vector<Target> targets = {host()};
    for (int capability : test::known_capabilities()) {
        targets.push_back(cuda_target(capability));
    }
    return targets;
}

TEST(Lower, CoversEveryElementOnce) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const std::vector<Target> targets = every_target();
    for (int round = 0; round < 80; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random), 5);
        const Target& target = targets[static_cast<std::size_t>(
            pick(random, 0, static_cast<int>(targets.size()) - 1))];
        const KernelRole role = kRoles[static_cast<std::size_t>(pick(random, 0, 2))];
        const TileProgram program =
            lower(attention_for(pattern, 16 << pick(random, 0, 3),
                                kDTypes[static_cast<std::size_t>(pick(random, 0, 3))]),
                  pattern, role, target);
        ASSERT_NO_THROW(verify(program, pattern)) << to_text(program);
        ASSERT_EQ(meetings(program), wanted_meetings(pattern, role)) << to_text(program);
    }
}

TEST(Lower, VerifiesOnEveryTargetRoleAndDtype) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    const LaunchOptions options{.verify_passes = VerifyPasses::kAfterEach};
    for (const Target& target : every_target()) {
        for (KernelRole role : kRoles) {
            for (DType dtype : kDTypes) {
                for (int head_dim : {16, 48, 64, 128, 192, 256}) {
                    for (int block : {16, 32, 64, 128}) {
                        const BlockPattern pattern = pick_pattern(random, block, 20);
                        const TileProgram program = lower(attention_for(pattern, head_dim, dtype),
                                                          pattern, role, target, options);
                        ASSERT_NO_THROW(verify(program, pattern)) << to_text(program);
                    }
                }
            }
        }
    }
}

TEST(Lower, FullAndEmptyPatterns) {
    for (std::int64_t length : {1, 63, 64, 65, 1000}) {
        for (KernelRole role : kRoles) {
            const BlockPattern full = BlockPattern::full(length, 64);
            const TileProgram dense = lower(attention_for(full), full, role, cuda_target(90));
            verify(dense, full);
            EXPECT_EQ(static_cast<std::int64_t>(dense.gather_blocks.size()),
                      dense.tiles() * ((length + dense.gather_rows - 1) / dense.gather_rows));
            const BlockPattern empty = BlockPattern::empty(length, 64);
            const TileProgram nothing = lower(attention_for(empty), empty, role, cuda_target(90));
            verify(nothing, empty);
            const int rows = nothing.stationary_rows;
            EXPECT_EQ(nothing.tiles(), (length + rows - 1) / rows);
            EXPECT_TRUE(nothing.gather_blocks.empty());
        }
    }
}

TEST(Lower, LongestFirstAndStable) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int round = 0; round < 40; ++round) {
        const BlockPattern pattern = pick_pattern(random, pick_block(random));
        const KernelRole role = kRoles[static_cast<std::size_t>(pick(random, 0, 2))];
        const TileProgram program = lower(attention_for(pattern), pattern, role, cuda_target(80));
        for (int item = 1; item < program.tiles(); ++item) {
            const int before = program.offsets[item] - program.offsets[item - 1];
            const int here = program.offsets[item + 1] - program.offsets[item];
            ASSERT_GE(before, here);
            if (before == here) {
                ASSERT_LT(program.order[item - 1], program.order[item]);
            }
        }
    }
}

TEST(Lower, WideBlocksBecomeSeveralTiles) {
    const BlockPattern pattern(300, 128, {1, 0, 1, 0, 0, 0, 0, 1, 1});
    Target target = cuda_target(90);
    target = without_features(target);
    const TileProgram program =
        lower(attention_for(pattern), pattern, KernelRole::kForward, target);
    EXPECT_EQ(to_text(program),
              "program role=attention_forward\n"
              "attention H=2 D=32 L=300 dtype=bf16 scale=0.17677669 softmax=pruned_zero "
              "key_padding=false dropout=0\n"
              "shape block=128 stationary_rows=64 streamed_rows=64 gather_rows=64 warps=4 stages=2 "
              "unit=mma_sync tables=passed\n"
              "walk tiles=5 gather_blocks=9 longest=3 empty=2 partial=3\n"
              "tile 0 irregular: 0 1 4~\n"
              "tile 1 irregular: 0 1 4~\n"
              "tile 4 band: 2 3 4~\n"
              "tile 2 empty:\n"
              "tile 3 empty:\n");
}

#ifdef SPION_CUDA_BACKEND
// What the emitter will ask for is within what was planned, so no launch fails for lack of it.
TEST(Lower, BoundsTheEmittersSharedMemory) {
    for (int capability : test::known_capabilities()) {
        const Target target = cuda_target(capability);
        for (KernelRole role : kRoles) {
            for (DType dtype : kDTypes) {
                for (int head_dim : {16, 48, 64, 128, 192, 256}) {
                    for (int block : {16, 32, 64, 128}) {
                        const BlockPattern pattern = BlockPattern::full(2 * block, block);
                        const TileProgram program =
                            lower(attention_for(pattern, head_dim, dtype), pattern, role, target);
                        const int asked = geometry(program, target).shared_bytes;
                        EXPECT_GT(asked, 0);
                        EXPECT_LE(asked, target.shared_bytes_per_block)
                            << to_text(program, false) << target.arch;
                    }
                }
            }
        }
    }
}
#endif

TEST(Lower, RefusesWhatDoesNotBelongTogether) {
    const BlockPattern pattern = BlockPattern::full(128, 32);
    Attention attention = attention_for(pattern);
    attention.length = 127;
    expect_error<UserError>(
        [&] { lower(attention, pattern, KernelRole::kForward, host()); },
        "the pattern is for length 128 and the attention for length 127: make them equal");
    attention = attention_for(pattern);
    attention.head_dim = 20;
    expect_error<UserError>([&] { lower(attention, pattern, KernelRole::kForward, host()); },
                            "head dimension 20 is not supported");
}

}  // namespace
}  // namespace spion
