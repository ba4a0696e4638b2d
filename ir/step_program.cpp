#include "ir/step_program.h"

#include <fmt/format.h>

#include <algorithm>

namespace spion {

std::string to_text(const StepProgram& program) {
    std::string text = fmt::format("program role=train_{}\nshape", program.name);
    for (const StepProgram::Constant& constant : program.constants) {
        text += fmt::format(" {}={}", constant.name, constant.value);
    }
    return text + "\n";
}

bool is_identifier(std::string_view text) {
    const auto is_letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    };
    return !text.empty() && is_letter(text.front()) &&
           std::all_of(text.begin(), text.end(),
                       [&](char c) { return is_letter(c) || (c >= '0' && c <= '9'); });
}

}  // namespace spion
