// What holds for every text given to the IR's parser, shared by the fuzz target and the replay.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ir/error.h"
#include "ir/parser.h"

namespace spion {

// "" if it holds: the text is refused with a message that starts with a place, or what it means
// survives printing and parsing. Else what went wrong. Any other exception passes through.
inline std::string broken_property(std::string_view text) {
    std::optional<IrModule> ir;
    try {
        ir = parse_ir(text, "text");
    } catch (const UserError& error) {
        const std::string_view message = error.what();
        return message.substr(0, 5) == "text:" && message.back() == '^'
                   ? ""
                   : "refused without a place: " + std::string(message);
    }
    const std::string printed = to_text(*ir);
    const IrModule again = parse_ir(printed, "printed");
    if (again != *ir) {
        return "printing and parsing changed it into\n" + printed;
    }
    return to_text(again) == printed ? "" : "it prints differently a second time:\n" + printed;
}

}  // namespace spion
