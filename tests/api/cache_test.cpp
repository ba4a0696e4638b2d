// Where a context's kernels come from: the compiler, its folder, memory; what it tells of that, and
// what warming up keeps.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>
#include <vector>

#include "spion/spion.h"
#include "tests/api/expect_status.h"
#include "tests/support/scratch_folder.h"

namespace spion::test {
namespace {

Attention attention(int head_dim = 16) {
    return {.heads = 1, .head_dim = head_dim, .length = 100, .block = 16, .dtype = DType::kFp32};
}

struct Lines {
    std::mutex mutex;
    std::vector<std::string> lines;
    int warnings = 0;

    static void add(void* user, std::int32_t level, const char* line) {
        auto& self = *static_cast<Lines*>(user);
        const std::lock_guard lock(self.mutex);
        self.lines.emplace_back(line);
        self.warnings += level == SPION_LOG_WARNING ? 1 : 0;
    }
    int with(const std::string& words) const {
        int count = 0;
        for (const std::string& line : lines)
            count += line.find(words) != std::string::npos ? 1 : 0;
        return count;
    }
};

class ApiCache : public testing::Test {
  protected:
    Context context(bool frozen = false, Lines* log = nullptr) const {
        return Context::host({.threads = 1,
                              .frozen = frozen,
                              .cache = folder(),
                              .log = log == nullptr ? nullptr : Lines::add,
                              .log_user = log});
    }
    std::string folder() const { return (scratch_.path() / "cache").string(); }

    const ScratchFolder scratch_;
};

TEST_F(ApiCache, FindsWhatAnotherContextCompiled) {
    Lines compiled;
    const Context first = context(false, &compiled);
    const Plan made = first.plan(attention());
    EXPECT_EQ(made.origin(), Origin::kCompiled);
    EXPECT_NE(made.explain().find("attention_forward: "), std::string::npos) << made.explain();
    EXPECT_EQ(compiled.with("compiled in"), 3);
    EXPECT_EQ(compiled.warnings, 0);
    Lines found;
    const Context second = context(true, &found);  // frozen: what is kept is enough
    EXPECT_EQ(second.plan(attention()).origin(), Origin::kDisk);
    EXPECT_EQ(second.counters().from_disk, 3);
    EXPECT_EQ(second.counters().compiled, 0);
    EXPECT_EQ(found.with("read from the disk cache"), 3);
    EXPECT_EQ(second.plan(attention()).origin(), Origin::kMemory);
    expect_status<Frozen>([&] { second.plan(attention(32)); }, "compiles nothing");
}

TEST_F(ApiCache, AFolderThatCannotBeOneIsRefused) {
    std::ofstream(folder()) << "a file";
    expect_status<UserError>([&] { context(); }, "cannot be written");
}

TEST_F(ApiCache, WarmingUpKeepsPlansForLater) {
    const Context warm = context();
    const std::vector<Attention> attentions{attention(), attention(32), attention()};
    warm.warm_up(attentions);
    EXPECT_EQ(warm.counters().compiled, 6);
    warm.freeze();
    EXPECT_NO_THROW(warm.plan(attention()));
    EXPECT_NO_THROW(warm.plan(attention(32)));
    EXPECT_EQ(warm.counters().compiled, 6);
    const std::vector<Attention> none{attention(20)};
    expect_status<UserError>([&] { warm.warm_up(none); }, "head dimension 20");
}

// Run by the next test in a process of its own, in which all threads but one are refused.
TEST(ApiLog, DISABLED_ProcessWithFewThreads) {
    Lines heard;
    if (std::getenv("SPION_TEST_LISTENS") != nullptr) {
        Context::host({.threads = 7, .memory_only = true, .log = Lines::add, .log_user = &heard});
        EXPECT_EQ(heard.with("7 threads were wanted, but the system allows only 2"), 1);
        EXPECT_EQ(heard.warnings, 1);
    } else {
        const Context context = Context::host({.threads = 7, .memory_only = true});
        context.warm_up(std::vector<Attention>{attention(), attention(32)});
    }
}

// Whatever happens, the library prints nothing: a log hears it, or nobody.
TEST(ApiLog, IsAllThatIsSaid) {
    const ScratchFolder scratch;
    const std::string printed = (scratch.path() / "printed").string();
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    for (const char* listens : {"", "SPION_TEST_LISTENS=1 "}) {
        const std::string command = std::string(listens) +
                                    "SPION_VERBOSE=1 SPION_THREADS=5 SPION_TEST_THREADS=1 " +
                                    "LD_PRELOAD='" SPION_LIMITED_THREADS "' '" + self +
                                    "' --gtest_also_run_disabled_tests "
                                    "--gtest_filter='*DISABLED_ProcessWithFewThreads' >'" +
                                    printed + ".out' 2>'" + printed + "'";
        EXPECT_EQ(std::system(command.c_str()), 0) << command;
        std::ifstream file(printed);
        EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "") << command;
    }
}

}  // namespace
}  // namespace spion::test
