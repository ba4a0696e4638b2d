// The 16-bit and tf32 numbers of cuda_emulation.h.
#include "tests/kernels/cuda_emulation.h"

namespace spion::emulation {

float round_to(float value, int mantissa_bits, bool ties_to_even) {
    if (!std::isfinite(value)) return value;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, 4);
    const int dropped = 23 - mantissa_bits;
    const std::uint32_t half = 1U << (dropped - 1);
    bits += ties_to_even ? half - 1 + ((bits >> dropped) & 1U) : half;
    bits &= ~((1U << dropped) - 1);
    std::memcpy(&value, &bits, 4);
    return value;
}

std::uint16_t to_bf16(float value) {
    const float rounded = round_to(value, 7, true);
    std::uint32_t bits = 0;
    std::memcpy(&bits, &rounded, 4);
    return static_cast<std::uint16_t>(bits >> 16);
}
std::uint16_t to_fp16(float value) {
    const auto narrow = static_cast<_Float16>(value);
    std::uint16_t bits = 0;
    std::memcpy(&bits, &narrow, 2);
    return bits;
}
float from_bf16(std::uint16_t bits) {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float value = 0;
    std::memcpy(&value, &wide, 4);
    return value;
}
float from_fp16(std::uint16_t bits) {
    _Float16 value = 0;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
}

}  // namespace spion::emulation
