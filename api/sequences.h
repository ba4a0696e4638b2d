// Sequences that lie end to end (Attention::varlen): what a call says of them, looked at.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ir/attention.h"

namespace spion::api {

// B of a call. Throws UserError when it is none.
std::int64_t checked_count(std::int64_t sequences);

// Throws UserError unless starts [B + 1], on the host, begin with 0, do not decrease, are at most
// `longest` apart and, where T is known, end with it.
void check_starts(std::span<const std::int32_t> starts, std::int64_t longest,
                  std::optional<std::int64_t> rows);

// Throws UserError for a span that is not within its sequence, or of a position that the sequence
// does not have: kernels would read another's rows. spans: [B, L, 2], on the host, ordered.
void check_within(std::span<const std::int32_t> starts, std::int64_t length,
                  const std::int32_t* spans, const char* name);

}  // namespace spion::api
