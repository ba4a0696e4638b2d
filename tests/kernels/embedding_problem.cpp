#include "tests/kernels/embedding_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/linear_problem.h"

namespace spion {
namespace {

constexpr std::size_t kOctet = 8;

// Within tolerance times the root of the number of terms that a value sums, at least one.
void expect_sums_near(const char* name, const Values& actual, const Values& expected,
                      const Values& terms) {
    ASSERT_EQ(actual.size(), expected.size()) << name;
    for (std::size_t i = 0; i < actual.size(); ++i) {
        const double allowed = 2e-6 * (1 + std::abs(expected[i])) * (1 + terms[i]);
        ASSERT_TRUE(std::abs(actual[i] - expected[i]) <= allowed)
            << name << "[" << i << "] is " << actual[i] << " instead of " << expected[i];
    }
}

}  // namespace

EmbeddingProblem::EmbeddingProblem(const FusedEmbeddingShape& shape_, int batch_, int length_,
                                   bool dropout_enabled, bool one_token, std::mt19937& random)
    : shape(shape_), batch(batch_), length(length_) {
    const auto rows = static_cast<std::size_t>(std::int64_t{batch} * length);
    const auto channels = static_cast<std::size_t>(shape.channels);
    std::normal_distribution<float> normal;
    std::uniform_int_distribution<int> any(0, shape.vocabulary - 1);
    for (std::size_t row = 0; row < rows; ++row) {
        ids.push_back(static_cast<std::uint16_t>(one_token ? shape.vocabulary - 1 : any(random)));
    }
    for (int i = 0; i < shape.vocabulary * shape.channels; ++i) token.push_back(normal(random));
    for (int i = 0; i < length * shape.channels; ++i) position.push_back(normal(random));
    d_x = random_bf16(static_cast<std::int64_t>(rows * channels), 1.0, random);
    dropout = {.seed = std::uint64_t{random()} << 32 | random(),
               .step = static_cast<unsigned>(random()),
               .stream = static_cast<unsigned>(random()),
               .enabled = dropout_enabled ? 1 : 0};
    factors = dropout_factors(rows * channels, double{shape.dropout}, dropout);
    for (std::size_t i = 0; i < d_x.size(); ++i) {
        if (factors[i] == 0) d_x[i] = 0x7FC0;
    }
    if (shape.dropout == 0.0F) return;
    kept.assign(static_cast<std::size_t>(fused_embedding_kept(shape, batch, length)), 0);
    for (std::size_t i = 0; i < factors.size(); ++i) {
        if (factors[i] == 0) continue;
        const std::size_t row = i / channels, octet = i % channels / kOctet, element = i % kOctet;
        const std::size_t sample = row / static_cast<std::size_t>(length);
        const std::size_t place = row % static_cast<std::size_t>(length);
        const std::size_t word =
            (sample / 4 * static_cast<std::size_t>(length) + place) * (channels / kOctet) + octet;
        kept[word] |= 1U << (4 * (sample % 4) + element / 2 + 16 * (element % 2));
    }
}

SpionTokenPositionArguments EmbeddingProblem::arguments() const {
    SpionTokenPositionArguments arguments{};
    arguments.ids = ids.data();
    arguments.token = token.data();
    arguments.position = position.data();
    arguments.kept = const_cast<unsigned*>(kept.data());
    arguments.d_x = d_x.data();
    arguments.batch = batch;
    arguments.length = length;
    arguments.vocabulary = shape.vocabulary;
    arguments.draws = spion_draws(dropout, shape.dropout);
    arguments.stream = dropout.stream;
    return arguments;
}

void EmbeddingProblem::expect_forward(const std::vector<std::uint16_t>& x,
                                      const std::vector<unsigned>& new_kept) const {
    const auto channels = static_cast<std::size_t>(shape.channels);
    Values expected;
    for (std::size_t i = 0; i < d_x.size(); ++i) {
        const std::size_t row = i / channels, channel = i % channels;
        const float sum = token[ids[row] * channels + channel] + position[i % position.size()];
        expected.push_back(double{sum} * factors[i]);
        if (factors[i] == 0) {
            ASSERT_EQ(x[i], 0) << "element " << i << " is dropped";
        }
    }
    expect_values_near("x", x, expected, 4e-3);
    ASSERT_EQ(new_kept.size(), kept.size());
    for (std::size_t word = 0; word < kept.size(); ++word) {
        // Samples that the last four do not have are drawn too, and read by nobody.
        const std::size_t words = static_cast<std::size_t>(length) * channels / kOctet;
        const std::size_t samples =
            std::min<std::size_t>(4, static_cast<std::size_t>(batch) - word / words * 4);
        const unsigned there = ((1U << (4 * samples)) - 1U) * 0x00010001U;
        ASSERT_EQ(new_kept[word] & there, kept[word]) << "word " << word;
    }
}

void EmbeddingProblem::expect_backward(const std::vector<float>& d_token_partials,
                                       const std::vector<float>& d_position) const {
    const auto channels = static_cast<std::size_t>(shape.channels);
    Values d_token(token.size(), 0.0), d_place(position.size(), 0.0);
    Values token_terms = d_token, place_terms = d_place;
    for (std::size_t i = 0; i < d_x.size(); ++i) {
        if (factors[i] == 0) continue;
        const std::size_t at = ids[i / channels] * channels + i % channels;
        const double term = bf16_value(d_x[i]) * factors[i];
        d_token[at] += term;
        token_terms[at] += 1;
        d_place[i % position.size()] += term;
        place_terms[i % position.size()] += 1;
    }
    Values sums(token.size(), 0.0);
    ASSERT_EQ(d_token_partials.size() % sums.size(), 0U);
    for (std::size_t i = 0; i < d_token_partials.size(); ++i) {
        sums[i % sums.size()] += double{d_token_partials[i]};
    }
    const auto roots = [](Values terms) {
        for (double& count : terms) count = std::sqrt(count);
        return terms;
    };
    expect_sums_near("d_token", sums, d_token, roots(token_terms));
    expect_sums_near("d_position", {d_position.begin(), d_position.end()}, d_place,
                     roots(place_terms));
}

}  // namespace spion
