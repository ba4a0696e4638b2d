// A document that names a file is wrong as soon as the file moves: every path in README.md,
// CONTRIBUTING.md and docs/ must exist.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace spion {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = SPION_SOURCE_ROOT;

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<fs::path> documents() {
    std::vector<fs::path> found{kRoot / "README.md", kRoot / "CONTRIBUTING.md"};
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / "docs")) {
        if (entry.path().extension() == ".md") {
            found.push_back(entry.path());
        }
    }
    return found;
}

// Words that begin with a folder or file of the root and contain a slash or an extension of ours.
// What a build, a run, a compilation or a reader makes is no part of the tree, nor is CUDA's header.
std::set<std::string> paths_in(const std::string& text) {
    static const std::regex word(R"((?:\./)?[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+)*/?)");
    static const std::regex ours(R"(.*/.*|.*\.(?:h|cpp|cuh|md|sh|cmake|txt|json))");
    static const std::set<std::string> made{"build",           "runs",         "rebuild.sh",
                                            "report.txt",      "summary.json", ".txt",
                                            "first_layer.cpp", "on_a_gpu.cpp", "cuda_runtime.h"};
    std::set<std::string> paths;
    for (std::sregex_iterator found(text.begin(), text.end(), word), end; found != end; ++found) {
        std::string path = found->str();
        while (!path.empty() && path.back() == '.') {  // the end of a sentence
            path.pop_back();
        }
        path = path.rfind("./", 0) == 0 ? path.substr(2) : path;
        const std::string first = path.substr(0, path.find('/'));
        const bool inside = path.find('/') != std::string::npos;
        if (std::regex_match(path, ours) && made.count(first) == 0 &&
            (!inside || fs::exists(kRoot / first))) {
            paths.insert(path);
        }
    }
    return paths;
}

TEST(Docs, EveryPathThatTheyNameExists) {
    std::size_t checked = 0;
    for (const fs::path& document : documents()) {
        for (const std::string& path : paths_in(read(document))) {
            // From the root, or from where the document is, as links are.
            EXPECT_TRUE(fs::exists(kRoot / path) || fs::exists(document.parent_path() / path))
                << document.lexically_relative(kRoot) << " names " << path;
            ++checked;
        }
    }
    EXPECT_GT(checked, 20U);
}

TEST(Docs, PathsAreFoundInRunningText) {
    const std::string text =
        "See `ir/attention.h`, ir/none.h. And tests/gpu.sh; also docs/x/y.md, "
        "build/spion, TFLOP/s, none.cpp or kernels/cuda/.";
    EXPECT_EQ(paths_in(text), (std::set<std::string>{"ir/attention.h", "ir/none.h", "tests/gpu.sh",
                                                     "docs/x/y.md", "none.cpp", "kernels/cuda/"}));
}

TEST(Docs, TheReadmeFitsOnTwoScreens) {
    const std::string text = read(kRoot / "README.md");
    EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 80);
}

}  // namespace
}  // namespace spion
