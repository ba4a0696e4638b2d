// SASS, a GPU's own instructions, through NVIDIA's disassemblers where they are installed.
#pragma once

#include <optional>
#include <string>

namespace spion {

// Path of nvdisasm, else of cuobjdump: $SPION_DISASSEMBLER, else on PATH, else in the toolkit's
// usual folder. nullopt when there is none. Throws UserError when the variable names no program.
std::optional<std::string> find_disassembler();

// The sentence for when there is none.
std::string disassembler_missing();

// The SASS text of a cubin. Throws DeviceError with the program's words when it fails.
std::string disassemble(const std::string& program, const std::string& cubin);

}  // namespace spion
