#include "tools/oracle/reference_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "ir/error.h"
#include "ir/score_expression.h"
#include "runtime/threads.h"

namespace spion {
namespace {

double dot(const double* a, const double* b, int count) {
    double sum = 0;
    for (int d = 0; d < count; ++d) {
        sum += a[d] * b[d];
    }
    return sum;
}

// One (b, h): everything it reads and writes, with rows of D.
struct Head {
    const Attention* attention;
    const BlockPattern* pattern;
    const MaskRules* rules;  // null: none
    const ScoreValues* values;
    const ScoreGraph* expression;  // null: none
    std::int64_t sample, head;
    std::int64_t valid_keys;
    std::vector<double> q, k, v, d_o;     // [L, D], [Lk, D], [Lk, D], [L, D]
    double* o;                            // [L, D]
    double* lse;                          // [L]
    double* delta;                        // [L]
    double* d_q;                          // [L, D]
    std::vector<double> d_k, d_v;         // [Lk, D], of this head alone
    std::vector<double> q_norm, k_norm;   // [L], [Lk] Euclidean norm of each row
    double lse_terms = 0;                 // squared
    double d_q_terms = 0, d_k_terms = 0;  // squared
    double d_sink = 0, d_sink_terms = 0;  // the latter squared
    std::vector<double> d_bias = {};      // [2R + 1]
    double d_bias_terms = 0;              // squared
};

// Positions of the sample's sequence, queries or keys, where there are sequences; else of L or Lk.
std::int64_t own_length(const Head& head, bool keys) {
    const Attention& attention = *head.attention;
    const bool sequences = head.rules != nullptr && !head.rules->sequence_lengths.empty();
    if (!sequences || attention.mask != ElementMask::kSpans) {
        return keys ? attention.key_value_length() : attention.length;
    }
    const bool apart = keys && !head.rules->key_sequence_lengths.empty();
    return (apart ? head.rules->key_sequence_lengths
                  : head.rules->sequence_lengths)[static_cast<std::size_t>(head.sample)];
}

// The key that query i stands beside: a sequence's last query beside its last key.
std::int64_t beside_query(const Head& head, std::int64_t i) {
    return i + own_length(head, true) - own_length(head, false);
}

// Whether query i keeps key j, by the words of ir/element_spans.h.
bool keeps(const Head& head, std::int64_t i, std::int64_t j) {
    const Attention& attention = *head.attention;
    const std::int64_t beside = beside_query(head, i);
    if (attention.mask == ElementMask::kCausal) {
        return j <= beside;
    }
    if (attention.mask == ElementMask::kNone) {
        return true;
    }
    const MaskRules& rules = *head.rules;
    bool kept = true;
    if (rules.causal) {
        kept = j <= beside || (!rules.prefixes.empty() && j < rules.prefixes[head.sample]);
    }
    kept = kept && (!rules.left || j >= beside - *rules.left);
    kept = kept && (!rules.right || j <= beside + *rules.right);
    if (!rules.documents.empty()) {
        const std::vector<int>& of_keys =
            rules.key_documents.empty() ? rules.documents : rules.key_documents;
        kept = kept && rules.documents[head.sample * attention.length + i] ==
                           of_keys[head.sample * attention.key_value_length() + j];
    }
    kept = kept && i < own_length(head, false) && j < own_length(head, true);
    return kept && (rules.query_lengths.empty() || i < rules.query_lengths[head.sample]);
}

// The elements of query row i that the mask keeps and the pattern does not have.
double pruned_elements(const Head& head, std::int64_t i) {
    const int block = head.pattern->block();
    double pruned = 0;
    for (std::int64_t j = 0; j < head.attention->key_value_length(); ++j) {
        const bool inside =
            head.pattern->at(static_cast<int>(i / block), static_cast<int>(j / block));
        pruned += !inside && keeps(head, i, j) ? 1 : 0;
    }
    return pruned;
}

// The keys of query row i that are inside the pattern, kept and not padded.
std::vector<std::int64_t> keys_of_row(const Head& head, std::int64_t i) {
    std::vector<std::int64_t> keys;
    const int block = head.pattern->block();
    for (const std::int32_t column : head.pattern->row(static_cast<int>(i / block))) {
        for (std::int64_t j = std::int64_t{column} * block; j < (column + 1) * std::int64_t{block};
             ++j) {
            if (j < head.valid_keys && keeps(head, i, j)) {
                keys.push_back(j);
            }
        }
    }
    return keys;
}

// The row's keys as the softmax sees them.
struct SoftmaxRow {
    std::vector<double> p;       // probabilities
    std::vector<double> slopes;  // d(score) / d(q . k)
    double sink = 0;             // the sink's probability
};

// The score of query i and key j, and its derivative by q . k.
double changed_score(const Head& head, std::int64_t i, std::int64_t j, double& slope) {
    const Attention& attention = *head.attention;
    const int width = attention.head_dim;
    double score = attention.scale * dot(&head.q[i * width], &head.k[j * width], width);
    slope = attention.scale;
    if (attention.softcap > 0) {
        const double capped = std::tanh(score / attention.softcap);
        score = attention.softcap * capped;
        slope *= 1 - capped * capped;
    }
    if (head.expression != nullptr) {
        const ScoreChange change =
            evaluate(*head.expression, {.score = score,
                                        .query = static_cast<double>(i),
                                        .key = static_cast<double>(j),
                                        .head = static_cast<double>(head.head),
                                        .batch = static_cast<double>(head.sample)});
        score = change.changed;
        slope *= change.slope;
    }
    if (attention.alibi) {
        const std::int64_t ahead = beside_query(head, i) - j;
        const double apart = static_cast<double>(std::max(ahead, -ahead));
        score -= head.values->alibi_slopes[head.head] * apart;
    }
    if (attention.relative_bias > 0) {
        score +=
            head.values->relative_bias[bias_place(attention, head.head, j - beside_query(head, i))];
    }
    return score;
}

// Sets the row's LSE.
SoftmaxRow softmax_row(Head& head, std::int64_t i, const std::vector<std::int64_t>& keys) {
    const Attention& attention = *head.attention;
    constexpr double kNone = -std::numeric_limits<double>::infinity();
    const bool pruned_zero = attention.softmax == SoftmaxKind::kPrunedZero;
    const double pruned = pruned_zero ? pruned_elements(head, i) : 0;
    const double sink = attention.sink ? head.values->sinks[head.head] : kNone;
    SoftmaxRow row{.p = std::vector<double>(keys.size()),
                   .slopes = std::vector<double>(keys.size())};
    double m = std::max(pruned > 0 ? 0 : kNone, sink);
    for (std::size_t n = 0; n < keys.size(); ++n) {
        row.p[n] = changed_score(head, i, keys[n], row.slopes[n]);
        m = std::max(m, row.p[n]);
    }
    row.sink = attention.sink ? std::exp(sink - m) : 0;
    double z = (pruned > 0 ? pruned * std::exp(-m) : 0) + row.sink;
    for (double& value : row.p) {
        value = std::exp(value - m);
        z += value;
    }
    for (double& value : row.p) {
        value /= z;
    }
    row.sink /= z > 0 ? z : 1;
    // D products of random signs add up to |q| |k| / sqrt(D) as a rule: a score's error of rounding
    // is proportional to that, however near to 0 the score is.
    double terms = 0;
    for (std::size_t n = 0; n < keys.size(); ++n) {
        terms += row.p[n] * std::abs(row.slopes[n]) * head.q_norm[i] * head.k_norm[keys[n]];
    }
    head.lse_terms += terms * terms / attention.head_dim;
    head.lse[i] = z > 0 ? m + std::log(z) : kNone;
    return row;
}

void run_row(Head& head, std::int64_t i) {
    const int width = head.attention->head_dim, values = head.attention->value_head_dim();
    const std::int64_t batch_head = head.sample * head.attention->heads + head.head;
    const std::vector<std::int64_t> keys = keys_of_row(head, i);
    const SoftmaxRow row = softmax_row(head, i, keys);
    const std::vector<double>& p = row.p;
    const double* d_o = &head.d_o[i * values];
    std::vector<double> d_p(keys.size()), factors(keys.size());
    double delta = 0;
    for (std::size_t n = 0; n < keys.size(); ++n) {
        factors[n] = dropout_factor(*head.attention, *head.values, batch_head, i, keys[n]);
        d_p[n] = factors[n] * dot(d_o, &head.v[keys[n] * values], values);
        delta += d_p[n] * p[n];
    }
    head.delta[i] = delta;
    head.d_sink -= row.sink * delta;
    double most = 0;  // what delta would be if none of its terms cancelled
    for (std::size_t n = 0; n < keys.size(); ++n) {
        most += std::abs(d_p[n]) * p[n];
    }
    head.d_sink_terms += row.sink * row.sink * most * most;
    for (std::size_t n = 0; n < keys.size(); ++n) {
        const std::int64_t j = keys[n];
        const double d_s = row.slopes[n] * p[n] * (d_p[n] - delta), kept = factors[n] * p[n];
        if (!head.d_bias.empty()) {
            const double without_cancelling = p[n] * (std::abs(d_p[n]) + std::abs(delta));
            head.d_bias[bias_place(*head.attention, 0, j - beside_query(head, i))] +=
                p[n] * (d_p[n] - delta);
            head.d_bias_terms += without_cancelling * without_cancelling;
        }
        for (int d = 0; d < values; ++d) {
            head.o[i * values + d] += kept * head.v[j * values + d];
            head.d_v[j * values + d] += kept * d_o[d];
        }
        for (int d = 0; d < width; ++d) {
            head.d_q[i * width + d] += d_s * head.k[j * width + d];
            head.d_k[j * width + d] += d_s * head.q[i * width + d];
        }
        const double terms = row.slopes[n] * p[n] * (std::abs(d_p[n]) + std::abs(delta));
        head.d_q_terms += terms * terms * head.k_norm[j] * head.k_norm[j];
        head.d_k_terms += terms * terms * head.q_norm[i] * head.q_norm[i];
    }
}

std::vector<double> row_norms(const std::vector<double>& rows, int width) {
    std::vector<double> norms(rows.size() / width);
    for (std::size_t i = 0; i < norms.size(); ++i) {
        norms[i] = std::sqrt(dot(&rows[i * width], &rows[i * width], width));
    }
    return norms;
}

// Squared terms of one (b, h), and what it adds to dK and dV [L, D].
struct HeadTerms {
    double lse = 0, d_q = 0, d_k = 0, d_sink = 0, d_sink_terms = 0, d_bias_terms = 0;
    std::vector<double> d_k_of_head, d_v_of_head, d_bias;
};

// Of a head of a sample: a sequence with patterns of its own has `patterns` of them.
int pattern_of(const Attention& attention, std::int64_t sample, std::int64_t head) {
    const auto of_head = static_cast<int>(head / (attention.heads / attention.patterns));
    return attention.sequence_patterns == 0
               ? of_head
               : static_cast<int>(sample) * attention.patterns + of_head;
}

// expression: of the attention's scores, or null.
HeadTerms run_head(const ReferenceProblem& problem, const ScoreGraph* expression,
                   std::int64_t index, ReferenceResult& result) {
    const Attention& attention = problem.attention;
    const std::int64_t rows = attention.length, keys = attention.key_value_length();
    const std::int64_t elements = rows * attention.head_dim;
    const std::int64_t key_elements = keys * attention.head_dim;
    const std::int64_t output_elements = rows * attention.value_head_dim();
    const std::int64_t value_elements = keys * attention.value_head_dim();
    const auto slice = [](std::span<const float> tensor, std::int64_t head, std::int64_t size) {
        const auto part = tensor.subspan(head * size, size);
        return std::vector<double>(part.begin(), part.end());
    };
    const std::int64_t group = attention.heads / attention.key_value_heads();
    const std::int64_t key_index =
        index / group;  // of [B, kv_heads]: heads of a group are adjacent
    const std::int64_t sample = index / attention.heads;
    Head head{.attention = &attention,
              .pattern = &problem.pattern[pattern_of(attention, sample, index % attention.heads)],
              .rules = problem.rules,
              .values = &problem.values,
              .expression = expression,
              .sample = sample,
              .head = index % attention.heads,
              .valid_keys = attention.key_padding ? problem.lengths[sample] : keys,
              .q = slice(problem.q, index, elements),
              .k = slice(problem.k, key_index, key_elements),
              .v = slice(problem.v, key_index, value_elements),
              .d_o = slice(problem.d_o, index, output_elements),
              .o = &result.o[index * output_elements],
              .lse = &result.lse[index * rows],
              .delta = &result.delta[index * rows],
              .d_q = &result.d_q[index * elements],
              .d_k = std::vector<double>(key_elements),
              .d_v = std::vector<double>(value_elements),
              .q_norm = {},
              .k_norm = {},
              .d_bias = std::vector<double>(attention.bias_entries())};
    head.q_norm = row_norms(head.q, attention.head_dim);
    head.k_norm = row_norms(head.k, attention.head_dim);
    for (std::int64_t i = 0; i < rows; ++i) {
        run_row(head, i);
    }
    return {.lse = head.lse_terms,
            .d_q = head.d_q_terms,
            .d_k = head.d_k_terms,
            .d_sink = head.d_sink,
            .d_sink_terms = head.d_sink_terms,
            .d_bias_terms = head.d_bias_terms,
            .d_k_of_head = std::move(head.d_k),
            .d_v_of_head = std::move(head.d_v),
            .d_bias = std::move(head.d_bias)};
}

}  // namespace

double error_scale(double norm, double terms) {
    constexpr double kShareOfTerms = 0.5;
    return std::max(norm, kShareOfTerms * terms);
}

ReferenceResult reference_attention(const ReferenceProblem& problem) {
    check(problem);
    const std::int64_t heads = problem.batch * problem.attention.heads;
    const std::size_t rows = heads * problem.attention.length;
    ReferenceResult result;
    const std::size_t elements = rows * problem.attention.head_dim;
    result.d_q.assign(elements, 0);
    result.o.assign(rows * problem.attention.value_head_dim(), 0);
    const int group = problem.attention.heads / problem.attention.key_value_heads();
    const std::size_t key_rows = heads / group * problem.attention.key_value_length();
    result.d_k.assign(key_rows * problem.attention.head_dim, 0);
    result.d_v.assign(key_rows * problem.attention.value_head_dim(), 0);
    result.lse.assign(rows, 0);
    result.delta.assign(rows, 0);
    result.d_sinks.assign(problem.attention.sink ? problem.attention.heads : 0, 0);
    const std::size_t entries = problem.attention.bias_entries();
    result.d_relative_bias.assign(problem.attention.heads * entries, 0);
    std::vector<HeadTerms> terms(heads);
    std::optional<ScoreGraph> expression;
    if (!problem.attention.score.empty()) {
        expression = score_graph(problem.attention.score, problem.attention.score_derivative);
    }
    std::atomic<std::int64_t> next = 0;
    const auto work = [&] {
        for (std::int64_t index = next++; index < heads; index = next++) {
            terms[index] = run_head(problem, expression ? &*expression : nullptr, index, result);
        }
    };
    run_on_threads(static_cast<int>(std::min<std::int64_t>(thread_count(), heads)), work);
    for (std::int64_t index = 0; index < heads; ++index) {
        const HeadTerms& head = terms[index];
        result.lse_terms += head.lse;
        result.d_q_terms += head.d_q;
        result.d_k_terms += head.d_k;
        if (problem.attention.sink) {
            result.d_sinks[index % problem.attention.heads] += head.d_sink;
            result.d_sinks_terms += head.d_sink_terms;
        }
        for (std::size_t n = 0; n < entries; ++n) {
            result.d_relative_bias[index % problem.attention.heads * entries + n] += head.d_bias[n];
        }
        result.d_relative_bias_terms += head.d_bias_terms;
        for (auto [of_head, sums] : {std::pair(&head.d_k_of_head, &result.d_k),
                                     std::pair(&head.d_v_of_head, &result.d_v)}) {
            const std::size_t first = index / group * of_head->size();
            for (std::size_t n = 0; n < of_head->size(); ++n) {
                (*sums)[first + n] += (*of_head)[n];
            }
        }
    }
    result.d_sinks_terms = std::sqrt(result.d_sinks_terms);
    result.lse_terms = std::sqrt(result.lse_terms);
    result.d_q_terms = std::sqrt(result.d_q_terms);
    result.d_k_terms = std::sqrt(result.d_k_terms);
    result.d_relative_bias_terms = std::sqrt(result.d_relative_bias_terms);
    return result;
}

}  // namespace spion
