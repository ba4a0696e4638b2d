#include "ir/target.h"

#include <gtest/gtest.h>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

TEST(Target, KnownGpus) {
    struct Row {
        int capability;
        const char* arch;
        int shared_bytes;
    };
    for (const Row& row :
         {Row{80, "sm_80", 166912}, Row{86, "sm_86", 101376}, Row{89, "sm_89", 101376},
          Row{90, "sm_90a", 232448}, Row{100, "sm_100", 232448}, Row{120, "sm_120", 101376}}) {
        const Target target = cuda_target(row.capability);
        EXPECT_EQ(target.back_end, BackEnd::kCuda);
        EXPECT_EQ(target.arch, row.arch);
        EXPECT_EQ(target.features, "");
        EXPECT_EQ(target.compute_capability, row.capability);
        EXPECT_EQ(target.shared_bytes_per_block, row.shared_bytes);
        EXPECT_EQ(target.compiler, kNewestNvrtc);
        EXPECT_GT(target.sm_count, 80);
    }
    EXPECT_EQ(cuda_target(80).sm_count, 108);
    EXPECT_EQ(cuda_target(90).sm_count, 132);
}

TEST(Target, CompilersAreOrderedByTheirReleases) {
    const auto release = [](int major, int minor) { return CompilerRelease{major, minor}; };
    EXPECT_LT(release(12, 9), release(13, 0));
    EXPECT_LT(release(12, 4), release(12, 10));
    EXPECT_EQ(release(12, 4), release(12, 4));
    EXPECT_GT(kNewestNvrtc, release(13, 0));
}

TEST(Target, FeaturesAreThoseOfTheArchitecture) {
    EXPECT_EQ(cuda_target(90).gpu, (GpuFeatures{.tma = true, .wgmma = true}));
    for (const int capability : {80, 86, 89, 100, 120}) {
        EXPECT_EQ(cuda_target(capability).gpu, GpuFeatures{}) << capability;
    }
    const Target plain = without_features(cuda_target(90));
    EXPECT_EQ(plain.arch, "sm_90");
    EXPECT_EQ(plain.gpu, GpuFeatures{});
    EXPECT_EQ(plain.shared_bytes_per_block, cuda_target(90).shared_bytes_per_block);
    EXPECT_EQ(features_of("sm_90a"), cuda_target(90).gpu);
    EXPECT_EQ(features_of("sm_90"), GpuFeatures{});
    EXPECT_EQ(features_of("znver4"), GpuFeatures{});
}

TEST(Card, ChangesTheRatesOfItsTarget) {
    Target target = cuda_target(90);
    const Rates h200 = rates_of(target);
    target.card = card_named("h200", target);
    EXPECT_EQ(rates_of(target).memory_bytes, h200.memory_bytes);
    EXPECT_EQ(rates_of(target).clock, h200.clock);
    target.card = card_named("h100", target);
    EXPECT_LT(rates_of(target).memory_bytes, 0.75 * h200.memory_bytes);
    EXPECT_EQ(rates_of(target).cache_bytes, h200.cache_bytes);
    EXPECT_EQ(rates_of(target).wgmma_flop, h200.wgmma_flop);
    expect_error<UserError>([&] { card_named("h300", target); },
                            "card 'h300' is not known: use h100 or h200");
    expect_error<UserError>([] { card_named("h100", cuda_target(80)); },
                            "card h100 is no sm_80: give it with target sm_90a");
}

TEST(Card, IsToldByItsMemorysBandwidth) {
    // Clocks and buses as data sheets have them: 2619 MHz and 5120 bits, 3201 MHz and 6144 bits.
    const CardAttributes h100{.clock_khz = 1980000,
                              .memory_clock_khz = 2619000,
                              .memory_bus_bits = 5120,
                              .l2_bytes = 50 << 20};
    CardAttributes h200 = h100;
    h200.memory_clock_khz = 3201000;
    h200.memory_bus_bits = 6144;
    EXPECT_EQ(card_of(90, h100), card_named("h100", cuda_target(90)));
    EXPECT_EQ(card_of(90, h200), card_named("h200", cuda_target(90)));
    // One that nobody has measured: what the driver says.
    CardAttributes other = h100;
    other.memory_clock_khz = 1000000;
    EXPECT_EQ(card_of(90, other), (Card{.clock = 1.98e9,
                                        .memory_bytes = 0.9 * 2 * 1e9 * 5120 / 8,
                                        .cache_capacity = 50 << 20}));
    EXPECT_EQ(card_of(80, h100).cache_capacity, 50 << 20);
    // A driver that says nothing leaves the architecture's own.
    Target silent = cuda_target(80);
    silent.card = card_of(80, {});
    EXPECT_EQ(rates_of(silent).memory_bytes, rates_of(cuda_target(80)).memory_bytes);
}

TEST(Target, UnknownGpuListsTheKnown) {
    expect_error<UserError>([] { cuda_target(75); },
                            "compute capability 75 is not known: use 80, 86, 89, 90, 100 or 120");
}

}  // namespace
}  // namespace spion
