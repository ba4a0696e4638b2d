#include "codegen/emit.h"

#include "codegen/cuda/emit_cuda.h"
#include "codegen/kernel_families.h"
#include "codegen/llvm/emit_llvm.h"
#include "ir/error.h"

namespace spion {
namespace {

// Calls the function of the back end that the target names. Nothing opens a device of a back end
// that the build lacks, so a target of it can only come from a mistake of ours.
template <typename Cuda, typename Host>
auto dispatch(const Target& target, [[maybe_unused]] Cuda cuda, [[maybe_unused]] Host host)
    -> decltype(cuda()) {
    switch (target.back_end) {
        case BackEnd::kCuda:
#ifdef SPION_CUDA_BACKEND
            return cuda();
#else
            throw InternalError("asked for CUDA code in a build without the CUDA back end");
#endif
        case BackEnd::kHost:
#ifdef SPION_HOST_BACKEND
            return host();
#else
            throw InternalError("asked for host code in a build without the host back end");
#endif
    }
    throw InternalError("target '{}' names no back end", target.arch);
}

}  // namespace

KernelSource specialise(const Target& target, std::string_view name, std::string_view body,
                        std::string_view entry, const std::vector<Constant>& constants,
                        std::string_view ir) {
    return dispatch(
        target, [&] { return specialise_cuda(target, name, body, entry, constants, ir); },
        [&] { return specialise_host(target, name, body, entry, constants, ir); });
}

KernelSource emit(const TileProgram& program, const PlannedKernel& kernel, const Target& target) {
    return dispatch(
        target, [&] { return emit_cuda(program, kernel, target); },
        [&] { return emit_host(program, kernel, target); });
}

KernelSource emit(const TileProgram& program, const Target& target) {
    return emit(program, plan_kernel(program, target, kernel_families()), target);
}

std::string why_not_emitted(const TileProgram& program, const Target& target) {
    const std::string reason = why_not_program(program, target, kernel_families());
    return reason.empty() && program.tables == Tables::kBaked ? why_not_baked(program) : reason;
}

KernelSource emit(const ScoreSummaryProgram& program, const Target& target) {
    return dispatch(
        target, [&] { return emit_cuda(program, target); },
        [&] { return emit_host(program, target); });
}

EmittedGeometry geometry(const TileProgram& program, const Target& target) {
    return plan_kernel(program, target, kernel_families()).plan.geometry;
}

EmittedGeometry geometry(const ScoreSummaryProgram& program, const Target& target) {
    return dispatch(
        target, [&] { return geometry_cuda(program, target); }, [] { return EmittedGeometry{}; });
}

}  // namespace spion
