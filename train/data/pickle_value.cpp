// What a value of a pickle is asked for.
#include <cstring>

#include "io/printable.h"
#include "ir/error.h"
#include "train/data/pickle.h"

namespace spion {
namespace {

template <typename T>
std::vector<std::int64_t> converted(std::string_view data) {
    std::vector<std::int64_t> values(data.size() / sizeof(T));
    for (std::size_t i = 0; i < values.size(); ++i) {
        T value;
        std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
        values[i] = static_cast<std::int64_t>(value);
    }
    return values;
}

}  // namespace

const PickleValue& PickleValue::member(std::string_view key, const std::string& origin) const {
    for (const auto& [name, value] : fields) {
        if (name->kind == Kind::kText && name->text == key) return *value;
    }
    throw UserError("{}: the pickle has no '{}': is it another data set's?", origin, key);
}

std::vector<std::int64_t> PickleValue::integers(const std::string& origin) const {
    if (kind == Kind::kArray) {
        if (text == "u1") return converted<std::uint8_t>(data);
        if (text == "i1") return converted<std::int8_t>(data);
        if (text == "i2") return converted<std::int16_t>(data);
        if (text == "i4") return converted<std::int32_t>(data);
        if (text == "i8") return converted<std::int64_t>(data);
        if (text == "f4") return converted<float>(data);
        if (text == "f8") return converted<double>(data);
        throw UserError("{}: an array of {} holds no integers", origin, printable(text));
    }
    std::vector<std::int64_t> values;
    for (const PicklePointer& item : items) {
        if (item->kind != Kind::kInteger) {
            throw UserError("{}: a list holds more than integers", origin);
        }
        values.push_back(item->integer);
    }
    return values;
}

std::string_view PickleValue::array_bytes(std::size_t element, const std::string& origin) const {
    std::uint64_t count = element;
    for (const std::int64_t size : shape) {
        constexpr std::int64_t kMost = std::int64_t{1} << 40;
        if (size < 0 || size > kMost || count > static_cast<std::uint64_t>(kMost)) count = 0;
        count *= static_cast<std::uint64_t>(size);
    }
    if (kind != Kind::kArray || data.size() != count) {
        throw UserError("{}: where an array should be, the pickle has none of its size", origin);
    }
    return data;
}

}  // namespace spion
