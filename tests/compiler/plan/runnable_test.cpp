// Programs that verify and that no body, or not this target's, can run.
#include "codegen/emit.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "ir/error.h"
#include "ir/verify.h"
#include "tests/compiler/plan/tile_cases.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

TileProgram lowered(const Target& target, DType dtype, int block = 64) {
    const Attention attention{
        .heads = 2, .head_dim = 32, .length = 200, .dtype = dtype, .scale = 0.2F};
    return lower(attention, random_pattern(200, block, 0.5, 3), KernelRole::kForward, target);
}

// What a hand may change, and what is said of it.
struct Change {
    std::function<void(TileProgram&)> make;
    const char* reason;  // a part of it
};

void expect_reasons(const Target& target, DType dtype, const std::vector<Change>& changes) {
    ASSERT_EQ(why_not_emitted(lowered(target, dtype), target), "");
    for (const Change& change : changes) {
        TileProgram program = lowered(target, dtype);
        change.make(program);
        const std::string reason = why_not_emitted(program, target);
        EXPECT_NE(reason.find(change.reason), std::string::npos)
            << "without '" << change.reason << "': " << reason;
    }
}

#ifdef SPION_CUDA_BACKEND
TEST(Runnable, AGpuHasLimits) {
    constexpr int kMost = std::numeric_limits<int>::max();
    expect_reasons(
        cuda_target(86), DType::kBf16,
        {{[](TileProgram& p) { p.unit = MatrixUnit::kVector; }, "sm_86 has not: name target host"},
         {[](TileProgram& p) { p.unit = MatrixUnit::kFma; }, "kernels for unit=mma_sync"},
         {[](TileProgram& p) { p.warps = 1; }, "take 16 rows a warp and at most 8 warps"},
         {[](TileProgram& p) { p.gather_rows = 8; }, "take gather blocks of 16 rows"},
         {[](TileProgram& p) { p.streamed_rows = 3 * p.gather_rows; },
          "1, 2, 4, 8, 16 or 32 of them"},
         {[](TileProgram& p) { p.streamed_rows = 64 * p.gather_rows; }, "16 or 32 of them"},
         {[](TileProgram& p) { p.stages = 50; }, "bytes of shared memory, and sm_86 has 101376"},
         {[](TileProgram& p) { p.stages = kMost; }, "it needs more than "},
         {[](TileProgram& p) { p.stages = p.streamed_rows = p.gather_rows = 1 << 30; },
          "more than "}});
    expect_reasons(cuda_target(80), DType::kFp32,
                   {{[](TileProgram& p) { p.unit = MatrixUnit::kVector; }, "name target host"}});
}

// wgmma has it, packed or not, and a warp but in dK and dV; the fused backward has not.
TEST(Runnable, ABiasIsOfAllButTheFusedBackwardAndDkAndDvOfWarps) {
    const Target target = cuda_target(90);
    const Attention attention{.heads = 32,
                              .head_dim = 64,
                              .length = 4096,
                              .dtype = DType::kBf16,
                              .scale = 0.2F,
                              .relative_bias = 30};
    const auto lowered = [&](int block, KernelRole role) {
        return lower(attention, random_pattern(4096, block, 0.5, 3), role, target,
                     LaunchOptions{.packed_rows = 1});
    };
    for (const KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        EXPECT_EQ(lowered(64, role).unit, MatrixUnit::kWgmma);
        EXPECT_EQ(why_not_emitted(lowered(64, role), target), "");
        const LaunchOptions packed{.packed_rows = 2};
        const TileProgram of_rows =
            lower(attention, random_pattern(4096, 32, 0.5, 3), role, target, packed);
        EXPECT_EQ(of_rows.unit, MatrixUnit::kWgmma);
        EXPECT_EQ(why_not_emitted(of_rows, target), "");
    }
    EXPECT_EQ(lowered(32, KernelRole::kForward).unit, MatrixUnit::kMmaSyncTma);
    EXPECT_EQ(lowered(32, KernelRole::kQueryGradient).unit, MatrixUnit::kMmaSyncTma);
    TileProgram columns = lowered(32, KernelRole::kKeyValueGradient);
    EXPECT_NE(columns.unit, MatrixUnit::kMmaSyncTma);
    columns.unit = MatrixUnit::kMmaSyncTma;
    EXPECT_EQ(why_not_emitted(columns, target),
              "a warp has no registers for relative_bias in dK and dV: take unit=mma_sync");
    expect_error<UserError>([&] { lowered(128, KernelRole::kGradients); }, "relative_bias");
}

TEST(Runnable, ExpressionsOfScoresAreOfAllButTwo) {
    const Target target = cuda_target(90);
    Attention attention{
        .heads = 32, .head_dim = 64, .length = 4096, .dtype = DType::kBf16, .scale = 0.2F};
    const auto program_of = [&](int block, KernelRole role) {
        return lower(attention, random_pattern(4096, block, 0.5, 3), role, target,
                     LaunchOptions{.packed_rows = 1});
    };
    TileProgram fused = program_of(128, KernelRole::kGradients);
    TileProgram warp = program_of(32, KernelRole::kKeyValueGradient);
    EXPECT_EQ(warp.unit, MatrixUnit::kMmaSyncTma);
    attention.score = "score-0.1*log(1+fabs(q-k))";
    for (const KernelRole role :
         {KernelRole::kForward, KernelRole::kQueryGradient, KernelRole::kKeyValueGradient}) {
        EXPECT_EQ(program_of(128, role).unit, MatrixUnit::kWgmma);
    }
    EXPECT_EQ(program_of(32, KernelRole::kForward).unit, MatrixUnit::kMmaSyncTma);
    EXPECT_EQ(program_of(32, KernelRole::kQueryGradient).unit, MatrixUnit::kMmaSyncTma);
    EXPECT_NE(program_of(32, KernelRole::kKeyValueGradient).unit, MatrixUnit::kMmaSyncTma);
    fused.attention.score = warp.attention.score = attention.score;
    EXPECT_NE(why_not_emitted(fused, target).find("relative_bias or score expression"),
              std::string::npos);
    EXPECT_NE(why_not_emitted(warp, target)
                  .find("a warp has no registers for the slopes of softcap or a score expression "
                        "in dK and dV"),
              std::string::npos);
}
#endif

#ifdef SPION_HOST_BACKEND
TEST(Runnable, TheHostHasLimits) {
    expect_reasons(
        host_with(4), DType::kFp32,
        {{[](TileProgram& p) { p.unit = MatrixUnit::kFma; }, "the host has not: name a GPU"},
         {[](TileProgram& p) { p.stationary_rows = 8; }, "take 16, 32 or 64 on the host"},
         {[](TileProgram& p) { p.block = p.stationary_rows = 128; }, "or 64 on the host"},
         {[](TileProgram& p) { p.stationary_rows = 2 * (p.block = 128); }, "64 a block row on"},
         {[](TileProgram& p) { p.streamed_rows = 256; }, "take 128 at most on the host"},
         {[](TileProgram& p) { p.stages = 2; }, "warps=1 stages=2: take 1 and 1"},
         {[](TileProgram& p) { p.attention.dtype = DType::kBf16; }, "fp32"}});
}
#endif

int pick_of(std::mt19937_64& random, std::initializer_list<int> values) {
    return values.begin()[pick(random, 0, static_cast<int>(values.size()) - 1)];
}

// Whatever verifies is refused with a reason or can be emitted: it never becomes a fault of ours.
TEST(Runnable, WhatIsNotRefusedIsEmitted) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    int verified = 0, refused = 0;
    for (int round = 0; round < 30000; ++round) {
        Target target = pick_target(random);
#ifndef SPION_CUDA_BACKEND
        target = host_with(4);
#endif
#ifndef SPION_HOST_BACKEND
        target = pick_gpu(random);
#endif
        TileProgram program{.role = pick_role(random),
                            .attention = pick_attention(random, pick(random, 1, 300)),
                            .block = pick_of(random, {16, 32, 64, 128}),
                            .stationary_rows = pick_of(random, {1, 8, 16, 32, 48, 64, 128, 256}),
                            .gather_rows = pick_of(random, {1, 8, 16, 32, 48, 64, 128, 256}),
                            .warps = pick_of(random, {1, 1, 2, 3, 4, 8, 16}),
                            .stages = pick_of(random, {1, 1, 2, 4, 100}),
                            .unit = static_cast<MatrixUnit>(pick(random, 0, 3)),
                            .order = {},
                            .offsets = {0},
                            .gather_blocks = {}};
        program.streamed_rows = program.gather_rows * pick_of(random, {1, 2, 3, 4, 32, 64});
        const std::int64_t rows = program.stationary_rows;
        for (int tile = 0; tile * rows < program.attention.length; ++tile) {
            program.order.push_back(tile);
            program.offsets.push_back(0);
        }
        if (find_fault(program, nullptr, Completeness::kFinished)) {
            continue;
        }
        ++verified;
        if (!why_not_emitted(program, target).empty()) {
            ++refused;
            continue;
        }
        EXPECT_NO_THROW(emit(program, target)) << to_text(program);
        EXPECT_NO_THROW(predict(program, 1, target)) << to_text(program);
    }
    EXPECT_GT(verified, 100);
    EXPECT_GT(refused, 30);
    EXPECT_GT(verified - refused, 5);
}

}  // namespace
}  // namespace spion
