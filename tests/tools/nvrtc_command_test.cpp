// What the command says of an NVRTC that does not do, with an exit code that tells whose fault it
// is: 2 for the machine's, 3 for ours. Each NVRTC is a fake that answers as it is told.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "tests/support/environment.h"
#include "tests/support/run_command.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

class NvrtcCommand : public testing::Test {
  protected:
    CommandResult compile(const std::string& target) {
        return run_command("compile --pattern-random 1 --length 64 --target " + target +
                           " --role forward --emit cubin -o " + (scratch_.path() / "out").string());
    }
    // doctor's row.
    nlohmann::json row() {
        const CommandResult result = run_command("doctor --json");
        EXPECT_EQ(result.exit_code, 0) << result.err;
        for (const auto& part : nlohmann::json::parse(result.out)) {
            if (part.at("part") == "NVRTC") return part;
        }
        ADD_FAILURE() << result.out;
        return {};
    }
    // compile's exit code is 2 and its one sentence holds `part`, as does doctor's reason.
    void expect_the_machines_fault(const std::string& target, const std::string& part) {
        const CommandResult result = compile(target);
        EXPECT_EQ(result.exit_code, 2) << result.err;
        EXPECT_EQ(result.out, "");
        EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
        EXPECT_EQ(result.err.find("internal error"), std::string::npos) << result.err;
        EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
        EXPECT_NE(result.err.find("set SPION_NVRTC_LIBRARY"), std::string::npos) << result.err;
    }

    ScratchFolder scratch_;
    Environment cache_{"SPION_CACHE_DIR", (scratch_.path() / "cache").string()};
    Environment library_{"SPION_NVRTC_LIBRARY", SPION_FAKE_NVRTC};
    Environment result_{"FAKE_NVRTC_RESULT", "0"};
    Environment log_{"FAKE_NVRTC_LOG", "ptxas info    : Used 40 registers\n"};
};

TEST_F(NvrtcCommand, TakesOneThatAnswers) {
    EXPECT_EQ(compile("sm_90a").exit_code, 0);
    EXPECT_TRUE(row().at("usable"));
    EXPECT_EQ(row().at("notes").size(), 0U);
}

// 12.0 to 12.3: the report nvrtc-too-old.
TEST_F(NvrtcCommand, NamesTheReleaseThatIsTooOldAndTheOldestThatWorks) {
    for (const std::string release : {"12.0", "12.2", "12.3", "11.8"}) {
        const Environment old("FAKE_NVRTC_RELEASE", release);
        const std::string sentence = "NVRTC " + release + " at " + SPION_FAKE_NVRTC +
                                     " is too old, for the oldest release that works is 12.4: ";
        expect_the_machines_fault("sm_80", sentence);
        EXPECT_FALSE(row().at("usable"));
        EXPECT_EQ(row().at("problem").get<std::string>().find(sentence), 0U) << row().dump();
        EXPECT_FALSE(fs::exists(scratch_.path() / "out"));
    }
    const Environment oldest("FAKE_NVRTC_RELEASE", "12.4");
    EXPECT_EQ(compile("sm_80").exit_code, 0);
}

TEST_F(NvrtcCommand, NamesTheTargetsThatItKnows) {
    expect_the_machines_fault(
        "sm_120",
        "does not compile for sm_120, only for sm_80, sm_90: install NVRTC 12.8 or later");
}

TEST_F(NvrtcCommand, SaysThatItHasLostItsBuiltins) {
    const Environment lost("FAKE_NVRTC_RESULT", "7");
    expect_the_machines_fault("sm_90a", "cannot open its other half, libnvrtc-builtins.so.13.5");
    EXPECT_FALSE(row().at("usable"));
    EXPECT_FALSE(fs::exists(scratch_.path() / "cache/rejected"));
}

TEST_F(NvrtcCommand, SaysThatItFails) {
    const Environment failing("FAKE_NVRTC_RESULT", "11");
    expect_the_machines_fault("sm_90a", "fails with NVRTC_ERROR_INTERNAL_ERROR on kernel");
}

TEST_F(NvrtcCommand, RefusesAKernelThatWouldBeSlow) {
    const Environment slow("FAKE_NVRTC_LOG",
                           "ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async "
                           "instructions are serialized\nptxas info    : Used 40 registers\n");
    const CommandResult result = compile("sm_90a");
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find("far below its speed (ptxas info    : (C7514) Potential"),
              std::string::npos)
        << result.err;
}

TEST_F(NvrtcCommand, SaysAloudThatAKernelSpills) {
    const Environment spilling("FAKE_NVRTC_LOG",
                               "    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill "
                               "loads\nptxas info    : Used 40 registers\n");
    const CommandResult result = compile("sm_90a");
    EXPECT_EQ(result.exit_code, 0);
    EXPECT_NE(result.err.find("spills 20 bytes of registers"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("attention_forward"), std::string::npos) << result.err;
}

TEST_F(NvrtcCommand, DoctorSaysWhichOfSeveralIsTaken) {
    const fs::path conda = scratch_.path() / "conda/lib/libnvrtc.so.13";
    const fs::path package =
        scratch_.path() / "venv/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13";
    for (const fs::path& file : {conda, package}) {
        fs::create_directories(file.parent_path());
        fs::copy_file(SPION_FAKE_NVRTC, file);
    }
    const Environment nothing_named("SPION_NVRTC_LIBRARY", std::nullopt);
    const Environment first("CONDA_PREFIX", (scratch_.path() / "conda").string());
    const Environment second("VIRTUAL_ENV", (scratch_.path() / "venv").string());
    const Environment newer_than_any("FAKE_NVRTC_RELEASE", "13.99");
    const nlohmann::json taken = row();
    EXPECT_TRUE(taken.at("usable")) << taken.dump();
    EXPECT_EQ(taken.at("version").get<std::string>().find("nvrtc 13.99 "), 0U) << taken.dump();
    EXPECT_EQ(taken.at("where"), conda.string());
    ASSERT_EQ(taken.at("notes").size(), 1U);
    const std::string note = taken.at("notes")[0];
    EXPECT_EQ(note.find("found: "), 0U) << note;
    EXPECT_NE(note.find("13.99 at " + conda.string() + ", "), std::string::npos) << note;
    EXPECT_NE(note.find("13.99 at " + package.string()), std::string::npos) << note;
}

TEST_F(NvrtcCommand, DoctorSaysWhatAReleaseMakesBadly) {
    const Environment older("FAKE_NVRTC_RELEASE", "12.9");
    EXPECT_TRUE(row().at("usable"));
    ASSERT_EQ(row().at("notes").size(), 1U) << row().dump();
    EXPECT_EQ(row().at("notes")[0],
              "NVRTC 12.9 spills registers of packed wgmma kernels of dK and dV with D=64 and 128 "
              "streamed rows, and 13.0 does not: other tiles are taken");
    EXPECT_NE(run_command("doctor").out.find("NVRTC 12.9 spills"), std::string::npos);
}

}  // namespace
}  // namespace spion
