#include "io/array.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "ir/error.h"

namespace spion {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are copied as they are");

// Exponent and mantissa at float's places, times the difference of the two biases; infinity and NaN
// keep their exponent of ones.
float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000U) << 16;
    const float scaled = std::bit_cast<float>((half & 0x7FFFU) << 13) * 0x1p112F;
    const bool special = (half & 0x7C00U) == 0x7C00U;
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(scaled) | (special ? 0x7F800000U : 0U);
    return std::bit_cast<float>(bits | sign);
}

float bfloat_to_float(std::uint16_t half) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(half) << 16);
}

template <typename T>
double as_is(T value) {
    return static_cast<double>(value);
}

// A run of elements `stride` apart.
struct Run {
    const char* begin;
    std::int64_t stride;  // in bytes
    bool swapped;
};

template <typename T, typename Convert>
void decode(const Run& run, std::span<double> out, const Convert& convert) {
    const char* place = run.begin;
    for (double& value : out) {
        char bytes[sizeof(T)];
        std::memcpy(bytes, place, sizeof(T));
        if (run.swapped) {
            std::reverse(bytes, bytes + sizeof(T));
        }
        value = convert(std::bit_cast<T>(bytes));
        place += run.stride;
    }
}

void decode(ElementType type, const Run& run, std::span<double> out) {
    switch (type) {
        case ElementType::kBool:
            return decode<std::uint8_t>(run, out,
                                        [](std::uint8_t x) { return x != 0 ? 1.0 : 0.0; });
        case ElementType::kInt8:
            return decode<std::int8_t>(run, out, as_is<std::int8_t>);
        case ElementType::kInt16:
            return decode<std::int16_t>(run, out, as_is<std::int16_t>);
        case ElementType::kInt32:
            return decode<std::int32_t>(run, out, as_is<std::int32_t>);
        case ElementType::kInt64:
            return decode<std::int64_t>(run, out, as_is<std::int64_t>);
        case ElementType::kUint8:
            return decode<std::uint8_t>(run, out, as_is<std::uint8_t>);
        case ElementType::kUint16:
            return decode<std::uint16_t>(run, out, as_is<std::uint16_t>);
        case ElementType::kUint32:
            return decode<std::uint32_t>(run, out, as_is<std::uint32_t>);
        case ElementType::kUint64:
            return decode<std::uint64_t>(run, out, as_is<std::uint64_t>);
        case ElementType::kFloat16:
            return decode<std::uint16_t>(run, out, half_to_float);
        case ElementType::kBFloat16:
            return decode<std::uint16_t>(run, out, bfloat_to_float);
        case ElementType::kFloat32:
            return decode<float>(run, out, as_is<float>);
        case ElementType::kFloat64:
            return decode<double>(run, out, as_is<double>);
    }
}

}  // namespace

int element_bytes(ElementType type) {
    switch (type) {
        case ElementType::kBool:
        case ElementType::kInt8:
        case ElementType::kUint8:
            return 1;
        case ElementType::kInt16:
        case ElementType::kUint16:
        case ElementType::kFloat16:
        case ElementType::kBFloat16:
            return 2;
        case ElementType::kInt32:
        case ElementType::kUint32:
        case ElementType::kFloat32:
            return 4;
        case ElementType::kInt64:
        case ElementType::kUint64:
        case ElementType::kFloat64:
            return 8;
    }
    throw InternalError("element type {} has no size", static_cast<int>(type));
}

std::string_view to_string(ElementType type) {
    constexpr std::string_view kNames[] = {"bool",     "int8",    "int16",  "int32",  "int64",
                                           "uint8",    "uint16",  "uint32", "uint64", "float16",
                                           "bfloat16", "float32", "float64"};
    return kNames[static_cast<std::size_t>(type)];
}

bool is_floating(ElementType type) {
    return type >= ElementType::kFloat16;
}

std::int64_t element_count(std::span<const std::int64_t> shape, const std::string& origin) {
    // Extents that are not zero are multiplied first: (2^62, 0, 2^62) is an empty array.
    std::int64_t count = 1;
    bool empty = false;
    for (const std::int64_t extent : shape) {
        empty = empty || extent == 0;
        if (extent != 0 && __builtin_mul_overflow(count, extent, &count)) {
            throw UserError("{}: the shape in its header is too large to be true: save it again",
                            origin);
        }
    }
    return empty ? 0 : count;
}

std::int64_t Array::count() const {
    return element_count(shape, origin);
}

void Array::read(std::int64_t first, std::span<double> out) const {
    const std::int64_t size = element_bytes(type);
    const std::int64_t all = count();
    const auto wanted = static_cast<std::int64_t>(out.size());
    if (first < 0 || wanted > all - first ||
        static_cast<std::int64_t>(data.view.size()) < all * size) {
        throw InternalError("{}: elements {} to {} of {}", origin, first, first + wanted, all);
    }
    if (!fortran_order || shape.size() < 2) {
        decode(type, {data.view.data() + first * size, size, big_endian}, out);
        return;
    }
    // Fortran order: the last index steps over all others.
    const std::int64_t row = shape.back();
    std::int64_t pitch = 1;
    for (std::size_t axis = 0; axis + 1 < shape.size(); ++axis) {
        pitch *= shape[axis];
    }
    while (!out.empty()) {
        std::int64_t place = 0, rest = first / row, extent = pitch;
        for (std::size_t axis = shape.size() - 1; axis-- > 0; rest /= shape[axis]) {
            extent /= shape[axis];
            place += rest % shape[axis] * extent;
        }
        const std::int64_t column = first % row;
        const std::int64_t run = std::min(row - column, static_cast<std::int64_t>(out.size()));
        const char* begin = data.view.data() + (place + column * pitch) * size;
        decode(type, {begin, pitch * size, big_endian}, out.first(static_cast<std::size_t>(run)));
        out = out.subspan(static_cast<std::size_t>(run));
        first += run;
    }
}

std::vector<double> Array::values() const {
    std::vector<double> all(static_cast<std::size_t>(count()));
    read(0, all);
    return all;
}

std::string Array::shape_text() const {
    return fmt::format("({}{})", fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
}

}  // namespace spion
