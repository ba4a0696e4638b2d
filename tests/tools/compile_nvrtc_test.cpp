// `spion compile` for GPUs that are not here: what NVRTC makes of a kernel, its SASS, and nvcc's rebuild.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "compiler/report.h"
#include "ir/target.h"
#include "runtime/cuda/nvrtc.h"
#include "runtime/disassemble.h"
#include "runtime/offline.h"
#include "tests/support/environment.h"
#include "tests/tools/compile_fixture.h"

namespace spion {
namespace {

using nlohmann::json;

class CompileWithNvrtc : public Compile {
  protected:
    void SetUp() override {
        if (const auto problem = nvrtc_problem()) GTEST_SKIP() << *problem;
    }
};

TEST_F(CompileWithNvrtc, EveryTargetHasEveryStage) {
    std::vector<std::string> targets = target_names();
    targets.pop_back();  // host
    const Environment none("PATH", "/nonexistent");
    for (const std::string& target : targets) {
        SCOPED_TRACE(target);
        fs::remove_all(out_);
        const CommandResult result =
            run_command(pattern_ + "--role forward --target " + target + into_out());
        ASSERT_EQ(result.exit_code, 0) << result.err;
        const std::string ptx = contents(kernel() / "kernel.ptx");
        EXPECT_NE(ptx.find(".target " + target), std::string::npos);
        EXPECT_NE(ptx.find(".entry attention_forward"), std::string::npos);
        EXPECT_EQ(ptx.find('\0'), std::string::npos);
        EXPECT_EQ(contents(kernel() / "kernel.cubin").substr(0, 4), "\177ELF");
        const json report = json::parse(contents(kernel() / "report.json"));
        EXPECT_EQ(report.at("target"), target);
        EXPECT_GT(report.at("registers"), 16);
        EXPECT_EQ(report.at("spill_bytes"), 0);
        EXPECT_GT(report.at("occupancy").at("thread_blocks"), 0);
        const std::string text = contents(kernel() / "report.txt");
        for (const char* fact : {"registers", "shared memory", "spills", "barriers", "occupancy",
                                 "code", "warnings", "flop a byte", "predicted time"}) {
            EXPECT_NE(text.find(fact), std::string::npos) << fact;
        }
        // Without a disassembler there is a sentence and no file.
        EXPECT_EQ(fs::exists(kernel() / "kernel.sass"),
                  result.err.find("no SASS") == std::string::npos);
    }
}

TEST_F(CompileWithNvrtc, SassComesFromADisassembler) {
    const std::string request =
        pattern_ + "--role forward --target sm_90a --emit sass" + into_out();
    // A stand-in that shows what it was given.
    const std::string tool = scratch_.write(
        "nvdisasm", "#!/bin/sh\necho \"flags $1\"\nhead -c 4 \"$2\" | tail -c 3\necho\n");
    fs::permissions(tool, fs::perms::owner_all);
    {
        const Environment named("SPION_DISASSEMBLER", tool);
        const CommandResult result = run_command(request);
        ASSERT_EQ(result.exit_code, 0) << result.err;
        EXPECT_EQ(contents(kernel() / "kernel.sass"), "flags -c\nELF\n");
    }
    {
        const Environment wrong("SPION_DISASSEMBLER", "/nonexistent/nvdisasm");
        expect_refused(request, {"SPION_DISASSEMBLER", "/nonexistent/nvdisasm"});
    }
    scratch_.write("nvdisasm", "#!/bin/sh\necho of a later format >&2\nexit 4\n");
    const Environment failing("SPION_DISASSEMBLER", tool);
    expect_refused(request, {"cannot read the cubin", "exit status 4", "of a later format"});
    if (const auto real = [] {
            const Environment unset("SPION_DISASSEMBLER", std::nullopt);
            return find_disassembler();
        }()) {
        const Environment named("SPION_DISASSEMBLER", *real);
        ASSERT_EQ(run_command(request).exit_code, 0);
        EXPECT_NE(contents(kernel() / "kernel.sass").find("EXIT"), std::string::npos);
    }
}

// The line in rebuild.sh makes the same kernel with nvcc alone.
TEST_F(CompileWithNvrtc, NvccRebuildsItsKernel) {
    if (std::system("nvcc --version >/dev/null 2>&1") != 0) {
        GTEST_SKIP() << "nvcc is not on PATH";
    }
    ASSERT_EQ(run_command(pattern_ + "--role dq --target sm_90a" + into_out()).exit_code, 0);
    const std::string script = contents(kernel() / "rebuild.sh");
    EXPECT_EQ(std::count(script.begin(), script.end(), '\n'), 2) << script;
    const fs::path log = scratch_.path() / "log";
    const std::string line = "cd " + kernel().string() +
                             " && sed 's/-cubin/-cubin -Xptxas -v/' "
                             "rebuild.sh | sh >" +
                             log.string() + " 2>&1";
    ASSERT_EQ(std::system(line.c_str()), 0) << contents(log);
    const json report = json::parse(contents(kernel() / "report.json"));
    const std::string rebuilt = contents(kernel() / "kernel.rebuilt.cubin");
    KernelBinary binary;
    read_resources(contents(log), binary);
    EXPECT_NE(rebuilt.find(".text." + report.at("entry").get<std::string>()), std::string::npos);
    EXPECT_EQ(binary.spill_bytes, report.at("spill_bytes"));
    EXPECT_EQ(binary.static_shared_bytes, report.at("static_shared_bytes"));
    // The two front ends order instructions a little differently.
    EXPECT_NEAR(binary.registers, report.at("registers").get<int>(), 16);
    EXPECT_NEAR(static_cast<double>(code_bytes(rebuilt)), report.at("code_bytes").get<double>(),
                0.1 * report.at("code_bytes").get<double>());
}

}  // namespace
}  // namespace spion
