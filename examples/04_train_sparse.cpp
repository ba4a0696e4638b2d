// A training loop that turns sparse, in plain C++: dense attention learns where to look, the pattern
// is found from Q and K, and training goes on with the same plan on the pattern's blocks alone.
//
// The task: y(i) = x(i - 96), for random vectors x. Queries and keys are linear maps of position
// codes, values are x itself, so the two maps are all there is to learn.
#include <spion/spion.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t kLength = 1024, kWidth = 64;
constexpr int kShift = 96, kSteps = 60, kTransition = 40;
using Matrix = std::vector<float>;

// c = a b, or c = a^T b; a is [kLength, kWidth], the result has kWidth columns.
Matrix times(const Matrix& a, const Matrix& b) {
    Matrix c(kLength * kWidth);
    for (std::int64_t i = 0; i < kLength; ++i)
        for (std::int64_t k = 0; k < kWidth; ++k)
            for (std::int64_t j = 0; j < kWidth; ++j)
                c[i * kWidth + j] += a[i * kWidth + k] * b[k * kWidth + j];
    return c;
}
Matrix transposed_times(const Matrix& a, const Matrix& b) {
    Matrix c(kWidth * kWidth);
    for (std::int64_t i = 0; i < kLength; ++i)
        for (std::int64_t k = 0; k < kWidth; ++k)
            for (std::int64_t j = 0; j < kWidth; ++j)
                c[k * kWidth + j] += a[i * kWidth + k] * b[i * kWidth + j];
    return c;
}

// Adam (Kingma and Ba) with its usual constants.
struct Parameter {
    Matrix value, mean = Matrix(kWidth * kWidth), square = mean;
    void step(const Matrix& gradient, int step, float rate) {
        for (std::size_t i = 0; i < value.size(); ++i) {
            mean[i] = 0.9F * mean[i] + 0.1F * gradient[i];
            square[i] = 0.999F * square[i] + 0.001F * gradient[i] * gradient[i];
            const float m = mean[i] / (1 - std::pow(0.9F, static_cast<float>(step)));
            const float s = square[i] / (1 - std::pow(0.999F, static_cast<float>(step)));
            value[i] -= rate * m / (std::sqrt(s) + 1e-8F);
        }
    }
};

// Sines and cosines, half the columns each.
Matrix position_codes() {
    Matrix codes(kLength * kWidth);
    for (std::int64_t i = 0; i < kLength; ++i) {
        for (std::int64_t j = 0; j < kWidth / 2; ++j) {
            const double angle = static_cast<double>(i) * std::pow(0.6, static_cast<double>(j) / 2);
            codes[i * kWidth + j] = static_cast<float>(std::cos(angle));
            codes[i * kWidth + kWidth / 2 + j] = static_cast<float>(std::sin(angle));
        }
    }
    return codes;
}

constexpr spion::Attention kAttention{
    .heads = 1, .head_dim = kWidth, .length = kLength, .block = 32, .dtype = spion::DType::kFp32};

spion_tensor view(Matrix& matrix) {
    return spion::tensor(matrix.data(), spion::DType::kFp32, 1, 1, kLength, kWidth);
}

Matrix random_matrix(std::mt19937& random) {
    std::normal_distribution<float> normal;
    Matrix matrix(kLength * kWidth);
    for (float& value : matrix) value = normal(random);
    return matrix;
}

// The identity, with noise.
Parameter first_weights(std::mt19937& random) {
    std::normal_distribution<float> normal;
    Parameter weights{Matrix(kWidth * kWidth)};
    for (std::size_t i = 0; i < weights.value.size(); ++i) {
        weights.value[i] = (i % (kWidth + 1) == 0 ? 1.0F : 0.0F) + 0.02F * normal(random);
    }
    return weights;
}

// The mean squared error over the positions that have a source, and its gradient.
double loss_of(const Matrix& o, const Matrix& x, Matrix& d_o) {
    double loss = 0;
    for (std::int64_t i = 0; i < kLength * kWidth; ++i) {
        const std::int64_t source = i - kShift * kWidth;
        const float error = source < 0 ? 0.0F : o[i] - x[source];
        loss += error * error / ((kLength - kShift) * kWidth);
        d_o[i] = 2 * error / ((kLength - kShift) * kWidth);
    }
    return loss;
}

spion::Pattern discover(const spion::Discoverer& discoverer, Matrix& q, Matrix& k,
                        const Matrix& lse) {
    std::vector<float> sums(discoverer.sum_bytes() / sizeof(float));
    discoverer.run({.q = view(q),
                    .k = view(k),
                    .lse = lse.data(),
                    .sums = sums.data(),
                    .sum_bytes = discoverer.sum_bytes()});
    return discoverer.finish(sums);
}

}  // namespace

int main() try {
    std::mt19937 random(7);
    const Matrix codes = position_codes();
    Parameter to_query = first_weights(random), to_key = first_weights(random);

    const auto context = spion::Context::host();
    const auto plan = context.plan(kAttention);
    const auto discoverer = context.discoverer(kAttention, {.block = 32, .quantile = 0.95});
    spion::Pattern pattern = spion::Pattern::full(kLength, 32);
    std::vector<std::int32_t> tables = plan.tables(pattern);
    const spion::Workspace needed = plan.workspace(1, spion::Pass::kBackward);
    std::vector<std::max_align_t> workspace(needed.bytes / sizeof(std::max_align_t) + 1);
    plan.prepare_workspace(1, spion::Pass::kBackward, workspace.data(), needed.bytes);

    Matrix o(kLength * kWidth), d_o = o, d_q = o, d_k = o, d_v = o, lse(kLength);
    for (int step = 1; step <= kSteps; ++step) {
        Matrix x = random_matrix(random);
        Matrix q = times(codes, to_query.value), k = times(codes, to_key.value);

        const auto start = std::chrono::steady_clock::now();
        plan.forward({.q = view(q),
                      .k = view(k),
                      .v = view(x),
                      .o = view(o),
                      .lse = lse.data(),
                      .tables = tables.data(),
                      .table_bytes = plan.table_bytes(),
                      .workspace = workspace.data(),
                      .workspace_bytes = needed.bytes});
        const double loss = loss_of(o, x, d_o);
        plan.backward({.q = view(q),
                       .k = view(k),
                       .v = view(x),
                       .o = view(o),
                       .d_o = view(d_o),
                       .d_q = view(d_q),
                       .d_k = view(d_k),
                       .d_v = view(d_v),
                       .lse = lse.data(),
                       .tables = tables.data(),
                       .table_bytes = plan.table_bytes(),
                       .workspace = workspace.data(),
                       .workspace_bytes = needed.bytes});
        const std::chrono::duration<double, std::milli> taken =
            std::chrono::steady_clock::now() - start;
        to_query.step(transposed_times(codes, d_q), step, 0.03F);
        to_key.step(transposed_times(codes, d_k), step, 0.03F);
        if (step % 10 == 0) {
            std::printf("step %3d, %3.0f %% of the map: loss %.4f, attention %.1f ms\n", step,
                        100 * pattern.density(), loss, taken.count());
        }
        if (step == kTransition) {  // from here on sparse; the plan and its kernels stay
            pattern = discover(discoverer, q, k, lse);
            tables = plan.tables(pattern);
            std::printf("%s", pattern.picture().c_str());
        }
    }
    return 0;
} catch (const spion::Error& error) {
    std::fprintf(stderr, "04_train_sparse: %s\n", error.what());
    return 1;
}
