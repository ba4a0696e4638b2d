// What `spion compile` can show of a kernel: kinds of text and binary, and the files they become.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "compiler/report.h"
#include "ir/kernel_source.h"
#include "ir/target.h"
#include "ir/tile_program.h"
#include "runtime/offline.h"

namespace spion {

enum class EmitKind { kIr, kTile, kCuda, kPtx, kCubin, kSass, kLlvm, kAsm, kReport };

// "ir", "tile", ..
std::string_view to_string(EmitKind kind);
// Each name once, in the order of the walk; "all" is every kind that the back end has. Throws
// UserError for a name that is not known, listing those that are, and for a kind that the target
// has not.
std::vector<EmitKind> parse_emit_kinds(const std::vector<std::string>& names,
                                       const std::string& target_name, BackEnd back_end);
// Whether the kernel must be compiled to show it.
bool needs_binary(EmitKind kind);

struct ShownKernel {
    std::string name;  // of its folder
    std::string ir;    // operation and pattern as text, or "" where only the program is known
    TileProgram program;
    KernelSource source;
    std::string rebuild;  // one shell line
    // When a kind asks for a binary.
    std::optional<OfflineKernel> compiled;
    std::optional<KernelReport> report;
    std::string sass;  // "" without a disassembler
};

struct KernelFile {
    std::string name;  // relative to the kernel's folder
    std::string bytes;
    bool printed = true;  // by --print: neither binaries nor hand-written includes are
};
// The files of one kind, in the order in which a reader wants them.
std::vector<KernelFile> files_of(const ShownKernel& kernel, EmitKind kind);

}  // namespace spion
