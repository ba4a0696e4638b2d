#include "tests/api/oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>

#include "tests/support/random_mask.h"
#include "tools/oracle/random_pattern.h"
#include "tools/oracle/reference_attention.h"

namespace oracle {
namespace {

std::string fault(const char* name, std::span<const float> actual,
                  std::span<const double> reference, double terms, double tolerance) {
    double distance = 0, norm = 0;
    long faulty = 0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
        const double x = i < actual.size() ? actual[i] : std::nan("");
        if (std::isinf(reference[i])) {
            faulty += x == reference[i] ? 0 : 1;
        } else if (!std::isfinite(x)) {
            ++faulty;
        } else {
            distance += (x - reference[i]) * (x - reference[i]);
            norm += reference[i] * reference[i];
        }
    }
    const double error =
        distance == 0 ? 0 : std::sqrt(distance) / spion::error_scale(std::sqrt(norm), terms);
    return faulty == 0 && error <= tolerance
               ? ""
               : fmt::format("{}: relative error {:.3e}, {} faulty elements\n", name, error,
                             faulty);
}

}  // namespace

std::vector<std::uint8_t> random_bits(std::int64_t length, int block, double density,
                                      std::uint64_t seed) {
    std::vector<std::uint8_t> bits;
    for (const char c : spion::random_pattern(length, block, density, seed).to_bits()) {
        if (c != '\n') {
            bits.push_back(c == '1' ? 1 : 0);
        }
    }
    return bits;
}

Problem random_problem(std::int64_t length, int block, int heads, int head_dim, std::int64_t batch,
                       double density, bool padding, std::uint64_t seed) {
    Problem problem{.heads = heads,
                    .head_dim = head_dim,
                    .block = block,
                    .length = length,
                    .batch = batch,
                    .bits = random_bits(length, block, density, seed),
                    .lengths = {},
                    .q = {},
                    .k = {},
                    .v = {},
                    .d_o = {}};
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    for (auto* tensor : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
        tensor->resize(static_cast<std::size_t>(batch * heads * length * head_dim));
        for (float& value : *tensor) {
            value = normal(generator);
        }
    }
    std::uniform_int_distribution<std::int32_t> some(0, static_cast<std::int32_t>(length));
    for (std::int64_t sample = 0; padding && sample < batch; ++sample) {
        problem.lengths.push_back(some(generator));
    }
    return problem;
}

Problem random_problem(const Problem& shape, const Options& options, double density,
                       std::uint64_t seed) {
    Problem problem = shape;
    problem.key_length = options.key_length;
    problem.key_value_heads = options.key_value_heads;
    problem.patterns = options.patterns;
    problem.value_dim = options.value_dim;
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& values, std::int64_t count) {
        values.resize(static_cast<std::size_t>(count));
        for (float& value : values) value = normal(generator);
    };
    const std::int64_t kv_heads =
        options.key_value_heads == 0 ? shape.heads : options.key_value_heads;
    const std::int64_t queries = shape.batch * shape.heads * shape.length;
    const std::int64_t keys = shape.batch * kv_heads * problem.keys();
    fill(problem.q, queries * shape.head_dim);
    fill(problem.d_o, queries * problem.value_width());
    fill(problem.k, keys * shape.head_dim);
    fill(problem.v, keys * problem.value_width());
    std::bernoulli_distribution computed(density);
    const auto blocks = [&](std::int64_t length) {
        return (length + shape.block - 1) / shape.block;
    };
    problem.bits.resize(
        static_cast<std::size_t>(options.patterns * blocks(shape.length) * blocks(problem.keys())));
    for (std::uint8_t& bit : problem.bits) bit = computed(generator) ? 1 : 0;
    if (options.softcap) problem.softcap = 1.5F;  // caps what normal tensors give
    if (options.dropout) {
        problem.dropout = 0.25F;
        problem.seed = generator();
        problem.offset = static_cast<std::uint32_t>(generator());
    }
    if (options.alibi) {
        fill(problem.alibi_slopes, shape.heads);
        for (float& slope : problem.alibi_slopes) slope = std::abs(slope) / 16;
    }
    if (options.sinks) fill(problem.sinks, shape.heads);
    problem.score = options.score;
    problem.reach = options.reach;
    if (options.reach > 0) fill(problem.relative_bias, shape.heads * (2 * options.reach + 1));
    return problem;
}

std::vector<std::int32_t> random_sequences(std::int64_t length, std::int64_t batch,
                                           std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    std::uniform_int_distribution<std::int32_t> some(0, static_cast<std::int32_t>(length));
    const std::int64_t whole = static_cast<std::int64_t>(generator() % batch);
    std::vector<std::int32_t> starts = {0};
    for (std::int64_t b = 0; b < batch; ++b) {
        starts.push_back(starts.back() +
                         (b == whole ? static_cast<std::int32_t>(length) : some(generator)));
    }
    return starts;
}

namespace {

// visit(place in [B, heads, L, width], place in [T, heads, width]) for rows of `width` elements.
template <typename Visit>
void for_each_row(const Problem& problem, std::int64_t heads, std::int64_t width, bool of_keys,
                  const Visit& visit) {
    const std::vector<std::int32_t>& starts = problem.starts(of_keys);
    const std::int64_t length = of_keys ? problem.keys() : problem.length;
    for (std::int64_t b = 0; b < problem.batch; ++b) {
        const std::int64_t start = starts[b];
        for (std::int64_t l = 0; start + l < starts[b + 1]; ++l) {
            for (std::int64_t h = 0; h < heads; ++h) {
                visit(((b * heads + h) * length + l) * width, ((start + l) * heads + h) * width);
            }
        }
    }
}

}  // namespace

std::vector<float> packed(const Problem& problem, const std::vector<float>& padded,
                          std::int64_t heads, std::int64_t width, bool of_keys) {
    const std::int64_t all = problem.starts(of_keys).back();
    std::vector<float> rows(static_cast<std::size_t>(all * heads * width));
    for_each_row(problem, heads, width, of_keys, [&](std::int64_t from, std::int64_t to) {
        std::copy_n(padded.begin() + from, width, rows.begin() + to);
    });
    return rows;
}

std::vector<float> unpacked(const Problem& problem, const std::vector<float>& rows,
                            std::int64_t heads, std::int64_t width, bool of_keys) {
    const std::int64_t length = of_keys ? problem.keys() : problem.length;
    std::vector<float> padded(static_cast<std::size_t>(problem.batch * heads * length * width));
    for_each_row(problem, heads, width, of_keys, [&](std::int64_t to, std::int64_t from) {
        std::copy_n(rows.begin() + from, width, padded.begin() + to);
    });
    return padded;
}

Problem with_own_patterns(Problem problem, std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    std::bernoulli_distribution computed(0.6);
    problem.own_patterns = true;
    problem.bits.resize(problem.bits.size() * static_cast<std::size_t>(problem.batch));
    for (std::uint8_t& bit : problem.bits) bit = computed(generator) ? 1 : 0;
    return problem;
}

Rules random_rules(std::int64_t length, std::int64_t batch, std::uint64_t seed,
                   std::int64_t key_length) {
    std::mt19937_64 generator(seed);
    const spion::MaskRules made = spion::test::random_rules(
        [&](int below) { return std::uniform_int_distribution<int>(0, below - 1)(generator); },
        batch, length, key_length);
    return {.causal = made.causal,
            .left = made.left,
            .right = made.right,
            .documents = made.documents,
            .key_documents = made.key_documents,
            .prefixes = made.prefixes,
            .query_lengths = made.query_lengths};
}

namespace {

spion::Attention attention_of(const Problem& problem) {
    return {.heads = problem.heads,
            .head_dim = problem.head_dim,
            .length = problem.length,
            .dtype = spion::DType::kFp32,
            .scale = spion::default_scale(problem.head_dim),
            .softmax =
                problem.pruned_zero ? spion::SoftmaxKind::kPrunedZero : spion::SoftmaxKind::kMasked,
            .key_padding = !problem.lengths.empty(),
            .dropout = problem.dropout,
            .mask = problem.rules || !problem.cu_seqlens.empty() ? spion::ElementMask::kSpans
                    : problem.causal                             ? spion::ElementMask::kCausal
                                                                 : spion::ElementMask::kNone,
            .kv_heads = problem.key_value_heads,
            .kv_length = problem.key_length,
            .value_dim = problem.value_dim,
            .patterns = problem.patterns,
            .softcap = problem.softcap,
            .alibi = !problem.alibi_slopes.empty(),
            .sink = !problem.sinks.empty(),
            .relative_bias = problem.reach,
            .varlen = !problem.cu_seqlens.empty(),
            .sequence_patterns = problem.own_patterns ? static_cast<int>(problem.batch) : 0,
            .score = problem.score};
}

spion::HeadPatterns patterns_of(const Problem& problem) {
    std::vector<spion::BlockPattern> patterns;
    const auto each = problem.bits.size() / static_cast<std::size_t>(problem.pattern_count());
    for (auto at = problem.bits.begin(); at != problem.bits.end();
         at += static_cast<std::ptrdiff_t>(each)) {
        patterns.emplace_back(
            problem.length, problem.keys(), problem.block,
            std::vector<std::uint8_t>(at, at + static_cast<std::ptrdiff_t>(each)));
    }
    return spion::HeadPatterns(std::move(patterns));
}

}  // namespace

namespace {

std::vector<int> sequence_lengths(const std::vector<std::int32_t>& starts) {
    std::vector<int> lengths;
    for (std::size_t b = 1; b < starts.size(); ++b) {
        lengths.push_back(starts[b] - starts[b - 1]);
    }
    return lengths;
}

// LSE of positions that no sequence has is not written: as the reference has it.
std::vector<float> defined_lse(const Problem& problem, const Outputs& outputs,
                               const spion::ReferenceResult& reference) {
    const std::vector<int> lengths = sequence_lengths(problem.cu_seqlens);
    std::vector<float> lse = outputs.lse;
    for (std::size_t n = 0; !lengths.empty() && n < lse.size(); ++n) {
        const auto row = static_cast<std::int64_t>(n);
        if (row % problem.length >= lengths[row / problem.length / problem.heads]) {
            lse[n] = static_cast<float>(reference.lse[n]);
        }
    }
    return lse;
}

}  // namespace

std::string faults(const Problem& problem, const Outputs& outputs, double tolerance) {
    const Rules given = problem.rules.value_or(Rules{});
    const spion::MaskRules rules{.causal = given.causal,
                                 .left = given.left,
                                 .right = given.right,
                                 .documents = given.documents,
                                 .key_documents = given.key_documents,
                                 .prefixes = given.prefixes,
                                 .query_lengths = given.query_lengths,
                                 .sequence_lengths = sequence_lengths(problem.cu_seqlens),
                                 .key_sequence_lengths = sequence_lengths(problem.key_cu_seqlens)};
    const std::vector<int> lengths(problem.lengths.begin(), problem.lengths.end());
    const spion::ReferenceResult reference =
        spion::reference_attention({.attention = attention_of(problem),
                                    .pattern = patterns_of(problem),
                                    .batch = problem.batch,
                                    .lengths = lengths,
                                    .q = problem.q,
                                    .k = problem.k,
                                    .v = problem.v,
                                    .d_o = problem.d_o,
                                    .rules = &rules,
                                    .values = {.seed = problem.seed,
                                               .offset = problem.offset,
                                               .dropout_enabled = problem.dropout_enabled,
                                               .alibi_slopes = problem.alibi_slopes,
                                               .sinks = problem.sinks,
                                               .relative_bias = problem.relative_bias}});
    std::string text = fault("o", outputs.o, reference.o, 0, tolerance);
    if (!outputs.lse.empty()) {
        text += fault("lse", defined_lse(problem, outputs, reference), reference.lse,
                      reference.lse_terms, tolerance);
    }
    if (!outputs.d_q.empty()) {
        text += fault("d_q", outputs.d_q, reference.d_q, reference.d_q_terms, tolerance) +
                fault("d_k", outputs.d_k, reference.d_k, reference.d_k_terms, tolerance) +
                fault("d_v", outputs.d_v, reference.d_v, 0, tolerance);
    }
    if (!outputs.d_sinks.empty()) {
        text += fault("d_sinks", outputs.d_sinks, reference.d_sinks, reference.d_sinks_terms,
                      tolerance);
    }
    if (!outputs.d_relative_bias.empty()) {
        text += fault("d_relative_bias", outputs.d_relative_bias, reference.d_relative_bias,
                      reference.d_relative_bias_terms, tolerance);
    }
    return text;
}

std::uint16_t bf16_bits(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float from_bf16_bits(std::uint16_t bits) {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float value = 0;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
}

float to_bf16(float value) {
    return from_bf16_bits(bf16_bits(value));
}

}  // namespace oracle
