// TileProgram -> KernelSource, for the back end that the target names. No file system, no device.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/kernel_constant.h"
#include "codegen/kernel_family.h"
#include "ir/kernel_source.h"
#include "ir/score_summary_program.h"
#include "ir/target.h"
#include "ir/tile_program.h"

namespace spion {

// A hand-written body from kernels/ with its constants: text = comment, constants, one include.
//   CUDA: kernels/cuda/<body>.cuh ("sm80/attention_forward"), whose entry point is
//         __global__ void <entry>(const Arguments)
//   host: kernels/host/<body>.cpp as bitcode, whose entry point is
//         void <entry>(const Arguments*, int64 begin, int64 end)
// Throws InternalError when no such body is embedded.
KernelSource specialise(const Target& target, std::string_view name, std::string_view body,
                        std::string_view entry, const std::vector<Constant>& constants,
                        std::string_view ir);

// A kernel of attention, as planned. Throws UserError for baked tables when why_not_baked() has a
// reason.
KernelSource emit(const TileProgram& program, const PlannedKernel& kernel, const Target& target);
// Of a program that nobody has planned: codegen/kernel_family.h's plan_kernel throws what it cannot.
KernelSource emit(const TileProgram& program, const Target& target);

// Why emit(program, target) would throw UserError, as a clause; "" when it would not.
std::string why_not_emitted(const TileProgram& program, const Target& target);

// Why the program's tables cannot be in its source, as a clause ("it has ..."); "" when they can.
// The rule: kMostBakedEntries numbers at most in order, offsets, gather blocks and bits together.
// Two bytes each, they then fill constant memory (64 KiB) at most, and compiling them costs less
// than 50 ms.
constexpr std::int64_t kMostBakedEntries = 32768;
std::string why_not_baked(const TileProgram& program);

// Of a program that nobody has planned. Throws as plan_kernel does.
EmittedGeometry geometry(const TileProgram& program, const Target& target);

// The kernel of discovery. Throws InternalError unless the program verifies.
KernelSource emit(const ScoreSummaryProgram& program, const Target& target);
EmittedGeometry geometry(const ScoreSummaryProgram& program, const Target& target);

}  // namespace spion
