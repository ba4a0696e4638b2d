// NumPy's .npy format, as numpy.lib.format describes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/array.h"

namespace spion {

constexpr std::string_view kNpyMagic = "\x93NUMPY";

// What stands in front of the elements.
struct NpyHeader {
    std::string descr;  // "<f4"
    bool fortran_order = false;
    std::vector<std::int64_t> shape;
    std::string_view elements;  // all that follows
};

// Versions 1, 2 and 3, and the longs (32L) that NumPy wrote under Python 2. Throws UserError that
// begins with `origin` for anything else.
NpyHeader read_npy_header(std::string_view bytes, const std::string& origin);

// Bool, integers and floats of either byte order, C or Fortran order; ml_dtypes' bfloat16, which
// it writes as <V2. Throws UserError that begins with `origin` for anything else.
Array parse_npy(const Bytes& bytes, const std::string& origin);

// Writes float32 in C order, version 1; values: as many as the product of `shape`. The file appears
// whole or not at all. Throws UserError naming the file and the reason when it cannot be written.
void write_npy(const std::string& path, std::span<const std::int64_t> shape,
               std::span<const float> values);

}  // namespace spion
