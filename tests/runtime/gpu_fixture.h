// Tests that need a GPU derive from GpuTest: without one they say why they were skipped.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "runtime/cuda/cuda_device.h"
#include "tests/support/seed.h"

namespace spion {

class GpuTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (const auto problem = cuda_problem()) {
            GTEST_SKIP() << *problem;
        }
        device_ = std::make_unique<CudaDevice>();
        random_.seed(test::fresh_seed());
    }

    // A kernel from source text with one struct parameter.
    std::unique_ptr<LoadedKernel> kernel(const std::string& entry, const std::string& text) {
        return device_->load(entry, device_->compile({.entry = entry,
                                                      .text = text,
                                                      .includes = {},
                                                      .arch = device_->target().arch,
                                                      .features = "",
                                                      .options = device_->compile_options(),
                                                      .compiler = device_->compiler_version()}));
    }

    int uniform(int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(random_);
    }

    std::unique_ptr<CudaDevice> device_;
    std::mt19937 random_;
};

}  // namespace spion
