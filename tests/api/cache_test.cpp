// Where a context's kernels come from: the compiler, its folder, memory; what it tells of that, and
// what warming up keeps.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
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

}  // namespace
}  // namespace spion::test
