// Makes ListOps expressions of Long Range Arena's distribution.
#pragma once

#include <cstdint>
#include <vector>

#include "train/data/dataset.h"

namespace spion {

struct ListOpsSettings {
    std::int64_t train_samples = 96000;
    std::int64_t validation_samples = 2000;
    std::int64_t test_samples = 2000;
    // A tree node above the last level is an operator with this probability, else a digit.
    double operator_probability = 0.25;
    int max_depth = 10;             // levels of the tree; the last holds digits only
    int max_arguments = 10;         // of an operator: uniform in [2, max_arguments]
    std::int64_t min_length = 500;  // tokens; expressions outside [min, max] are thrown away
    std::int64_t max_length = 2000;
    std::uint64_t seed = 0;
};

// Throws UserError naming the setting that is out of range, or contradicts another.
void check(const ListOpsSettings& settings);

struct ListOpsSample {
    std::vector<std::uint16_t> tokens;
    int label = 0;
};
// Sample `index` of split `split` (0 train, 1 validation, 2 test): a function of the arguments
// alone. Throws UserError when no expression of the allowed length appears in a million attempts.
ListOpsSample generate_list_ops_sample(const ListOpsSettings& settings, int split,
                                       std::int64_t index);

// All three splits, made on `threads` threads; the result does not depend on how many.
Dataset generate_list_ops(const ListOpsSettings& settings, int threads);

}  // namespace spion
