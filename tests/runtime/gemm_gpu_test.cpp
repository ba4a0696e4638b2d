// Device::gemm on a GPU against products in float64 of the same rounded operands.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ir/error.h"
#include "runtime/cuda/cublas.h"
#include "tests/runtime/gpu_fixture.h"

namespace spion {
namespace {

// Stored elements of one type, with values read and written as double. Conversions to bf16 and fp16
// round to nearest, ties to even.
struct Stored {
    DType dtype;
    std::vector<unsigned char> bytes;

    Stored(DType type, std::size_t count)
        : dtype(type), bytes(count * static_cast<std::size_t>(storage_bytes(type))) {}
    std::size_t count() const {
        return bytes.size() / static_cast<std::size_t>(storage_bytes(dtype));
    }

    // Bits of the fraction kept, and the power of two of the smallest normal number.
    int fraction_bits() const {
        return dtype == DType::kFp32 ? 23 : dtype == DType::kBf16 ? 7 : 10;
    }

    void set(std::size_t i, double value) {
        if (dtype == DType::kFp16) {
            store<std::uint16_t>(i, to_fp16(value));
            return;
        }
        const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
        if (dtype == DType::kFp32) {
            store(i, bits);
        } else if (std::isnan(value)) {
            store<std::uint16_t>(i, 0x7FC0);
        } else {
            store(i, static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16));
        }
    }

    double get(std::size_t i) const {
        if (dtype == DType::kFp32) {
            return std::bit_cast<float>(fetch<std::uint32_t>(i));
        }
        const std::uint32_t half = fetch<std::uint16_t>(i);
        if (dtype == DType::kBf16) {
            return std::bit_cast<float>(half << 16);
        }
        const int exponent = static_cast<int>((half >> 10) & 31U);
        const double fraction = half & 1023U;
        const double sign = (half & 0x8000U) != 0 ? -1 : 1;
        if (exponent == 31) {
            return fraction == 0 ? sign * std::numeric_limits<double>::infinity()
                                 : std::numeric_limits<double>::quiet_NaN();
        }
        return sign * (exponent == 0 ? std::ldexp(fraction, -24)
                                     : std::ldexp(1024 + fraction, exponent - 25));
    }

  private:
    static std::uint16_t to_fp16(double value) {
        if (std::isnan(value)) {
            return 0x7E00;
        }
        const unsigned sign = std::signbit(value) ? 0x8000U : 0U;
        int exponent = 0;
        std::frexp(value, &exponent);  // |value| in [2^(exponent-1), 2^exponent)
        exponent = std::max(exponent - 1, -14);
        // Adding whole units of the last place carries into the exponent by itself.
        const auto units =
            static_cast<unsigned>(std::nearbyint(std::ldexp(std::abs(value), 10 - exponent)));
        return static_cast<std::uint16_t>(sign |
                                          (units + (static_cast<unsigned>(exponent + 14) << 10)));
    }
    template <typename T>
    void store(std::size_t i, T bits) {
        std::memcpy(bytes.data() + i * sizeof(T), &bits, sizeof(T));
    }
    template <typename T>
    T fetch(std::size_t i) const {
        T bits;
        std::memcpy(&bits, bytes.data() + i * sizeof(T), sizeof(T));
        return bits;
    }
};

struct Case {
    Gemm gemm;  // pointers not set
    bool with_bias = false;
    int offset = 0;  // of every operand from its buffer's start, in elements
};

std::string describe(const Case& c) {
    const Gemm& g = c.gemm;
    return fmt::format(
        "ta={} tb={} m={} n={} k={} lda={} ldb={} ldc={} {}->{} alpha={} beta={} "
        "bias={} offset={}",
        g.transpose_a, g.transpose_b, g.m, g.n, g.k, g.lda, g.ldb, g.ldc, to_string(g.input),
        to_string(g.output), g.alpha, g.beta, c.with_bias, c.offset);
}

class GemmTest : public GpuTest {
  protected:
    void SetUp() override {
        GpuTest::SetUp();
        if (IsSkipped()) {
            return;
        }
        if (const auto problem = cublas_problem()) {
            GTEST_SKIP() << *problem;
        }
    }

    // A [rows, columns] matrix at `pitch` from `offset` on; everything around it is NaN.
    Stored matrix(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                  int offset) {
        Stored stored(dtype, static_cast<std::size_t>(offset + rows * pitch));
        for (std::size_t i = 0; i < stored.count(); ++i) {
            stored.set(i, std::numeric_limits<double>::quiet_NaN());
        }
        std::normal_distribution<double> normal;
        for (std::int64_t row = 0; row < rows; ++row) {
            for (std::int64_t column = 0; column < columns; ++column) {
                stored.set(static_cast<std::size_t>(offset + row * pitch + column),
                           normal(random_));
            }
        }
        return stored;
    }

    Buffer upload(const Stored& stored) {
        Buffer buffer(*device_, stored.bytes.size());
        device_->copy_in(buffer.data(), stored.bytes.data(), stored.bytes.size());
        return buffer;
    }

    static unsigned char* element(const Buffer& buffer, const Stored& stored, int offset) {
        return buffer.as<unsigned char>() + offset * storage_bytes(stored.dtype);
    }

    // Runs the case twice and checks both the values and that the bits repeat.
    void check(const Case& c) {
        const Gemm& g = c.gemm;
        const Stored a =
            matrix(g.input, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, c.offset);
        const Stored b =
            matrix(g.input, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, c.offset);
        // With beta == 0 c is not read, so all of it may be NaN.
        const Stored old_c = matrix(g.output, g.m, g.beta == 0 ? 0 : g.n, g.ldc, c.offset);
        const Stored bias = matrix(g.output, 1, g.n, g.n, c.offset);
        const Buffer device_a = upload(a), device_b = upload(b), device_bias = upload(bias);
        std::vector<Stored> results;
        for (int run = 0; run < 2; ++run) {
            const Buffer device_c = upload(old_c);
            Gemm call = g;
            call.a = element(device_a, a, c.offset);
            call.b = element(device_b, b, c.offset);
            call.c = element(device_c, old_c, c.offset);
            call.bias = c.with_bias ? element(device_bias, bias, c.offset) : nullptr;
            device_->gemm(call);
            results.emplace_back(g.output, old_c.count());
            device_->copy_out(results.back().bytes.data(), device_c.data(), old_c.bytes.size());
        }
        EXPECT_EQ(results[0].bytes, results[1].bytes) << "bits differ: " << describe(c);
        compare(c, a, b, old_c, bias, results[0]);
    }

    void compare(const Case& c, const Stored& a, const Stored& b, const Stored& old_c,
                 const Stored& bias, const Stored& result) {
        const Gemm& g = c.gemm;
        const auto at = [&](const Stored& stored, std::int64_t index) {
            return stored.get(static_cast<std::size_t>(c.offset + index));
        };
        for (std::int64_t i = 0; i < g.m; ++i) {
            for (std::int64_t j = 0; j < g.n; ++j) {
                double sum = 0, magnitude = 0;
                for (std::int64_t p = 0; p < g.k; ++p) {
                    const double product = at(a, g.transpose_a ? p * g.lda + i : i * g.lda + p) *
                                           at(b, g.transpose_b ? j * g.ldb + p : p * g.ldb + j);
                    sum += product;
                    magnitude += std::abs(product);
                }
                double expected = g.alpha * sum;
                magnitude *= std::abs(g.alpha);
                if (g.beta != 0) {
                    expected += g.beta * at(old_c, i * g.ldc + j);
                    magnitude += std::abs(g.beta * at(old_c, i * g.ldc + j));
                }
                if (c.with_bias) {
                    expected += at(bias, j);
                    magnitude += std::abs(at(bias, j));
                }
                // Rounding of fp32 sums, then of the stored result. A tf32 product would be off by
                // 2^-11 of the magnitude, which the first term excludes. Tensor cores truncate
                // where the FMA units round, and cuBLASLt rounds a product that is stored in 16
                // bits before it adds beta * c or the bias.
                const double unit = g.input == DType::kFp32 ? 1 : 4;
                const bool added = g.beta != 0 || c.with_bias;
                const double rounded = std::abs(expected) + (added ? std::abs(g.alpha * sum) : 0) +
                                       (c.with_bias ? std::abs(expected - at(bias, j)) : 0);
                const double tolerance =
                    magnitude * std::ldexp(8 + unit * std::sqrt(static_cast<double>(g.k)), -24) +
                    rounded * std::ldexp(1.0, -result.fraction_bits()) + 1e-7;
                ASSERT_NEAR(at(result, i * g.ldc + j), expected, tolerance)
                    << "c[" << i << ", " << j << "] of " << describe(c);
            }
            for (std::int64_t j = g.n; j < g.ldc; ++j) {
                ASSERT_TRUE(std::isnan(at(result, i * g.ldc + j)))
                    << "wrote beyond row " << i << " of " << describe(c);
            }
        }
    }

    Case random_case(DType input, DType output, bool transpose_a, bool transpose_b, bool aligned) {
        Case c;
        Gemm& g = c.gemm;
        const int unit = aligned ? 8 : 1;
        g.transpose_a = transpose_a;
        g.transpose_b = transpose_b;
        g.m = unit * uniform(1, 160 / unit);
        g.n = unit * uniform(1, 160 / unit);
        g.k = unit * uniform(1, 200 / unit);
        g.lda = (g.transpose_a ? g.m : g.k) + unit * uniform(0, 2);
        g.ldb = (g.transpose_b ? g.k : g.n) + unit * uniform(0, 2);
        g.ldc = g.n + unit * uniform(0, 2);
        g.input = input;
        g.output = output;
        g.alpha = uniform(0, 1) == 0 ? 1.0F : 0.37F;
        g.beta = uniform(0, 1) == 0 ? 0.0F : uniform(0, 1) == 0 ? 1.0F : -0.6F;
        c.with_bias = uniform(0, 1) == 1;
        c.offset = aligned ? 0 : uniform(0, 3);
        return c;
    }
};

TEST_F(GemmTest, MatchesFloat64ForEveryTypeAndTransposition) {
    const std::pair<DType, DType> types[] = {{DType::kFp32, DType::kFp32},
                                             {DType::kBf16, DType::kBf16},
                                             {DType::kBf16, DType::kFp32},
                                             {DType::kFp16, DType::kFp16},
                                             {DType::kFp16, DType::kFp32}};
    for (const auto& [input, output] : types) {
        for (int i = 0; i < 16; ++i) {
            check(random_case(input, output, i % 2 == 1, i / 2 % 2 == 1, i / 4 % 4 != 3));
            if (HasFatalFailure()) {
                return;
            }
        }
    }
}

// The shape of a weight gradient: a long k, which cuBLASLt may split, summed in fp32.
TEST_F(GemmTest, WeightGradientWithALongSum) {
    for (const int k : {40000 + 8 * uniform(0, 100), 40328, 64 * 640}) {
        Case c;
        c.gemm = {.transpose_a = true,
                  .transpose_b = false,
                  .m = 64,
                  .n = 96,
                  .k = k,
                  .a = nullptr,
                  .lda = 64,
                  .b = nullptr,
                  .ldb = 96,
                  .c = nullptr,
                  .ldc = 96,
                  .input = DType::kBf16,
                  .output = DType::kFp32,
                  .alpha = 1.0F,
                  .beta = 0.0F,
                  .bias = nullptr};
        check(c);
    }
}

TEST_F(GemmTest, RefusesWhatItsDescriptionExcludes) {
    Buffer buffer(*device_, 1 << 16);
    const Gemm good{.transpose_a = false,
                    .transpose_b = false,
                    .m = 8,
                    .n = 8,
                    .k = 8,
                    .a = buffer.data(),
                    .lda = 8,
                    .b = buffer.data(),
                    .ldb = 8,
                    .c = buffer.as<float>() + 1024,
                    .ldc = 8,
                    .input = DType::kFp32,
                    .output = DType::kFp32,
                    .alpha = 1.0F,
                    .beta = 0.0F,
                    .bias = nullptr};
    EXPECT_NO_THROW(device_->gemm(good));
    Gemm wrong = good;
    wrong.lda = 7;
    EXPECT_THROW(device_->gemm(wrong), InternalError);
    wrong = good;
    wrong.output = DType::kBf16;
    EXPECT_THROW(device_->gemm(wrong), InternalError);
    wrong = good;
    wrong.input = DType::kTf32;
    EXPECT_THROW(device_->gemm(wrong), InternalError);
    wrong = good;
    wrong.k = 0;
    EXPECT_THROW(device_->gemm(wrong), InternalError);
}

}  // namespace
}  // namespace spion
