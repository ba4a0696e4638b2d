// One named constant of the generated source, a line.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

namespace spion {

struct Constant {
    std::string name;  // "kHeadDim"
    // string, CUDA only: the name of a struct of the body, emitted as `using name = struct value;`.
    std::variant<bool, std::int64_t, float, std::string> value;
    std::string comment;  // "" or what it means, with units
};

inline Constant integer(std::string name, std::int64_t value, std::string comment) {
    return {.name = std::move(name), .value = value, .comment = std::move(comment)};
}

}  // namespace spion
