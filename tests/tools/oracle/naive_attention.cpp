#include "tests/tools/oracle/naive_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "tests/support/softmax_kinds.h"

namespace spion::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// [L, D] of one head: matrix * rows, or its transpose * rows.
std::vector<double> product(const std::vector<std::vector<double>>& matrix,
                            std::span<const float> rows, std::int64_t width, bool transposed) {
    const std::int64_t length = std::ssize(matrix);
    std::vector<double> out(length * width);
    for (std::int64_t i = 0; i < length; ++i) {
        for (std::int64_t j = 0; j < length; ++j) {
            for (std::int64_t d = 0; d < width; ++d) {
                out[i * width + d] +=
                    (transposed ? matrix[j][i] : matrix[i][j]) * rows[j * width + d];
            }
        }
    }
    return out;
}

void expect_near(const std::vector<double>& expected, std::span<const double> actual,
                 const char* what) {
    ASSERT_EQ(expected.size(), actual.size());
    for (std::size_t n = 0; n < expected.size(); ++n) {
        if (std::isinf(expected[n])) {
            ASSERT_EQ(expected[n], actual[n]) << what << " at " << n;
        } else {
            ASSERT_NEAR(expected[n], actual[n], 1e-10) << what << " at " << n;
        }
    }
}

}  // namespace

Inputs random_inputs(const Attention& attention, std::int64_t batch, std::mt19937_64& generator) {
    const std::int64_t size = batch * attention.heads * attention.length * attention.head_dim;
    std::normal_distribution<float> normal;
    Inputs inputs;
    for (auto* tensor : {&inputs.q, &inputs.k, &inputs.v, &inputs.d_o}) {
        tensor->resize(size);
        for (float& value : *tensor) {
            value = normal(generator);
        }
    }
    return inputs;
}

BlockPattern pattern_with_empty_rows(std::int64_t length, int block, std::mt19937_64& generator) {
    const int rows = BlockPattern::empty(length, block).rows();
    std::vector<std::uint8_t> bits(rows * rows);
    for (int i = 0; i < rows; ++i) {
        for (int j = 0; i % 3 != 1 && j < rows; ++j) {
            bits[i * rows + j] = generator() % 3 == 0;
        }
    }
    return BlockPattern(length, block, std::move(bits));
}

ReferenceProblem problem_of(const Attention& attention, const BlockPattern& pattern,
                            std::int64_t batch, const std::vector<int>& lengths,
                            const Inputs& inputs) {
    return {.attention = attention,
            .pattern = pattern,
            .batch = batch,
            .lengths = lengths,
            .q = inputs.q,
            .k = inputs.k,
            .v = inputs.v,
            .d_o = inputs.d_o};
}

// By how many positions key j is behind query i's own.
std::int64_t behind(const Attention& a, std::int64_t i, std::int64_t j) {
    return j - i - (a.kv_length == 0 ? 0 : a.kv_length - a.length);
}

// Of [H, 2R + 1]: as many places from the middle of the head's as key j is behind query i's own.
std::int64_t bias_of(const Attention& a, std::int64_t head, std::int64_t i, std::int64_t j) {
    const std::int64_t most = a.relative_bias;
    return (2 * head + 1) * most + head + std::clamp(behind(a, i, j), -most, most);
}

bool keeps_all(std::int64_t /*i*/, std::int64_t /*j*/) {
    return true;
}

namespace {

// Both multiply `slope` with the derivative at s.
double cap(double s, double most, double& slope) {
    slope /= std::cosh(s / most) * std::cosh(s / most);
    return most * std::tanh(s / most);
}

// kNaiveScore; heads: head + 2 * batch.
double naive_score(double s, std::int64_t i, std::int64_t j, double heads, double& slope) {
    if (i < j) {
        return cap(s, 3, slope);
    }
    const double share = 1 / (1 + std::exp(-s));
    slope *= share + s * share * (1 - share);
    return s * share - heads * double(i - j) / 9;
}

}  // namespace

NaiveAttention::NaiveAttention(const ReferenceProblem& problem, std::int64_t head,
                               const Keeps& keeps) {
    const Attention& a = problem.attention;
    const std::int64_t length = a.length, width = a.head_dim, base = head * length * width;
    const int valid = a.key_padding ? problem.lengths[head / a.heads] : int(length);
    p.assign(length, std::vector<double>(length));
    d_s = dropped = p;
    if (a.relative_bias > 0) d_bias.assign(2 * a.relative_bias + 1, 0);
    const std::int64_t head_of = head % a.heads;
    for (std::int64_t i = 0; i < length; ++i) {
        std::vector<double> weight(length), slope(length, a.scale);
        std::int64_t kept_of_row = 0, listed = 0;
        double sum = a.sink ? std::exp(double(problem.values.sinks[head_of])) : 0;
        for (std::int64_t j = 0; j < length; ++j) {
            double s = 0;
            for (std::int64_t d = 0; d < width; ++d) {
                s += double(problem.q[base + i * width + d]) * problem.k[base + j * width + d] *
                     a.scale;
            }
            if (a.softcap > 0) s = cap(s, a.softcap, slope[j]);
            if (!a.score.empty()) {
                s = naive_score(s, i, j, double(head_of + 2 * (head / a.heads)), slope[j]);
            }
            if (a.alibi) {
                s -= problem.values.alibi_slopes[head_of] * double(std::abs(behind(a, i, j)));
            }
            if (a.relative_bias > 0) s += problem.values.relative_bias[bias_of(a, head_of, i, j)];
            const int edge = problem.pattern.block();
            const bool inside = problem.pattern.front().at(int(i / edge), int(j / edge));
            weight[j] = inside && j < valid && keeps(i, j) ? std::exp(s) : 0;
            kept_of_row += keeps(i, j) ? 1 : 0;
            listed += inside && keeps(i, j) ? 1 : 0;
            sum += weight[j];
        }
        sum += double(test::pruned_elements(a.softmax, kept_of_row, listed));
        lse.push_back(sum > 0 ? std::log(sum) : -kInfinity);
        double mean = 0;
        const int lost = dropped_of_256(a);
        for (std::int64_t j = 0; j < length; ++j) {
            const bool drops = lost > 0 && problem.values.dropout_enabled;
            const bool kept = !drops || dropout_byte(problem.values, head, i, j) >= lost;
            const double factor = !drops ? 1 : kept ? 1 / (1 - lost / 256.0) : 0;
            p[i][j] = sum > 0 ? weight[j] / sum : 0;
            dropped[i][j] = p[i][j] * factor;
            for (std::int64_t d = 0; d < width; ++d) {
                d_s[i][j] +=
                    factor * problem.d_o[base + i * width + d] * problem.v[base + j * width + d];
            }
            mean += p[i][j] * d_s[i][j];
        }
        for (std::int64_t j = 0; j < length; ++j) {
            d_s[i][j] = p[i][j] * (d_s[i][j] - mean);
            if (a.relative_bias > 0) d_bias[bias_of(a, 0, i, j)] += d_s[i][j];
            d_s[i][j] *= slope[j];
        }
        if (a.sink) d_sink -= std::exp(double(problem.values.sinks[head_of])) / sum * mean;
    }
}

void expect_equals_naive(const ReferenceProblem& problem, const Keeps& keeps) {
    const ReferenceResult result = reference_attention(problem);
    const std::int64_t length = problem.attention.length, width = problem.attention.head_dim;
    const std::int64_t size = length * width;
    std::vector<double> d_sinks(problem.attention.sink ? problem.attention.heads : 0);
    const int reach = problem.attention.relative_bias;
    std::vector<double> d_bias(reach > 0 ? problem.attention.heads * (2 * reach + 1) : 0);
    for (std::int64_t head = 0; head < problem.batch * problem.attention.heads; ++head) {
        const NaiveAttention naive(problem, head, keeps);
        const auto rows = [&](std::span<const float> all) {
            return all.subspan(head * size, size);
        };
        const auto got = [&](const std::vector<double>& all) {
            return std::span<const double>(all).subspan(head * size, size);
        };
        expect_near(naive.lse, std::span(result.lse).subspan(head * length, length), "lse");
        expect_near(product(naive.dropped, rows(problem.v), width, false), got(result.o), "o");
        expect_near(product(naive.d_s, rows(problem.k), width, false), got(result.d_q), "d_q");
        expect_near(product(naive.d_s, rows(problem.q), width, true), got(result.d_k), "d_k");
        expect_near(product(naive.dropped, rows(problem.d_o), width, true), got(result.d_v), "d_v");
        if (problem.attention.sink) {
            d_sinks[head % problem.attention.heads] += naive.d_sink;
        }
        for (std::size_t n = 0; n < naive.d_bias.size(); ++n) {
            d_bias[head % problem.attention.heads * naive.d_bias.size() + n] += naive.d_bias[n];
        }
    }
    expect_near(d_bias, result.d_relative_bias, "d_relative_bias");
    expect_near(d_sinks, result.d_sinks, "d_sinks");
}

}  // namespace spion::test
