// The host as a device: memory, marks, threads, products.
#include "runtime/host/host_device.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <thread>
#include <vector>

#include "ir/error.h"
#include "runtime/host/thread_pool.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

TEST(HostDevice, CountsTheMostBytesAtOnce) {
    const auto device = make_host_device(1);
    {
        const Buffer a(*device, 1000);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a.data()) % 64, 0U);
        const Buffer b(*device, 24);
        EXPECT_EQ(device->peak_bytes(), 1024U);
    }
    const Buffer c(*device, 100);
    EXPECT_EQ(device->peak_bytes(), 1024U);
    const Buffer nothing(*device, 0);
    EXPECT_NE(nothing.data(), nullptr);
}

TEST(HostDevice, SaysHowMuchMemoryWasRefused) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "AddressSanitizer ends the program where an allocation is refused";
#endif
    const auto device = make_host_device(1);
    expect_error<DeviceError>([&] { device->allocate(std::size_t{1} << 62); },
                              "out of memory: 4611686018427387904 bytes");
    expect_error<DeviceError>([&] { device->allocate(std::numeric_limits<std::size_t>::max()); },
                              "out of memory");
}

TEST(HostDevice, CopiesAndFills) {
    const auto device = make_host_device(1);
    const Buffer buffer(*device, 8);
    device->fill(buffer.data(), 0x5A, 8);
    const char given[3] = {1, 2, 3};
    device->copy_in(buffer.data(), given, 3);
    char got[8];
    device->copy_out(got, buffer.data(), 8);
    const char want[8] = {1, 2, 3, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A};
    EXPECT_EQ(std::memcmp(got, want, 8), 0);
}

TEST(HostDevice, MeasuresBetweenMarks) {
    const auto device = make_host_device(1);
    device->mark(0);
    device->mark(63);
    EXPECT_GE(device->milliseconds_between(0, 63), 0.0);
    expect_error<InternalError>([&] { device->milliseconds_between(0, 5); }, "not both set");
    expect_error<InternalError>([&] { device->mark(64); }, "slot 64 is not in 0..63");
}

TEST(HostDevice, SaysWhatItIs) {
    const auto device = make_host_device(2);
    EXPECT_EQ(device->target().back_end, BackEnd::kHost);
    EXPECT_EQ(device->target().sm_count, 2);
    EXPECT_NE(device->name().find("2 threads"), std::string::npos) << device->name();
    EXPECT_EQ(device->compiler_version().substr(0, 5), "llvm ");
    expect_error<UserError>([] { make_host_device(-1); }, "-1 threads were asked for");
}

TEST(HostDevice, ObeysTheFeaturesVariable) {
    ASSERT_EQ(setenv("SPION_HOST_FEATURES", "sse", 1), 0);
    EXPECT_EQ(make_host_device(1)->target().vector_floats, 4);
    ASSERT_EQ(setenv("SPION_HOST_FEATURES", "mmx", 1), 0);
    expect_error<UserError>([] { make_host_device(1); }, "SPION_HOST_FEATURES is 'mmx'");
    ASSERT_EQ(unsetenv("SPION_HOST_FEATURES"), 0);
}

TEST(ThreadPool, VisitsEveryItemOnce) {
    for (int threads : {1, 2, 3}) {
        ThreadPool pool(threads);
        for (std::int64_t items : {0, 1, 7, 1000}) {
            std::vector<std::atomic<int>> visits(static_cast<std::size_t>(items));
            pool.parallel_for(items, 3, [&](std::int64_t begin, std::int64_t end) {
                EXPECT_LT(begin, end);
                EXPECT_LE(end - begin, 3);
                for (std::int64_t i = begin; i < end; ++i) {
                    ++visits[static_cast<std::size_t>(i)];
                }
            });
            for (const auto& count : visits) {
                EXPECT_EQ(count.load(), 1);
            }
        }
    }
}

// A caller that finds the workers busy computes alone: also one within another's work.
TEST(ThreadPool, ServesSeveralCallersAtOnce) {
    const ThreadPool pool(3);
    std::atomic<std::int64_t> sum{0};
    {
        std::vector<std::jthread> callers;
        for (int caller = 0; caller < 4; ++caller) {
            callers.emplace_back([&] {
                for (int round = 0; round < 50; ++round) {
                    pool.parallel_for(20, 1, [&](std::int64_t begin, std::int64_t) {
                        pool.parallel_for(5, 1, [&](std::int64_t inner, std::int64_t) {
                            sum += 5 * begin + inner;
                        });
                    });
                }
            });
        }
    }
    EXPECT_EQ(sum.load(), 4 * 50 * (99 * 100 / 2));
}

TEST(ThreadPool, HandsOnTheFirstExceptionAndWorksAgain) {
    for (int threads : {1, 3}) {
        ThreadPool pool(threads);
        expect_error<UserError>(
            [&] {
                pool.parallel_for(100, 1, [](std::int64_t begin, std::int64_t) {
                    if (begin == 40) {
                        throw UserError("item {} fails", begin);
                    }
                });
            },
            "item 40 fails");
        std::atomic<std::int64_t> sum{0};
        pool.parallel_for(100, 1, [&](std::int64_t begin, std::int64_t) { sum += begin; });
        EXPECT_EQ(sum.load(), 4950);
    }
}

struct Product {
    bool transpose_a, transpose_b, bias;
    std::int64_t m, n, k;
    float alpha, beta;
};

// Runs one product on random matrices with pitches wider than their rows; returns the error
// relative to float64 and the result.
struct ProductResult {
    double error;
    std::vector<float> c;
};
ProductResult run_product(Device& device, const Product& p, std::uint64_t seed) {
    std::mt19937 random(static_cast<std::uint32_t>(seed));
    std::normal_distribution<float> normal;
    const std::int64_t lda = (p.transpose_a ? p.m : p.k) + 3, ldb = (p.transpose_b ? p.k : p.n) + 1;
    const std::int64_t ldc = p.n + 2;
    const auto draw = [&](std::int64_t count) {
        std::vector<float> values(static_cast<std::size_t>(count));
        for (float& value : values) {
            value = normal(random);
        }
        return values;
    };
    const std::vector<float> a = draw(lda * (p.transpose_a ? p.k : p.m));
    const std::vector<float> b = draw(ldb * (p.transpose_b ? p.n : p.k));
    const std::vector<float> bias = draw(p.n), before = draw(ldc * p.m);
    std::vector<float> c = before;
    if (p.beta == 0.0F) {  // what was there must not matter
        c.assign(c.size(), std::numeric_limits<float>::quiet_NaN());
    }
    device.gemm({.transpose_a = p.transpose_a,
                 .transpose_b = p.transpose_b,
                 .m = p.m,
                 .n = p.n,
                 .k = p.k,
                 .a = a.data(),
                 .lda = lda,
                 .b = b.data(),
                 .ldb = ldb,
                 .c = c.data(),
                 .ldc = ldc,
                 .alpha = p.alpha,
                 .beta = p.beta,
                 .bias = p.bias ? bias.data() : nullptr});
    double difference = 0, norm = 0;
    for (std::int64_t i = 0; i < p.m; ++i) {
        for (std::int64_t j = 0; j < p.n; ++j) {
            double want = 0;
            for (std::int64_t l = 0; l < p.k; ++l) {
                want +=
                    double{a[static_cast<std::size_t>(p.transpose_a ? l * lda + i : i * lda + l)]} *
                    double{b[static_cast<std::size_t>(p.transpose_b ? j * ldb + l : l * ldb + j)]};
            }
            const auto at = static_cast<std::size_t>(i * ldc + j);
            want = double{p.alpha} * want + double{p.beta} * double{before[at]} +
                   (p.bias ? double{bias[static_cast<std::size_t>(j)]} : 0.0);
            difference += (want - double{c[at]}) * (want - double{c[at]});
            norm += want * want;
        }
    }
    return {.error = norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm), .c = c};
}

TEST(HostGemm, EqualsFloat64OnAnyNumberOfThreads) {
    const Product products[] = {
        {false, false, false, 5, 7, 3, 1.0F, 0.0F},
        {false, true, true, 700, 33, 64, 1.0F, 0.0F},    // rows in pieces
        {true, false, true, 24, 17, 9000, 0.5F, 1.0F},   // k in pieces
        {true, true, false, 40, 10, 10000, 1.0F, 0.0F},  // k in pieces
        {false, false, true, 4, 6, 0, 1.0F, 2.0F},       // nothing to add up
        {true, false, false, 600, 8, 100, -1.0F, 0.25F},
    };
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    for (const Product& product : products) {
        SCOPED_TRACE(fmt::format("m={} n={} k={}", product.m, product.n, product.k));
        const ProductResult once = run_product(*make_host_device(1), product, seed);
        EXPECT_LE(once.error, 1e-5);
        for (int threads : {2, 3}) {
            const ProductResult again = run_product(*make_host_device(threads), product, seed);
            EXPECT_EQ(std::memcmp(once.c.data(), again.c.data(), once.c.size() * sizeof(float)), 0);
        }
    }
}

TEST(HostGemm, RefusesWhatItCannotMultiply) {
    const auto device = make_host_device(1);
    float x = 1.0F;
    Gemm gemm{.m = 1, .n = 1, .k = 1, .a = &x, .lda = 1, .b = &x, .ldb = 1, .c = &x, .ldc = 1};
    gemm.input = DType::kBf16;
    expect_error<UserError>([&] { device->gemm(gemm); },
                            "the CPU back end multiplies fp32 matrices, not bf16 into fp32");
    gemm.input = DType::kFp32;
    gemm.n = 2;
    expect_error<InternalError>([&] { device->gemm(gemm); }, "gemm m=1 n=2 k=1");
}

}  // namespace
}  // namespace spion
