// `spion compile FILE.ir`: what it refuses, naming the rule and the place; nothing on stdout.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/run_command.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"
#ifdef SPION_CUDA_BACKEND
#include "runtime/cuda/nvrtc.h"
#endif

namespace spion {
namespace {

const std::string kAttention =
    "attention H=2 D=32 L=90 dtype=bf16 scale=0.2 softmax=masked key_padding=false dropout=0\n";
const std::string kPattern = "pattern L=90 block=64\n11\n01\n";
const std::string kRole = "program role=attention_forward\n";
const std::string kShape =
    "shape block=64 stationary_rows=64 streamed_rows=64 gather_rows=64 warps=4 stages=2 "
    "unit=mma_sync tables=passed\n";
const std::string kWalk =
    "walk tiles=2 gather_blocks=3 longest=2 empty=0\n"
    "tile 0: 0 1\n"
    "tile 1: 1\n";
const std::string kProgram = kRole + kAttention + kShape + kWalk;

#ifdef SPION_CUDA_BACKEND
const std::string kTarget = " --target sm_86";
#else
const std::string kTarget = " --target host";
#endif

std::string replaced(std::string text, const std::string& what, const std::string& with) {
    const std::size_t at = text.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    return at == std::string::npos ? text : text.replace(at, what.size(), with);
}

class CompileFile : public testing::Test {
  protected:
    ScratchFolder scratch_;

    std::string compile(const std::string& text, const std::string& flags) const {
        return "compile " + scratch_.write("f.ir", text) + flags + " --print --emit tile";
    }
    // A fault of the text: "f.ir:place: message", the line and a caret.
    void expect_fault(const std::string& text, const std::string& place,
                      const std::string& message) const {
        SCOPED_TRACE(text);
        const CommandResult result = run_command(compile(text, kTarget));
        EXPECT_EQ(result.exit_code, 2);
        EXPECT_EQ(result.out, "");
        EXPECT_EQ(result.err.rfind("spion: ", 0), 0U) << result.err;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 3) << result.err;
        EXPECT_NE(result.err.find("f.ir:" + place + ": " + message), std::string::npos)
            << result.err;
        EXPECT_TRUE(result.err.ends_with("^\n")) << result.err;
    }
};

TEST_F(CompileFile, AFaultIsShownWhereItIs) {
    expect_fault("attention H=2 D=thirty\n", "1:17", "expected D, found 'thirty'");
    expect_fault(replaced(kProgram, "gather_rows=64", "gather_rows=48"), "1:1",
                 "gather_rows 48 does not divide block 64");
    expect_fault(replaced(kProgram, "tile 1: 1", "tile 0: 1"), "6:1", "order is no permutation");
    expect_fault(kPattern + replaced(kProgram, "tile 0: 0 1", "tile 0: 1 0"), "8:1",
                 "tile 0: gather block 0 follows 1, not ascending");
    expect_fault(kPattern + replaced(kProgram, "tile 1: 1", "tile 1: 0"), "9:1",
                 "tile 1 streams gather block 0 outside the pattern (block row 1)");
}

TEST_F(CompileFile, AProgramThatIsNotFinishedIsAFault) {
    expect_fault(kRole + kAttention + "shape block=64\n", "1:1",
                 "the program is not finished: its shape names only the block");
    expect_fault(kAttention + kPattern + kRole + kAttention + kShape, "5:1",
                 "the program is not finished: it has no walk");
    expect_fault(kProgram + kRole + kAttention + "shape block=64\n", "7:1", "the program is not");
}

TEST_F(CompileFile, WhatIsMissingIsSaid) {
    expect_refused(compile(kAttention, kTarget), {"f.ir holds no program", "with its pattern"});
    expect_refused(compile(kPattern, kTarget), {"f.ir holds no program", "with its pattern"});
    expect_refused("compile " + scratch_.path().string() + kTarget + " --print",
                   {"is a folder", "docs/ir.md"});
    expect_refused(compile("program role=train_adamw\nshape\n", kTarget),
                   {"f.ir holds kernels besides attention", "spion train"});
    // The file says them itself.
    for (const char* flag : {"--heads 2", "--block 64", "--dtype bf16", "--key-padding",
                             "--pattern p.bits", "--pattern-random 0.5", "--length 90"}) {
        expect_refused(compile(kAttention + kPattern, kTarget + " " + flag),
                       {"cannot be given together", "leave one out"});
    }
}

#ifdef SPION_CUDA_BACKEND
TEST_F(CompileFile, AProgramThatTheTargetCannotRunIsRefused) {
    const CommandResult good = run_command(compile(kPattern + kProgram, kTarget));
    ASSERT_EQ(good.exit_code, 0) << good.err;
    EXPECT_NE(good.out.find(kWalk), std::string::npos) << good.out;
    expect_refused(compile(kProgram + replaced(kProgram, "stages=2", "stages=90"), kTarget),
                   {"f.ir: program 2, attention_forward, cannot run on sm_86", "shared memory",
                    "fewer stages"});
    expect_refused(compile(replaced(kProgram, "mma_sync", "vector"), kTarget),
                   {"program 1", "unit=vector", "target host"});
    expect_refused(compile(replaced(kProgram, "mma_sync", "wgmma"), kTarget),
                   {"program 1", "unit=wgmma", "unit=mma_sync"});
    expect_refused(
        compile(replaced(replaced(kProgram, "mma_sync", "wgmma"), "stages=2", "stages=1"),
                " --target sm_90a"),
        {"program 1", "2 stages or more", "unit=mma_sync"});
    expect_refused(compile(kProgram, kTarget + " --role dq"), {"no program of role dq"});
    expect_refused(compile(kProgram, kTarget + " --print-after all"), {"--print-after", "f.ir"});
    expect_refused(compile(kProgram, kTarget + " --explain"), {"--explain", "f.ir"});
#ifdef SPION_HOST_BACKEND
    expect_refused(compile(kProgram, " --target host"), {"unit=mma_sync", "a GPU, such as sm_80"});
    expect_refused(compile(kAttention + kPattern, " --target host"), {"fp32, not bf16"});
#endif
}
#endif

#ifdef SPION_CUDA_BACKEND
// The walk of docs/ir.md, word by word: its text in layer.ir, its commands in a shell.
TEST_F(CompileFile, TheDocumentsWalkWorks) {
    if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    const std::string document = read_file(std::string(SPION_SOURCE_ROOT) + "/docs/ir.md");
    const auto fenced = [&](const std::string& from) {
        const std::size_t begin = document.find(from) + 1;
        return document.substr(begin, document.find("```", begin) - begin);
    };
    scratch_.write("layer.ir", fenced("\nattention H=2 D=32 L=90"));
    std::string script = fenced("\nspion compile layer.ir --target sm_90a --role forward --print");
    EXPECT_EQ(std::count(script.begin(), script.end(), '\n'), 5) << script;
    for (std::size_t at = 0; (at = script.find("spion compile", at)) != std::string::npos;) {
        script.replace(at, 5, SPION_COMMAND);
        at += std::string(SPION_COMMAND).size();
    }
    const std::string command = "cd " + scratch_.path().string() + " && set -e\n" + script;
    ASSERT_EQ(std::system(("sh -c '" + command + "' >" + scratch_.file("log") + " 2>&1").c_str()),
              0)
        << read_file(scratch_.file("log"));
    for (const char* folder : {"out", "mine"}) {
        const std::string kernel =
            scratch_.file(folder) + "/attention_forward-b16-D32-bf16-pruned_zero/";
        EXPECT_NE(document.find(read_file(kernel + "kernel.ir")), std::string::npos) << folder;
        for (const char* file : {"kernel.cu", "kernel.ptx", "kernel.cubin", "report.txt",
                                 "report.json", "rebuild.sh"}) {
            EXPECT_FALSE(read_file(kernel + file).empty()) << folder << " " << file;
        }
    }
}
#endif

}  // namespace
}  // namespace spion
