// Every file of device text compiles alone on the sample of its contract, and a generated text that
// breaks the contract is refused where the contract says the rule. Needs NVRTC, no GPU.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "codegen/emit.h"
#include "ir/error.h"
#include "ir/target.h"
#include "kernels/embedded.h"
#include "runtime/cuda/nvrtc.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

KernelBinary compile(const std::string& name, const std::string& text,
                     const std::vector<SourceFile>& includes, const std::string& arch,
                     const std::string& option = "") {
    CompileRequest request{.entry = name,
                           .text = text,
                           .includes = includes,
                           .arch = arch,
                           .features = "",
                           .options = nvrtc_options(),
                           .compiler = nvrtc_version()};
    if (!option.empty()) {
        request.options.push_back(option);
    }
    return compile_with_nvrtc(request);
}

TEST(Contract, EveryFileCompilesAlone) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    std::vector<SourceFile> all;
    for (const EmbeddedFile& file : embedded_files()) {
        if (file.name.ends_with(".cuh") || file.name.ends_with(".h")) {
            all.push_back({.name = std::string(file.name), .text = std::string(file.text)});
        }
    }
    std::set<std::string> folders;
    for (const SourceFile& file : all) {
        if (!file.name.ends_with(".cuh")) continue;
        SCOPED_TRACE(file.name);
        folders.insert(file.name.substr(0, file.name.rfind('/')));
        try {
            const KernelBinary binary = compile("alone", "#include \"" + file.name + "\"\n", all,
                                                "sm_90a", "-DSPION_SAMPLE");
            EXPECT_EQ(binary.log.find("warning"), std::string::npos) << binary.log;
        } catch (const std::exception& error) {
            ADD_FAILURE() << error.what();
        }
    }
    for (const char* folder : {"common", "sm80", "sm90", "train"}) {
        EXPECT_EQ(folders.count(std::string("kernels/cuda/") + folder), 1U) << folder;
    }
}

// The line of `text` that defines `name`, and `replacement` in its place.
std::string with_line(std::string text, const std::string& name, const std::string& replacement) {
    const std::size_t at = text.find(" " + name + " ");
    EXPECT_NE(at, std::string::npos) << text;
    const std::size_t begin = text.rfind('\n', at) + 1;
    return text.replace(begin, text.find('\n', at) - begin, replacement);
}

TEST(Contract, ATextThatBreaksItIsRefused) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    const KernelSource source =
        emit(program_of(emulated_cases().front(), KernelRole::kForward), emulated_target());
    const auto refused = [&](const std::string& name, const std::string& line,
                             const std::string& why) {
        SCOPED_TRACE(name + " becomes " + line);
        expect_error<InternalError>(
            [&] {
                compile(source.entry, with_line(source.text, name, line), source.includes,
                        emulated_target().arch);
            },
            why);
    };
    EXPECT_NO_THROW(compile(source.entry, source.text, source.includes, emulated_target().arch));
    refused("kHeldInRegisters", "", "sm80/contract.cuh");
    refused("kKeyPadding", "", "common/contract.cuh");
    refused("kSoftmax", "enum : int { kSoftmax = 7 };", "common/contract.cuh");
    refused("kHeadDim", "enum : int { kHeadDim = 40 };", "common/contract.cuh");
    refused("kStationaryRows", "enum : int { kStationaryRows = 48 };",
            "a warp has 16 stationary rows");
    refused("kSharedBytes", "enum : int { kSharedBytes = 16 };",
            "shared memory is planned as the body lays it out");
}

}  // namespace
}  // namespace spion
