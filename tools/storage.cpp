#include "tools/storage.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace spion {
namespace {

std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) {
        return static_cast<std::uint16_t>(bits >> 16 | 0x40U);  // quiet, and not infinite
    }
    return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

float from_bf16(std::uint16_t half) {
    return std::bit_cast<float>(std::uint32_t{half} << 16);
}

constexpr int kHalfMantissaBits = 10;
constexpr int kHalfSmallestExponent = -14;  // of normal numbers
constexpr double kHalfOverflow = 65520;     // halfway between the largest finite value and 2^16

std::uint16_t to_fp16(float value) {
    const std::uint16_t sign = std::signbit(value) ? 0x8000U : 0U;
    if (std::isnan(value)) {
        return sign | 0x7E00U;
    }
    const double magnitude = std::abs(static_cast<double>(value));
    if (magnitude >= kHalfOverflow) {
        return sign | 0x7C00U;
    }
    int exponent = kHalfSmallestExponent;
    if (magnitude > 0) {
        exponent = std::max(exponent, std::ilogb(magnitude));
    }
    // In units of the last place; rounds to even. A carry into the next exponent comes out right
    // because the encoding of finite values is monotone.
    const double units = std::nearbyint(std::ldexp(magnitude, kHalfMantissaBits - exponent));
    const int biased = (exponent - kHalfSmallestExponent) << kHalfMantissaBits;
    return static_cast<std::uint16_t>(sign | (biased + static_cast<int>(units)));
}

float from_fp16(std::uint16_t half) {
    const int exponent = half >> kHalfMantissaBits & 0x1F;
    const int mantissa = half & 0x3FF;
    double magnitude = 0;
    if (exponent == 0x1F) {
        magnitude = mantissa == 0 ? HUGE_VAL : std::nan("");
    } else if (exponent == 0) {
        magnitude = std::ldexp(mantissa, kHalfSmallestExponent - kHalfMantissaBits);
    } else {
        magnitude =
            std::ldexp(0x400 + mantissa, exponent - 1 + kHalfSmallestExponent - kHalfMantissaBits);
    }
    return static_cast<float>((half & 0x8000U) != 0 ? -magnitude : magnitude);
}

}  // namespace

void store(DType dtype, float value, void* data) {
    switch (dtype) {
        case DType::kFp32:
        case DType::kTf32:
            std::memcpy(data, &value, sizeof value);
            return;
        case DType::kBf16:
        case DType::kFp16: {
            const std::uint16_t half = dtype == DType::kBf16 ? to_bf16(value) : to_fp16(value);
            std::memcpy(data, &half, sizeof half);
            return;
        }
    }
}

float load(DType dtype, const void* data) {
    if (storage_bytes(dtype) == 4) {
        float value;
        std::memcpy(&value, data, sizeof value);
        return value;
    }
    std::uint16_t half;
    std::memcpy(&half, data, sizeof half);
    return dtype == DType::kBf16 ? from_bf16(half) : from_fp16(half);
}

float round_to(DType dtype, float value) {
    unsigned char stored[4];
    store(dtype, value, stored);
    return load(dtype, stored);
}

}  // namespace spion
