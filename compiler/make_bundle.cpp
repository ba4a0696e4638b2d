#include "compiler/make_bundle.h"

#include <vector>

#include "codegen/emit.h"
#include "compiler/in_parallel.h"
#include "ir/error.h"
#include "runtime/bundle.h"
#include "runtime/offline.h"

namespace spion {

void make_bundle(std::span<const PlanRequest> requests, std::span<const std::string> targets,
                 const std::filesystem::path& path, std::string_view spion_version) {
    if (requests.empty() || targets.empty()) {
        throw UserError(
            "a bundle of {} attentions for {} targets has no kernels: give at least one of both",
            requests.size(), targets.size());
    }
    std::vector<NewBundledKernel> kernels;
    for (const std::string& name : targets) {
        const Target target = target_named(name);
        for (const PlanRequest& request : requests) {
            for (const TileProgram& program : plan_programs(request, target)) {
                KernelSource source = emit(program, target);
                CompileRequest wanted = request_for(source, target);
                kernels.push_back({.target = target,
                                   .source = std::move(source),
                                   .request = std::move(wanted),
                                   .binary = {}});
            }
        }
    }
    in_parallel(kernels.size(), [&](std::size_t i) {
        kernels[i].binary = compile_binary(kernels[i].request, kernels[i].target.back_end);
    });
    write_bundle(path, spion_version, kernels);
}

}  // namespace spion
