// What tests of the library on a GPU begin with.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>

#include "tests/api/cuda_calls.h"
#include "tests/support/seed.h"

namespace spion::test {

constexpr double kTolerance = 1e-2;  // of bf16

class ApiGpu : public testing::Test {
  protected:
    void SetUp() override {
        if (!cuda::available()) {
            GTEST_SKIP() << "no GPU with a driver";
        }
        primary_ = std::make_unique<cuda::Primary>();
        stream_ = std::make_unique<cuda::Stream>();
    }
    static const Context& context() {
        static const Context shared = Context::cuda();
        return shared;
    }
    oracle::Problem problem(std::int64_t length, int block, int head_dim, double density,
                            bool padding = false) {
        return rounded(
            oracle::random_problem(length, block, 2, head_dim, 2, density, padding, seed_++));
    }
    static Plan plan_of(const oracle::Problem& problem) {
        return context().plan(cuda_attention(problem),
                              {.typical = CudaCall::pattern_of(problem), .batch = problem.batch});
    }

    std::uint64_t seed_ = fresh_seed();
    std::unique_ptr<cuda::Primary> primary_;
    std::unique_ptr<cuda::Stream> stream_;
};

}  // namespace spion::test
