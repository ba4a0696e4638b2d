#include "tools/storage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "tests/support/seed.h"

namespace spion {
namespace {

float from_bits(DType dtype, std::uint16_t bits) {
    return load(dtype, &bits);
}

TEST(Storage, KnownValues) {
    EXPECT_EQ(from_bits(DType::kBf16, 0x3F80), 1.0F);
    EXPECT_EQ(from_bits(DType::kFp16, 0x3C00), 1.0F);
    EXPECT_EQ(from_bits(DType::kFp16, 0x7BFF), 65504.0F);
    EXPECT_EQ(from_bits(DType::kFp16, 0x0001), 0x1p-24F);
    EXPECT_EQ(round_to(DType::kFp16, 65519.9F), 65504.0F);
    EXPECT_TRUE(std::isinf(round_to(DType::kFp16, 65520.0F)));
    EXPECT_EQ(round_to(DType::kBf16, 1.00390625F), 1.0F);       // a tie goes to even
    EXPECT_EQ(round_to(DType::kBf16, 1.01171875F), 1.015625F);  // so does this one, upwards
    EXPECT_EQ(round_to(DType::kFp16, 0x1p-25F), 0.0F);          // a tie between 0 and the smallest
    EXPECT_EQ(round_to(DType::kTf32, 1.0000001F), 1.0000001F);
}

// Every value comes back as itself, and every float goes to the nearest of its two neighbours.
TEST(Storage, EveryStoredValueIsItsOwnRounding) {
    for (const DType dtype : {DType::kBf16, DType::kFp16}) {
        for (unsigned bits = 0; bits < 0x10000; ++bits) {
            const float value = from_bits(dtype, static_cast<std::uint16_t>(bits));
            if (std::isnan(value)) {
                EXPECT_TRUE(std::isnan(round_to(dtype, value)));
                continue;
            }
            std::uint16_t stored = 0;
            store(dtype, value, &stored);
            ASSERT_EQ(stored, bits);
        }
    }
}

TEST(Storage, RoundsToTheNearest) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 generator(seed);
    for (const DType dtype : {DType::kBf16, DType::kFp16}) {
        for (int n = 0; n < 20000; ++n) {
            const float value = std::ldexp(std::normal_distribution<float>()(generator),
                                           int(generator() % 40) - 26);
            std::uint16_t bits = 0;
            store(dtype, std::abs(value), &bits);
            const double distance = std::abs(double(std::abs(value)) - from_bits(dtype, bits));
            const double above = from_bits(dtype, static_cast<std::uint16_t>(bits + 1));
            ASSERT_LE(distance, std::abs(above - std::abs(double(value)))) << value;
            if (bits > 0) {
                const double below = from_bits(dtype, static_cast<std::uint16_t>(bits - 1));
                ASSERT_LE(distance, std::abs(below - std::abs(double(value)))) << value;
            }
        }
    }
}

// What the poison of the attention cases relies on.
TEST(Storage, AllOnesAreNotANumber) {
    const unsigned char ones[4] = {0xFF, 0xFF, 0xFF, 0xFF};
    for (const DType dtype : {DType::kFp32, DType::kTf32, DType::kBf16, DType::kFp16}) {
        EXPECT_TRUE(std::isnan(load(dtype, ones)));
    }
}

}  // namespace
}  // namespace spion
