#include "ir/element_spans.h"

#include <algorithm>
#include <utility>

#include "ir/error.h"

namespace spion {
namespace {

void check_per_sample(const std::vector<int>& values, const char* what, std::int64_t batch,
                      std::int64_t length) {
    if (!values.empty() && std::ssize(values) != batch) {
        throw UserError("{} {} were given for a batch of {}: give one for each sample",
                        values.size(), what, batch);
    }
    for (const int value : values) {
        if (value < 0 || value > length) {
            throw UserError("one of the {} is {}: give 0 to L = {}", what, value, length);
        }
    }
}

// Key j is kept by the queries i with first_i <= j < end_i: as neither decreases, those from the
// first with end_i > j on, up to the first with first_i > j.
void transpose_spans(const int* queries, std::int64_t length, int* keys) {
    std::int64_t begin = 0, end = 0;
    for (std::int64_t j = 0; j < length; ++j) {
        while (begin < length && queries[2 * begin + 1] <= j) {
            ++begin;
        }
        while (end < length && queries[2 * end] <= j) {
            ++end;
        }
        keys[2 * j] = static_cast<int>(begin);
        keys[2 * j + 1] = static_cast<int>(std::max(begin, end));
    }
}

// One sample's: document [L] or null, prefix and query_length as in MaskRules.
void sample_spans(const MaskRules& rules, const int* document, std::int64_t prefix,
                  std::int64_t query_length, std::int64_t length, int* queries) {
    std::int64_t document_begin = 0, document_end = 0, previous_end = 0;
    for (std::int64_t i = 0; i < length; ++i) {
        if (i == document_end) {
            document_begin = i;
            document_end = document == nullptr ? length : i + 1;
            while (document_end < length && document[document_end] == document[i]) {
                ++document_end;
            }
        }
        std::int64_t begin = document_begin, end = document_end;
        if (rules.causal) {
            end = std::min(end, std::max(i + 1, prefix));
        }
        if (rules.left) {
            begin = std::max(begin, i - *rules.left);
        }
        if (rules.right) {
            end = std::min(end, i + *rules.right + 1);
        }
        if (i >= query_length) {
            begin = end = previous_end;
        }
        queries[2 * i] = static_cast<int>(begin);
        queries[2 * i + 1] = static_cast<int>(end);
        previous_end = end;
    }
}

}  // namespace

void check(const MaskRules& rules, std::int64_t batch, std::int64_t length) {
    for (const std::optional<int>& side : {rules.left, rules.right}) {
        if (side && *side < 0) {
            throw UserError("the window reaches {} positions: give at least 0 on each side", *side);
        }
    }
    check_per_sample(rules.prefixes, "prefixes", batch, length);
    check_per_sample(rules.query_lengths, "query lengths", batch, length);
    if (!rules.prefixes.empty() && !rules.causal) {
        throw UserError("a prefix was given without causal: without it every key is seen already");
    }
    if (rules.documents.empty()) {
        return;
    }
    if (std::ssize(rules.documents) != batch * length) {
        throw UserError("{} document ids were given, but B * L is {}: give one for each position",
                        rules.documents.size(), batch * length);
    }
    for (std::int64_t b = 0; b < batch; ++b) {
        const auto begin = rules.documents.begin() + b * length;
        const auto fault = std::is_sorted_until(begin, begin + length);
        if (fault != begin + length) {
            throw UserError(
                "document id {} follows {} at position {} of sample {}: ids must not decrease, so "
                "that each document is one stretch",
                *fault, *(fault - 1), fault - begin, b);
        }
    }
}

ElementSpans element_spans(const MaskRules& rules, std::int64_t batch, std::int64_t length) {
    check(rules, batch, length);
    const auto size = static_cast<std::size_t>(2 * batch * length);
    ElementSpans spans{.queries = std::vector<int>(size), .keys = std::vector<int>(size)};
    for (std::int64_t b = 0; b < batch; ++b) {
        int* const queries = spans.queries.data() + 2 * b * length;
        sample_spans(rules, rules.documents.empty() ? nullptr : &rules.documents[b * length],
                     rules.prefixes.empty() ? 0 : rules.prefixes[b],
                     rules.query_lengths.empty() ? length : rules.query_lengths[b], length,
                     queries);
        transpose_spans(queries, length, spans.keys.data() + 2 * b * length);
    }
    return spans;
}

BlockPattern visited_blocks(const BlockPattern& pattern, const Attention& attention) {
    if (attention.mask == ElementMask::kNone) {
        return pattern;
    }
    const std::int64_t block = pattern.block(), blocks = pattern.rows();
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks));
    for (std::int64_t row = 0; row < blocks; ++row) {
        for (const std::int64_t column : pattern.row(static_cast<int>(row))) {
            const Coverage covered = coverage(attention, {.row_begin = row * block,
                                                          .row_end = (row + 1) * block,
                                                          .key_begin = column * block,
                                                          .key_end = (column + 1) * block});
            bits[row * blocks + column] = covered != Coverage::kEmpty;
        }
    }
    return {pattern.length(), pattern.block(), std::move(bits)};
}

}  // namespace spion
