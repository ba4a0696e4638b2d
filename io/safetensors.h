// The safetensors format: the length of a JSON header in 8 bytes, the header, the tensors.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/array.h"

namespace spion {

// Whether bytes may be such a file: a plausible length and the header's brace.
bool is_safetensors(std::string_view bytes);

// The names of its tensors, sorted. Throws UserError that begins with `origin` for a damaged file.
std::vector<std::string> safetensors_names(std::string_view bytes, const std::string& origin);

// One tensor. Throws UserError that begins with `origin` for a damaged file, a name that it does
// not hold, and dtypes that are not NumPy's or bfloat16 (float8, complex).
Array parse_safetensors(const Bytes& bytes, const std::string& name, const std::string& origin);

// What a program noted beside the tensors ("__metadata__"), empty without. Throws UserError that
// begins with `origin` for a damaged file, and for notes that are no strings.
std::map<std::string, std::string> safetensors_metadata(std::string_view bytes,
                                                        const std::string& origin);

// Of any type: `data` holds its elements as the file does, in C order and little-endian.
struct SavedTensor {
    std::string name;
    std::vector<std::int64_t> shape;
    ElementType type = ElementType::kFloat32;
    std::string_view data;
};

// The file appears whole or not at all, and nothing of its size is held in memory. Throws UserError
// naming the file and the reason when it cannot be written.
void write_safetensors(const std::string& path, std::span<const SavedTensor> tensors,
                       const std::map<std::string, std::string>& metadata);

struct NamedTensor {
    std::string name;
    std::vector<std::int64_t> shape;
    std::span<const float> values;  // C order
};

// The same of float32, without notes.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors);

}  // namespace spion
