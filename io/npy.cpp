#include "io/npy.h"

#include <fmt/ranges.h>

#include <cctype>
#include <charconv>
#include <cstddef>
#include <limits>
#include <string_view>

#include "io/printable.h"
#include "ir/error.h"
#include "runtime/atomic_file.h"

namespace spion {
namespace {

constexpr std::string_view kAllowed = "use a .npy file of bool, integers or floats (numpy.save)";

// NumPy itself refuses to evaluate headers above 10000 bytes.
constexpr std::size_t kLongestHeader = std::size_t{1} << 16;
constexpr std::size_t kMostAxes = 64;  // NumPy's own limit

// The header's text is a Python dictionary of three known keys:
// {'descr': '<f4', 'fortran_order': False, 'shape': (256, 256), }
class HeaderReader {
  public:
    HeaderReader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

    NpyHeader read() {
        NpyHeader header;
        bool seen_descr = false, seen_order = false, seen_shape = false;
        expect('{');
        while (!accept('}')) {
            const std::string key = quoted();
            expect(':');
            if (key == "descr") {
                header.descr = peek() == '[' ? skip_structured() : quoted();
                seen_descr = true;
            } else if (key == "fortran_order") {
                header.fortran_order = boolean();
                seen_order = true;
            } else if (key == "shape") {
                header.shape = tuple();
                seen_shape = true;
            } else {
                fail();
            }
            if (!accept(',') && peek() != '}') {
                fail();
            }
        }
        if (peek() != '\0' || !seen_descr || !seen_order || !seen_shape) {
            fail();
        }
        return header;
    }

  private:
    [[noreturn]] void fail() const {
        throw UserError("{}: the .npy header is damaged: {}", path_, kAllowed);
    }

    char peek() {
        while (!text_.empty() && std::isspace(static_cast<unsigned char>(text_.front())) != 0) {
            text_.remove_prefix(1);
        }
        return text_.empty() ? '\0' : text_.front();
    }

    bool accept(char c) {
        if (peek() != c || text_.empty()) {
            return false;
        }
        text_.remove_prefix(1);
        return true;
    }

    void expect(char c) {
        if (!accept(c)) {
            fail();
        }
    }

    std::string quoted() {
        const char quote = peek();
        if (quote != '\'' && quote != '"') {
            fail();
        }
        const std::size_t end = text_.find(quote, 1);
        if (end == std::string_view::npos) {
            fail();
        }
        const std::string value(text_.substr(1, end - 1));
        text_.remove_prefix(end + 1);
        return value;
    }

    // A dtype with fields, as text: refused later by name.
    std::string skip_structured() {
        const std::size_t end = text_.find(']');
        if (end == std::string_view::npos) {
            fail();
        }
        const std::string value(text_.substr(0, end + 1));
        text_.remove_prefix(end + 1);
        return value;
    }

    bool boolean() {
        peek();
        for (bool value : {true, false}) {
            const std::string_view name = value ? "True" : "False";
            if (text_.starts_with(name)) {
                text_.remove_prefix(name.size());
                return value;
            }
        }
        fail();
    }

    std::vector<std::int64_t> tuple() {
        std::vector<std::int64_t> values;
        expect('(');
        while (!accept(')')) {
            peek();
            std::int64_t value = 0;
            const auto [end, error] =
                std::from_chars(text_.data(), text_.data() + text_.size(), value);
            if (error != std::errc{} || value < 0 || values.size() == kMostAxes) {
                fail();
            }
            values.push_back(value);
            text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
            if (text_.starts_with('L')) {  // of a long integer, as Python 2 wrote every extent
                text_.remove_prefix(1);
            }
            if (!accept(',') && peek() != ')') {
                fail();
            }
        }
        return values;
    }

    std::string_view text_;
    const std::string& path_;
};

ElementType element_type(std::string_view descr, const std::string& origin) {
    struct Name {
        std::string_view descr;  // without the byte order
        ElementType type;
    };
    constexpr Name kNames[] = {{"b1", ElementType::kBool},     {"i1", ElementType::kInt8},
                               {"i2", ElementType::kInt16},    {"i4", ElementType::kInt32},
                               {"i8", ElementType::kInt64},    {"u1", ElementType::kUint8},
                               {"u2", ElementType::kUint16},   {"u4", ElementType::kUint32},
                               {"u8", ElementType::kUint64},   {"f2", ElementType::kFloat16},
                               {"V2", ElementType::kBFloat16}, {"f4", ElementType::kFloat32},
                               {"f8", ElementType::kFloat64}};
    if (!descr.empty() && std::string_view("<>|=").find(descr.front()) != std::string_view::npos) {
        for (const Name& name : kNames) {
            if (descr.substr(1) == name.descr) {
                return name.type;
            }
        }
    }
    throw UserError("{}: dtype {} is not supported: {}", origin, printable(descr), kAllowed);
}

}  // namespace

NpyHeader read_npy_header(std::string_view bytes, const std::string& origin) {
    if (!bytes.starts_with(kNpyMagic) || bytes.size() < 10) {
        throw UserError("{}: is not a .npy file: {}", origin, kAllowed);
    }
    const int version = static_cast<unsigned char>(bytes[6]);
    if (version < 1 || version > 3) {
        throw UserError("{}: .npy version {} is not supported: use version 1, 2 or 3", origin,
                        version);
    }
    const std::size_t length_bytes = version == 1 ? 2 : 4;
    std::size_t header_bytes = 0;
    for (std::size_t i = 0; i < length_bytes && 8 + i < bytes.size(); ++i) {
        header_bytes |= static_cast<std::size_t>(static_cast<unsigned char>(bytes[8 + i]))
                        << (8 * i);
    }
    const std::size_t begin = 8 + length_bytes;
    if (bytes.size() < begin || bytes.size() - begin < header_bytes) {
        throw UserError("{}: is cut short within its header: save it again", origin);
    }
    if (header_bytes > kLongestHeader) {
        throw UserError("{}: the .npy header has {} bytes, at most {} are read: {}", origin,
                        header_bytes, kLongestHeader, kAllowed);
    }
    NpyHeader header = HeaderReader(bytes.substr(begin, header_bytes), origin).read();
    header.elements = bytes.substr(begin + header_bytes);
    return header;
}

Array parse_npy(const Bytes& bytes, const std::string& origin) {
    NpyHeader header = read_npy_header(bytes.view, origin);
    const ElementType type = element_type(header.descr, origin);
    const std::int64_t count = element_count(header.shape, origin);
    const std::int64_t element = element_bytes(type);
    const auto held = static_cast<std::int64_t>(header.elements.size());
    if (held % element != 0 || held / element != count) {
        throw UserError(
            "{}: holds {} bytes of elements where its shape needs {} of {} bytes: save it again",
            origin, held, count, element);
    }
    return Array{.origin = origin,
                 .shape = std::move(header.shape),
                 .type = type,
                 .big_endian = header.descr.front() == '>',
                 .fortran_order = header.fortran_order,
                 .data = {.view = header.elements, .owner = bytes.owner}};
}

void write_npy(const std::string& path, std::span<const std::int64_t> shape,
               std::span<const float> values) {
    if (element_count(shape, path) != static_cast<std::int64_t>(values.size())) {
        throw InternalError("{}: {} values for another shape", path, values.size());
    }
    std::string extents = fmt::format("{}", fmt::join(shape, ", "));
    if (shape.size() == 1) {
        extents += ',';  // Python's tuple of one
    }
    std::string header =
        fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", extents);
    constexpr std::size_t kPrefix = 10;  // magic, version, length
    header.resize((kPrefix + header.size() + 1 + 63) / 64 * 64 - kPrefix - 1, ' ');
    header += '\n';
    if (header.size() > std::numeric_limits<std::uint16_t>::max()) {
        throw InternalError("{}: a header of {} bytes", path, header.size());
    }
    std::string bytes(kNpyMagic);
    bytes += {'\x01', '\0', static_cast<char>(header.size() & 0xFF),
              static_cast<char>(header.size() >> 8)};
    bytes += header;
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    write_file(path, bytes, "name a file in a writable folder");
}

}  // namespace spion
