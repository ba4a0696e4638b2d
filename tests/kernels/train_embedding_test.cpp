// embedding_forward, embedding_backward, embedding_position_backward.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/train_fixture.h"
#include "tests/kernels/train_reference.h"

namespace spion {
namespace {

struct EmbeddingCase {
    StepShape shape;
    std::size_t batch, length;
    bool enabled;
    bool one_token;  // every row the same: all gradients meet in one row of the table
};

class TrainEmbedding : public StepKernelTest {
  protected:
    Values expected_x_, expected_token_, expected_position_;

    // The definition: x = (token[id] + position) * factor, and its gradients.
    void expect_of(const std::vector<unsigned short>& ids, const Values& token,
                   const Values& position, const Values& d_x, const Values& factors) {
        const std::size_t count = d_x.size(), channels = count / ids.size();
        expected_x_.resize(count);
        expected_token_.assign(token.size(), 0.0);
        expected_position_.assign(position.size(), 0.0);
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t row = i / channels, channel = i % channels;
            const std::size_t token_at = ids[row] * channels + channel;
            const std::size_t position_at = i % position.size();
            expected_x_[i] = (token[token_at] + position[position_at]) * factors[i];
            expected_token_[token_at] += d_x[i] * factors[i];
            expected_position_[position_at] += d_x[i] * factors[i];
        }
    }

    void run(const EmbeddingCase& c) {
        SCOPED_TRACE(fmt::format("B={} L={} C={} V={} p={} enabled={} one_token={}", c.batch,
                                 c.length, c.shape.channels, c.shape.vocabulary, c.shape.dropout,
                                 c.enabled, c.one_token));
        const auto vocabulary = static_cast<std::size_t>(c.shape.vocabulary);
        const auto channels = static_cast<std::size_t>(c.shape.channels);
        const std::size_t rows = c.batch * c.length, count = rows * channels;
        std::vector<unsigned short> ids(rows);
        for (auto& id : ids) {
            id = static_cast<unsigned short>(c.one_token ? c.shape.vocabulary - 1
                                                         : uniform(0, c.shape.vocabulary - 1));
        }
        const Values token = random_floats(vocabulary * channels);
        const Values position = random_floats(c.length * channels);
        const Values d_x = random_activations(count);
        const SpionDropout dropout = random_dropout(c.enabled);
        const Values factors = dropout_factors(count, c.shape.dropout, dropout);

        Buffer ids_buffer(*device_, rows * sizeof(unsigned short));
        device_->copy_in(ids_buffer.data(), ids.data(), rows * sizeof(unsigned short));
        const Buffer token_buffer = upload_floats(token);
        const Buffer position_buffer = upload_floats(position);
        const Buffer x = poisoned_activations(count), d_x_buffer = upload_activations(d_x);
        const auto tables = static_cast<std::size_t>(
            spion_token_items(static_cast<long long>(rows), c.shape.vocabulary));
        const Buffer partials = poisoned_floats(tables * vocabulary * channels);
        const Buffer d_position = poisoned_floats(c.length * channels);
        SpionEmbeddingArguments arguments = {};
        arguments.ids = ids_buffer.as<unsigned short>();
        arguments.token = token_buffer.as<float>();
        arguments.position = position_buffer.as<float>();
        arguments.x = x.data();
        arguments.d_x = d_x_buffer.data();
        arguments.d_token_partials = partials.as<float>();
        arguments.d_position = d_position.as<float>();
        arguments.rows = static_cast<long long>(rows);
        arguments.length = static_cast<int>(c.length);
        arguments.vocabulary = c.shape.vocabulary;
        arguments.dropout = as_given(dropout);
        kernels(c.shape).embedding_forward(arguments);
        kernels(c.shape).embedding_backward(arguments);
        kernels(c.shape).embedding_position_backward(arguments);

        expect_of(ids, token, position, d_x, factors);
        expect_near("x", activations(x, count), expected_x_, activation_tolerance());
        // A row of the table sums as many terms as have its token, in fp32.
        const double terms = static_cast<double>(c.one_token ? rows : rows / vocabulary + 1);
        expect_near("d_token", sum_rows(floats(partials, tables * token.size()), token.size()),
                    expected_token_, float_tolerance() * std::max(1.0, std::sqrt(terms)));
        expect_near("d_position", floats(d_position, position.size()), expected_position_,
                    float_tolerance());
    }
};

TEST_F(TrainEmbedding, MatchesTheReference) {
    for (const StepShape& shape : shapes()) {
        for (const bool enabled : {false, true}) {
            run({.shape = shape,
                 .batch = static_cast<std::size_t>(uniform(1, 20)),
                 .length = static_cast<std::size_t>(uniform(1, 100)),
                 .enabled = enabled,
                 .one_token = false});
            if (HasFatalFailure()) return;
        }
    }
}

// More rows than share a table, and a vocabulary that needs the large one.
TEST_F(TrainEmbedding, SeveralTablesAndASingleToken) {
    StepShape large = shapes()[0];
    large.vocabulary = 512;
    run({.shape = large, .batch = 33, .length = 70, .enabled = true, .one_token = false});
    run({.shape = large, .batch = 7, .length = 300, .enabled = true, .one_token = true});
}

}  // namespace
}  // namespace spion
