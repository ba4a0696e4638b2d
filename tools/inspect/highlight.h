// Source text as HTML with its tokens in <span>s. A reader's aid, no parser: a token that it does
// not know stays plain, and no character is lost.
#pragma once

#include <string>
#include <string_view>

namespace spion::inspect {

enum class Language {
    kCuda,     // C++ with CUDA's keywords
    kLlvm,     // LLVM IR
    kIr,       // docs/ir.md
    kAssembly  // PTX, SASS, x86
};
// By the extension: .cu .cuh .h, .ll, .ir, anything else.
Language language_of(std::string_view file_name);

// Classes: c comment, k keyword, n number, s string, p preprocessor, v name with a sigil (@ or %).
std::string highlight(std::string_view text, Language language);

}  // namespace spion::inspect
