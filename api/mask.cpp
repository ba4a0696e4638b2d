// Rules of masks within blocks, as the C struct says them, to the spans that kernels read.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "api/border.h"
#include "api/sequences.h"
#include "ir/element_spans.h"

namespace spion::api {
namespace {

std::vector<int> copied(const std::int32_t* numbers, std::int64_t count) {
    return numbers == nullptr ? std::vector<int>() : std::vector<int>(numbers, numbers + count);
}

// Of sequences that begin in rows starts [B + 1], or null.
std::vector<int> lengths_of(const std::int32_t* starts, std::int64_t batch, std::int64_t length,
                            const char* name) {
    std::vector<int> lengths;
    if (starts == nullptr) {
        return lengths;
    }
    check_starts({starts, static_cast<std::size_t>(batch) + 1}, length, std::nullopt, name);
    for (std::int64_t b = 0; b < batch; ++b) {
        lengths.push_back(starts[b + 1] - starts[b]);
    }
    return lengths;
}

std::optional<int> side_of(const spion_mask_rules& given, std::int32_t side, std::int32_t reach) {
    return (given.window & side) != 0 ? std::optional<int>(reach) : std::nullopt;
}

MaskRules rules_of(const spion_mask_rules& given, std::int64_t batch, std::int64_t length,
                   std::int64_t keys) {
    if ((given.window & ~(SPION_WINDOW_LEFT | SPION_WINDOW_RIGHT)) != 0) {
        throw UserError(
            "the window's sides are {:#x}: use SPION_WINDOW_LEFT, SPION_WINDOW_RIGHT or both",
            given.window);
    }
    if (given.cu_seqlens != nullptr && given.key_cu_seqlens == nullptr && keys != length) {
        throw UserError(
            "cu_seqlens was given with {} keys for {} queries: leave key_length 0, as sequences "
            "have as many keys as queries, or give key_cu_seqlens too",
            keys, length);
    }
    return {
        .causal = given.causal != 0,
        .left = side_of(given, SPION_WINDOW_LEFT, given.left),
        .right = side_of(given, SPION_WINDOW_RIGHT, given.right),
        .documents = copied(given.documents, batch * length),
        .key_documents = copied(given.key_documents, batch * keys),
        .prefixes = copied(given.prefixes, batch),
        .query_lengths = copied(given.query_lengths, batch),
        .sequence_lengths = lengths_of(given.cu_seqlens, batch, length, "cu_seqlens"),
        .key_sequence_lengths = lengths_of(given.key_cu_seqlens, batch, keys, "key_cu_seqlens")};
}

}  // namespace
}  // namespace spion::api

extern "C" {

using spion::UserError;
using spion::api::guarded;
using spion::api::present;
using spion::api::read_struct;

int32_t spion_write_spans(const spion_mask_rules* rules, int64_t batch, int64_t length,
                          int32_t* query_spans, int32_t* key_spans, size_t count) noexcept {
    return guarded([&] {
        constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
        const spion_mask_rules given = read_struct(rules, "spion_mask_rules");
        int32_t* const queries = &present(query_spans, "query_spans");
        int32_t* const keys = &present(key_spans, "key_spans");
        if (batch < 1 || batch > kMost || length < 1 || length > kMost) {
            throw UserError("the batch is {} and the length {}: give 1 to {} for each", batch,
                            length, kMost);
        }
        const auto wanted =
            2 * static_cast<std::uint64_t>(batch) * static_cast<std::uint64_t>(length);
        if (count != wanted) {
            throw UserError(
                "there is room for {} numbers of spans, and batch {} of length {} has 2 * B * L = "
                "{}: give arrays of that size",
                count, batch, length, wanted);
        }
        const std::int64_t key_length = given.key_length == 0 ? length : given.key_length;
        if (key_length < 1 || key_length > kMost) {
            throw UserError("the length of keys is {}: give 1 to {}, or 0 for as many as queries",
                            key_length, kMost);
        }
        const spion::ElementSpans spans = element_spans(
            spion::api::rules_of(given, batch, length, key_length), batch, length, key_length);
        std::copy(spans.queries.begin(), spans.queries.end(), queries);
        std::copy(spans.keys.begin(), spans.keys.end(), keys);
    });
}

}  // extern "C"
