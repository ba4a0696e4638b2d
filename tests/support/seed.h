// Fresh random cases: every run of a test draws another seed and prints it with a failure.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

namespace spion::test {

// $SPION_TEST_SEED repeats a run; else a new seed. Printed, so that a failure can be repeated.
inline std::uint64_t fresh_seed() {
    const char* given = std::getenv("SPION_TEST_SEED");
    const std::uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device{}();
    std::printf("SPION_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
    return seed;
}

// For SCOPED_TRACE: how to repeat the case.
inline std::string seed_note(std::uint64_t seed) {
    return "repeat with SPION_TEST_SEED=" + std::to_string(seed);
}

}  // namespace spion::test
