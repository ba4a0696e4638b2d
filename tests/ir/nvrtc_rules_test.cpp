#include "ir/nvrtc_rules.h"

#include <gtest/gtest.h>

namespace spion {
namespace {

KernelKind spilling_kind() {
    return {.unit = MatrixUnit::kWgmma,
            .role = KernelRole::kKeyValueGradient,
            .head_dim = 64,
            .streamed_rows = 128,
            .packed = true};
}

TEST(NvrtcRules, RefuseAKindUpToARelease) {
    for (const CompilerRelease refused : {CompilerRelease{12, 4}, {12, 6}, {12, 8}, {12, 9}}) {
        EXPECT_EQ(why_nvrtc_refuses(refused, spilling_kind()),
                  "NVRTC " + to_text(refused) +
                      " spills registers of packed wgmma kernels of dK and dV with D=64 and 128 "
                      "streamed rows, and 13.0 does not");
    }
    for (const CompilerRelease good : {CompilerRelease{13, 0}, {13, 5}, {14, 0}, kNewestNvrtc}) {
        EXPECT_EQ(why_nvrtc_refuses(good, spilling_kind()), "") << to_text(good);
        EXPECT_TRUE(nvrtc_refusals(good).empty());
    }
    EXPECT_EQ(nvrtc_refusals({12, 9}),
              std::vector<std::string>{why_nvrtc_refuses({12, 9}, spilling_kind())});
    EXPECT_EQ(nvrtc_refusals({12, 8}).size(), 2U);
}

TEST(NvrtcRules, RefuseEveryTileOfARoleInOneRelease) {
    KernelKind kind{.unit = MatrixUnit::kWgmma, .role = KernelRole::kKeyValueGradient};
    for (const int head_dim : {32, 64, 128}) {
        kind.head_dim = head_dim;
        EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind),
                  "NVRTC 12.5 runs the products of wgmma kernels of dK and dV one after the other, "
                  "and 12.6 does not");
        EXPECT_EQ(why_nvrtc_refuses({12, 4}, kind), "");
        EXPECT_EQ(why_nvrtc_refuses({12, 6}, kind), "");
    }
    kind.role = KernelRole::kForward;
    EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind), "");
    kind.role = KernelRole::kGradients;
    EXPECT_EQ(
        why_nvrtc_refuses({12, 5}, kind),
        "NVRTC 12.5 runs the products of the fused backward one after the other, and 12.6 does "
        "not");
    EXPECT_EQ(why_nvrtc_refuses({12, 4}, kind), "");
    EXPECT_EQ(why_nvrtc_refuses({12, 6}, kind), "");
    kind = {.unit = MatrixUnit::kWgmma, .head_dim = 32, .stationary_rows = 128};
    EXPECT_EQ(
        why_nvrtc_refuses({12, 5}, kind),
        "NVRTC 12.5 runs the products of wgmma kernels of the forward pass one after the other "
        "where tiles of full patterns have D=32 and 128 rows or more, and 12.6 does not");
    EXPECT_EQ(why_nvrtc_refuses({12, 6}, kind), "");
    kind.stationary_rows = 64;
    EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind), "");
    kind = {.unit = MatrixUnit::kWgmma, .head_dim = 64, .stationary_rows = 256};
    EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind), "");
    EXPECT_EQ(nvrtc_refusals({12, 5}).size(), 5U);
    EXPECT_EQ(nvrtc_refusals({12, 6}).size(), 1U);
}

TEST(NvrtcRules, RefuseAKindOfOneTargetInOneRelease) {
    KernelKind kind{.compute_capability = 100,
                    .unit = MatrixUnit::kMmaSync,
                    .role = KernelRole::kForward,
                    .head_dim = 16,
                    .streamed_rows = 64};
    EXPECT_EQ(why_nvrtc_refuses({12, 8}, kind),
              "NVRTC 12.8 spills registers of mma.sync kernels of the forward pass for sm_100 with "
              "D=16 and 64 streamed rows or more, and 12.9 does not");
    EXPECT_EQ(why_nvrtc_refuses({12, 9}, kind), "");
    EXPECT_EQ(why_nvrtc_refuses({12, 6}, kind), "");
    kind.streamed_rows = 128;
    EXPECT_NE(why_nvrtc_refuses({12, 8}, kind), "");
    kind.streamed_rows = 32;
    EXPECT_EQ(why_nvrtc_refuses({12, 8}, kind), "");
    kind.streamed_rows = 64;
    kind.compute_capability = 120;
    EXPECT_EQ(why_nvrtc_refuses({12, 8}, kind), "");
}

TEST(NvrtcRules, RefuseDropoutUnderSpansInOneRelease) {
    for (const KernelRole role : {KernelRole::kForward, KernelRole::kQueryGradient}) {
        KernelKind kind{.unit = MatrixUnit::kWgmma, .role = role, .dropout = true, .spans = true};
        EXPECT_EQ(
            why_nvrtc_refuses({12, 5}, kind),
            "NVRTC 12.5 runs the products of wgmma kernels of the forward pass and of dQ one "
            "after the other where there is dropout under a mask of spans, and 12.6 does not");
        EXPECT_EQ(why_nvrtc_refuses({12, 4}, kind), "");
        EXPECT_EQ(why_nvrtc_refuses({12, 6}, kind), "");
        kind.spans = false;
        EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind), "");
        kind.spans = true;
        kind.dropout = false;
        EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind), "");
        kind.dropout = kind.packed = true;
        EXPECT_EQ(why_nvrtc_refuses({12, 5}, kind), "");
    }
}

TEST(NvrtcRules, KnowSinceWhenThereAreTargets) {
    for (const int capability : {80, 86, 89, 90}) {
        EXPECT_EQ(oldest_nvrtc_for(capability), kOldestNvrtc);
    }
    EXPECT_EQ(oldest_nvrtc_for(100), (CompilerRelease{12, 8}));
    EXPECT_EQ(oldest_nvrtc_for(120), (CompilerRelease{12, 8}));
    EXPECT_EQ(oldest_nvrtc_for(121), (CompilerRelease{12, 9}));
    EXPECT_EQ(oldest_nvrtc_for(150), kNewestNvrtc);
}

TEST(NvrtcRules, RefuseNoOtherKind) {
    const CompilerRelease release{12, 9};
    KernelKind kind = spilling_kind();
    kind.packed = false;
    EXPECT_EQ(why_nvrtc_refuses(release, kind), "");
    kind = spilling_kind();
    kind.streamed_rows = 64;
    EXPECT_EQ(why_nvrtc_refuses(release, kind), "");
    kind = spilling_kind();
    kind.head_dim = 32;
    EXPECT_EQ(why_nvrtc_refuses(release, kind), "");
    kind = spilling_kind();
    kind.role = KernelRole::kQueryGradient;
    EXPECT_EQ(why_nvrtc_refuses(release, kind), "");
    kind = spilling_kind();
    kind.unit = MatrixUnit::kMmaSync;
    EXPECT_EQ(why_nvrtc_refuses(release, kind), "");
}

TEST(NvrtcRules, GiveTheProducerWhatTwoReleasesNeedMore) {
    const KernelKind forward{.unit = MatrixUnit::kWgmma, .role = KernelRole::kForward};
    const KernelKind columns{.unit = MatrixUnit::kWgmma, .role = KernelRole::kKeyValueGradient};
    KernelKind packed = forward;
    packed.packed = true;
    KernelKind single = forward;
    single.unit = MatrixUnit::kMmaSync;
    for (const CompilerRelease release : {CompilerRelease{12, 5}, {12, 6}}) {
        EXPECT_EQ(more_producer_registers(release, forward), 8);
        EXPECT_EQ(more_producer_registers(release, packed), 16);
        EXPECT_EQ(more_producer_registers(release, columns), 0);
        EXPECT_EQ(more_producer_registers(release, single), 0);
    }
    for (const CompilerRelease release : {CompilerRelease{12, 4}, {12, 8}, {13, 0}, {13, 5}}) {
        EXPECT_EQ(more_producer_registers(release, forward), 0) << to_text(release);
        EXPECT_EQ(more_producer_registers(release, packed), 0);
    }
}

}  // namespace
}  // namespace spion
