// The order of the folders is the order of the walk: every #include against the table of
// docs/architecture.md, so that no arrow points back.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace spion {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = SPION_SOURCE_ROOT;

// What a folder may include besides itself: folders, or files in them ("*" for any characters).
const std::map<std::string, std::vector<std::string>> kMayInclude = {
    {"ir", {}},
    {"io", {"ir/*", "runtime/atomic_file.h"}},
    {"kernels", {}},
    {"codegen", {"ir/*", "kernels/embedded.h"}},
    {"runtime", {"ir/*"}},
    {"compiler", {"ir/*", "codegen/*", "runtime/*", "kernels/*_arguments.h"}},
    {"api",
     {"include/spion/*", "ir/*", "runtime/*", "compiler/*", "codegen/emit.h",
      "kernels/*_arguments.h"}},
    {"include", {"spion/*"}},
    {"python", {}},  // <spion/spion.h> alone, as users have it
    // Training's own kernels are named constants and a body too, so it may call the emitter.
    {"train",
     {"ir/*", "io/*", "runtime/*", "compiler/*", "codegen/emit.h", "kernels/*_arguments.h",
      "kernels/random.h"}},
    {"tools",
     {"ir/*", "io/*", "runtime/*", "compiler/*", "codegen/*", "train/*", "kernels/*_arguments.h"}},
};

struct Include {
    fs::path file;  // relative to the root
    int line;
    std::string name;
    bool quoted;
};

bool is_source(const fs::path& path) {
    const std::string extension = path.extension().string();
    return extension == ".h" || extension == ".cpp" || extension == ".cuh" || extension == ".cu";
}

std::vector<Include> includes_in(const std::string& folder) {
    std::vector<Include> includes;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / folder)) {
        if (!entry.is_regular_file() || !is_source(entry.path())) {
            continue;
        }
        std::ifstream file(entry.path());
        std::string text;
        for (int line = 1; std::getline(file, text); ++line) {
            std::size_t at = text.find_first_not_of(" \t");
            if (at == std::string::npos || text[at] != '#') {
                continue;
            }
            at = text.find_first_not_of(" \t", at + 1);
            if (at == std::string::npos || text.compare(at, 7, "include") != 0) {
                continue;
            }
            const std::size_t open = text.find_first_of("\"<", at);
            if (open == std::string::npos) {
                continue;
            }
            const std::size_t close = text.find_first_of("\">", open + 1);
            includes.push_back({.file = entry.path().lexically_relative(kRoot),
                                .line = line,
                                .name = text.substr(open + 1, close - open - 1),
                                .quoted = text[open] == '"'});
        }
    }
    return includes;
}

bool matches(const std::string& name, const std::string& pattern) {
    const std::size_t star = pattern.find('*');
    if (star == std::string::npos) {
        return name == pattern;
    }
    const std::string head = pattern.substr(0, star);
    const std::string tail = pattern.substr(star + 1);
    return name.size() >= head.size() + tail.size() && name.starts_with(head) &&
           name.ends_with(tail);
}

bool allowed(const std::string& folder, const std::string& name) {
    const std::vector<std::string>& patterns = kMayInclude.at(folder);
    return name.starts_with(folder + "/") ||
           std::any_of(patterns.begin(), patterns.end(),
                       [&](const std::string& pattern) { return matches(name, pattern); });
}

std::string where(const Include& include) {
    return include.file.string() + ":" + std::to_string(include.line) + " includes " + include.name;
}

TEST(Architecture, NoArrowPointsBack) {
    for (const auto& [folder, patterns] : kMayInclude) {
        int checked = 0;
        for (const Include& include : includes_in(folder)) {
            if (!include.quoted) {
                continue;
            }
            // Users have the public headers' folder as an include path.
            EXPECT_TRUE(fs::exists(kRoot / (folder == "include" ? "include" : "") / include.name))
                << where(include) << ": not a path from the root";
            EXPECT_TRUE(allowed(folder, include.name))
                << where(include) << ": " << folder << "/ may not";
            ++checked;
        }
        if (folder != "train") {  // which may stand alone
            EXPECT_GT(checked, 0) << folder << " has no include of ours: is it read at all?";
        }
    }
}

// What the parts of compiler/ may include besides themselves: a plan needs no device, passes need no
// plan, and a launch needs none either: it takes programs with how their kernels are launched.
const std::map<std::string, std::vector<std::string>> kInsideTheCompiler = {
    {"compiler/discovery", {"ir/*"}},
    {"compiler/launch",
     {"ir/*", "codegen/*", "kernels/*_arguments.h", "runtime/*", "compiler/planned_program.h",
      "compiler/in_parallel.h"}},
    {"compiler/passes", {"ir/*"}},
    {"compiler/plan", {"ir/*", "codegen/*"}},
    {"compiler/tune", {"ir/*", "codegen/emit.h", "runtime/*", "compiler/*"}},
};

TEST(Architecture, PlansKnowNoDevice) {
    for (const auto& [folder, patterns] : kInsideTheCompiler) {
        int checked = 0;
        for (const Include& include : includes_in(folder)) {
            if (include.quoted) {
                const bool own = include.name.starts_with(folder + "/");
                const bool may = std::any_of(
                    patterns.begin(), patterns.end(),
                    [&](const std::string& pattern) { return matches(include.name, pattern); });
                EXPECT_TRUE(own || may) << where(include) << ": " << folder << "/ may not";
                ++checked;
            }
        }
        EXPECT_GT(checked, 0) << folder;
    }
}

// A kernel family is a value that a table hands out: nobody else asks for one by its name.
TEST(Architecture, FamiliesAreReachedThroughTheirTable) {
    int found = 0;
    for (const auto& [folder, patterns] : kMayInclude) {
        for (const Include& include : includes_in(folder)) {
            if (include.name.starts_with("codegen/cuda/families/") ||
                include.name == "codegen/llvm/host_vectors.h") {
                const std::string file = include.file.generic_string();
                EXPECT_TRUE(file == "codegen/kernel_families.cpp" ||
                            file == "codegen/llvm/host_vectors.cpp" ||
                            file.starts_with("codegen/cuda/families/"))
                    << where(include) << ": take codegen/kernel_families.h";
                ++found;
            }
        }
    }
    EXPECT_GT(found, 5);
}

// A unit is a header with its source. includes: of each unit, the others it reaches by its includes.
using Units = std::map<std::string, std::set<std::string>>;

Units units_in(const std::string& folder) {
    const auto unit_of = [](fs::path file) { return file.replace_extension().generic_string(); };
    Units units;
    for (const Include& include : includes_in(folder)) {
        if (include.quoted && include.name.starts_with(folder + "/")) {
            units[unit_of(include.file)].insert(unit_of(include.name));
        }
    }
    return units;
}

std::set<std::string> reached_from(const Units& units, const std::string& start) {
    std::set<std::string> reached;
    std::vector<std::string> next{start};
    while (!next.empty()) {
        const auto found = units.find(next.back());
        next.pop_back();
        for (const std::string& unit :
             found == units.end() ? std::set<std::string>{} : found->second) {
            if (unit != start && reached.insert(unit).second) {
                next.push_back(unit);
            }
        }
    }
    return reached;
}

// Units that reach each other, as "a <-> b".
std::set<std::string> circles(const Units& units) {
    std::set<std::string> found;
    for (const auto& [unit, includes] : units) {
        for (const std::string& other : reached_from(units, unit)) {
            if (unit < other && reached_from(units, other).count(unit) != 0) {
                found.insert(unit + " <-> " + other);
            }
        }
    }
    return found;
}

TEST(Architecture, NoCircleInTheCompiler) {
    const Units units = units_in("compiler");
    EXPECT_GT(units.size(), 20U);
    EXPECT_EQ(circles(units), std::set<std::string>{});
}

TEST(Architecture, CirclesAreSeen) {
    Units units{{"a", {"b"}}, {"b", {"c"}}, {"c", {}}, {"d", {"d"}}};
    EXPECT_TRUE(circles(units).empty());
    units["c"].insert("a");
    EXPECT_EQ(circles(units), (std::set<std::string>{"a <-> b", "a <-> c", "b <-> c"}));
}

TEST(Architecture, TheTableTellsArrowsApart) {
    EXPECT_TRUE(allowed("compiler", "runtime/device.h"));
    EXPECT_FALSE(allowed("runtime", "compiler/compile_attention.h"));
    EXPECT_FALSE(allowed("ir", "runtime/device.h"));
    EXPECT_FALSE(allowed("runtime", "kernels/embedded.h"));
    EXPECT_TRUE(allowed("codegen", "kernels/embedded.h"));
    EXPECT_FALSE(allowed("codegen", "kernels/attention_arguments.h"));
    EXPECT_TRUE(allowed("train", "kernels/train_arguments.h"));
    EXPECT_FALSE(allowed("train", "tools/verify.h"));
    EXPECT_FALSE(allowed("kernels", "ir/dtype.h"));
}

TEST(Architecture, NounsNeedOnlyTheStandardLibraryAndFmt) {
    int checked = 0;
    for (const Include& include : includes_in("ir")) {
        if (!include.quoted) {
            const bool standard = include.name.find_first_of("./") == std::string::npos;
            EXPECT_TRUE(standard || include.name.starts_with("fmt/")) << where(include);
            ++checked;
        }
    }
    EXPECT_GT(checked, 10);
}

// The toolkit may be absent where we are built: its libraries are opened when first needed.
TEST(Architecture, NoHeaderOfTheCudaToolkit) {
    for (const auto& [folder, patterns] : kMayInclude) {
        for (const Include& include : includes_in(folder)) {
            for (const char* prefix : {"cuda", "nvrtc", "cublas", "nvml", "nvtx"}) {
                EXPECT_FALSE(!include.quoted && include.name.starts_with(prefix)) << where(include);
            }
        }
    }
}

// The sources that hold any of the words.
std::set<std::string> files_with(const std::vector<std::string>& words) {
    std::set<std::string> found;
    for (const auto& [folder, patterns] : kMayInclude) {
        for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / folder)) {
            if (!entry.is_regular_file() || !is_source(entry.path())) {
                continue;
            }
            std::ifstream file(entry.path());
            const std::string text{std::istreambuf_iterator<char>(file), {}};
            if (std::any_of(words.begin(), words.end(), [&](const std::string& word) {
                    return text.find(word) != std::string::npos;
                })) {
                found.insert(entry.path().lexically_relative(kRoot).string());
            }
        }
    }
    return found;
}

// Variables of the environment are read in one place, whose table `spion doctor` prints.
TEST(Architecture, OneFileReadsTheEnvironment) {
    EXPECT_EQ(files_with({"getenv("}), std::set<std::string>{"runtime/environment.cpp"});
}

// What throws or ends the process on a full disk or a closed terminal is kept in one place: print
// with write_out, print_out or say of runtime/output.h.
TEST(Architecture, OneFileWritesToTheTerminal) {
    EXPECT_EQ(files_with({"fmt::print(", "std::cout", "std::cerr", "std::puts(", "std::fputs(",
                          "std::fwrite(", "std::printf(", "std::fprintf(", "perror("}),
              std::set<std::string>{"runtime/output.cpp"});
}

// No file of ours is ever half there: make it with write_file or AtomicFile of
// runtime/atomic_file.h, whose OutputFile serves those that need more, a cache entry's, metrics.csv
// a run's events for TensorBoard, and the file in which a process of several says that it lives. (A child's log
// is its own standard output.) (A disassembler's output is temporary.)
TEST(Architecture, OneFileMakesFiles) {
    EXPECT_EQ(files_with({"ofstream", "std::fopen(", "O_CREAT"}),
              (std::set<std::string>{"runtime/atomic_file.cpp", "runtime/cache_entry.cpp",
                                     "runtime/disassemble.cpp", "runtime/ranks/rank_file.cpp",
                                     "runtime/ranks/shared_memory.cpp", "tools/sweep/child.cpp",
                                     "train/event_file.cpp", "train/metrics.cpp"}));
}

// NVRTC makes a device variable of a constexpr in a namespace or a struct: enumerators and macros
// leave nothing in the cubin. (kernels/host/ never meets NVRTC.)
TEST(Architecture, DeviceTextHasNoVariablesForConstants) {
    const std::regex constant(
        "^((inline |static )*constexpr|\\s*static constexpr|const) [^(]*( =|\\{)");
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / "kernels")) {
        const bool host = entry.path().string().find("/kernels/host/") != std::string::npos;
        const std::string kind = entry.path().extension().string();
        std::ifstream file(entry.path());
        std::string line;
        while (!host && (kind == ".h" || kind == ".cuh") && std::getline(file, line)) {
            EXPECT_FALSE(std::regex_search(line, constant)) << entry.path() << ": " << line;
        }
    }
    EXPECT_TRUE(std::regex_search("constexpr int kRows = 16;", constant));
    EXPECT_TRUE(std::regex_search("    static constexpr int kRows = 16;", constant));
    EXPECT_FALSE(std::regex_search("    constexpr int kRows = 16;", constant));  // of a function
}

// NVRTC has no headers at all, so device text must need none.
TEST(Architecture, DeviceTextIsSelfContained) {
    for (const Include& include : includes_in("kernels")) {
        if (include.file.extension() == ".cuh" ||
            include.file.filename().string().ends_with("_arguments.h")) {
            EXPECT_TRUE(include.quoted) << where(include);
        }
    }
}

// What a special unit or an architecture has of its own is said in its family and in few files
// besides, so that the next one needs few (CONTRIBUTING.md, "A target").
TEST(Architecture, FewFilesNameUnitsAndArchitectures) {
    const std::set<std::string> allowed = {"codegen/cuda/wgmma_plan.cpp",
                                           "compiler/launch/kernel_launch.cpp",
                                           "compiler/passes/set_shape.cpp",
                                           "ir/nvrtc_rules.cpp",
                                           "ir/target.cpp",
                                           "ir/tile_shape.cpp",
                                           "ir/tile_shape.h",
                                           "ir/verify.cpp",
                                           "codegen/cuda/families/wgmma.cpp",
                                           "codegen/cuda/families/warp_items.cpp",
                                           "codegen/cuda/families/fused_backward.cpp"};
    const std::regex named(
        R"(MatrixUnit::k(Wgmma|MmaSyncTma)|arch == "|compute_capability (==|!=|<|>|<=|>=) [0-9])");
    std::set<std::string> found;
    for (const char* folder : {"api", "codegen", "compiler", "include", "io", "ir", "python",
                               "runtime", "tools", "train"}) {
        for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / folder)) {
            if (!entry.is_regular_file() || !is_source(entry.path())) continue;
            std::ifstream file(entry.path());
            for (std::string line; std::getline(file, line);) {
                if (std::regex_search(line.substr(0, line.find("//")), named)) {
                    found.insert(fs::relative(entry.path(), kRoot).string());
                }
            }
        }
    }
    for (const std::string& file : found) {
        EXPECT_EQ(allowed.count(file), 1U) << file << " names a unit or an architecture";
    }
    EXPECT_EQ(found.count("ir/tile_shape.h"), 1U) << "the words that are sought are no longer used";
}

// A test that no list of sources names is never built, and nobody misses it.
TEST(Architecture, EveryTestIsBuilt) {
    std::set<std::string> tests, named;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(kRoot / "tests")) {
        const fs::path path = entry.path().lexically_relative(kRoot);
        if (path.string().ends_with("_test.cpp")) {
            tests.insert(path.string());
        } else if (path.filename() == "CMakeLists.txt" || path.extension() == ".cmake") {
            std::ifstream file(entry.path());
            for (std::string word; file >> word;) {
                named.insert((path.parent_path() / word.substr(0, word.find(')'))).string());
            }
        }
    }
    for (const std::string& test : tests) {
        EXPECT_EQ(named.count(test), 1U) << test;
    }
    EXPECT_GT(tests.size(), 100U);
}

}  // namespace
}  // namespace spion
