// Numbers for people: three significant digits and a unit.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace spion::inspect {

// "0.123", "4.56", "78.9", "1234".
inline std::string three_digits(double value) {
    const double size = std::fabs(value);
    const int decimals = size >= 100 || size == 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
    return size > 0 && size < 0.001 ? fmt::format("{:.2g}", value)
                                    : fmt::format("{:.{}f}", value, decimals);
}

// "4.30 TB/s" for (4.3e12, "B/s").
inline std::string with_unit(double value, std::string_view unit) {
    static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T", "P"};
    std::size_t prefix = 0;
    while (std::fabs(value) >= 1000 && prefix + 1 < std::size(kPrefixes)) {
        value /= 1000;
        ++prefix;
    }
    return fmt::format("{} {}{}", three_digits(value), kPrefixes[prefix], unit);
}

inline std::string milliseconds(double value) {
    return value >= 1000 ? three_digits(value / 1000) + " s" : three_digits(value) + " ms";
}

inline std::string per_cent(double share) {
    return fmt::format("{:.1f} %", 100 * share);
}

}  // namespace spion::inspect
