// TileProgram -> KernelSource, for the back end that the target names. No file system, no device.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ir/kernel_source.h"
#include "ir/score_summary_program.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// One named constant of the generated source, a line.
struct Constant {
    std::string name;  // "kHeadDim"
    // string, CUDA only: the name of a struct of the body, emitted as `using name = struct value;`.
    std::variant<bool, std::int64_t, float, std::string> value;
    std::string comment;  // "" or what it means, with units
};

// A hand-written body from kernels/ with its constants: text = comment, constants, one include.
//   CUDA: kernels/cuda/<body>.cuh ("sm80/attention_forward"), whose entry point is
//         __global__ void <entry>(const Arguments)
//   host: kernels/host/<body>.cpp as bitcode, whose entry point is
//         void <entry>(const Arguments*, int64 begin, int64 end)
// Throws InternalError when no such body is embedded.
KernelSource specialise(const Target& target, std::string_view name, std::string_view body,
                        std::string_view entry, const std::vector<Constant>& constants,
                        std::string_view ir);

// A kernel of attention. Throws UserError for baked tables when why_not_baked() has a reason.
KernelSource emit(const TileProgram& program, const Target& target);

// Why the program's tables cannot be in its source, as a clause ("it has ..."); "" when they can.
// The rule: kMostBakedEntries numbers at most in order, offsets, granules and bits together. Two
// bytes each, they then fill constant memory (64 KiB) at most, and compiling them costs less than
// 50 ms.
constexpr std::int64_t kMostBakedEntries = 32768;
std::string why_not_baked(const TileProgram& program);

// What the launch needs besides the tables: threads a block and dynamic shared bytes (CUDA).
struct EmittedGeometry {
    int threads = 1;
    int shared_bytes = 0;
    // 0: a thread block a work item. Else thread blocks take work items until there are no more
    // (kernels/hopper_arguments.h), and a processor holds this many at once.
    int resident_blocks = 0;
    int items_at_once = 1;  // of such a thread block
};
EmittedGeometry geometry(const TileProgram& program, const Target& target);

// The kernel of discovery. Throws InternalError unless the program verifies.
KernelSource emit(const ScoreSummaryProgram& program, const Target& target);
EmittedGeometry geometry(const ScoreSummaryProgram& program, const Target& target);

}  // namespace spion
