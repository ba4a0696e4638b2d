#include "io/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "io/printable.h"
#include "ir/error.h"
#include "runtime/atomic_file.h"

namespace spion {
namespace {

using nlohmann::json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's own limit
constexpr std::size_t kMostAxes = 64;

std::uint64_t header_bytes(std::string_view bytes) {
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), kLengthBytes);  // little-endian, as we are
    return length;
}

struct Type {
    std::string_view name;
    ElementType type;
};
constexpr Type kTypes[] = {{"BOOL", ElementType::kBool},     {"I8", ElementType::kInt8},
                           {"I16", ElementType::kInt16},     {"I32", ElementType::kInt32},
                           {"I64", ElementType::kInt64},     {"U8", ElementType::kUint8},
                           {"U16", ElementType::kUint16},    {"U32", ElementType::kUint32},
                           {"U64", ElementType::kUint64},    {"F16", ElementType::kFloat16},
                           {"BF16", ElementType::kBFloat16}, {"F32", ElementType::kFloat32},
                           {"F64", ElementType::kFloat64}};

std::string_view name_of(ElementType type) {
    for (const Type& known : kTypes) {
        if (known.type == type) return known.name;
    }
    throw InternalError("element type {} has no name", static_cast<int>(type));
}

[[noreturn]] void fail(const std::string& origin, std::string_view what) {
    throw UserError("{}: the safetensors file is damaged ({}): save it again", origin, what);
}

json read_header(std::string_view bytes, const std::string& origin) {
    if (!is_safetensors(bytes)) {
        fail(origin, "it does not begin with its header's length and the header");
    }
    const std::string_view text = bytes.substr(kLengthBytes, header_bytes(bytes));
    json header = json::parse(text, nullptr, false);
    if (!header.is_object()) {
        fail(origin, "its header is no JSON object");
    }
    return header;
}

ElementType type_of(const json& tensor, const std::string& origin) {
    const auto found = tensor.find("dtype");
    if (found == tensor.end() || !found->is_string()) {
        fail(origin, "its header names no dtype");
    }
    const std::string name = *found;
    for (const Type& type : kTypes) {
        if (type.name == name) {
            return type.type;
        }
    }
    throw UserError("{}: dtype {} is not supported: use BOOL, an integer, F16, BF16, F32 or F64",
                    origin, printable(name));
}

// A list of numbers from 0 to 2^63 - 1, or nothing.
std::optional<std::vector<std::int64_t>> numbers(const json& tensor, const char* field) {
    const auto found = tensor.find(field);
    if (found == tensor.end() || !found->is_array() || found->size() > kMostAxes) {
        return std::nullopt;
    }
    std::vector<std::int64_t> values;
    for (const json& value : *found) {
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() > INT64_MAX) {
            return std::nullopt;
        }
        values.push_back(value.get<std::int64_t>());
    }
    return values;
}

}  // namespace

bool is_safetensors(std::string_view bytes) {
    return bytes.size() > kLengthBytes + 1 && bytes[kLengthBytes] == '{' &&
           header_bytes(bytes) <= kLongestHeader &&
           header_bytes(bytes) <= bytes.size() - kLengthBytes;
}

std::vector<std::string> safetensors_names(std::string_view bytes, const std::string& origin) {
    std::vector<std::string> names;
    const json header = read_header(bytes, origin);
    for (const auto& [name, tensor] : header.items()) {
        if (name != "__metadata__") {
            names.push_back(name);
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

Array parse_safetensors(const Bytes& bytes, const std::string& name, const std::string& origin) {
    const json header = read_header(bytes.view, origin);
    const auto tensor = header.find(name);
    if (name == "__metadata__" || tensor == header.end()) {
        throw UserError("{}: there is no tensor of that name: it has {}", origin,
                        some_of(safetensors_names(bytes.view, origin)));
    }
    if (!tensor->is_object()) {
        fail(origin, "a tensor is no JSON object");
    }
    const ElementType type = type_of(*tensor, origin);
    const auto shape = numbers(*tensor, "shape");
    const auto offsets = numbers(*tensor, "data_offsets");
    if (!shape || !offsets || offsets->size() != 2) {
        fail(origin, "a shape or an offset is no list of sizes");
    }
    const std::string_view data = bytes.view.substr(kLengthBytes + header_bytes(bytes.view));
    const std::int64_t begin = offsets->front(), end = offsets->back();
    if (begin > end || static_cast<std::uint64_t>(end) > data.size()) {
        fail(origin, "a tensor lies outside the file");
    }
    const std::int64_t count = element_count(*shape, origin);
    const std::int64_t element = element_bytes(type);
    if ((end - begin) % element != 0 || (end - begin) / element != count) {
        fail(origin, "a tensor has another size than its shape needs");
    }
    return Array{.origin = origin,
                 .shape = *shape,
                 .type = type,
                 .data = {.view = data.substr(static_cast<std::size_t>(begin),
                                              static_cast<std::size_t>(end - begin)),
                          .owner = bytes.owner}};
}

std::map<std::string, std::string> safetensors_metadata(std::string_view bytes,
                                                        const std::string& origin) {
    const json header = read_header(bytes, origin);
    std::map<std::string, std::string> notes;
    const auto found = header.find("__metadata__");
    if (found == header.end()) return notes;
    if (!found->is_object()) fail(origin, "its __metadata__ is no JSON object");
    for (const auto& [name, note] : found->items()) {
        if (!note.is_string()) fail(origin, "its __metadata__ holds more than strings");
        notes[name] = note.get<std::string>();
    }
    return notes;
}

void write_safetensors(const std::string& path, std::span<const SavedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::size_t offset = 0;
    for (const SavedTensor& tensor : tensors) {
        const std::int64_t count = element_count(tensor.shape, path);
        if (static_cast<std::size_t>(count * element_bytes(tensor.type)) != tensor.data.size()) {
            throw InternalError("{}: {} bytes for another shape", path, tensor.data.size());
        }
        const std::size_t end = offset + tensor.data.size();
        header[tensor.name] = {{"dtype", name_of(tensor.type)},
                               {"shape", tensor.shape},
                               {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the tensors are aligned
    const std::uint64_t length = text.size();
    try {
        AtomicFile file(path);
        file.write({reinterpret_cast<const char*>(&length), sizeof length});
        file.write(text);
        for (const SavedTensor& tensor : tensors) file.write(tensor.data);
        file.commit();
    } catch (const std::system_error& error) {
        throw UserError("{} cannot be written: {}; name a file in a writable folder", path,
                        error.code().message());
    }
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors) {
    std::vector<SavedTensor> saved;
    for (const NamedTensor& tensor : tensors) {
        saved.push_back({.name = tensor.name,
                         .shape = tensor.shape,
                         .type = ElementType::kFloat32,
                         .data = {reinterpret_cast<const char*>(tensor.values.data()),
                                  tensor.values.size_bytes()}});
    }
    write_safetensors(path, saved, {});
}

}  // namespace spion
