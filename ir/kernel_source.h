// A kernel as text, between codegen (which writes it) and runtime (which compiles it).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace spion {

struct SourceFile {
    std::string name;  // as written in #include, or the name of an embedded bitcode body
    std::string text;
    friend bool operator==(const SourceFile&, const SourceFile&) = default;
};

// What codegen emits. `text` is short: the IR in a comment, named constants, one include of a
// hand-written body (CUDA), or the constants' definitions as LLVM IR (host).
struct KernelSource {
    std::string name;                  // readable: "attention_forward-b64-D32-bf16"
    std::string entry;                 // the extern "C" symbol: "attention_forward"
    std::string text;                  // kernel.cu or kernel.ll
    std::vector<SourceFile> includes;  // transitive, in order of first use
    std::string ir;  // the printed program, of whatever kind; for the reader, not compiled
};

// Exactly what a compile function receives, and so exactly what the cache key is made from.
struct CompileRequest {
    std::string entry;
    std::string text;
    std::vector<SourceFile> includes;
    std::string arch;                  // Target::arch
    std::string features;              // Target::features
    std::vector<std::string> options;  // NVRTC's or the LLVM pipeline's, in order
    std::string compiler;  // "nvrtc 13.0.88", "llvm 19.1.7": version of the compiler used
};

// What a compile function returns.
struct KernelBinary {
    std::string code;   // a cubin or a relocatable object, as bytes
    std::string log;    // compiler's log (ptxas -v lines included)
    int registers = 0;  // a thread; 0 on the host
    int static_shared_bytes = 0;
    int spill_bytes = 0;    // stores + loads
    double compile_ms = 0;  // time inside the compiler
};

}  // namespace spion
