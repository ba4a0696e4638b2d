// NVRTC: compiling needs the library but neither a GPU nor a driver.
#include "runtime/cuda/nvrtc.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "ir/error.h"
#include "runtime/cache.h"
#include "runtime/offline.h"
#include "tests/support/environment.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

class NvrtcTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (const auto problem = nvrtc_problem()) {
            GTEST_SKIP() << *problem;
        }
    }
    // Rejected sources are kept below it.
    ScratchFolder temporary_;
    Environment place_{"SPION_CACHE_DIR", temporary_.path().string()};

    // A kernel that writes `addend` plus an included constant.
    CompileRequest request(int addend, const std::string& arch = "sm_90a") {
        return {.entry = "add",
                .text =
                    "#include \"part/constant.cuh\"\n"
                    "extern \"C\" __global__ void add(float* x) {\n"
                    "    x[threadIdx.x] += kConstant + " +
                    std::to_string(addend) + ";\n}\n",
                .includes = {{"part/constant.cuh", "#include \"deeper.cuh\"\n"},
                             {"deeper.cuh", "constexpr float kConstant = 0.5F;\n"}},
                .arch = arch,
                .features = "",
                .options = nvrtc_options(),
                .compiler = nvrtc_version()};
    }
};

// FILE of tests/runtime/nvrtc_logs/, the log of a real release for one kernel.
std::string log_of(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(std::string(SPION_TEST_DATA) + "/nvrtc_logs/" + file + ".txt").rdbuf();
    EXPECT_FALSE(text.str().empty()) << file;
    return text.str();
}

TEST(NvrtcLog, IsReadByItsWordsInEveryRelease) {
    struct Row {
        const char* file;
        const char* loss;  // a part of the line, or "" for none
        int spill_bytes;
        int registers;
    };
    constexpr Row kLogs[] = {
        {"12.3-serialised", "serialized due to non wgmma instructions defining", 0, 128},
        {"12.4-setmaxnreg", "'setmaxnreg' ignored; unable to determine register count", 0, 8},
        {"12.5-note", "", 0, 80},  // C7517: "warpgroup.wait is injected"
        {"12.6-spills", "", 44, 80},
        {"13.0-serialised", "serialized due to insufficient register resources", 1284, 168},
        {"13.5-serialised", "serialized due to insufficient register resources", 1360, 168},
        {"13.5-setmaxnreg", "'setmaxnreg' ignored", 0, 8},
        {"13.5-good", "", 0, 80},
    };
    for (const Row& row : kLogs) {
        const std::string log = log_of(row.file);
        const std::string line = performance_loss(log);
        KernelBinary binary;
        read_resources(log, binary);
        EXPECT_EQ(line.empty(), std::string_view(row.loss).empty()) << row.file << ": " << line;
        EXPECT_NE(line.find(row.loss), std::string::npos) << row.file << ": " << line;
        EXPECT_EQ(line.find('\n'), std::string::npos);
        EXPECT_EQ(binary.spill_bytes, row.spill_bytes) << row.file;
        EXPECT_EQ(binary.registers, row.registers) << row.file;
    }
}

TEST_F(NvrtcTest, AKernelWithSerialisedProductsIsRefused) {
    CompileRequest bad = request(1);
    // setmaxnreg without a bound on the registers that the kernel starts with.
    bad.text =
        "extern \"C\" __global__ void add(float* x) {\n"
        "    asm volatile(\"setmaxnreg.dec.sync.aligned.u32 24;\");\n"
        "    x[threadIdx.x] += 1.0F;\n}\n";
    expect_error<DeviceError>([&] { compile_with_nvrtc(bad); }, "far below its speed");
}

TEST_F(NvrtcTest, MakesACubinForEveryArchitecture) {
    for (const char* arch : {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"}) {
        const KernelBinary binary = compile_with_nvrtc(request(1, arch));
        EXPECT_EQ(binary.code.substr(0, 4), "\177ELF") << arch;
        EXPECT_GT(binary.registers, 0) << binary.log;
        EXPECT_EQ(binary.spill_bytes, 0);
        EXPECT_GT(binary.compile_ms, 0);
    }
}

TEST_F(NvrtcTest, ThreadsMakeTheSameBytesAsOneAlone) {
    const int first = static_cast<int>(test::fresh_seed() % 1000);
    std::vector<KernelBinary> together(4);
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&, i] { together[i] = compile_with_nvrtc(request(first + i)); });
        }
    }
    for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(together[i].code, compile_with_nvrtc(request(first + i)).code) << first + i;
    }
    EXPECT_NE(together[0].code, together[1].code);
}

TEST_F(NvrtcTest, StaticSharedMemoryIsReported) {
    CompileRequest shared = request(0);
    shared.text =
        "extern \"C\" __global__ void add(float* x) {\n"
        "    __shared__ float y[256];\n"
        "    y[threadIdx.x] = x[threadIdx.x];\n"
        "    __syncthreads();\n"
        "    x[threadIdx.x] = y[255 - threadIdx.x];\n}\n";
    EXPECT_EQ(compile_with_nvrtc(shared).static_shared_bytes, 1024);
}

TEST_F(NvrtcTest, OptionsReachTheCompiler) {
    CompileRequest guarded = request(0);
    guarded.text = "#ifndef WANTED\n#error not wanted\n#endif\n" + guarded.text;
    EXPECT_THROW(compile_with_nvrtc(guarded), InternalError);
    guarded.options.emplace_back("-DWANTED");
    EXPECT_NO_THROW(compile_with_nvrtc(guarded));
}

TEST_F(NvrtcTest, ARejectedSourceIsKeptAndNamed) {
    CompileRequest wrong = request(0);
    wrong.text += "undeclared mistake;\n";
    try {
        compile_with_nvrtc(wrong);
        FAIL() << "was accepted";
    } catch (const InternalError& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find("rejects kernel 'add' for sm_90a"), std::string::npos) << message;
        EXPECT_NE(message.find("identifier \"undeclared\" is undefined"), std::string::npos)
            << message;
        const auto begin = message.find("kept at ") + 8;
        const std::filesystem::path path = message.substr(begin, message.find(';', begin) - begin);
        std::ostringstream kept;
        kept << std::ifstream(path).rdbuf();
        EXPECT_EQ(kept.str(), wrong.text);
        EXPECT_TRUE(std::filesystem::exists(path.parent_path() / "part/constant.cuh"));
        EXPECT_EQ(path.parent_path().parent_path(), temporary_.path() / "rejected");
    }
}

TEST(PtxasLog, ResourcesAreRead) {
    KernelBinary binary;
    read_resources(
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function 'f' for 'sm_90a'\n"
        "ptxas info    : Function properties for f\n"
        "    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 168 registers, used 1 barriers, 16 bytes cumulative stack size, "
        "2048 bytes smem\n",
        binary);
    EXPECT_EQ(binary.registers, 168);
    EXPECT_EQ(binary.spill_bytes, 20);
    EXPECT_EQ(binary.static_shared_bytes, 2048);
}

// Line numbers are in the binary, so they are in the options and so in the key.
TEST_F(NvrtcTest, LineInformationIsPartOfTheKey) {
    const auto lined = [this](const std::optional<std::string>& value) {
        const Environment set("SPION_LINEINFO", value);
        return request(1);
    };
    const CompileRequest plain = lined(std::nullopt), with = lined("1");
    EXPECT_EQ(cache_key(lined("0")), cache_key(plain));
    EXPECT_EQ(cache_key(lined("")), cache_key(plain));
    EXPECT_NE(cache_key(with), cache_key(plain));
    EXPECT_EQ(compile_with_nvrtc(plain).code.find(".debug_line"), std::string::npos);
    EXPECT_NE(compile_with_nvrtc(with).code.find(".debug_line"), std::string::npos);
    EXPECT_NE(rebuild_command(with.arch, with.options).find(" -lineinfo "), std::string::npos);
    EXPECT_EQ(rebuild_command(plain.arch, plain.options).find("-lineinfo"), std::string::npos);
    expect_error<UserError>([&] { lined("yes"); }, "SPION_LINEINFO is 'yes'");
}

TEST_F(NvrtcTest, GivesThePtxOfTheSameCompilation) {
    std::string ptx;
    const KernelBinary binary = compile_with_nvrtc(request(3, "sm_89"), &ptx);
    EXPECT_NE(ptx.find(".target sm_89"), std::string::npos);
    EXPECT_NE(ptx.find(".entry add"), std::string::npos);
    EXPECT_EQ(ptx.find('\0'), std::string::npos);
    EXPECT_EQ(binary.code, compile_with_nvrtc(request(3, "sm_89")).code);
}

}  // namespace
}  // namespace spion
