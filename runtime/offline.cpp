#include "runtime/offline.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "ir/error.h"
#include "ir/nvrtc_rules.h"
#ifdef SPION_CUDA_BACKEND
#include "runtime/cuda/nvrtc.h"
#endif
#ifdef SPION_HOST_BACKEND
#include "runtime/host/host_target.h"
#include "runtime/host/llvm_compiler.h"
#endif

namespace spion {
namespace {

constexpr const char* kHost = "host";

[[maybe_unused]] [[noreturn]] void refuse(std::string_view name, const char* back_end,
                                          const char* option) {
    throw UserError(
        "target {} needs the {} back end, which this build leaves out: configure it with -D{}=ON, "
        "or name another target",
        name, back_end, option);
}

Target gpu_named(std::string_view name) {
#ifdef SPION_CUDA_BACKEND
    Target target = gpu_target(name);
    if (!nvrtc_problem(target.arch)) {
        target.compiler = nvrtc_release(target.arch);
    }
    return target;
#else
    refuse(name, "CUDA", "SPION_CUDA_BACKEND");
#endif
}

Target host_named() {
#ifdef SPION_HOST_BACKEND
    return this_host_target();
#else
    refuse(kHost, "host", "SPION_HOST_BACKEND");
#endif
}

}  // namespace

const std::vector<std::string>& target_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all = gpu_names();
        all.emplace_back(kHost);
        return all;
    }();
    return names;
}

Target target_named(std::string_view name) {
    if (name == kHost) {
        return host_named();
    }
    const std::vector<std::string>& known = gpu_names();
    if (std::find(known.begin(), known.end(), name) == known.end()) {
        throw UserError("target '{}' is not known: use one of {}", name,
                        fmt::join(target_names(), ", "));
    }
    return gpu_named(name);
}

CompileRequest request_for(const KernelSource& source, const Target& target) {
    CompileRequest request{.entry = source.entry,
                           .text = source.text,
                           .includes = source.includes,
                           .arch = target.arch,
                           .features = target.features,
                           .options = {},
                           .compiler = ""};
#ifdef SPION_CUDA_BACKEND
    if (target.back_end == BackEnd::kCuda) {
        request.options = nvrtc_options(target.arch);
        request.compiler = nvrtc_version(target.arch);
    }
#endif
#ifdef SPION_HOST_BACKEND
    if (target.back_end == BackEnd::kHost) {
        request.compiler = "llvm " + llvm_version();
    }
#endif
    return request;
}

KernelBinary compile_binary(const CompileRequest& request, BackEnd back_end) {
    switch (back_end) {
        case BackEnd::kCuda:
#ifdef SPION_CUDA_BACKEND
            return compile_with_nvrtc(request);
#else
            break;
#endif
        case BackEnd::kHost:
#ifdef SPION_HOST_BACKEND
            return compile_with_llvm(request);
#else
            break;
#endif
    }
    throw InternalError("asked to compile '{}' for a back end that this build lacks",
                        request.entry);
}

OfflineKernel compile_offline(const CompileRequest& request, BackEnd back_end) {
    OfflineKernel kernel;
#ifdef SPION_CUDA_BACKEND
    if (back_end == BackEnd::kCuda) {
        kernel.binary = compile_with_nvrtc(request, &kernel.ptx);
        return kernel;
    }
#endif
#ifdef SPION_HOST_BACKEND
    if (back_end == BackEnd::kHost) {
        kernel.binary = compile_with_llvm(request);
        kernel.optimised_ir = optimised_ir(request);
        kernel.assembly = assembly(request);
        return kernel;
    }
#endif
    throw InternalError("asked to compile '{}' for a back end that this build lacks",
                        request.entry);
}

std::string spill_note(const CompileRequest& request, const KernelBinary& binary) {
    if (binary.spill_bytes == 0) {
        return "";
    }
    return fmt::format(
        "kernel {} for {} spills {} bytes of registers with {}, so it is right but slower than "
        "planned: take other tiles, or NVRTC {}, which is known not to",
        request.entry, request.arch, binary.spill_bytes, request.compiler, to_text(kNewestNvrtc));
}

std::string rebuild_command(const CompileRequest& request) {
    if (request.compiler.starts_with("nvrtc ")) {
        return rebuild_command(request.arch, request.options);
    }
#ifdef SPION_HOST_BACKEND
    if (request.compiler.starts_with("llvm ")) {
        return rebuild_with_llvm(request);
    }
#endif
    return "";
}

std::string rebuild_script(std::string_view command) {
    // The names in the command are those of the files beside the script.
    return command.empty() ? ""
                           : fmt::format("cd -- \"$(dirname -- \"$0\")\" || exit\n{}\n", command);
}

std::string rebuild_command(const std::string& arch, const std::vector<std::string>& options) {
    std::string line = fmt::format("nvcc -cubin -arch={} -std=c++20 -I.", arch);
    if (std::count(options.begin(), options.end(), "-lineinfo") != 0) {
        line += " -lineinfo";
    }
    return line + " kernel.cu -o kernel.rebuilt.cubin";
}

}  // namespace spion
