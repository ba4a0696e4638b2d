// The host's matrix product in every vector width that this processor has, against float64.
#include "runtime/host/gemm_kernel.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/support/seed.h"

namespace spion {
namespace {

struct Kernel {
    std::string name;
    GemmKernel* multiply;
    GemmPack* pack;
};

std::vector<Kernel> kernels() {
    std::vector<Kernel> found{{"4 lanes", multiply_4_lanes, pack_4_lanes}};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        found.push_back({"8 lanes", multiply_8_lanes, pack_8_lanes});
        if (__builtin_cpu_supports("avx512f")) {
            found.push_back({"16 lanes", multiply_16_lanes, pack_16_lanes});
        }
    }
#endif
    return found;
}

struct alignas(64) Workspace {
    float values[kGemmWorkspace];
};

using Workspaces = std::vector<Workspace>;  // one after the other, without gaps

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A matrix [rows, columns] with a margin after each row, transposed or not, at an address that is a
// multiple of 4 bytes alone.
struct Operand {
    std::vector<float> values;
    std::int64_t row, column;
    const float* data() const { return values.data() + 1; }
    float at(std::int64_t i, std::int64_t j) const { return data()[i * row + j * column]; }
    void set_zero(std::int64_t i, std::int64_t j) {
        values[static_cast<std::size_t>(1 + i * row + j * column)] = 0.0F;
    }
};

Operand random_operand(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
    const bool transposed = random() % 2 == 0;
    const std::int64_t pitch = (transposed ? rows : columns) + random() % 3;
    Operand operand{.values = std::vector<float>(
                        static_cast<std::size_t>(1 + pitch * (transposed ? columns : rows)), kNaN),
                    .row = transposed ? 1 : pitch,
                    .column = transposed ? pitch : 1};
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
            operand.values[static_cast<std::size_t>(1 + i * operand.row + j * operand.column)] =
                normal(random);
        }
    }
    return operand;
}

// The last rows or columns of an operand become zeros, as those of padding are.
void pad(Operand& operand, std::int64_t rows, std::int64_t columns, std::mt19937& random) {
    const std::int64_t first_row = random() % 2 == 0 ? rows : random() % (rows + 1);
    const std::int64_t first_column =
        random() % 2 == 0 ? columns : static_cast<std::int64_t>(random()) % (columns + 1);
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
            if (i >= first_row || j >= first_column) operand.set_zero(i, j);
        }
    }
}

// Of element [i, j] of alpha a b + `added` from float64, relative to the size of its terms.
double element_error(const Operand& a, const Operand& b, std::int64_t i, std::int64_t j,
                     std::int64_t k, double alpha, double added, float got) {
    double sum = 0, size = 1e-3 + std::abs(added);
    for (std::int64_t p = 0; p < k; ++p) {
        const double term = double{a.at(i, p)} * double{b.at(p, j)};
        sum += term;
        size += std::abs(term);
    }
    const double want = alpha * sum + added;
    const double error = std::abs(want - double{got}) / (size + std::abs(want));
    return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

// One product of random strides, alpha and beta, with and without a bias, b packed or not, a padded or
// not; what lies between c's rows must stay.
void expect_product(const Kernel& kernel, std::int64_t m, std::int64_t n, std::int64_t k,
                    std::mt19937& random) {
    Operand a = random_operand(m, k, random);
    const Operand b = random_operand(k, n, random);
    pad(a, m, k, random);
    const std::int64_t ldc = n + random() % 3;
    const float alpha = random() % 2 == 0 ? 1.0F : -0.75F;
    const float beta = random() % 3 == 0 ? 0.0F : random() % 2 == 0 ? 1.0F : 0.5F;
    const bool biased = random() % 2 == 0, packs = random() % 2 == 0;
    SCOPED_TRACE(fmt::format(
        "{}: m={} n={} k={} a {},{} b {},{} alpha={} beta={} bias {} packed {}", kernel.name, m, n,
        k, a.row, a.column, b.row, b.column, alpha, beta, biased, packs));
    std::normal_distribution<float> normal;
    std::vector<float> bias(static_cast<std::size_t>(n));
    for (float& value : bias) value = normal(random);
    std::vector<float> before(static_cast<std::size_t>(m * ldc));
    for (float& value : before) value = beta == 0.0F ? kNaN : normal(random);
    std::vector<float> c = before;
    static Workspace workspace;
    std::fill(std::begin(workspace.values), std::end(workspace.values), kNaN);
    GemmPart part{.m = m,
                  .n = n,
                  .k = k,
                  .a = a.data(),
                  .a_row = a.row,
                  .a_column = a.column,
                  .b = b.data(),
                  .b_row = b.row,
                  .b_column = b.column,
                  .c = c.data(),
                  .ldc = ldc,
                  .alpha = alpha,
                  .beta = beta,
                  .bias = biased ? bias.data() : nullptr};
    Workspaces packed(1 + static_cast<std::size_t>(gemm_packed_floats(n, k)) / kGemmWorkspace);
    if (packs) {
        kernel.pack(part, packed.front().values);
        part.packed = packed.front().values;
        part.b = nullptr;
    }
    kernel.multiply(part, packs ? nullptr : workspace.values);
    double worst = 0;
    for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < ldc; ++j) {
            const auto at = static_cast<std::size_t>(i * ldc + j);
            if (j >= n) {
                EXPECT_TRUE(c[at] == before[at] || (beta == 0.0F && std::isnan(c[at])));
                continue;
            }
            const double added = (biased ? double{bias[static_cast<std::size_t>(j)]} : 0.0) +
                                 (beta == 0.0F ? 0.0 : double{beta} * double{before[at]});
            worst = std::max(worst, element_error(a, b, i, j, k, alpha, added, c[at]));
        }
    }
    EXPECT_LE(worst, 4e-6);  // k / 2^24 at k = 64 of random signs; a wrong element is far above
}

TEST(GemmKernel, EqualsFloat64InEveryWidth) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
    for (const Kernel& kernel : kernels()) {
        for (int repeat = 0; repeat < 60; ++repeat) {
            expect_product(kernel, 1 + random() % 40, 1 + random() % 90, random() % 70, random);
        }
        // Beyond one tile of b in either direction, and a whole number of tiles.
        expect_product(kernel, 25, kGemmColumns + 37, 2 * kGemmDepth + 3, random);
        expect_product(kernel, 24, 64, kGemmDepth, random);
        expect_product(kernel, 1, kGemmColumns, 1, random);
    }
}

// NaN and infinity come out where they belong and nowhere else, as training relies on it to see
// that it has diverged.
TEST(GemmKernel, KeepsNotFiniteValuesInTheirRow) {
    for (const Kernel& kernel : kernels()) {
        SCOPED_TRACE(kernel.name);
        constexpr std::int64_t kM = 14, kN = 19, kK = 9;
        std::vector<float> a(kM * kK, 1.0F), b(kK * kN, 1.0F), c(kM * kN, 0.0F);
        a[3 * kK + 2] = kNaN;
        a[13 * kK] = std::numeric_limits<float>::infinity();
        static Workspace workspace;
        kernel.multiply({.m = kM,
                         .n = kN,
                         .k = kK,
                         .a = a.data(),
                         .a_row = kK,
                         .a_column = 1,
                         .b = b.data(),
                         .b_row = kN,
                         .b_column = 1,
                         .c = c.data(),
                         .ldc = kN},
                        workspace.values);
        for (std::int64_t i = 0; i < kM; ++i) {
            for (std::int64_t j = 0; j < kN; ++j) {
                const float value = c[static_cast<std::size_t>(i * kN + j)];
                if (i == 3) {
                    EXPECT_TRUE(std::isnan(value));
                } else if (i == 13) {
                    EXPECT_TRUE(std::isinf(value));
                } else {
                    EXPECT_EQ(value, 9.0F);
                }
            }
        }
    }
}

}  // namespace
}  // namespace spion
