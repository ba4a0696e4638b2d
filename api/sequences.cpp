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
                  std::optional<std::int64_t> rows) {
    if (starts.front() != 0) {
        throw UserError("cu_seqlens[0] is {}: it must be 0, the row of the first position",
                        starts.front());
    }
    for (std::size_t b = 1; b < starts.size(); ++b) {
        const std::int64_t length = std::int64_t{starts[b]} - starts[b - 1];
        if (length < 0) {
            throw UserError(
                "cu_seqlens[{}] is {}, below the {} in front of it: sequences lie end to end, so "
                "that their starts never decrease",
                b, starts[b], starts[b - 1]);
        }
        if (length > longest) {
            throw UserError(
                "sequence {} has {} positions by cu_seqlens, and the plan was made for at most {}: "
                "make a plan with a larger length",
                b - 1, length, longest);
        }
    }
    if (rows && starts.back() != *rows) {
        throw UserError(
            "cu_seqlens ends with {} and the tensors have {} rows: its last number must be T, "
            "the rows of all sequences together",
            starts.back(), *rows);
    }
}

void check_within(std::span<const std::int32_t> starts, std::int64_t length,
                  const std::int32_t* spans, const char* name) {
    for (std::size_t b = 0; b + 1 < starts.size(); ++b) {
        const std::int32_t own = starts[b + 1] - starts[b];
        for (std::int64_t i = 0; i < length; ++i) {
            const std::int64_t at = static_cast<std::int64_t>(b) * length + i;
            const std::int32_t begin = spans[2 * at], end = spans[2 * at + 1];
            if (begin < end && (i >= own || end > own)) {
                throw UserError(
                    "{} of position {} in sequence {} are {}, {}, and by cu_seqlens it has {} "
                    "positions: give spion_mask_rules the same cu_seqlens",
                    name, i, b, begin, end, own);
            }
        }
    }
}

}  // namespace spion::api
