// A linear map's backward pass with random operands in bf16, and what must come out, in double.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/train_arguments.h"
#include "tests/kernels/train_reference.h"
#include "train/fused_linear.h"

namespace spion {

struct LinearProblem {
    LinearProblem(const FusedLinearShape& shape, std::int64_t rows, bool dropout_enabled,
                  std::mt19937& random);

    FusedLinearShape shape;
    std::int64_t rows;
    std::vector<std::uint16_t> d_y, hidden, x, weight;  // bf16 [N, O] twice, [N, I], [O, I]
    SpionDropout dropout;

    Values d_x;       // [N, I]
    Values partials;  // [O * I + O], summed over items

    // The results of a kernel: bf16 [N, I] and fp32 [items, O * I + O]. Fails the test unless they
    // are near, NaN included.
    void expect(const std::vector<std::uint16_t>& actual_d_x,
                const std::vector<float>& actual_partials) const;
};

// Normal values of standard deviation `spread`.
std::vector<std::uint16_t> random_bf16(std::int64_t count, double spread, std::mt19937& random);
// bf16 values, each within tolerance * (|expected| + root mean square of expected), and what `more` says.
void expect_values_near(const char* name, const std::vector<std::uint16_t>& actual,
                        const Values& expected, double tolerance, const Values& more = {});
std::uint16_t bf16_bits(double value);
double bf16_value(std::uint16_t bits);

}  // namespace spion
