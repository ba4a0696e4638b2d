#include "api/sequences.h"

#include <cstddef>
#include <limits>

#include "ir/error.h"

namespace spion::api {

std::int64_t checked_count(std::int64_t sequences) {
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    if (sequences < 1 || sequences > kMost) {
        throw UserError(
            "sequences is {} and the plan was made with varlen: give their number, 1 to {}, one "
            "less than cu_seqlens has numbers",
            sequences, kMost);
    }
    return sequences;
}

void check_starts(std::span<const std::int32_t> starts, std::int64_t longest,
                  std::optional<std::int64_t> rows, const char* name) {
    if (starts.front() != 0) {
        throw UserError("{}[0] is {}: it must be 0, the row of the first position", name,
                        starts.front());
    }
    for (std::size_t b = 1; b < starts.size(); ++b) {
        const std::int64_t length = std::int64_t{starts[b]} - starts[b - 1];
        if (length < 0) {
            throw UserError(
                "{}[{}] is {}, below the {} in front of it: sequences lie end to end, so that "
                "their "
                "starts never decrease",
                name, b, starts[b], starts[b - 1]);
        }
        if (length > longest) {
            throw UserError(
                "sequence {} has {} positions by {}, and the plan was made for at most {}: make a "
                "plan with a larger length",
                b - 1, length, name, longest);
        }
    }
    if (rows && starts.back() != *rows) {
        throw UserError(
            "{} ends with {} and the tensors have {} rows: its last number must be T, the rows of "
            "all sequences together",
            name, starts.back(), *rows);
    }
}

namespace {

// Of positions whose sequences begin at `own`, spans of those that begin at `others`.
void check_side(std::span<const std::int32_t> own, std::span<const std::int32_t> others,
                std::int64_t length, const std::int32_t* spans, const char* name) {
    for (std::size_t b = 0; b + 1 < own.size(); ++b) {
        const std::int32_t has = own[b + 1] - own[b], most = others[b + 1] - others[b];
        for (std::int64_t i = 0; i < length; ++i) {
            const std::int64_t at = static_cast<std::int64_t>(b) * length + i;
            const std::int32_t begin = spans[2 * at], end = spans[2 * at + 1];
            if (begin < end && (i >= has || end > most)) {
                throw UserError(
                    "{} of position {} in sequence {} are {}, {}, and by cu_seqlens it has {} "
                    "positions: give spion_mask_rules the same cu_seqlens",
                    name, i, b, begin, end, i >= has ? has : most);
            }
        }
    }
}

}  // namespace

void check_within(const Starts& starts, const Attention& attention, const std::int32_t* query_spans,
                  const std::int32_t* key_spans) {
    const auto& [queries, keys] = starts;
    check_side(queries, keys, attention.length, query_spans, "query_spans");
    check_side(keys, queries, attention.key_value_length(), key_spans, "key_spans");
}

void check_patterns(const Attention& attention, std::int64_t sequences,
                    std::optional<std::int64_t> of_tables) {
    if (sequences > attention.sequence_patterns) {
        throw UserError(
            "{} sequences were given, and the plan was made with sequence_patterns = {}: make a "
            "plan with room for the patterns of as many",
            sequences, attention.sequence_patterns);
    }
    if (of_tables && *of_tables != sequences) {
        throw UserError(
            "{} sequences were given, and the tables have patterns of {}: write tables of a "
            "pattern "
            "for each",
            sequences, *of_tables);
    }
}

}  // namespace spion::api
