// Arrays in NumPy's .npy format: score maps in, tensors out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace spion {

struct NpyArray {
    std::vector<std::int64_t> shape;  // empty for a scalar
    std::vector<double> values;       // row-major, as many as the product of `shape`
};

// Reads little-endian float32 or float64 in C order, format version 1 or 2. Throws UserError naming
// the file and what is allowed for anything else, a file that cannot be read or one cut short.
NpyArray read_npy(const std::string& path);

// Writes float32 in C order, version 1; values: as many as the product of `shape`. The file appears
// whole or not at all. Throws UserError naming the file and the reason when it cannot be written.
void write_npy(const std::string& path, std::span<const std::int64_t> shape,
               std::span<const float> values);

}  // namespace spion
