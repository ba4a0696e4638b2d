// Fresh random cases: every run of a test draws another seed and prints it with a failure.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace spion::test {

// $SPION_TEST_SEED repeats a run; else a new seed.
inline std::uint64_t fresh_seed() {
    if (const char* given = std::getenv("SPION_TEST_SEED")) {
        return std::stoull(given);
    }
    return std::random_device{}();
}

// For SCOPED_TRACE: how to repeat the case.
inline std::string seed_note(std::uint64_t seed) {
    return "repeat with SPION_TEST_SEED=" + std::to_string(seed);
}

}  // namespace spion::test
