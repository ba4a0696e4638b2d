// SHA-256 (FIPS 180-4), for digests of patterns, cache keys and cached binaries.
#pragma once

#include <string>
#include <string_view>

namespace spion {

// First 32 hex digits (128 bits) of the SHA-256 of `bytes`.
std::string digest_of(std::string_view bytes);

}  // namespace spion
