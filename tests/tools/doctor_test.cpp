// `spion doctor` says what is there and why something is not, and never fails.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/environment.h"
#include "tests/support/run_command.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

using nlohmann::json;

json row(const json& rows, const std::string& part) {
    for (const json& item : rows) {
        if (item.at("part") == part) {
            return item;
        }
    }
    ADD_FAILURE() << "no row for " << part << " in " << rows.dump();
    return {{"usable", false}, {"where", ""}, {"version", ""}, {"problem", ""}};
}

json doctor() {
    const auto result = run_command("doctor --json");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return json::parse(result.out);
}

TEST(Doctor, EveryRowIsUsableOrSaysWhyNot) {
    const ScratchFolder folder;
    const Environment cache("SPION_CACHE_DIR", (folder.path() / "cache").string());
    const json rows = doctor();
    for (const json& item : rows) {
        EXPECT_EQ(item.at("usable").get<bool>(), item.at("problem") == "") << item.dump();
        EXPECT_FALSE(item.at("usable") && item.at("version") == "" && item.at("where") == "")
            << item.dump();
    }
    EXPECT_EQ(row(rows, "cache folder").at("where"), (folder.path() / "cache").string());
    EXPECT_TRUE(row(rows, "cache folder").at("usable"));
#ifdef SPION_HOST_BACKEND
    EXPECT_TRUE(row(rows, "CPU").at("usable"));
    EXPECT_TRUE(row(rows, "LLVM").at("usable"));
    EXPECT_NE(row(rows, "LLVM").at("version").get<std::string>().find("llvm "), std::string::npos);
#else
    EXPECT_FALSE(row(rows, "CPU").at("usable"));
#endif
#ifndef SPION_CUDA_BACKEND
    EXPECT_FALSE(row(rows, "GPU").at("usable"));
#endif
}

TEST(Doctor, SaysWhatIsMissingAndHowToMendIt) {
    const Environment nvrtc("SPION_NVRTC_LIBRARY", "/nonexistent/libnvrtc.so");
    const Environment cublas("SPION_CUBLASLT_LIBRARY", "/nonexistent/libcublasLt.so");
    const Environment nccl("SPION_NCCL_LIBRARY", "/nonexistent/libnccl.so");
    const Environment cache("SPION_CACHE_DIR", "/dev/null/cache");
    const json rows = doctor();
    const json folder = row(rows, "cache folder");
    EXPECT_FALSE(folder.at("usable"));
    EXPECT_EQ(folder.at("where"), "/dev/null/cache");
    EXPECT_NE(folder.at("problem").get<std::string>().find("Not a directory"), std::string::npos);
#ifdef SPION_CUDA_BACKEND
    for (const auto& [part, variable] : {std::pair{"NVRTC", "set SPION_NVRTC_LIBRARY"},
                                         std::pair{"cuBLASLt", "set SPION_CUBLASLT_LIBRARY"},
                                         std::pair{"NCCL", "set SPION_NCCL_LIBRARY"}}) {
        const std::string problem = row(rows, part).at("problem");
        EXPECT_NE(problem.find(variable), std::string::npos) << problem;
        EXPECT_NE(problem.find("/nonexistent/"), std::string::npos) << problem;
    }
    EXPECT_FALSE(row(rows, "GPU").at("usable"));
#endif
}

TEST(Doctor, TheTableHasTheRowsOfTheJson) {
    const ScratchFolder folder;
    const Environment cache("SPION_CACHE_DIR", folder.path().string());
    const auto table = run_command("doctor");
    EXPECT_EQ(table.exit_code, 0);
    EXPECT_EQ(table.err, "");
    for (const json& item : doctor()) {
        const std::string line = item.at("part").get<std::string>() +
                                 std::string(14 - item.at("part").get<std::string>().size(), ' ') +
                                 (item.at("usable") ? "usable" : "NO    ");
        EXPECT_NE(table.out.find(line), std::string::npos) << line << "\n" << table.out;
    }
    EXPECT_NE(table.out.find("--device auto takes "), std::string::npos) << table.out;
    EXPECT_NE(table.out.find("\nSPION_CACHE_DIR          " + folder.path().string() + "\n"),
              std::string::npos)
        << table.out;
    EXPECT_EQ(table.out.find("reads no variable"), std::string::npos) << table.out;
}

TEST(Doctor, NamesAMisspeltVariable) {
    const Environment misspelt("SPION_CACHE_DIT", "/tmp");
    EXPECT_NE(run_command("doctor").out.find(
                  "SPION_CACHE_DIT          is set, but spion reads no variable of that name\n"),
              std::string::npos);
}

}  // namespace
}  // namespace spion
