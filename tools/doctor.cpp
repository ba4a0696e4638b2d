// `spion doctor`: what of this machine can be used, shown by using it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "ir/error.h"
#include "ir/nvrtc_rules.h"
#include "runtime/cache.h"
#include "runtime/device.h"
#include "runtime/environment.h"
#include "runtime/output.h"
#include "tools/command_line.h"
#include "tools/commands.h"
#ifdef SPION_CUDA_BACKEND
#include "runtime/cuda/cublas.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/nccl.h"
#include "runtime/cuda/nvrtc.h"
#include "runtime/cuda/nvrtc_library.h"
#endif
#ifdef SPION_HOST_BACKEND
#include "runtime/host/gemm.h"
#include "runtime/host/host_device.h"
#include "runtime/host/host_target.h"
#endif

namespace spion {
namespace {

struct Finding {
    std::string part;
    std::string version;  // or a description; empty when not found
    std::string where;    // file or folder; empty when not found
    std::string problem;  // empty: usable
    std::vector<std::string> notes = {};
};

// Completes a finding by trying the part out: what is thrown is why it cannot be used.
Finding examine(const std::string& part, const std::function<void(Finding&)>& attempt) {
    Finding finding{.part = part, .version = "", .where = "", .problem = ""};
    try {
        attempt(finding);
    } catch (const std::exception& error) {
        finding.problem = error.what();
    }
    return finding;
}

#ifdef SPION_CUDA_BACKEND
CompileRequest empty_cuda_kernel(const std::string& arch) {
    return {.entry = "nothing",
            .text =
                "struct Arguments { int unused; };\n"
                "extern \"C\" __global__ void nothing(const __grid_constant__ Arguments) {}\n",
            .includes = {},
            .arch = arch,
            .features = "",
            .options = nvrtc_options(arch),
            .compiler = nvrtc_version(arch)};
}

void run_nothing(Device& device) {
    const auto kernel =
        device.load("nothing", device.compile(empty_cuda_kernel(device.target().arch)));
    device.launch(*kernel, {.work_items = 1, .threads = 32, .shared_bytes = 0}, int{0});
    device.synchronize();
}

// A product of two 8 x 8 matrices.
void run_product(Device& device) {
    const Buffer operands(device, 3 * 64 * sizeof(float));
    device.fill(operands.data(), 0, operands.bytes());
    device.gemm({.m = 8,
                 .n = 8,
                 .k = 8,
                 .a = operands.as<float>(),
                 .lda = 8,
                 .b = operands.as<float>() + 64,
                 .ldb = 8,
                 .c = operands.as<float>() + 128,
                 .ldc = 8});
    device.synchronize();
}

// Of several, the one that is taken for the GPU here, and what it makes badly.
void examine_nvrtc(Finding& finding, const std::string& arch) {
    const std::vector<std::string> found = nvrtc_libraries_found();
    if (found.size() > 1) {
        finding.notes.push_back(fmt::format(
            "found: {}; taken is the newest that knows the target and whose kernels the driver "
            "loads",
            fmt::join(found, ", ")));
    }
    finding.version = nvrtc_version(arch);
    finding.where = nvrtc_path(arch);
    for (const std::string& refusal : nvrtc_refusals(nvrtc_release(arch))) {
        finding.notes.push_back(refusal + ": other tiles are taken");
    }
    compile_with_nvrtc(empty_cuda_kernel(arch.empty() ? "sm_90a" : arch));
    if (const auto problem = nvrtc_driver_problem(arch)) {
        throw DeviceError("{}", *problem);
    }
}

void examine_cuda(std::vector<Finding>& findings) {
    std::unique_ptr<CudaDevice> device;
    findings.push_back(examine("GPU", [&](Finding& finding) {
        device = std::make_unique<CudaDevice>();
        finding.version = fmt::format("{}, {}, {} SMs, {:.0f} GiB", device->name(),
                                      device->target().arch, device->target().sm_count,
                                      static_cast<double>(device->memory_bytes()) / (1 << 30));
        run_nothing(*device);
    }));
    findings.push_back(examine("driver", [](Finding& finding) {
        finding.where = driver_path();
        if (const auto release = driver_cuda_release()) {
            finding.version = "for CUDA up to " + to_text(*release);
        }
        driver();
    }));
    findings.push_back(examine("NVRTC", [&](Finding& finding) {
        examine_nvrtc(finding, device ? device->target().arch : "");
    }));
    findings.push_back(examine("cuBLASLt", [&](Finding& finding) {
        if (const auto found = cublas_libraries_found(); found.size() > 1) {
            finding.notes.push_back(fmt::format(
                "found: {}; taken is the newest that the driver runs", fmt::join(found, ", ")));
        }
        finding.version = cublas_version();
        finding.where = cublas_path();
        if (device) {
            run_product(*device);
        }
    }));
    findings.push_back(examine("NCCL", [](Finding& finding) {
        finding.notes.emplace_back("is needed to train on several GPUs alone");
        finding.version = nccl_version();
        finding.where = nccl_path();
    }));
}
#endif

#ifdef SPION_HOST_BACKEND
#ifdef __aarch64__
constexpr const char* kTriple = "aarch64-unknown-linux-gnu";
#else
constexpr const char* kTriple = "x86_64-unknown-linux-gnu";
#endif

void examine_host(std::vector<Finding>& findings) {
    std::unique_ptr<Device> device;
    findings.push_back(examine("CPU", [&](Finding& finding) {
        device = make_host_device();
        finding.version = fmt::format("{}, {}", device->name(), device->target().arch);
    }));
    findings.push_back(examine("products", [&](Finding& finding) {
        if (!device) {
            throw DeviceError("the CPU cannot be used");
        }
        const int lanes = device->target().vector_floats;
        const int most = host_target(HostVectors::kBest, 1).vector_floats;
        finding.version = fmt::format("spion's own, {} thread{}, {}", device->target().sm_count,
                                      device->target().sm_count == 1 ? "" : "s", gemm_name(lanes));
        if (lanes < most) {
            finding.version += fmt::format(
                "; the processor has vectors of {}: unset SPION_HOST_FEATURES to use them", most);
        }
    }));
    findings.push_back(examine("LLVM", [&](Finding& finding) {
        if (!device) {
            throw DeviceError("the CPU cannot be used");
        }
        finding.version = device->compiler_version();
        const auto kernel = device->load(
            "nothing",
            device->compile({.entry = "nothing",
                             .text = fmt::format("target triple = \"{}\"\n"
                                                 "define void @nothing(ptr %args, i64 %begin, "
                                                 "i64 %end) {{\n  ret void\n}}\n",
                                                 kTriple),
                             .includes = {},
                             .arch = device->target().arch,
                             .features = device->target().features,
                             .options = device->compile_options(),
                             .compiler = device->compiler_version()}));
        device->launch(*kernel, {.work_items = 1, .threads = 1, .shared_bytes = 0}, int{0});
        device->synchronize();
    }));
}
#endif

[[maybe_unused]] Finding left_out(const std::string& part, const char* option) {
    return {.part = part,
            .version = "",
            .where = "",
            .problem = fmt::format("left out of this build: configure it with -D{}=ON", option)};
}

std::vector<Finding> examine_all() {
    std::vector<Finding> findings;
#ifdef SPION_CUDA_BACKEND
    examine_cuda(findings);
#else
    findings.push_back(left_out("GPU", "SPION_CUDA_BACKEND"));
#endif
#ifdef SPION_HOST_BACKEND
    examine_host(findings);
#else
    findings.push_back(left_out("CPU", "SPION_HOST_BACKEND"));
#endif
    findings.push_back(examine("cache folder", [](Finding& finding) {
        const auto root = KernelCache::default_root();
        if (!root) {
            throw UserError(
                "none of SPION_CACHE_DIR, XDG_CACHE_HOME and HOME is set, so kernels are compiled "
                "anew by every process: set one");
        }
        finding.where = root->string();
        for (const std::filesystem::path& folder : cache_folders().read_only) {
            finding.where += fmt::format(", read only {}", folder.string());
        }
        if (const auto reason = why_not_trusted(*root)) {
            throw UserError("{}: set SPION_CACHE_DIR to a folder of your own", *reason);
        }
        if (const auto problem = KernelCache::problem_with(*root)) {
            throw UserError("cannot be written ({}): set SPION_CACHE_DIR to a folder that can",
                            *problem);
        }
    }));
    return findings;
}

void print_json(const std::vector<Finding>& findings) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const Finding& finding : findings) {
        rows.push_back({{"part", finding.part},
                        {"usable", finding.problem.empty()},
                        {"version", finding.version},
                        {"where", finding.where},
                        {"problem", finding.problem},
                        {"notes", finding.notes}});
    }
    print_out("{}\n", rows.dump(2));
}

void print_table(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) {
        std::string text = finding.version;
        if (!finding.where.empty()) {
            text += (text.empty() ? "" : "  ") + finding.where;
        }
        print_out("{:<13} {:<7} {}\n", finding.part, finding.problem.empty() ? "usable" : "NO",
                  text.empty() ? finding.problem : text);
        if (!finding.problem.empty() && !text.empty()) {
            print_out("{:<21} {}\n", "", finding.problem);
        }
        for (const std::string& note : finding.notes) {
            print_out("{:<21} {}\n", "", note);
        }
    }
    const auto usable = [&](const char* part) {
        return std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) {
            return finding.part == part && finding.problem.empty();
        });
    };
    print_out("\n--device auto takes {}\n", usable("GPU")   ? "the GPU"
                                            : usable("CPU") ? "the CPU"
                                                            : "nothing: no device can be used");
}

// Each variable with its value, if set, and what it means.
void print_environment() {
    print_out("\nenvironment variables\n");
    for (const EnvironmentVariable& variable : environment_variables()) {
        const auto value = environment_value(variable.name);
        print_out("{:<24} {}\n{:<24}   {} ({})\n", variable.name, value ? *value : "not set", "",
                  variable.meaning, variable.allowed);
    }
    for (const std::string& name : unknown_environment_variables()) {
        print_out("{:<24} is set, but spion reads no variable of that name\n", name);
    }
}

}  // namespace

void add_doctor(CLI::App& app, int*) {
    const auto json = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand(
        "doctor", "what was found of device, driver, compilers and cache, and whether it works");
    add_threads_option(*command);
    command->add_flag("--json", *json, "print an array of objects instead of a table");
    command->callback([json] {
        const std::vector<Finding> findings = examine_all();
        if (*json) {
            print_json(findings);
        } else {
            print_table(findings);
            print_environment();
        }
    });
}

}  // namespace spion
