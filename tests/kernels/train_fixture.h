// Tests of the training step's kernels run the same bodies on the host and, in the executable of
// label gpu, on a GPU: activations are converted to the device's type (fp32, bf16), and what the
// float64 reference is given is what the device was given, rounding included.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "runtime/device.h"
#include "train/kernels.h"

namespace spion {

using Values = std::vector<double>;

class StepKernelTest : public ::testing::Test {
  protected:
    void SetUp() override;

    int uniform(int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(random_);
    }
    bool on_gpu() const { return device_->target().back_end == BackEnd::kCuda; }

    // Shapes that every test walks: the paper's with dropout, and random ones with and without.
    const std::vector<StepShape>& shapes() const;
    // Compiled once a process.
    StepKernels& kernels(const StepShape& shape);
    // Of random seed, step and stream.
    SpionDropout random_dropout(bool enabled);
    // The same draws, of a step that is read from device memory, or as it is.
    SpionDropout as_given(SpionDropout dropout);
    Buffer upload_state(const SpionPassState& now);

    // `count` normal values, exactly as the device will hold them.
    Values random_activations(std::size_t count);
    Values random_floats(std::size_t count, double scale = 1.0);

    Buffer upload_activations(const Values& values);
    Buffer upload_floats(const Values& values);
    Buffer upload_ints(const std::vector<int>& values);
    // Filled with NaN (as numbers -1): what a kernel must write.
    Buffer poisoned_activations(std::size_t count) { return poisoned(count * activation_bytes()); }
    Buffer poisoned_floats(std::size_t count) { return poisoned(count * sizeof(float)); }
    Values activations(const Buffer& buffer, std::size_t count);
    Values floats(const Buffer& buffer, std::size_t count);
    std::vector<int> ints(const Buffer& buffer, std::size_t count);

    // partials [count, columns] -> their sum over rows, in float64.
    static Values sum_rows(const Values& partials, std::size_t columns);

    // Every element within tolerance * (|expected| + root mean square of expected). Stored
    // activations carry their type's rounding on top of fp32 arithmetic.
    double float_tolerance() const { return 2e-5; }
    double activation_tolerance() const { return on_gpu() ? 6e-3 : float_tolerance(); }
    static void expect_near(const std::string& name, const Values& actual, const Values& expected,
                            double tolerance);

    Device* device_ = nullptr;
    std::mt19937_64 random_;

  private:
    std::vector<Buffer> states_;  // of as_given
    std::size_t activation_bytes() const { return on_gpu() ? 2 : 4; }
    Buffer poisoned(std::size_t bytes);
    Values as_held(Values values) const;
};

}  // namespace spion
