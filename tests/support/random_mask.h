// Random rules of a mask of spans, every conjunction of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ir/element_spans.h"

namespace spion::test {

// Ascending ids [batch, length] of stretches of up to `longest` positions.
template <typename Below>
std::vector<int> random_documents(const Below& below, std::int64_t batch, std::int64_t length,
                                  int longest) {
    std::vector<int> ids;
    for (std::int64_t b = 0; b < batch; ++b) {
        int id = below(3);
        for (std::int64_t left = 0, l = 0; l < length; ++l, --left) {
            if (left == 0) {
                left = 1 + below(longest);
                id += 1 + below(2);
            }
            ids.push_back(id);
        }
    }
    return ids;
}

// `below(n)` draws one of 0 .. n - 1. key_length: Lk; 0: L.
template <typename Below>
MaskRules random_rules(const Below& below, std::int64_t batch, std::int64_t length,
                       std::int64_t key_length = 0) {
    const auto limit = static_cast<int>(length);
    const auto key_limit = static_cast<int>(key_length == 0 ? length : key_length);
    MaskRules rules;
    rules.causal = below(2) == 0;
    if (below(2) == 0) {
        rules.left = below(2) == 0 ? below(8) : below(key_limit + 10);
    }
    if (below(3) == 0) {
        rules.right = below(2) == 0 ? below(8) : below(limit + 10);
    }
    if (below(2) == 0) {
        const int longest = 1 + below(limit);
        rules.documents = random_documents(below, batch, length, longest);
        if (key_limit != limit) {
            rules.key_documents = random_documents(below, batch, key_limit, longest);
        }
    }
    const bool prefixes = rules.causal && below(3) == 0, query_lengths = below(3) == 0;
    for (std::int64_t b = 0; b < batch; ++b) {
        if (prefixes) {
            rules.prefixes.push_back(below(key_limit + 1));
        }
        if (query_lengths) {
            rules.query_lengths.push_back(below(4) == 0 ? limit : below(limit + 1));
        }
    }
    return rules;
}

}  // namespace spion::test
