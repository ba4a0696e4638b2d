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
// `longest` apart and, where T is known, end with it. name: of the argument.
void check_starts(std::span<const std::int32_t> starts, std::int64_t longest,
                  std::optional<std::int64_t> rows, const char* name = "cu_seqlens");

// Where sequences begin on both sides, on the host: [B + 1] each.
struct Starts {
    std::span<const std::int32_t> queries, keys;
};

// Throws UserError for a span that is not within its sequence, or of a position that the sequence
// does not have: kernels would read another's rows. query_spans: [B, L, 2], key_spans: [B, Lk, 2], on
// the host, ordered.
void check_within(const Starts& starts, const Attention& attention, const std::int32_t* query_spans,
                  const std::int32_t* key_spans);

// Throws UserError for a call of more sequences than there are patterns for, or, where tables say
// of how many sequences they are, of another number. Of an attention with sequence_patterns.
void check_patterns(const Attention& attention, std::int64_t sequences,
                    std::optional<std::int64_t> of_tables);

}  // namespace spion::api
