// Where NVRTC and cuBLASLt are sought, and which of several cuBLASLts is taken; none need be here.
#include "runtime/cuda/library_search.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "runtime/cuda/cublas_choice.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

class LibraryCandidates : public testing::Test {
  protected:
    void touch(const std::string& file) {
        fs::create_directories((root() / file).parent_path());
        std::ofstream(root() / file) << "a library";
    }
    fs::path root() const { return scratch_.path(); }
    // Paths below the scratch folder, relative to it.
    std::vector<std::string> candidates(const std::map<std::string, std::string>& variables,
                                        const LibraryNames& names = nvrtc_names()) {
        std::vector<std::string> found = library_candidates(
            names,
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

TEST_F(LibraryCandidates, AreSoughtInToolkitsAndPythonsPackages) {
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
    EXPECT_EQ(candidates(variables, cublas_names()),
              (std::vector<std::string>{
                  "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so",
                  "home/.local/lib/python3.11/site-packages/nvidia/cublas/lib/libcublasLt.so.12"}));
}

TEST_F(LibraryCandidates, AreOneFileWhereThatIsNamed) {
    touch("usr/local/cuda/lib64/libnvrtc.so.13");
    EXPECT_EQ(candidates({{"SPION_NVRTC_LIBRARY", "/mine/libnvrtc.so"}}),
              std::vector<std::string>{"/mine/libnvrtc.so"});
    EXPECT_EQ(candidates({}).size(), 4U);
    EXPECT_EQ(candidates({{"SPION_CUBLASLT_LIBRARY", "/mine/lt.so"}}, cublas_names()),
              std::vector<std::string>{"/mine/lt.so"});
}

const FoundCublas kEleven{.path = "/a", .release = {11, 8}};
const FoundCublas kTwelve{.path = "/b", .release = {12, 0}};
const FoundCublas kTwelveNine{.path = "/c", .release = {12, 9}};
const FoundCublas kThirteen{.path = "/d", .release = {13, 1}};

TEST(CublasChoice, TakesTheNewestThatTheDriverRuns) {
    const std::vector<FoundCublas> found{kEleven, kTwelve, kThirteen, kTwelveNine};
    EXPECT_EQ(choose_cublas(found, {}).taken, 2U);
    EXPECT_EQ(choose_cublas(found, CompilerRelease{13, 0}).taken, 2U);
    // Within 12.x a driver runs newer releases.
    EXPECT_EQ(choose_cublas(found, CompilerRelease{12, 2}).taken, 3U);
    EXPECT_EQ(choose_cublas({kTwelve, kTwelve}, CompilerRelease{12, 2}).taken, 0U);
}

TEST(CublasChoice, SaysWhyNoneIsTaken) {
    const auto problem = [](const std::vector<FoundCublas>& found,
                            const std::optional<CompilerRelease>& driver) {
        const CublasChoice choice = choose_cublas(found, driver);
        EXPECT_FALSE(choice.taken);
        return choice.problem;
    };
    const std::string remedy = cublas_remedy();
    EXPECT_NE(remedy.find("install cuBLASLt 12.0 or later"), std::string::npos) << remedy;
    EXPECT_NE(remedy.find("SPION_CUBLASLT_LIBRARY"), std::string::npos) << remedy;
    EXPECT_EQ(problem({}, {}), "no cuBLASLt was found; " + remedy);
    EXPECT_EQ(problem({kEleven}, CompilerRelease{13, 0}),
              "cuBLASLt 11.8 at /a is too old: " + remedy);
    EXPECT_EQ(problem({kEleven, kThirteen}, CompilerRelease{12, 4}),
              "the driver runs libraries of CUDA up to 12.x, and cuBLASLt 13.1 at /d is the best "
              "that was found: install cuBLASLt of CUDA 12 (Python's package nvidia-cublas-cu12), "
              "or a newer driver");
}

}  // namespace
}  // namespace spion
