// Outputs of emulated kernels: poisoned, and with a guard behind the last element, so that a test
// sees what was not written and what was written beyond the end.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace spion {

inline constexpr std::size_t kGuardElements = 64;
inline constexpr unsigned char kPoison = 0xFF;  // NaN in fp32, bf16 and fp16

template <typename T>
std::vector<T> guarded_output(std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count) + kGuardElements);
    std::fill_n(reinterpret_cast<unsigned char*>(values.data()), values.size() * sizeof(T),
                kPoison);
    return values;
}

// The output without its guard. Fails the test if a byte of the guard was written.
template <typename T>
std::vector<T> without_guard(std::vector<T> values) {
    const auto* end = reinterpret_cast<const unsigned char*>(values.data() + values.size());
    EXPECT_TRUE(std::all_of(end - kGuardElements * sizeof(T), end,
                            [](unsigned char byte) { return byte == kPoison; }));
    values.resize(values.size() - kGuardElements);
    return values;
}

}  // namespace spion
