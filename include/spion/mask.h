// Which elements of a block count: rules that are said at each call. Part of spion.h.
#ifndef SPION_MASK_H
#define SPION_MASK_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "spion/error.h"
#include "spion/spion_c.h"

namespace spion {
inline namespace abi0 {  // as SPION_ABI_MAJOR

// Query i of a sample keeps key j when all rules that are given say so.
struct MaskRules {
    bool causal = false;                           // j <= i + Lk - L
    std::optional<std::int32_t> left = {};         // i - left <= j
    std::optional<std::int32_t> right = {};        // j <= i + right
    std::vector<std::int32_t> documents = {};      // [B, L], never decreasing: i's equals j's
    std::vector<std::int32_t> key_documents = {};  // [B, Lk]; empty: `documents`, where Lk is L
    std::vector<std::int32_t> prefixes = {};  // [B], with causal: keys below it are kept by all
    std::vector<std::int32_t> query_lengths = {};   // [B]: queries from it on keep nothing
    std::vector<std::int32_t> cu_seqlens = {};      // [B + 1], with varlen: where sequences begin
    std::vector<std::int32_t> key_cu_seqlens = {};  // [B + 1], with key_starts: those of keys
};

// As kernels read them: [B, L, 2] and [B, Lk, 2], a first position and an end.
struct Spans {
    std::vector<std::int32_t> queries;  // the keys that a query keeps
    std::vector<std::int32_t> keys;     // the queries that keep a key
};

// For calls of a plan with `spans`, which take a copy of both arrays where the tensors are.
// key_length: Lk; 0: `length`.
inline Spans spans(const MaskRules& rules, std::int64_t batch, std::int64_t length,
                   std::int64_t key_length = 0) {
    const auto of = [](const std::vector<std::int32_t>& numbers, std::int64_t count,
                       const char* sentence) {
        if (!numbers.empty() && static_cast<std::int64_t>(numbers.size()) != count) {
            throw UserError(SPION_INVALID, sentence);
        }
        return numbers.empty() ? nullptr : numbers.data();
    };
    spion_mask_rules c = SPION_MASK_RULES_INIT;
    c.causal = rules.causal ? 1 : 0;
    c.window = (rules.left ? SPION_WINDOW_LEFT : 0) | (rules.right ? SPION_WINDOW_RIGHT : 0);
    c.left = rules.left.value_or(0);
    c.right = rules.right.value_or(0);
    c.documents = of(rules.documents, batch * length,
                     "documents has not B * L numbers: give one for each position");
    c.prefixes = of(rules.prefixes, batch, "prefixes has not B numbers: give one for each sample");
    c.query_lengths =
        of(rules.query_lengths, batch, "query_lengths has not B numbers: give one for each sample");
    c.cu_seqlens = of(rules.cu_seqlens, batch + 1,
                      "cu_seqlens has not B + 1 numbers: give where each sequence begins, and T");
    c.key_cu_seqlens = of(rules.key_cu_seqlens, batch + 1,
                          "key_cu_seqlens has not B + 1 numbers: give where each sequence of keys "
                          "begins, and the rows of K");
    const std::int64_t keys = key_length == 0 ? length : key_length;
    c.key_length = key_length;
    c.key_documents = of(rules.key_documents, batch * keys,
                         "key_documents has not B * Lk numbers: give one for each key");
    const auto size = [&](std::int64_t positions) {
        return batch > 0 && positions > 0 ? static_cast<std::size_t>(2 * batch * positions) : 1;
    };
    Spans made{std::vector<std::int32_t>(size(length)), std::vector<std::int32_t>(size(keys))};
    detail::check(spion_write_spans(&c, batch, length, made.queries.data(), made.keys.data(),
                                    made.queries.size()));
    return made;
}

}  // namespace abi0
}  // namespace spion

#endif
