#include "tests/kernels/train_reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/random.h"

namespace spion {

Values dropout_factors(std::size_t count, double probability, const SpionDropout& dropout) {
    Values factors(count, 1.0);
    if (dropout.enabled == 0 || probability == 0.0) return factors;
    const auto threshold = static_cast<unsigned>(std::lround(probability * 65536.0));
    for (std::size_t i = 0; i < count; ++i) {
        const SpionRandomBits bits =
            spion_random_bits(i / 8, dropout.stream, dropout.step, dropout.seed);
        const unsigned word = bits.word[i % 8 / 2];
        const unsigned half = i % 2 == 0 ? word % 65536U : word / 65536U;
        factors[i] = half >= threshold ? 1.0 / (1.0 - probability) : 0.0;
    }
    return factors;
}

NormReference norm_forward(const Values& x, const Values& branch, const Values& factors,
                           const Values& gamma, const Values& beta, double epsilon) {
    const std::size_t channels = gamma.size(), rows = x.size() / channels;
    NormReference result{.x_out = x, .y = x, .mean = Values(rows), .rstd = Values(rows)};
    for (std::size_t i = 0; i < branch.size(); ++i) result.x_out[i] += branch[i] * factors[i];
    for (std::size_t n = 0; n < rows; ++n) {
        const double* row = &result.x_out[n * channels];
        double sum = 0.0, squares = 0.0;
        for (std::size_t c = 0; c < channels; ++c) sum += row[c];
        const double mean = sum / static_cast<double>(channels);
        for (std::size_t c = 0; c < channels; ++c) squares += (row[c] - mean) * (row[c] - mean);
        const double rstd = 1.0 / std::sqrt(squares / static_cast<double>(channels) + epsilon);
        for (std::size_t c = 0; c < channels; ++c) {
            result.y[n * channels + c] = (row[c] - mean) * rstd * gamma[c] + beta[c];
        }
        result.mean[n] = mean;
        result.rstd[n] = rstd;
    }
    return result;
}

NormGradients norm_backward(const Values& x_out, const Values& factors, const Values& gamma,
                            double epsilon, const Values& d_y, const Values& d_residual) {
    const std::size_t channels = gamma.size(), rows = x_out.size() / channels;
    const Values zeros(channels, 0.0);
    const NormReference forward = norm_forward(x_out, {}, {}, gamma, zeros, epsilon);
    NormGradients result{.d_x = Values(x_out.size(), 0.0),
                         .d_branch = Values(x_out.size(), 0.0),
                         .d_gamma = zeros,
                         .d_beta = zeros,
                         .d_branch_sum = zeros};
    for (std::size_t n = 0; n < rows; ++n) {
        // The row's Jacobian applied to g, entry by entry: dy_c / dx_k without gamma is
        // rstd * (delta_ck - 1/C - u_c u_k / C).
        const double rstd = forward.rstd[n], mean = forward.mean[n];
        double sum = 0.0, product = 0.0;
        for (std::size_t c = 0; c < channels; ++c) {
            const std::size_t i = n * channels + c;
            const double unit = (x_out[i] - mean) * rstd;
            sum += d_y[i] * gamma[c];
            product += d_y[i] * gamma[c] * unit;
            result.d_gamma[c] += d_y[i] * unit;
            result.d_beta[c] += d_y[i];
        }
        for (std::size_t c = 0; c < channels; ++c) {
            const std::size_t i = n * channels + c;
            const double unit = (x_out[i] - mean) * rstd;
            const double inner =
                d_y[i] * gamma[c] - (sum + unit * product) / static_cast<double>(channels);
            result.d_x[i] = rstd * inner + (d_residual.empty() ? 0.0 : d_residual[i]);
            result.d_branch[i] = result.d_x[i] * factors[i];
            result.d_branch_sum[c] += result.d_branch[i];
        }
    }
    return result;
}

double gelu(double x) {
    return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
}

double gelu_derivative(double x) {
    const double pi = std::acos(-1.0);
    return 0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-x * x / 2.0) / std::sqrt(2.0 * pi);
}

namespace {

// out [B, outputs] = in [B, inputs] * weight^T + bias
Values linear(const Values& in, const Values& weight, const Values& bias) {
    const std::size_t outputs = bias.size(), inputs = weight.size() / outputs;
    const std::size_t batch = in.size() / inputs;
    Values out(batch * outputs);
    for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t o = 0; o < outputs; ++o) {
            double sum = bias[o];
            for (std::size_t i = 0; i < inputs; ++i) {
                sum += in[b * inputs + i] * weight[o * inputs + i];
            }
            out[b * outputs + o] = sum;
        }
    }
    return out;
}

// Gradients of `linear` to its weight, its bias and its input.
void linear_gradients(const Values& in, const Values& weight, const Values& d_out, Values& d_weight,
                      Values& d_bias, Values& d_in) {
    const std::size_t outputs = d_bias.size(), inputs = weight.size() / outputs;
    for (std::size_t k = 0; k < d_out.size(); ++k) {
        const std::size_t b = k / outputs, o = k % outputs;
        d_bias[o] += d_out[k];
        for (std::size_t i = 0; i < inputs; ++i) {
            d_weight[o * inputs + i] += d_out[k] * in[b * inputs + i];
            d_in[b * inputs + i] += d_out[k] * weight[o * inputs + i];
        }
    }
}

}  // namespace

HeadResult run_head(const Head& head, const Values& pooled, const std::vector<int>& labels) {
    const auto classes = static_cast<std::size_t>(head.classes);
    HeadResult result;
    result.hidden = linear(pooled, head.w1, head.b1);
    result.d_pooled.assign(pooled.size(), 0.0);
    result.d_w1.assign(head.w1.size(), 0.0);
    result.d_b1.assign(head.b1.size(), 0.0);
    result.d_w2.assign(head.w2.size(), 0.0);
    result.d_b2.assign(head.b2.size(), 0.0);
    for (double& value : result.hidden) value = std::max(value, 0.0);
    const Values logits = linear(result.hidden, head.w2, head.b2);
    result.d_logits = logits;
    for (std::size_t b = 0; b < labels.size(); ++b) {
        const double* row = &logits[b * classes];
        const double* largest = std::max_element(row, row + classes);
        const auto label = static_cast<std::size_t>(labels[b]);
        double sum = 0.0;
        for (std::size_t k = 0; k < classes; ++k) sum += std::exp(row[k] - *largest);
        result.losses.push_back(std::log(sum) + *largest - row[label]);
        result.correct.push_back(largest == row + label ? 1 : 0);
        for (std::size_t k = 0; k < classes; ++k) {
            const double probability = std::exp(row[k] - *largest) / sum;
            result.d_logits[b * classes + k] =
                (probability - (k == label ? 1.0 : 0.0)) / static_cast<double>(labels.size());
        }
    }
    result.d_hidden = Values(result.hidden.size(), 0.0);
    linear_gradients(result.hidden, head.w2, result.d_logits, result.d_w2, result.d_b2,
                     result.d_hidden);
    for (std::size_t i = 0; i < result.hidden.size(); ++i) {
        if (result.hidden[i] <= 0.0) result.d_hidden[i] = 0.0;
    }
    linear_gradients(pooled, head.w1, result.d_hidden, result.d_w1, result.d_b1, result.d_pooled);
    return result;
}

double numerical_derivative(const std::function<double(const Values&)>& loss, Values point,
                            std::size_t i) {
    const double step = 1e-5, here = point[i];
    point[i] = here + step;
    const double above = loss(point);
    point[i] = here - step;
    return (above - loss(point)) / (2.0 * step);
}

}  // namespace spion
