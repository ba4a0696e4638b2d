// How many blocks, tiles or steps of a size there are, the last of them ragged.
#pragma once

#include <cstdint>

namespace spion {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace spion
