#include "tools/npy.h"

#include <bit>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>

#include "ir/error.h"
#include "runtime/atomic_file.h"

namespace spion {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are copied as they are");

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::string_view kAllowed =
    "use a .npy file of float32 or float64 in C order (numpy.save)";

struct Header {
    std::string descr;  // "<f4"
    bool fortran_order = false;
    std::vector<std::int64_t> shape;
};

// The header's text is a Python dictionary of three known keys:
// {'descr': '<f4', 'fortran_order': False, 'shape': (256, 256), }
class HeaderReader {
  public:
    HeaderReader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

    Header read() {
        Header header;
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
            if (error != std::errc{} || value < 0) {
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

// Number of elements, or nothing when it does not fit 63 bits.
std::int64_t element_count(std::span<const std::int64_t> shape, const std::string& path) {
    std::int64_t count = 1;
    for (std::int64_t extent : shape) {
        if (__builtin_mul_overflow(count, extent, &count)) {
            throw UserError("{}: the shape in its header is too large to be true", path);
        }
    }
    return count;
}

std::string read_file(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
        throw UserError("{}: is a folder: {}", path, kAllowed);
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw UserError("{}: cannot be read ({}): name a readable .npy file", path,
                        std::strerror(errno));
    }
    std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (file.bad()) {
        throw UserError("{}: reading failed ({}): name a readable .npy file", path,
                        std::strerror(errno));
    }
    return bytes;
}

// Splits off the header; `bytes` becomes the elements.
Header take_header(std::string_view& bytes, const std::string& path) {
    if (bytes.empty()) {
        throw UserError("{}: is empty: {}", path, kAllowed);
    }
    if (!bytes.starts_with(kMagic) || bytes.size() < 10) {
        throw UserError("{}: is not a .npy file: {}", path, kAllowed);
    }
    const int version = static_cast<unsigned char>(bytes[6]);
    if (version != 1 && version != 2) {
        throw UserError("{}: .npy version {} is not supported: use version 1 or 2", path, version);
    }
    const std::size_t length_bytes = version == 1 ? 2 : 4;
    std::size_t header_bytes = 0;
    for (std::size_t i = 0; i < length_bytes && 8 + i < bytes.size(); ++i) {
        header_bytes |= static_cast<std::size_t>(static_cast<unsigned char>(bytes[8 + i]))
                        << (8 * i);
    }
    const std::size_t begin = 8 + length_bytes;
    if (bytes.size() < begin || bytes.size() - begin < header_bytes) {
        throw UserError("{}: is cut short within its header: save it again", path);
    }
    const Header header = HeaderReader(bytes.substr(begin, header_bytes), path).read();
    bytes.remove_prefix(begin + header_bytes);
    return header;
}

template <typename T>
std::vector<double> as_doubles(std::string_view bytes, std::int64_t count) {
    std::vector<double> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) {
        T value;
        std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
        values[i] = static_cast<double>(value);
    }
    return values;
}

}  // namespace

NpyArray read_npy(const std::string& path) {
    const std::string file = read_file(path);
    std::string_view bytes = file;
    const Header header = take_header(bytes, path);
    if (header.descr != "<f4" && header.descr != "<f8") {
        throw UserError("{}: dtype {} is not supported: {}", path, header.descr, kAllowed);
    }
    if (header.fortran_order) {
        throw UserError("{}: Fortran order is not supported: {}", path, kAllowed);
    }
    const std::int64_t count = element_count(header.shape, path);
    const std::int64_t element = header.descr == "<f4" ? 4 : 8;
    const auto held = static_cast<std::int64_t>(bytes.size());
    if (held % element != 0 || held / element != count) {
        throw UserError(
            "{}: holds {} bytes of elements where its shape needs {} of {} bytes: save "
            "it again",
            path, held, count, element);
    }
    return NpyArray{.shape = header.shape,
                    .values = element == 4 ? as_doubles<float>(bytes, count)
                                           : as_doubles<double>(bytes, count)};
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
    std::string bytes(kMagic);
    bytes += {'\x01', '\0', static_cast<char>(header.size() & 0xFF),
              static_cast<char>(header.size() >> 8)};
    bytes += header;
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    write_file(path, bytes, "name a file in a writable folder");
}

}  // namespace spion
