// A small random generator whose values are the same on every machine and with every standard
// library: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace spion {

class SplitMix {
  public:
    explicit SplitMix(std::uint64_t seed) : state_(seed) {}
    // The generator of item `index` of stream `stream`: independent of every other item's, so that
    // items can be made on any thread in any order.
    SplitMix(std::uint64_t seed, std::uint64_t stream, std::uint64_t index)
        : state_(mixed(mixed(mixed(seed) + stream) + index)) {}

    std::uint64_t next() {
        state_ += kGamma;
        return finish(state_);
    }
    // Uniform in [0, bound), bound >= 1; the bias is below bound / 2^32.
    std::uint32_t below(std::uint32_t bound) {
        return static_cast<std::uint32_t>(((next() >> 32) * bound) >> 32);
    }
    // Uniform in [0, bound) for bound up to 2^53; the bias is below bound / 2^53.
    std::uint64_t below_wide(std::uint64_t bound) {
        const auto value = static_cast<std::uint64_t>(uniform() * static_cast<double>(bound));
        return value < bound ? value : bound - 1;
    }
    // Uniform in [0, 1), 53 bits.
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    // Standard normal (Box and Muller). Depends on the C library's log and cos in the last bit.
    double normal() {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
        return radius * std::cos(2.0 * std::numbers::pi * uniform());
    }

  private:
    static constexpr std::uint64_t kGamma = 0x9E3779B97F4A7C15ULL;
    static std::uint64_t finish(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    }
    static std::uint64_t mixed(std::uint64_t value) { return finish(value + kGamma); }

    std::uint64_t state_;
};

}  // namespace spion
