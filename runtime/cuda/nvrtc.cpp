#include "runtime/cuda/nvrtc.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <string_view>
#include <system_error>
#include <vector>

#include "ir/error.h"
#include "runtime/atomic_file.h"
#include "runtime/cache.h"
#include "runtime/cuda/nvrtc_abi.h"
#include "runtime/cuda/nvrtc_choice.h"
#include "runtime/cuda/nvrtc_library.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using nvrtc_abi::Functions;
using nvrtc_abi::kSuccess;

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

// Writes a rejected source with its includes into a folder of its own, the same for the same
// source, and names the source; or says that nothing could be written.
std::string keep_rejected(const CompileRequest& request) {
    namespace fs = std::filesystem;
    std::error_code error;
    const auto root = KernelCache::default_root();
    const fs::path parent =
        root ? *root / "rejected" : fs::temp_directory_path(error) / "spion-rejected";
    const fs::path folder = parent / fmt::format("{}.{}", request.entry, cache_key(request));
    std::vector<NamedBytes> files{{.path = folder / "kernel.cu", .bytes = request.text}};
    for (const SourceFile& file : request.includes) {
        files.push_back({.path = folder / file.name, .bytes = file.text});
    }
    try {
        write_files(files, "");
    } catch (const UserError&) {
        return fmt::format("its source cannot be kept, as {} cannot be written", folder.string());
    }
    return fmt::format("its source is kept at {}", (folder / "kernel.cu").string());
}

std::string name_of(const NvrtcLibrary& nvrtc) {
    return fmt::format("NVRTC {}.{} at {}", nvrtc.release.major, nvrtc.release.minor,
                       nvrtc.library.path());
}

// Throws what a compilation that did not succeed means.
[[noreturn]] void throw_failure(const NvrtcLibrary& nvrtc, nvrtc_abi::Result result,
                                const CompileRequest& request, const std::string& log) {
    if (result == nvrtc_abi::kErrorBuiltinOperation) {
        throw DeviceError(
            "{} cannot open its other half, libnvrtc-builtins.so.{}.{}, which belongs beside it: "
            "{}",
            name_of(nvrtc), nvrtc.release.major, nvrtc.release.minor, nvrtc_remedy());
    }
    const char* const reason = nvrtc.functions.nvrtcGetErrorString(result);
    if (result != nvrtc_abi::kErrorCompilation && result != nvrtc_abi::kErrorInvalidOption) {
        throw DeviceError("{} fails with {} on kernel '{}' for {}: {}", name_of(nvrtc), reason,
                          request.entry, request.arch, nvrtc_remedy());
    }
    throw InternalError("{} rejects kernel '{}' for {} ({}); {}; log:\n{}", name_of(nvrtc),
                        request.entry, request.arch, reason, keep_rejected(request), log);
}

}  // namespace

std::optional<std::string> nvrtc_problem(const std::string& arch) {
    return nvrtc_library_problem(arch);
}

std::string nvrtc_version(const std::string& arch) {
    const NvrtcLibrary& nvrtc = nvrtc_library(arch);
    return fmt::format("nvrtc {}.{} {}", nvrtc.release.major, nvrtc.release.minor,
                       nvrtc.library.identity());
}

CompilerRelease nvrtc_release(const std::string& arch) {
    return nvrtc_library(arch).release;
}

std::string nvrtc_path(const std::string& arch) {
    return nvrtc_library(arch).library.path();
}

std::vector<std::string> nvrtc_options(const std::string& arch) {
    // 177: a named constant that this kernel does not use. One ptxas option an argument: lists
    // joined by commas are refused.
    std::vector<std::string> options{"-std=c++20", "-diag-suppress=177", "-Xptxas", "-v"};
    if (nvrtc_release(arch) >= CompilerRelease{.major = 12, .minor = 9}) {
        // Its own cache would make compile times mean nothing, and ours is there already.
        options.emplace_back("--no-cache");
    }
    if (line_info_wanted()) {
        options.emplace_back("-lineinfo");
    }
    return options;
}

KernelBinary compile_with_nvrtc(const CompileRequest& request, std::string* ptx) {
    const NvrtcLibrary& nvrtc = nvrtc_library(request.arch);
    const auto start = std::chrono::steady_clock::now();
    Program program(nvrtc.functions, request);
    const nvrtc_abi::Result result = program.compile(request);
    KernelBinary binary;
    binary.log = program.log();
    if (result != kSuccess) {
        throw_failure(nvrtc, result, request, binary.log);
    }
    if (const std::string line = performance_loss(binary.log); !line.empty()) {
        throw DeviceError(
            "{} would make kernel '{}' for {} run far below its speed ({}): take other tiles, or "
            "another NVRTC, of which {}.{} is the newest that is known to do well",
            name_of(nvrtc), request.entry, request.arch, line, kNewestNvrtc.major,
            kNewestNvrtc.minor);
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

std::string performance_loss(const std::string& log) {
    // "(C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ...",
    // "(C7508) Potential Performance Loss: 'setmaxnreg' ignored to maintain minimum register ..."
    constexpr std::string_view kWords = "Potential Performance Loss";
    const std::size_t at = log.find(kWords);
    if (at == std::string::npos) {
        return "";
    }
    const std::size_t begin = log.rfind('\n', at) + 1;  // npos + 1 is the beginning
    return log.substr(begin, log.find('\n', at) - begin);
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
