// A document that names a file or a section is wrong as soon as that moves: every path and every
// section that README.md, CONTRIBUTING.md and docs/ name must exist.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
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
    static const std::set<std::string> made{
        "build",           "runs",         "rebuild.sh",    "report.txt",    "summary.json", ".txt",
        "first_layer.cpp", "on_a_gpu.cpp", "sequences.cpp", "cuda_runtime.h"};
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

std::vector<std::string> headings(const std::string& text) {
    static const std::regex heading(R"((?:^|\n)#+ ([^\n]*))");
    std::vector<std::string> found;
    for (std::sregex_iterator at(text.begin(), text.end(), heading), end; at != end; ++at) {
        found.push_back((*at)[1]);
    }
    return found;
}

// The fragment by which GitHub links to a heading.
std::string anchor(const std::string& heading) {
    std::string name;
    for (const char character : heading) {
        const auto byte = static_cast<unsigned char>(character);
        if (character == ' ') {
            name += '-';
        } else if (std::isalnum(byte) != 0 || character == '-' || character == '_') {
            name += static_cast<char>(std::tolower(byte));
        }
    }
    return name;
}

struct NamedSection {
    std::string document;  // from the root; "" for the one that names it
    std::string section;   // how its heading begins, or an anchor
    bool is_anchor = false;
};

// `docs/results.md, "Head dimensions"`, across ends of lines, and `[text](#head-dimensions)`.
std::vector<NamedSection> sections_in(const std::string& text) {
    static const std::regex quoted(R"((docs/[a-z_/]+\.md),\s+"([^"]+)\")");
    static const std::regex linked(R"(\]\(#([^)\s]*)\))");
    std::vector<NamedSection> found;
    const std::sregex_iterator end;
    for (std::sregex_iterator at(text.begin(), text.end(), quoted); at != end; ++at) {
        const std::string section = std::regex_replace((*at)[2].str(), std::regex("\\s+"), " ");
        found.push_back({(*at)[1], section});
    }
    for (std::sregex_iterator at(text.begin(), text.end(), linked); at != end; ++at) {
        found.push_back({"", (*at)[1], true});
    }
    return found;
}

bool has_section(const std::string& text, const NamedSection& named) {
    const std::vector<std::string> all = headings(text);
    return std::any_of(all.begin(), all.end(), [&](const std::string& heading) {
        return named.is_anchor ? anchor(heading) == named.section
                               : heading.rfind(named.section, 0) == 0;
    });
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

TEST(Docs, EverySectionThatTheyNameExists) {
    std::size_t checked = 0;
    for (const fs::path& document : documents()) {
        const std::string text = read(document);
        for (const NamedSection& named : sections_in(text)) {
            const std::string there = named.document.empty() ? text : read(kRoot / named.document);
            EXPECT_TRUE(has_section(there, named))
                << document.lexically_relative(kRoot) << " names \"" << named.section << "\" of "
                << (named.document.empty() ? "itself" : named.document);
            ++checked;
        }
    }
    EXPECT_GT(checked, 40U);
}

TEST(Docs, SectionsAreFoundInRunningText) {
    const std::string text =
        "# One\n## Two: a (b/c.h)\nSee docs/journal.md, \"Two:\n a\", or [it](#two-a-bch), not "
        "[x](y.md).";
    const std::vector<NamedSection> found = sections_in(text);
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].document, "docs/journal.md");
    EXPECT_EQ(found[0].section, "Two: a");
    EXPECT_TRUE(has_section(text, found[0]));
    EXPECT_TRUE(has_section(text, found[1]));
    EXPECT_FALSE(has_section(text, {"", "Two: b"}));
    EXPECT_FALSE(has_section(text, {"", "two-a", true}));
}

TEST(Docs, TheReadmeFitsOnTwoScreens) {
    const std::string text = read(kRoot / "README.md");
    EXPECT_LT(std::count(text.begin(), text.end(), '\n'), 80);
}

}  // namespace
}  // namespace spion
