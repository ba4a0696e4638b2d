#include "compiler/make_bundle.h"

#include <utility>
#include <vector>

#include "compiler/in_parallel.h"
#include "ir/error.h"
#include "runtime/bundle.h"
#include "runtime/offline.h"

namespace spion {

void make_bundle(std::span<const BundledPlan> plans, const std::filesystem::path& path,
                 std::string_view spion_version) {
    if (plans.empty()) {
        throw UserError(
            "a bundle for no target or of no attention has no kernels: give at least one of both");
    }
    std::vector<NewBundledKernel> kernels;
    for (const BundledPlan& plan : plans) {
        const Target target = target_named(plan.target);
        const LayerPrograms programs = plan_programs(plan.request, target);
        for (KernelSource& source : plan_sources(plan.request, programs, target)) {
            CompileRequest wanted = request_for(source, target);
            kernels.push_back({.target = target,
                               .source = std::move(source),
                               .request = std::move(wanted),
                               .binary = {}});
        }
    }
    in_parallel(kernels.size(), [&](std::size_t i) {
        kernels[i].binary = compile_binary(kernels[i].request, kernels[i].target.back_end);
    });
    write_bundle(path, spion_version, kernels);
}

std::string check_bundle(const std::filesystem::path& path) {
    const Bundle bundle = Bundle::open(path);
    std::string text = fmt::format("format {}, written by spion {}: {}\n", kBundleFormat,
                                   bundle.spion_version(), bundle.targets());
    for (const BundledKernel& kernel : bundle.kernels()) {
        const KernelBinary binary = bundle.read(kernel);
        text += fmt::format("{} for {}: {} bytes, {}\n", kernel.name, kernel.arch,
                            binary.code.size(), kernel.compiler);
    }
    return text;
}

}  // namespace spion
