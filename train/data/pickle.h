// Python's pickles as data: numbers, strings, lists, tuples, dicts and NumPy's arrays. A pickle is a
// program; this reads what it would build and runs nothing: what it asks to import or to call is
// refused unless it is how NumPy writes an array.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spion {

struct PickleValue;
using PicklePointer = std::shared_ptr<PickleValue>;

struct PickleValue {
    enum class Kind { kNone, kInteger, kFloat, kText, kList, kDict, kGlobal, kType, kArray };
    Kind kind = Kind::kNone;
    std::int64_t integer = 0;  // booleans too
    double number = 0;
    std::string text;  // kText: bytes or UTF-8; kGlobal: "module name"; kType: "<i4"
    std::vector<PicklePointer> items;                             // kList: tuples too
    std::vector<std::pair<PicklePointer, PicklePointer>> fields;  // kDict
    std::vector<std::int64_t> shape;                              // kArray
    std::string_view data;  // kArray: its elements, in the pickle's bytes

    // All throw UserError that begins with `origin` when it is something else.
    // The value of a dict's key, which may be text or bytes.
    const PickleValue& member(std::string_view key, const std::string& origin) const;
    // Of a list, or of an array of integers, little-endian.
    std::vector<std::int64_t> integers(const std::string& origin) const;
    // An array's elements of `element` bytes each, in C order.
    std::string_view array_bytes(std::size_t element, const std::string& origin) const;
};

// Protocols 0 to 5. Views of `bytes` are kept. Throws UserError that begins with `origin` for a
// damaged pickle, and for one that holds more than data.
PickleValue read_pickle(std::string_view bytes, const std::string& origin);

}  // namespace spion
