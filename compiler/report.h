// What a compiled kernel is made of and what it has to do, for people (text) and programs (JSON):
// facts of the binary, of the compiler's log and of the program, no device needed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/plan/cost_model.h"
#include "ir/kernel_source.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// How much of a GPU SM a kernel can keep busy.
struct Occupancy {
    int blocks = 0;       // thread blocks at once on an SM; 0: not even one fits
    int warps = 0;        // of those blocks
    double fraction = 0;  // of the warps that an SM could have
    std::string limit;    // "registers", "shared memory", "threads" or "thread blocks"
    friend bool operator==(const Occupancy&, const Occupancy&) = default;
};
// Of a kernel with `registers` a thread and `shared_bytes` a block, static and dynamic. Registers
// are given to warps in units of 256, shared memory to blocks in units of 128 bytes, 1 KiB of which
// the system keeps (CUDA programming guide, compute capability 8.0 and later). Requires rates of a
// GPU and 1 <= threads.
Occupancy occupancy(const Rates& rates, int threads, int registers, int shared_bytes);

// What one launch has to do for one sample, whatever the tiles: N = H * L rows.
struct KernelWork {
    std::int64_t elements = 0;    // of the pattern, all heads: each costs an exponential
    std::int64_t flop = 0;        // 2 a multiply-add: elements * D * 2 * (2, 3 or 4 products)
    std::int64_t bytes = 0;       // every tensor of the role once, LSE and delta included
    std::int64_t work_items = 0;  // thread blocks, or pieces of work on the host
    double flop_per_byte() const { return static_cast<double>(flop) / static_cast<double>(bytes); }
    friend bool operator==(const KernelWork&, const KernelWork&) = default;
};
// Padded gather blocks at the edge of the sequence are not counted.
KernelWork work_of(const TileProgram& program);

struct KernelReport {
    std::string name, entry;
    BackEnd back_end = BackEnd::kHost;
    std::string arch, compiler;
    std::vector<std::string> options;
    double compile_ms = 0;
    std::int64_t code_bytes = 0;        // of instructions
    std::int64_t binary_bytes = 0;      // of the cubin or object
    std::vector<std::string> warnings;  // of the compiler, a line each
    int threads = 1;                    // of a thread block
    int registers = 0;                  // a thread. This and what follows: CUDA
    int static_shared_bytes = 0, dynamic_shared_bytes = 0;
    int spill_bytes = 0;
    int barriers = 0;
    Occupancy occupancy;
    KernelWork work;
    std::int64_t batch = 1;  // of the prediction
    Prediction prediction;
    std::string rebuild;  // a shell line, or ""
};

// `kernel` is the program's plan, `request` and `binary` are those of the program's emitted source. batch: samples that the
// predicted time is for, at least 1.
KernelReport report_on(const TileProgram& program, const PlannedKernel& kernel,
                       const Target& target, const std::string& name, const CompileRequest& request,
                       const KernelBinary& binary, std::int64_t batch);

// A line a fact: "registers        122 a thread, 128 threads a block".
std::string to_text(const KernelReport& report);
// An object, ending in a newline; sizes in bytes, times in milliseconds.
std::string to_json(const KernelReport& report);

// Bytes of instructions in a 64-bit ELF file: its executable sections. 0 for anything else.
std::int64_t code_bytes(std::string_view elf);
// Lines of a compiler's log that speak of a warning.
std::vector<std::string> warnings_in(std::string_view log);
// "used 2 barriers" of a ptxas log: the most of any function; 0 without such a line.
int barriers_in(const std::string& log);

}  // namespace spion
