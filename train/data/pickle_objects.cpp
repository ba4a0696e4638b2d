#include "train/data/pickle_objects.h"

#include <charconv>
#include <cstring>

#include "io/printable.h"
#include "ir/error.h"

namespace spion {
namespace {

using Kind = PickleValue::Kind;

// "numpy.core.multiarray _reconstruct" and the like: which part of NumPy it is has changed its name.
bool is_numpy(const PickleValue& callee, std::string_view name) {
    return callee.kind == Kind::kGlobal && callee.text.starts_with("numpy") &&
           callee.text.ends_with(fmt::format(" {}", name));
}

const PicklePointer& item(const PickleValue& list, std::size_t index, const PickleBytes& bytes) {
    if (list.kind != Kind::kList || index >= list.items.size())
        bytes.fail("an array is incomplete");
    return list.items[index];
}

// The bytes of a string, which live as long as it does.
std::string_view bytes_of(const PickleValue& text) {
    return text.data.empty() ? std::string_view(text.text) : text.data;
}

void fill(PickleValue& array, const PicklePointer& elements, const PickleValue& type,
          const PickleValue& shape, const PickleBytes& bytes) {
    if (elements->kind != Kind::kText) bytes.fail("an array's elements are no bytes");
    for (const PicklePointer& size : shape.items) array.shape.push_back(size->integer);
    array.text = type.text;
    array.data = bytes_of(*elements);
    array.items.push_back(elements);  // keeps short ones alive
}

// How protocol 2 writes bytes: as text, each a character of Latin-1.
PicklePointer from_latin1(const PickleValue& text, const PickleBytes& origin) {
    const std::string_view utf8 = bytes_of(text);
    auto bytes = make_pickle(Kind::kText);
    for (std::size_t i = 0; i < utf8.size(); ++i) {
        const auto first = static_cast<unsigned char>(utf8[i]);
        if (first < 0x80) {
            bytes->text += utf8[i];
        } else if ((first == 0xC2 || first == 0xC3) && i + 1 < utf8.size()) {
            bytes->text += static_cast<char>((first & 3U) << 6 |
                                             (static_cast<unsigned char>(utf8[++i]) & 0x3FU));
        } else {
            origin.fail("a byte string has characters beyond a byte");
        }
    }
    return bytes;
}

PicklePointer scalar(const PickleValue& arguments, const PickleBytes& bytes) {
    PickleValue array;
    array.kind = Kind::kArray;
    array.text = item(arguments, 0, bytes)->text;
    array.shape = {1};
    array.data = bytes_of(*item(arguments, 1, bytes));
    const std::vector<std::int64_t> values = array.integers(bytes.origin());
    if (values.size() != 1) bytes.fail("a number has not the bytes of one");
    return make_pickle_integer(values.front());
}

// Protocol 5: elements, type, shape, order.
PicklePointer from_buffer(const PickleValue& arguments, const PickleBytes& bytes) {
    if (item(arguments, 3, bytes)->text != "C") bytes.fail("an array is in Fortran's order");
    auto array = make_pickle(Kind::kArray);
    fill(*array, item(arguments, 0, bytes), *item(arguments, 1, bytes), *item(arguments, 2, bytes),
         bytes);
    return array;
}

}  // namespace

void PickleBytes::fail(std::string_view what) const {
    throw UserError("{}: the pickle cannot be read as data ({}): save it again", origin_, what);
}

std::string_view PickleBytes::take(std::uint64_t count) {
    if (count > bytes_.size() - at_) fail("it is cut short");
    const std::string_view taken = bytes_.substr(at_, static_cast<std::size_t>(count));
    at_ += taken.size();
    return taken;
}

std::uint64_t PickleBytes::little(int count) {
    std::uint64_t value = 0;
    const std::string_view taken = take(static_cast<std::uint64_t>(count));
    std::memcpy(&value, taken.data(), taken.size());
    return value;
}

std::string_view PickleBytes::line() {
    const std::size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) fail("it is cut short");
    const std::string_view found = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
}

std::int64_t PickleBytes::number(std::string_view text) const {
    if (text.ends_with('L')) text.remove_suffix(1);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) fail("a number is none");
    return value;
}

PicklePointer make_pickle(Kind kind) {
    auto value = std::make_shared<PickleValue>();
    value->kind = kind;
    return value;
}

PicklePointer make_pickle_integer(std::int64_t integer) {
    auto value = make_pickle(Kind::kInteger);
    value->integer = integer;
    return value;
}

PicklePointer make_pickle_text(std::string_view text) {
    auto value = make_pickle(Kind::kText);
    value->text = text;
    return value;
}

PicklePointer called_by_pickle(const PickleValue& callee, const PickleValue& arguments,
                               const PickleBytes& bytes) {
    if (is_numpy(callee, "_reconstruct")) return make_pickle(Kind::kArray);
    if (is_numpy(callee, "dtype")) {
        auto type = make_pickle(Kind::kType);
        type->text = item(arguments, 0, bytes)->text;
        return type;
    }
    if (is_numpy(callee, "scalar")) return scalar(arguments, bytes);
    if (is_numpy(callee, "_frombuffer")) return from_buffer(arguments, bytes);
    if (callee.kind == Kind::kGlobal && callee.text == "_codecs encode") {
        return from_latin1(*item(arguments, 0, bytes), bytes);
    }
    bytes.fail(fmt::format("it calls {}, which is not run", printable(callee.text)));
}

void build_for_pickle(PickleValue& value, const PickleValue& state, const PickleBytes& bytes) {
    if (value.kind == Kind::kType) {
        if (item(state, 1, bytes)->text == ">") bytes.fail("an array is big-endian");
    } else if (value.kind == Kind::kArray) {
        if (item(state, 3, bytes)->integer != 0 && item(state, 1, bytes)->items.size() > 1) {
            bytes.fail("an array is in Fortran's order");
        }
        fill(value, item(state, 4, bytes), *item(state, 2, bytes), *item(state, 1, bytes), bytes);
    } else {
        bytes.fail("it gives state to what is no array");
    }
}

}  // namespace spion
