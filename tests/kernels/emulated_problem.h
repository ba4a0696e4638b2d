// A random problem for the emulated attention kernels, and what the operation is by its definition.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "ir/element_spans.h"
#include "ir/score_expression.h"
#include "kernels/random.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/kernels/emulated_kernels.h"
#include "tests/kernels/emulated_tensor.h"
#include "tests/kernels/emulated_walk.h"
#include "tests/support/random_mask.h"
#include "tests/support/softmax_kinds.h"

namespace spion {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// One (b, h): everything as [L] or [L * D] in double.
struct Reference {
    std::vector<double> o, lse, dq, dk, dv, delta;
    // Squares of the terms P dP of dQ and dK, from which P delta is subtracted: all of it where a row
    // has one key, which leaves the rounding errors of both.
    double dq_terms = 0, dk_terms = 0, dbias_terms = 0;
    std::vector<double> dbias;  // [2R + 1]
};

struct Problem {
    EmulatedCase c;
    int batch;
    std::vector<EmulatedBlocks> blocks;  // of each pattern
    std::vector<int> lengths;            // [B]
    MaskRules rules;                     // of a mask of spans
    ElementSpans spans;
    std::vector<int> starts, key_starts;  // [B + 1] of sequences
    SpionDropoutState dropout;
    std::vector<float> slopes, sinks;  // [H]
    std::vector<float> bias;           // [H, 2R + 1]
    std::vector<float> d_bias;         // that, and the kernels' sums behind it
    Tensor q, k, v, d_o, o, d_q, d_k, d_v;
    std::vector<float> lse, delta;  // [B, H, L]

    Problem(const EmulatedCase& c_, int batch_, std::mt19937& random)
        : c(c_),
          batch(batch_),
          q(c, batch, true),
          k(c, batch, true, true),
          v(c, batch, false, true, true),
          d_o(c, batch, false, false, true),
          o(c, batch, false, false, true),
          d_q(c, batch, false),
          d_k(c, batch, true, true),
          d_v(c, batch, true, true, true) {
        const auto rows_of_blocks = static_cast<std::size_t>((c.length + c.block - 1) / c.block);
        const auto columns = static_cast<std::size_t>((c.keys() + c.block - 1) / c.block);
        std::bernoulli_distribution present(0.5);
        blocks.assign(static_cast<std::size_t>(c.pattern_count()),
                      EmulatedBlocks(rows_of_blocks, std::vector<bool>(columns)));
        for (EmulatedBlocks& pattern : blocks) {
            for (std::size_t i = 0; i < rows_of_blocks; ++i) {
                // The second row of blocks stays empty, the last is full.
                for (std::size_t j = 0; j < columns; ++j) {
                    pattern[i][j] = i + 1 == rows_of_blocks || (i != 1 && present(random));
                }
            }
        }
        std::uniform_int_distribution<int> length(1, static_cast<int>(c.keys()));
        for (int b = 0; b < batch; ++b) {
            lengths.push_back(!c.key_padding || b == 0 ? static_cast<int>(c.keys())
                              : b == 1                 ? 0
                                                       : length(random));
        }
        draw_rules(random);
        for (int b = 0; b <= batch; ++b) {
            starts.push_back(static_cast<int>(c.start(b)));
            key_starts.push_back(static_cast<int>(c.start(b, true)));
        }
        dropout = {.seed = random() * 0x100000001ULL,
                   .offset = static_cast<unsigned>(random()),
                   .enabled = random() % 4 != 0};
        std::normal_distribution<float> normal;
        for (int h = 0; h < c.heads; ++h) {
            slopes.push_back(0.05F * normal(random));
            sinks.push_back(2.0F * normal(random));
        }
        for (int n = 0; n < c.heads * c.bias_entries(); ++n) bias.push_back(normal(random));
        const std::int64_t strips = batch * ((c.length + 15) / 16);
        d_bias.assign(bias.size() * static_cast<std::size_t>(1 + strips), std::nanf(""));
        q.fill(random, 2.0F);
        k.fill(random, 1.0F);
        v.fill(random, 1.0F);
        d_o.fill(random, 1.0F);
        poison_padded_keys();
        const auto rows = static_cast<std::size_t>(batch * c.heads * c.length);
        lse.assign(rows, std::nanf(""));
        delta.assign(rows, std::nanf(""));
    }

    // Of a mask of spans.
    void draw_rules(std::mt19937& random) {
        if (c.mask != ElementMask::kSpans) return;
        rules = test::random_rules([&](int n) { return static_cast<int>(random() % n); }, batch,
                                   c.length, c.keys());
        for (int b = 0; c.varlen && b < batch; ++b) {
            rules.sequence_lengths.push_back(static_cast<int>(c.positions(b)));
            if (!c.key_starts) continue;
            rules.key_sequence_lengths.push_back(static_cast<int>(c.key_positions(b)));
        }
        spans = element_spans(rules, batch, c.length, c.keys());
    }

    // What lies beyond a sample's length must not matter, even if it is not a number.
    void poison_padded_keys() {
        for (int b = 0; b < batch; ++b) {
            for (int h = 0; h < k.heads; ++h) {
                for (std::int64_t l = lengths[static_cast<std::size_t>(b)]; l < c.keys(); ++l) {
                    for (int d = 0; d < k.width; ++d) k.set(b, h, l, d, std::nanf(""));
                    for (int d = 0; d < v.width; ++d) v.set(b, h, l, d, std::nanf(""));
                }
            }
        }
    }
    // The key that a query stands beside: the last ones of a sample do.
    std::int64_t beside_query(int b, std::int64_t i) const {
        return i + c.key_positions(b) - c.positions(b);
    }
    // By the words of ir/attention.h and ir/element_spans.h.
    bool keeps(int b, std::int64_t i, std::int64_t j) const {
        const auto sample = static_cast<std::size_t>(b);
        if (i >= c.positions(b) || j >= c.key_positions(b)) return false;
        if (c.mask == ElementMask::kNone) return true;
        const std::int64_t beside = beside_query(b, i);
        if (c.mask == ElementMask::kCausal) return j <= beside;
        const bool prefix = !rules.prefixes.empty() && j < rules.prefixes[sample];
        if (rules.causal && j > beside && !prefix) return false;
        if (rules.left && j < beside - *rules.left) return false;
        if (rules.right && j > beside + *rules.right) return false;
        const std::vector<int>& key_documents =
            rules.key_documents.empty() ? rules.documents : rules.key_documents;
        if (!rules.documents.empty() &&
            rules.documents[static_cast<std::size_t>(b * c.length + i)] !=
                key_documents[static_cast<std::size_t>(b * c.keys() + j)]) {
            return false;
        }
        return rules.query_lengths.empty() || i < rules.query_lengths[sample];
    }
    bool in_pattern(int b, int h, std::int64_t i, std::int64_t j) const {
        const int of_sequence = c.sequence_patterns > 0 ? b * c.patterns : 0;
        const auto pattern = static_cast<std::size_t>(of_sequence + h / (c.heads / c.patterns));
        return blocks[pattern][static_cast<std::size_t>(i / c.block)]
                     [static_cast<std::size_t>(j / c.block)];
    }

    // The score of an element, and its derivative by the product of its vectors; what it counts.
    struct Changed {
        double score, slope, factor;
    };
    std::size_t bias_place(int b, int h, std::int64_t i, std::int64_t j) const {
        const std::int64_t ahead = j - beside_query(b, i), reach = c.relative_bias;
        const std::int64_t clipped = ahead > reach ? reach : ahead < -reach ? -reach : ahead;
        return static_cast<std::size_t>(h * c.bias_entries() + reach + clipped);
    }
    Changed changed(int b, int h, std::int64_t i, std::int64_t j, double product) const {
        const auto head = static_cast<std::size_t>(h);
        const double scale = default_scale(c.head_dim);
        Changed result{scale * product, scale, 1};
        if (c.softcap > 0) {
            const double t = std::tanh(result.score / double{c.softcap});
            result = {double{c.softcap} * t, scale * (1 - t * t), 1};
        }
        if (*c.score != '\0') {
            const ScoreChange change =
                evaluate(score_graph(c.score, ""), {.score = result.score,
                                                    .query = static_cast<double>(i),
                                                    .key = static_cast<double>(j),
                                                    .head = static_cast<double>(h),
                                                    .batch = static_cast<double>(b)});
            result = {change.changed, scale * change.slope, 1};
        }
        if (c.alibi) {
            const std::int64_t apart = std::abs(beside_query(b, i) - j);
            result.score -= double{slopes[head]} * static_cast<double>(apart);
        }
        if (c.relative_bias > 0) result.score += double{bias[bias_place(b, h, i, j)]};
        if (c.dropout > 0 && dropout.enabled != 0) {
            const SpionRandomBits bits = spion_attention_bits(
                static_cast<unsigned>(i / 16 * 4 + i % 8 / 2),
                static_cast<unsigned>(j / 16 * 4 + j % 8 / 2),
                static_cast<unsigned>(b * c.heads + h), dropout.offset, dropout.seed);
            const unsigned word = bits.word[i % 2 * 2 + j % 2];
            const unsigned byte = word >> (i / 8 % 2 * 16 + j / 8 % 2 * 8) & 255U;
            const double lost = std::round(256.0 * double{c.dropout});
            result.factor = byte < lost ? 0 : 256 / (256 - lost);
        }
        return result;
    }

    // Of one query by key: scores, -infinity where a key is left out, and what changes them.
    struct Row {
        std::vector<double> s, slope, factor;
    };

    // Sets the row's LSE, too.
    Row scores_of(int b, int h, std::int64_t i, Reference& r) {
        const std::int64_t keys = c.keys();
        const int key_head = h * k.heads / c.heads;
        Row row;
        row.s.assign(static_cast<std::size_t>(keys), -kInfinite);
        row.slope.assign(row.s.size(), 0.0);
        row.factor = row.slope;
        std::int64_t inside = 0, kept = 0;
        double top = -kInfinite;
        for (std::int64_t j = 0; j < keys; ++j) {
            if (!keeps(b, i, j)) continue;
            ++kept;
            if (!in_pattern(b, h, i, j)) continue;
            ++inside;
            if (j >= lengths[static_cast<std::size_t>(b)]) continue;
            double dot = 0;
            for (int d = 0; d < c.head_dim; ++d) {
                dot += q.get(b, h, i, d) * k.get(b, key_head, j, d);
            }
            const Changed element = changed(b, h, i, j, dot);
            row.s[static_cast<std::size_t>(j)] = element.score;
            row.slope[static_cast<std::size_t>(j)] = element.slope;
            row.factor[static_cast<std::size_t>(j)] = element.factor;
            top = std::max(top, element.score);
        }
        const std::int64_t pruned = test::pruned_elements(c.softmax, kept, inside);
        if (pruned > 0) top = std::max(top, 0.0);
        const double sink = double{sinks[static_cast<std::size_t>(h)]};
        if (c.sink) top = std::max(top, sink);
        double z = pruned > 0 ? static_cast<double>(pruned) * std::exp(-top) : 0.0;
        z += c.sink ? std::exp(sink - top) : 0.0;
        for (double x : row.s) z += x == -kInfinite ? 0.0 : std::exp(x - top);
        r.lse[static_cast<std::size_t>(i)] = z == 0.0 ? -kInfinite : top + std::log(z);
        return row;
    }

    // O and delta of the row, and what it adds to the gradients.
    void add_row(int b, int h, std::int64_t i, const Row& row, Reference& r) {
        const int key_head = h * k.heads / c.heads;
        const int D = c.head_dim, values = c.values();
        const auto at = [](std::int64_t l, int d, int width) {
            return static_cast<std::size_t>(l * width + d);
        };
        const double lse_i = r.lse[static_cast<std::size_t>(i)];
        std::vector<double> p(row.s.size(), 0.0), dp(p);
        double delta_i = 0;
        for (std::size_t j = 0; j < p.size(); ++j) {
            if (row.s[j] == -kInfinite) continue;
            const auto key = static_cast<std::int64_t>(j);
            p[j] = std::exp(row.s[j] - lse_i);
            for (int d = 0; d < values; ++d) {
                const double value = v.get(b, key_head, key, d);
                r.o[at(i, d, values)] += row.factor[j] * p[j] * value;
                dp[j] += row.factor[j] * d_o.get(b, h, i, d) * value;
                r.dv[at(key, d, values)] += row.factor[j] * p[j] * d_o.get(b, h, i, d);
            }
            delta_i += p[j] * dp[j];
        }
        r.delta[static_cast<std::size_t>(i)] = delta_i;
        for (std::size_t j = 0; j < p.size(); ++j) {
            if (row.s[j] == -kInfinite) continue;
            const auto key = static_cast<std::int64_t>(j);
            const double ds = row.slope[j] * p[j] * (dp[j] - delta_i);
            const double term = row.slope[j] * p[j] * dp[j];
            if (c.relative_bias > 0) {
                r.dbias[bias_place(b, 0, i, key)] += p[j] * (dp[j] - delta_i);
                r.dbias_terms += p[j] * dp[j] * p[j] * dp[j];
            }
            for (int d = 0; d < D; ++d) {
                const double key_value = k.get(b, key_head, key, d), query = q.get(b, h, i, d);
                r.dq[at(i, d, D)] += ds * key_value;
                r.dk[at(key, d, D)] += ds * query;
                r.dq_terms += term * key_value * term * key_value;
                r.dk_terms += term * query * term * query;
            }
        }
    }

    Reference reference(int b, int h) {
        const std::int64_t L = c.length, keys = c.keys();
        const int D = c.head_dim, values = c.values();
        Reference r;
        r.dq = std::vector<double>(static_cast<std::size_t>(L * D), 0.0);
        r.o = std::vector<double>(static_cast<std::size_t>(L * values), 0.0);
        r.dk = std::vector<double>(static_cast<std::size_t>(keys * D), 0.0);
        r.dv = std::vector<double>(static_cast<std::size_t>(keys * values), 0.0);
        r.dbias.assign(static_cast<std::size_t>(c.bias_entries()), 0.0);
        r.lse = r.delta = std::vector<double>(static_cast<std::size_t>(L), 0.0);
        for (std::int64_t i = 0; i < L; ++i) {
            add_row(b, h, i, scores_of(b, h, i, r), r);
        }
        return r;
    }
};

}  // namespace spion
