// A kernel of the training step besides attention: the name of a hand-written body
// (kernels/*/train/<name>) and the constants that it is specialised on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace spion {

struct StepProgram {
    struct Constant {
        std::string name;    // as in the source: "kChannels"
        float value = 0.0F;  // finite; whole numbers are exact to 2^24
        friend bool operator==(const Constant&, const Constant&) = default;
    };
    std::string name;  // "adamw"
    std::vector<Constant> constants;
    friend bool operator==(const StepProgram&, const StepProgram&) = default;
};

// "program role=train_adamw", "shape kChannels=64 kDropout=0.1" (docs/ir.md).
std::string to_text(const StepProgram& program);

// A letter or underscore, then letters, digits and underscores.
bool is_identifier(std::string_view text);

}  // namespace spion
