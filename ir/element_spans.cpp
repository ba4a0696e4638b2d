#include "ir/element_spans.h"

#include <fmt/ranges.h>

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

// How many queries and keys there are.
struct Lengths {
    std::int64_t queries, keys;
};

// Key j is kept by the queries i with first_i <= j < end_i: as neither decreases, those from the
// first with end_i > j on, up to the first with first_i > j.
void transpose_spans(const int* queries, const Lengths& lengths, int* keys) {
    std::int64_t begin = 0, end = 0;
    for (std::int64_t j = 0; j < lengths.keys; ++j) {
        while (begin < lengths.queries && queries[2 * begin + 1] <= j) {
            ++begin;
        }
        while (end < lengths.queries && queries[2 * end] <= j) {
            ++end;
        }
        keys[2 * j] = static_cast<int>(begin);
        keys[2 * j + 1] = static_cast<int>(std::max(begin, end));
    }
}

// One sample's rules: its ids of queries [L] and of keys [Lk], or null; prefix and query_length as
// in MaskRules; keys from key_length on are kept by none; query i stands beside key i + diagonal.
struct SampleRules {
    const int* documents;
    const int* key_documents;
    std::int64_t prefix, query_length, key_length, diagonal;
};

void sample_spans(const MaskRules& rules, const SampleRules& sample, const Lengths& lengths,
                  int* queries) {
    std::int64_t document_begin = 0, document_end = lengths.keys, previous_end = 0;
    for (std::int64_t i = 0; i < lengths.queries; ++i) {
        const std::int64_t beside = i + sample.diagonal;
        if (sample.documents != nullptr &&
            (i == 0 || sample.documents[i] != sample.documents[i - 1])) {
            const int* const ids = sample.key_documents;
            const auto [first, last] =
                std::equal_range(ids, ids + lengths.keys, sample.documents[i]);
            document_begin = first - ids;
            document_end = last - ids;
        }
        std::int64_t begin = document_begin, end = document_end;
        if (rules.causal) {
            end = std::min(end, std::max(beside + 1, sample.prefix));
        }
        if (rules.left) {
            begin = std::max(begin, beside - *rules.left);
        }
        if (rules.right) {
            end = std::min(end, beside + *rules.right + 1);
        }
        end = std::min(end, sample.key_length);
        begin = std::min(begin, sample.key_length);
        end = std::max(end, begin);
        if (i >= sample.query_length) {
            begin = end = previous_end;
        }
        queries[2 * i] = static_cast<int>(begin);
        queries[2 * i + 1] = static_cast<int>(end);
        previous_end = end;
    }
}

// ids: [B, length], ascending within a sample.
void check_documents(const std::vector<int>& ids, const char* what, std::int64_t batch,
                     std::int64_t length) {
    if (std::ssize(ids) != batch * length) {
        throw UserError("{} {} were given, but B * L is {}: give one for each position", ids.size(),
                        what, batch * length);
    }
    for (std::int64_t b = 0; b < batch; ++b) {
        const auto begin = ids.begin() + b * length;
        const auto fault = std::is_sorted_until(begin, begin + length);
        if (fault != begin + length) {
            throw UserError(
                "document id {} follows {} at position {} of sample {}: ids must not decrease, so "
                "that each document is one stretch",
                *fault, *(fault - 1), fault - begin, b);
        }
    }
}

}  // namespace

std::string to_text(const MaskRules& rules) {
    std::string text = rules.causal ? " causal" : "";
    if (rules.left || rules.right) {
        text += fmt::format(" window={},{}", rules.left.value_or(-1), rules.right.value_or(-1));
    }
    const auto add = [&text](const char* name, const std::vector<int>& numbers) {
        if (!numbers.empty()) {
            text += fmt::format(" {}=[{}]", name, fmt::join(numbers, ","));
        }
    };
    add("documents", rules.documents);
    add("key_documents", rules.key_documents);
    add("prefixes", rules.prefixes);
    add("query_lengths", rules.query_lengths);
    add("sequence_lengths", rules.sequence_lengths);
    add("key_sequence_lengths", rules.key_sequence_lengths);
    return text;
}

void check(const MaskRules& rules, std::int64_t batch, std::int64_t length,
           std::int64_t key_length) {
    const std::int64_t keys = key_length == 0 ? length : key_length;
    for (const std::optional<int>& side : {rules.left, rules.right}) {
        if (side && *side < 0) {
            throw UserError("the window reaches {} positions: give at least 0 on each side", *side);
        }
    }
    check_per_sample(rules.prefixes, "prefixes", batch, keys);
    check_per_sample(rules.query_lengths, "query lengths", batch, length);
    check_per_sample(rules.sequence_lengths, "lengths of sequences", batch, length);
    check_per_sample(rules.key_sequence_lengths, "lengths of keys' sequences", batch, keys);
    if (rules.sequence_lengths.empty() && !rules.key_sequence_lengths.empty()) {
        throw UserError(
            "lengths of keys' sequences were given without those of queries: give both");
    }
    if (!rules.prefixes.empty() && !rules.causal) {
        throw UserError("a prefix was given without causal: without it every key is seen already");
    }
    if (rules.documents.empty() && rules.key_documents.empty()) {
        return;
    }
    check_documents(rules.documents, "document ids", batch, length);
    if (!rules.key_documents.empty()) {
        check_documents(rules.key_documents, "document ids of keys", batch, keys);
    } else if (keys != length) {
        throw UserError(
            "document ids of {} queries a sample were given, and none of its {} keys: give both",
            length, keys);
    }
}

ElementSpans element_spans(const MaskRules& rules, std::int64_t batch, std::int64_t length,
                           std::int64_t key_length) {
    const Lengths lengths{.queries = length, .keys = key_length == 0 ? length : key_length};
    check(rules, batch, lengths.queries, lengths.keys);
    const bool documents = !rules.documents.empty();
    const std::vector<int>& of_keys =
        rules.key_documents.empty() ? rules.documents : rules.key_documents;
    ElementSpans spans{
        .queries = std::vector<int>(static_cast<std::size_t>(2 * batch * lengths.queries)),
        .keys = std::vector<int>(static_cast<std::size_t>(2 * batch * lengths.keys))};
    const std::vector<int>& key_lengths =
        rules.key_sequence_lengths.empty() ? rules.sequence_lengths : rules.key_sequence_lengths;
    for (std::int64_t b = 0; b < batch; ++b) {
        int* const queries = spans.queries.data() + 2 * b * lengths.queries;
        const std::int64_t own = key_lengths.empty() ? lengths.queries : rules.sequence_lengths[b];
        const std::int64_t own_keys = key_lengths.empty() ? lengths.keys : key_lengths[b];
        sample_spans(rules,
                     {.documents = documents ? &rules.documents[b * lengths.queries] : nullptr,
                      .key_documents = documents ? &of_keys[b * lengths.keys] : nullptr,
                      .prefix = rules.prefixes.empty() ? 0 : rules.prefixes[b],
                      .query_length = std::min<std::int64_t>(
                          rules.query_lengths.empty() ? length : rules.query_lengths[b], own),
                      .key_length = own_keys,
                      .diagonal = own_keys - own},
                     lengths, queries);
        transpose_spans(queries, lengths, spans.keys.data() + 2 * b * lengths.keys);
    }
    return spans;
}

bool fits(const HeadPatterns& patterns, const Attention& attention) {
    return patterns.length() == attention.length &&
           patterns.key_length() == attention.key_value_length() &&
           patterns.count() == attention.pattern_count();
}

std::string lengths_text(std::int64_t length, std::int64_t key_length) {
    return length == key_length ? fmt::format("L={}", length)
                                : fmt::format("L={} kv_length={}", length, key_length);
}

void require_fit(const HeadPatterns& patterns, const Attention& attention) {
    if (fits(patterns, attention)) {
        return;
    }
    if (patterns.count() != attention.pattern_count()) {
        throw UserError("{} patterns were given and the attention has {}: make them equal",
                        patterns.count(), attention.pattern_count());
    }
    if (patterns.length() == patterns.key_length() && attention.diagonal() == 0) {
        throw UserError(
            "the pattern is for length {} and the attention for length {}: make them equal",
            patterns.length(), attention.length);
    }
    throw UserError(
        "the pattern is for {} queries and {} keys, the attention for {} and {}: make them equal",
        patterns.length(), patterns.key_length(), attention.length, attention.key_value_length());
}

HeadPatterns visited_blocks(const HeadPatterns& patterns, const Attention& attention) {
    std::vector<BlockPattern> visited;
    for (const BlockPattern& pattern : patterns) {
        visited.push_back(visited_blocks(pattern, attention));
    }
    return HeadPatterns(std::move(visited));
}

BlockPattern visited_blocks(const BlockPattern& pattern, const Attention& attention) {
    if (attention.mask == ElementMask::kNone) {
        return pattern;
    }
    const std::int64_t block = pattern.block(), columns = pattern.columns();
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(pattern.rows() * columns));
    for (std::int64_t row = 0; row < pattern.rows(); ++row) {
        for (const std::int64_t column : pattern.row(static_cast<int>(row))) {
            const Coverage covered = coverage(attention, {.row_begin = row * block,
                                                          .row_end = (row + 1) * block,
                                                          .key_begin = column * block,
                                                          .key_end = (column + 1) * block});
            bits[row * columns + column] = covered != Coverage::kEmpty;
        }
    }
    return {pattern.length(), pattern.key_length(), pattern.block(), std::move(bits)};
}

}  // namespace spion
