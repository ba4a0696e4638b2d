#include "runtime/cuda/nvrtc.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string_view>

#include "ir/error.h"
#include "runtime/cuda/nvrtc_abi.h"
#include "runtime/cuda/shared_library.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using nvrtc_abi::Functions;
using nvrtc_abi::kSuccess;

struct Nvrtc {
    SharedLibrary library{toolkit_candidates("SPION_NVRTC_LIBRARY",
                                             {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"})};
    Functions functions;
    int major = 0, minor = 0;
    std::string problem;  // empty: usable
};

Nvrtc open_nvrtc() {
    Nvrtc nvrtc;
    constexpr const char* kRemedy =
        "install it (package cuda-nvrtc-13-0 or any CUDA toolkit from 12.0) or set "
        "SPION_NVRTC_LIBRARY to the path of libnvrtc.so";
    if (!nvrtc.library.is_open()) {
        nvrtc.problem =
            fmt::format("NVRTC, which compiles kernels for GPUs, cannot be opened; {}; tried: {}",
                        kRemedy, nvrtc.library.failures());
        return nvrtc;
    }
    if (const std::string missing = nvrtc.functions.load(nvrtc.library); !missing.empty()) {
        nvrtc.problem = fmt::format("NVRTC at {} has no function {}; {}", nvrtc.library.path(),
                                    missing, kRemedy);
        return nvrtc;
    }
    if (nvrtc.functions.nvrtcVersion(&nvrtc.major, &nvrtc.minor) != kSuccess || nvrtc.major < 12) {
        nvrtc.problem = fmt::format("NVRTC at {} is release {}.{}, but 12.0 or later is needed; {}",
                                    nvrtc.library.path(), nvrtc.major, nvrtc.minor, kRemedy);
    }
    return nvrtc;
}

const Nvrtc& opened_nvrtc() {
    static const Nvrtc nvrtc = open_nvrtc();
    return nvrtc;
}

const Nvrtc& usable_nvrtc() {
    const Nvrtc& nvrtc = opened_nvrtc();
    if (!nvrtc.problem.empty()) {
        throw DeviceError("{}", nvrtc.problem);
    }
    return nvrtc;
}

void require(const Functions& nvrtc, nvrtc_abi::Result result, const char* call) {
    if (result != kSuccess) {
        throw DeviceError("{} failed: {}", call, nvrtc.nvrtcGetErrorString(result));
    }
}

// Owns a program handle.
class Program {
  public:
    Program(const Functions& nvrtc, const CompileRequest& request) : nvrtc_(nvrtc) {
        std::vector<const char*> names, texts;
        for (const SourceFile& file : request.includes) {
            names.push_back(file.name.c_str());
            texts.push_back(file.text.c_str());
        }
        require(
            nvrtc_,
            nvrtc_.nvrtcCreateProgram(&handle_, request.text.c_str(), "kernel.cu",
                                      static_cast<int>(names.size()), texts.data(), names.data()),
            "nvrtcCreateProgram");
    }
    ~Program() { nvrtc_.nvrtcDestroyProgram(&handle_); }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    nvrtc_abi::Result compile(const CompileRequest& request) {
        const std::string arch = "-arch=" + request.arch;
        std::vector<const char*> options{arch.c_str()};
        for (const std::string& option : request.options) {
            options.push_back(option.c_str());
        }
        return nvrtc_.nvrtcCompileProgram(handle_, static_cast<int>(options.size()),
                                          options.data());
    }

    std::string log() const {
        std::size_t size = 0;  // counts the terminating zero
        require(nvrtc_, nvrtc_.nvrtcGetProgramLogSize(handle_, &size), "nvrtcGetProgramLogSize");
        std::string text(size, '\0');
        require(nvrtc_, nvrtc_.nvrtcGetProgramLog(handle_, text.data()), "nvrtcGetProgramLog");
        text.resize(std::min(text.size(), text.find('\0')));
        return text;
    }

    std::string cubin() const {
        std::size_t size = 0;
        require(nvrtc_, nvrtc_.nvrtcGetCUBINSize(handle_, &size), "nvrtcGetCUBINSize");
        std::string code(size, '\0');
        require(nvrtc_, nvrtc_.nvrtcGetCUBIN(handle_, code.data()), "nvrtcGetCUBIN");
        return code;
    }

    std::string ptx() const {
        std::size_t size = 0;  // counts the terminating zero
        require(nvrtc_, nvrtc_.nvrtcGetPTXSize(handle_, &size), "nvrtcGetPTXSize");
        std::string text(size, '\0');
        require(nvrtc_, nvrtc_.nvrtcGetPTX(handle_, text.data()), "nvrtcGetPTX");
        text.resize(std::min(text.size(), text.find('\0')));
        return text;
    }

  private:
    const Functions& nvrtc_;
    nvrtc_abi::Program handle_ = nullptr;
};

// For profilers. It changes the binary, so it is an option like any other.
bool line_info_wanted() {
    return environment_switch("SPION_LINEINFO");
}

// Writes a rejected source with its includes into a fresh folder; "nowhere" if that fails too.
std::string keep_rejected(const CompileRequest& request) {
    std::error_code error;
    const auto temporary = std::filesystem::temp_directory_path(error);
    std::string folder = (error ? "/tmp" : temporary.string()) + "/spion-rejected.XXXXXX";
    if (mkdtemp(folder.data()) == nullptr) {
        return "nowhere: no folder for temporary files can be written";
    }
    const auto write = [&](const std::string& name, const std::string& text) {
        const std::filesystem::path path = std::filesystem::path(folder) / name;
        std::filesystem::create_directories(path.parent_path(), error);
        std::ofstream(path, std::ios::binary) << text;
    };
    write("kernel.cu", request.text);
    for (const SourceFile& file : request.includes) {
        write(file.name, file.text);
    }
    return folder + "/kernel.cu";
}

}  // namespace

std::optional<std::string> nvrtc_problem() {
    const std::string& problem = opened_nvrtc().problem;
    return problem.empty() ? std::nullopt : std::optional(problem);
}

std::string nvrtc_version() {
    const Nvrtc& nvrtc = usable_nvrtc();
    return fmt::format("nvrtc {}.{} {}", nvrtc.major, nvrtc.minor, nvrtc.library.identity());
}

CompilerRelease nvrtc_release() {
    const Nvrtc& nvrtc = usable_nvrtc();
    return {.major = nvrtc.major, .minor = nvrtc.minor};
}

std::string nvrtc_path() {
    return usable_nvrtc().library.path();
}

std::vector<std::string> nvrtc_options() {
    const Nvrtc& nvrtc = usable_nvrtc();
    // 177: a named constant that this kernel does not use. One ptxas option an argument: lists
    // joined by commas are refused.
    std::vector<std::string> options{"-std=c++20", "-diag-suppress=177", "-Xptxas", "-v"};
    if (nvrtc.major > 12 || nvrtc.minor >= 9) {
        // Its own cache would make compile times mean nothing, and ours is there already.
        options.emplace_back("--no-cache");
    }
    if (line_info_wanted()) {
        options.emplace_back("-lineinfo");
    }
    return options;
}

KernelBinary compile_with_nvrtc(const CompileRequest& request, std::string* ptx) {
    const Functions& functions = usable_nvrtc().functions;
    const auto start = std::chrono::steady_clock::now();
    Program program(functions, request);
    const nvrtc_abi::Result result = program.compile(request);
    KernelBinary binary;
    binary.log = program.log();
    if (result != kSuccess) {
        throw InternalError(
            "NVRTC rejects kernel '{}' for {} ({}); its source is kept at {}; log:\n{}",
            request.entry, request.arch, functions.nvrtcGetErrorString(result),
            keep_rejected(request), binary.log);
    }
    if (const std::string line = serialised_products(binary.log); !line.empty()) {
        throw InternalError(
            "ptxas would run kernel '{}' for {} far below its speed: {}; its source is kept at {}; "
            "take other tiles",
            request.entry, request.arch, line, keep_rejected(request));
    }
    binary.code = program.cubin();
    if (binary.code.empty()) {
        throw InternalError("NVRTC made no cubin of kernel '{}' for {}: not a real architecture",
                            request.entry, request.arch);
    }
    if (ptx != nullptr) {
        *ptx = program.ptx();
    }
    binary.compile_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    read_resources(binary.log, binary);
    return binary;
}

std::string serialised_products(const std::string& log) {
    // "(C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...",
    // "(C7508) ... setmaxnreg ignored ..."
    static const std::regex kLoss("[^\\n]*\\(C75\\d\\d\\)[^\\n]*");
    std::smatch match;
    return std::regex_search(log, match, kLoss) ? match.str() : "";
}

void read_resources(const std::string& log, KernelBinary& binary) {
    // "64 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads"
    static const std::regex kSpills("(\\d+) bytes spill stores, (\\d+) bytes spill loads");
    static const std::regex kRegisters("Used (\\d+) registers");
    static const std::regex kShared("(\\d+) bytes smem");
    const auto each = [&log](const std::regex& pattern, auto&& visit) {
        for (std::sregex_iterator match(log.begin(), log.end(), pattern), end; match != end;
             ++match) {
            visit(*match);
        }
    };
    each(kSpills, [&](const std::smatch& match) {
        binary.spill_bytes =
            std::max(binary.spill_bytes, std::stoi(match[1]) + std::stoi(match[2]));
    });
    each(kRegisters, [&](const std::smatch& match) {
        binary.registers = std::max(binary.registers, std::stoi(match[1]));
    });
    each(kShared, [&](const std::smatch& match) {
        binary.static_shared_bytes = std::max(binary.static_shared_bytes, std::stoi(match[1]));
    });
}

}  // namespace spion
