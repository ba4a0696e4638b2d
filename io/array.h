// An array as a file holds it: elements of any type, order and byte order, decoded when they are
// read, so that a mapped file of any size costs no memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/bytes.h"

namespace spion {

enum class ElementType {
    kBool,
    kInt8,
    kInt16,
    kInt32,
    kInt64,
    kUint8,
    kUint16,
    kUint32,
    kUint64,
    kFloat16,
    kBFloat16,
    kFloat32,
    kFloat64,
};

int element_bytes(ElementType type);
// "float16", as NumPy names them.
std::string_view to_string(ElementType type);
bool is_floating(ElementType type);

struct Array {
    std::string origin;               // what messages call it: file, or file:member
    std::vector<std::int64_t> shape;  // empty for a scalar
    ElementType type = ElementType::kFloat32;
    bool big_endian = false;
    bool fortran_order = false;  // the first index varies fastest
    Bytes data;                  // as many elements as the product of `shape`

    std::int64_t count() const;
    // Elements `first` and following in C order, whatever order the file has. Integers beyond 2^53
    // are rounded.
    void read(std::int64_t first, std::span<double> out) const;
    std::vector<double> values() const;
    // "(2, 3)"
    std::string shape_text() const;
};

// The product of extents >= 0. Throws UserError that begins with `origin` when an array of so many
// elements cannot be.
std::int64_t element_count(std::span<const std::int64_t> shape, const std::string& origin);

}  // namespace spion
