// What the tests of `spion compile` share: a small pattern, its command line and a folder to write to.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "tests/support/run_command.h"
#include "tests/support/scratch_folder.h"

namespace spion {

namespace fs = std::filesystem;

inline constexpr const char* kBits = "110001\n110001\n011001\n001101\n000111\n111111\n";

#ifdef SPION_HOST_BACKEND
inline const std::string kTarget = " --target host";
#else
inline const std::string kTarget = " --target sm_90a";
#endif

inline std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    EXPECT_TRUE(file) << path;
    return {std::istreambuf_iterator<char>(file), {}};
}

inline std::set<std::string> names_in(const fs::path& folder) {
    std::set<std::string> names;
    for (const auto& item : fs::directory_iterator(folder)) {
        names.insert(item.path().filename());
    }
    return names;
}

class Compile : public testing::Test {
  protected:
    ScratchFolder scratch_;
    std::string bits_ = scratch_.write("p.bits", kBits);
    std::string pattern_ = "compile --pattern " + bits_ + " --block 32 --heads 2 --head-dim 32 ";
    std::string here_ = pattern_ + kTarget + " ";  // for a target that this build has
    fs::path out_ = scratch_.path() / "out";

    std::string into_out() const { return " -o " + out_.string(); }
    // The only kernel's folder below out_.
    fs::path kernel() const {
        EXPECT_EQ(names_in(out_).size(), 1U);
        return fs::directory_iterator(out_)->path();
    }
};

}  // namespace spion
