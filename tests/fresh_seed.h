// Seeds for tests that draw their cases afresh at every run.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace spion {

// Printed, so that a failure can be repeated with SPION_TEST_SEED=<seed>.
inline std::uint64_t fresh_seed() {
    const char* given = std::getenv("SPION_TEST_SEED");
    const std::uint64_t seed =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("SPION_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return seed;
}

}  // namespace spion
