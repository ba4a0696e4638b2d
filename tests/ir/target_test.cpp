#include "ir/target.h"

#include <gtest/gtest.h>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

TEST(Target, KnownGpus) {
    struct Row {
        int capability;
        const char* arch;
        int shared_bytes;
    };
    for (const Row& row :
         {Row{80, "sm_80", 166912}, Row{86, "sm_86", 101376}, Row{89, "sm_89", 101376},
          Row{90, "sm_90a", 232448}, Row{100, "sm_100", 232448}, Row{120, "sm_120", 101376}}) {
        const Target target = cuda_target(row.capability);
        EXPECT_EQ(target.back_end, BackEnd::kCuda);
        EXPECT_EQ(target.arch, row.arch);
        EXPECT_EQ(target.features, "");
        EXPECT_EQ(target.compute_capability, row.capability);
        EXPECT_EQ(target.shared_bytes_per_block, row.shared_bytes);
        EXPECT_EQ(target.compiler, kNewestNvrtc);
        EXPECT_GT(target.processors, 80);
    }
    EXPECT_EQ(cuda_target(80).processors, 108);
    EXPECT_EQ(cuda_target(90).processors, 132);
}

TEST(Target, CompilersAreOrderedByTheirReleases) {
    const auto release = [](int major, int minor) { return CompilerRelease{major, minor}; };
    EXPECT_LT(release(12, 9), release(13, 0));
    EXPECT_LT(release(12, 4), release(12, 10));
    EXPECT_EQ(release(12, 4), release(12, 4));
    EXPECT_GT(kNewestNvrtc, release(13, 0));
}

TEST(Target, UnknownGpuListsTheKnown) {
    expect_error<UserError>([] { cuda_target(75); },
                            "compute capability 75 is not known: use 80, 86, 89, 90, 100 or 120");
}

}  // namespace
}  // namespace spion
