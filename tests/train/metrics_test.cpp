#include "train/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"

namespace spion {
namespace {

TEST(MetricsFile, IsWholeAfterEveryRow) {
    const ScratchFolder folder;
    const auto path = folder.file("metrics.csv");
    MetricsFile metrics(path);
    const std::string header =
        "step,phase,split,loss,accuracy,learning_rate,step_ms,steps_per_second,density,seconds\n";
    EXPECT_EQ(read_file(path), header);
    metrics.write({.step = 1,
                   .phase = Phase::kDense,
                   .split = "train",
                   .loss = 2.25,
                   .accuracy = 0.125,
                   .learning_rate = 1e-4,
                   .step_ms = 8.0,
                   .density = 1.0,
                   .seconds = 0.5});
    const std::string first = header + "1,dense,train,2.25,0.125,0.0001,8,125,1,0.500\n";
    EXPECT_EQ(read_file(path), first);
    metrics.write({.step = 1,
                   .phase = Phase::kSparse,
                   .split = "validation",
                   .loss = 2.0,
                   .accuracy = 0.5,
                   .learning_rate = {},
                   .step_ms = {},
                   .density = {},
                   .seconds = 1.0});
    EXPECT_EQ(read_file(path), first + "1,sparse,validation,2,0.5,,,,,1.000\n");
}

TEST(MetricsFile, SaysWhenItCannotBeWritten) {
    const ScratchFolder folder;
    expect_error<UserError>([&] { MetricsFile(folder.file("none/metrics.csv")); }, "No such file");
    // A device that is always full stands for a full disk.
    EXPECT_THROW(MetricsFile("/dev/full"), UserError);
}

// A limit on the size of files stands for the full disk: the row that does not fit is taken back.
TEST(MetricsFile, KeepsWholeRowsWhereTheNextHasNoRoom) {
    const ScratchFolder folder;
    const auto path = folder.file("metrics.csv");
    MetricsRow row;
    row.step = 1;
    row.split = "train";
    row.loss = 2.25;
    row.seconds = 1;
    MetricsFile metrics(path);
    metrics.write(row);
    const std::string before = read_file(path);
    rlimit usual{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &usual), 0);
    const rlimit tight{.rlim_cur = before.size() + 5, .rlim_max = usual.rlim_max};
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
    expect_error<UserError>([&] { metrics.write(row); }, "metrics.csv: File too large");
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &usual), 0);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(read_file(path), before);
    metrics.write(row);  // there is room again
    EXPECT_EQ(read_file(path), before + "1,dense,train,2.25,0,,,,,1.000\n");
}

}  // namespace
}  // namespace spion
