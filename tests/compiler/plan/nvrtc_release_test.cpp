// What the release of NVRTC changes of a choice (ir/nvrtc_rules.h). Needs no NVRTC.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>

#include "codegen/cuda/wgmma_plan.h"
#include "codegen/emit.h"
#include "ir/error.h"
#include "ir/nvrtc_rules.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/support/expect_error.h"
#include "tests/support/lower_planned.h"

namespace spion {
namespace {

constexpr KernelRole kRole = KernelRole::kKeyValueGradient;
constexpr int kPackedRows = 4;
constexpr const char* kSentence =
    "NVRTC 12.9 spills registers of packed wgmma kernels of dK and dV with D=64 and 128 streamed "
    "rows, and 13.0 does not";

Target with_nvrtc(const CompilerRelease& release) {
    Target target = cuda_target(90);
    target.compiler = release;
    return target;
}

const Attention kAttention{.heads = 2,
                           .head_dim = 64,
                           .length = 1024,
                           .dtype = DType::kFp16,
                           .scale = default_scale(64),
                           .softmax = SoftmaxKind::kMasked};

TileProgram packed_program(const CompilerRelease& release) {
    LaunchOptions options;
    options.packed_rows = kPackedRows;
    return lower(kAttention, BlockPattern::full(1024, 16), kRole, with_nvrtc(release), options);
}

TEST(NvrtcRelease, AnotherTileIsTakenWhereOneIsRefused) {
    const TileProgram newer = packed_program({13, 0});
    EXPECT_EQ(newer.unit, MatrixUnit::kWgmma);
    EXPECT_EQ(newer.streamed_rows, 128);
    const TileProgram older = packed_program({12, 9});
    EXPECT_EQ(older.packed_rows(), kPackedRows);
    EXPECT_EQ(older.streamed_rows, 64);
    EXPECT_EQ(why_not_emitted(older, with_nvrtc({12, 9})), "");
}

// Where no wgmma tile of a role is left, mma.sync multiplies.
TEST(NvrtcRelease, MmaSyncIsTakenWhereWgmmaIsRefused) {
    const BlockPattern pattern = BlockPattern::full(1024, 64);
    for (const KernelRole role : {KernelRole::kForward, kRole}) {
        const auto unit = [&](const CompilerRelease& release) {
            return lower(kAttention, pattern, role, with_nvrtc(release)).unit;
        };
        EXPECT_EQ(unit({12, 6}), MatrixUnit::kWgmma);
        EXPECT_EQ(unit({12, 5}), role == kRole ? MatrixUnit::kMmaSync : MatrixUnit::kWgmma);
    }
    const std::string table = test::explain_launch(kAttention, pattern, kRole, with_nvrtc({12, 5}));
    EXPECT_NE(table.find(" cannot run: NVRTC 12.5 runs the products of wgmma kernels of "
                         "dK and dV one after the other, and 12.6 does not\n"),
              std::string::npos)
        << table;
    EXPECT_NE(table.find("measured to be good elsewhere, cannot run here; "), std::string::npos)
        << table;
}

// The fused backward's kernel is refused whole, so that dQ, dK and dV come from kernels of their own.
TEST(NvrtcRelease, TheSplitBackwardIsTakenWhereTheFusedOneIsRefused) {
    const BlockPattern pattern = BlockPattern::full(8192, 128);
    Attention attention = kAttention;
    attention.length = 8192;
    const auto roles = [&](const CompilerRelease& release, std::optional<LayerRoles> asked = {}) {
        const LayerPlan plan =
            plan_layer(attention, pattern, with_nvrtc(release), {.roles = asked});
        return std::array{plan.launches[1].role, plan.launches[2].role};
    };
    EXPECT_EQ(roles({12, 6}), (std::array{KernelRole::kDelta, KernelRole::kGradients}));
    EXPECT_EQ(roles({12, 5}), (std::array{KernelRole::kQueryGradient, kRole}));
    expect_error<UserError>(
        [&] {
            roles({12, 5}, kFusedBackwardRoles);
        },
        "NVRTC 12.5 runs the products of the fused backward one after the other, and 12.6 does "
        "not");
}

// The tile that was measured to be good is refused on one target.
TEST(NvrtcRelease, FewerRowsAreTakenOnOneTarget) {
    Attention attention = kAttention;
    attention.head_dim = 16;
    const auto tile = [&](int capability, const CompilerRelease& release) {
        Target target = cuda_target(capability);
        target.compiler = release;
        return test::Launch{attention, KernelRole::kForward, 64, target}.choose();
    };
    EXPECT_EQ(tile(100, {12, 9}).streamed_rows, 64);
    EXPECT_LT(tile(100, {12, 8}).streamed_rows, 64);
    EXPECT_EQ(tile(120, {12, 8}), tile(120, {12, 9}));
}

TEST(NvrtcRelease, TheReasonIsPrinted) {
    const BlockPattern pattern = BlockPattern::full(1024, 16);
    const auto table = [&](const CompilerRelease& release) {
        return test::explain_launch(kAttention, pattern, kRole, with_nvrtc(release), 8,
                                    kPackedRows);
    };
    EXPECT_NE(table({12, 9}).find(fmt::format("cannot run: {}\n", kSentence)), std::string::npos)
        << table({12, 9});
    EXPECT_EQ(table({13, 0}).find("NVRTC"), std::string::npos);
}

TEST(NvrtcRelease, AProgramWrittenByHandIsRefusedWithTheReason) {
    const TileProgram program = packed_program({13, 0});
    EXPECT_EQ(why_not_emitted(program, with_nvrtc({13, 0})), "");
    EXPECT_EQ(why_not_emitted(program, with_nvrtc({12, 9})),
              fmt::format("{}: take fewer streamed_rows, or another unit", kSentence));
    expect_error<UserError>([&] { emit(program, with_nvrtc({12, 9})); }, kSentence);
}

TEST(NvrtcRelease, TheProducerGetsWhatTwoReleasesNeed) {
    const auto plan = [](KernelRole role, bool packed, const CompilerRelease& release) {
        return plan_wgmma(role, 64, 64, 64, 3, 227 * 1024, release, packed);
    };
    for (const KernelRole role : {KernelRole::kForward, KernelRole::kQueryGradient}) {
        for (const bool packed : {false, true}) {
            const WgmmaPlan newest = plan(role, packed, kNewestNvrtc);
            for (const CompilerRelease release : {CompilerRelease{12, 5}, {12, 6}}) {
                const WgmmaPlan more = plan(role, packed, release);
                EXPECT_EQ(more.producer_registers, newest.producer_registers + (packed ? 16 : 8));
                EXPECT_GT(more.resident_blocks, 0);
            }
            EXPECT_EQ(plan(role, packed, {12, 4}), newest);
            EXPECT_EQ(plan(role, packed, {12, 8}), newest);
        }
    }
    EXPECT_EQ(plan(kRole, false, {12, 6}), plan(kRole, false, kNewestNvrtc));
}

}  // namespace
}  // namespace spion
