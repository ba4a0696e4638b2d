// Which of several NVRTCs is taken, and where they are sought; none of them need be here.
#include "runtime/cuda/nvrtc_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

const FoundNvrtc kOld{.path = "/a", .release = {12, 3}, .capabilities = {80, 90}};
const FoundNvrtc kTwelve{.path = "/b", .release = {12, 4}, .capabilities = {80, 90}};
const FoundNvrtc kTwelveNine{.path = "/c", .release = {12, 9}, .capabilities = {80, 90, 120}};
const FoundNvrtc kThirteen{.path = "/d", .release = {13, 0}, .capabilities = {80, 90, 120}};

TEST(NvrtcChoice, TakesTheNewestThatKnowsTheTarget) {
    const std::vector<FoundNvrtc> found{kTwelve, kThirteen, kOld, kTwelveNine};
    EXPECT_EQ(choose_nvrtc(found, 90, {}).taken, 1U);
    EXPECT_EQ(choose_nvrtc(found, 0, {}).taken, 1U);
    FoundNvrtc without = kThirteen;
    without.capabilities = {90};
    EXPECT_EQ(choose_nvrtc({kTwelve, without, kTwelveNine}, 120, {}).taken, 2U);
    EXPECT_EQ(choose_nvrtc({kTwelve, without, kTwelveNine}, 90, {}).taken, 1U);
    EXPECT_EQ(choose_nvrtc({kTwelve, kTwelve}, 90, {}).taken, 0U);  // in the order of the search
}

TEST(NvrtcChoice, KeepsToWhatTheDriverLoads) {
    const std::vector<FoundNvrtc> found{kThirteen, kTwelve, kTwelveNine};
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{13, 0}).taken, 0U);
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{13, 2}).taken, 0U);
    // Within 12.x a driver loads what newer releases have made.
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{12, 2}).taken, 2U);
    // Files can be made all the same where none is loaded.
    const NvrtcChoice choice = choose_nvrtc({kThirteen}, 90, CompilerRelease{12, 8});
    EXPECT_EQ(choice.taken, 0U);
    EXPECT_EQ(choice.problem, "");
    EXPECT_EQ(choice.driver_problem,
              "the driver loads kernels of CUDA up to 12.x, and NVRTC 13.0 at /d is the best that "
              "was found: install an NVRTC of CUDA 12 (Python's package nvidia-cuda-nvrtc-cu12), "
              "or a newer driver");
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{12, 2}).driver_problem, "");
    // To know the target comes first.
    EXPECT_EQ(choose_nvrtc({kTwelve, kThirteen}, 120, CompilerRelease{12, 8}).taken, 1U);
}

TEST(NvrtcChoice, SaysWhyNoneIsTaken) {
    const auto problem = [](const std::vector<FoundNvrtc>& found, int capability) {
        const NvrtcChoice choice = choose_nvrtc(found, capability, {});
        EXPECT_FALSE(choice.taken);
        return choice.problem;
    };
    const std::string remedy = nvrtc_remedy();
    EXPECT_NE(remedy.find("install NVRTC 12.4 or later"), std::string::npos) << remedy;
    EXPECT_NE(remedy.find("SPION_NVRTC_LIBRARY"), std::string::npos) << remedy;
    EXPECT_EQ(problem({}, 90), "no NVRTC was found; " + remedy);
    EXPECT_EQ(problem({kOld}, 90),
              "NVRTC 12.3 at /a is too old, for the oldest release that works is 12.4: " + remedy);
    EXPECT_EQ(problem({kOld, kTwelve}, 120),
              "NVRTC 12.4 at /b does not compile for sm_120, only for sm_80, sm_90: " +
                  nvrtc_remedy({12, 8}));
    EXPECT_NE(nvrtc_remedy({12, 8}).find("install NVRTC 12.8 or later"), std::string::npos);
    FoundNvrtc old_that_knows = kOld;
    old_that_knows.capabilities.push_back(120);
    EXPECT_NE(problem({old_that_knows, kTwelve}, 120).find("sm_120"), std::string::npos);
}

class NvrtcCandidates : public testing::Test {
  protected:
    void touch(const std::string& file) {
        fs::create_directories((root() / file).parent_path());
        std::ofstream(root() / file) << "a library";
    }
    fs::path root() const { return scratch_.path(); }
    // Paths below the scratch folder, relative to it.
    std::vector<std::string> candidates(const std::map<std::string, std::string>& variables) {
        std::vector<std::string> found = nvrtc_candidates(
            [&](const char* name) {
                const auto value = variables.find(name);
                return value == variables.end() ? std::nullopt : std::optional(value->second);
            },
            root());
        for (std::string& file : found) {
            if (file.starts_with(root().string())) {
                file = fs::path(file).lexically_relative(root()).string();
            }
        }
        return found;
    }

  private:
    ScratchFolder scratch_;
};

TEST_F(NvrtcCandidates, AreSoughtInToolkitsAndPythonsPackages) {
    const std::vector<std::string> loader{"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    EXPECT_EQ(candidates({}), loader);
    touch("usr/local/cuda-13.0/lib64/libnvrtc.so.13.0.88");
    fs::create_symlink("libnvrtc.so.13.0.88", root() / "usr/local/cuda-13.0/lib64/libnvrtc.so.13");
    fs::create_directory_symlink("cuda-13.0", root() / "usr/local/cuda");
    touch("usr/local/cuda-13.0/lib64/libnvrtc-builtins.so.13.0");
    touch("usr/local/cuda-13.0/lib64/libnvrtc_static.a");
    touch("home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
    touch("home/.local/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    touch("home/.local/lib/python3.11/site-packages/nvidia/cublas/lib/libcublasLt.so.12");
    touch("usr/lib/python3.12/dist-packages/torch/lib/libnvrtc.so.12");
    touch("venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    touch("conda/lib/libnvrtc.so.12");
    touch("toolkit/lib64/libnvrtc.so.12");
    std::vector<std::string> expected = loader;
    for (const char* file :
         {"toolkit/lib64/libnvrtc.so.12", "usr/local/cuda/lib64/libnvrtc.so.13",
          "conda/lib/libnvrtc.so.12",
          "venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
          "home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
          "home/.local/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
          "usr/lib/python3.12/dist-packages/torch/lib/libnvrtc.so.12"}) {
        expected.emplace_back(file);
    }
    const std::map<std::string, std::string> variables{
        {"CUDA_HOME", (root() / "toolkit").string()},
        {"CUDA_PATH", (root() / "toolkit").string()},
        {"VIRTUAL_ENV", (root() / "venv").string()},
        {"CONDA_PREFIX", (root() / "conda").string()},
        {"HOME", (root() / "home").string()}};
    EXPECT_EQ(candidates(variables), expected);
}

TEST_F(NvrtcCandidates, AreOneFileWhereThatIsNamed) {
    touch("usr/local/cuda/lib64/libnvrtc.so.13");
    EXPECT_EQ(candidates({{"SPION_NVRTC_LIBRARY", "/mine/libnvrtc.so"}}),
              std::vector<std::string>{"/mine/libnvrtc.so"});
    EXPECT_EQ(candidates({}).size(), 4U);
}

}  // namespace
}  // namespace spion
