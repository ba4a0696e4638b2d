// How many blocks, tiles or steps of a size there are, the last of them ragged.
#pragma once

#include <cstdint>

namespace spion {

// a / b rounded up, for any a from 0 on.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return a / b + (a % b > 0 ? 1 : 0);
}

}  // namespace spion
