#include "tools/kernel_files.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "ir/error.h"
#include "runtime/offline.h"

namespace spion {
namespace {

enum class Has { kBoth, kCudaOnly, kHostOnly };

struct KnownKind {
    EmitKind kind;
    const char* name;
    Has has;
    bool needs_binary;
};

constexpr KnownKind kKinds[] = {
    {EmitKind::kIr, "ir", Has::kBoth, false},
    {EmitKind::kTile, "tile", Has::kBoth, false},
    {EmitKind::kCuda, "cuda", Has::kCudaOnly, false},
    {EmitKind::kPtx, "ptx", Has::kCudaOnly, true},
    {EmitKind::kCubin, "cubin", Has::kCudaOnly, true},
    {EmitKind::kSass, "sass", Has::kCudaOnly, true},
    {EmitKind::kLlvm, "llvm", Has::kHostOnly, true},
    {EmitKind::kAsm, "asm", Has::kHostOnly, true},
    {EmitKind::kReport, "report", Has::kBoth, true},
};

const KnownKind& known(EmitKind kind) {
    return *std::find_if(std::begin(kKinds), std::end(kKinds),
                         [&](const KnownKind& row) { return row.kind == kind; });
}

bool has(BackEnd back_end, const KnownKind& kind) {
    return kind.has == Has::kBoth || (kind.has == Has::kCudaOnly) == (back_end == BackEnd::kCuda);
}

std::vector<std::string> names_for(std::optional<BackEnd> back_end) {
    std::vector<std::string> names;
    for (const KnownKind& kind : kKinds) {
        if (!back_end || has(*back_end, kind)) {
            names.emplace_back(kind.name);
        }
    }
    names.emplace_back("all");
    return names;
}

void append_source(std::vector<KernelFile>& files, const ShownKernel& kernel, const char* name) {
    files.push_back({.name = name, .bytes = kernel.source.text});
    for (const SourceFile& include : kernel.source.includes) {
        files.push_back({.name = include.name, .bytes = include.text, .printed = false});
    }
}

}  // namespace

std::string_view to_string(EmitKind kind) {
    return known(kind).name;
}

bool needs_binary(EmitKind kind) {
    return known(kind).needs_binary;
}

std::vector<EmitKind> parse_emit_kinds(const std::vector<std::string>& names,
                                       const std::string& target_name, BackEnd back_end) {
    std::vector<bool> wanted(std::size(kKinds), false);
    for (const std::string& name : names) {
        const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                         [&](const KnownKind& kind) { return name == kind.name; });
        if (name != "all" && found == std::end(kKinds)) {
            throw UserError("emit kind '{}' is not known: use {}", name,
                            fmt::join(names_for(std::nullopt), ", "));
        }
        if (name != "all" && !has(back_end, *found)) {
            throw UserError("target {} has no {}: use {}, or another target", target_name, name,
                            fmt::join(names_for(back_end), ", "));
        }
        for (std::size_t i = 0; i < std::size(kKinds); ++i) {
            wanted[i] = wanted[i] || (name == "all" ? has(back_end, kKinds[i])
                                                    : found == std::begin(kKinds) + i);
        }
    }
    std::vector<EmitKind> kinds;
    for (std::size_t i = 0; i < std::size(kKinds); ++i) {
        if (wanted[i]) {
            kinds.push_back(kKinds[i].kind);
        }
    }
    return kinds;
}

std::vector<KernelFile> files_of(const ShownKernel& kernel, EmitKind kind) {
    std::vector<KernelFile> files;
    switch (kind) {
        case EmitKind::kIr:
            if (!kernel.ir.empty()) {
                files.push_back({.name = "attention.ir", .bytes = kernel.ir});
            }
            break;
        case EmitKind::kTile:
            files.push_back({.name = "kernel.ir", .bytes = to_text(kernel.program)});
            break;
        case EmitKind::kCuda:
            append_source(files, kernel, "kernel.cu");
            files.push_back({.name = "rebuild.sh", .bytes = rebuild_script(kernel.rebuild)});
            break;
        case EmitKind::kPtx:
            files.push_back({.name = "kernel.ptx", .bytes = kernel.compiled->ptx});
            break;
        case EmitKind::kCubin:
            files.push_back(
                {.name = "kernel.cubin", .bytes = kernel.compiled->binary.code, .printed = false});
            break;
        case EmitKind::kSass:
            if (!kernel.sass.empty()) {
                files.push_back({.name = "kernel.sass", .bytes = kernel.sass});
            }
            break;
        case EmitKind::kLlvm:
            append_source(files, kernel, "kernel.ll");
            files.push_back({.name = "kernel.opt.ll", .bytes = kernel.compiled->optimised_ir});
            files.push_back({.name = "rebuild.sh", .bytes = rebuild_script(kernel.rebuild)});
            break;
        case EmitKind::kAsm:
            files.push_back({.name = "kernel.s", .bytes = kernel.compiled->assembly});
            files.push_back(
                {.name = "kernel.o", .bytes = kernel.compiled->binary.code, .printed = false});
            break;
        case EmitKind::kReport:
            files.push_back({.name = "report.txt", .bytes = to_text(*kernel.report)});
            files.push_back({.name = "report.json", .bytes = to_json(*kernel.report)});
            break;
    }
    return files;
}

}  // namespace spion
