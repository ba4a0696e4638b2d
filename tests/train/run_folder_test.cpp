#include "train/run_folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "ir/error.h"
#include "runtime/offline.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"
#include "tests/train/files.h"

namespace spion {
namespace {

TEST(RunFolder, RefusesWhatIsNotANewFolder) {
    const ScratchFolder folder;
    const auto file = folder.write("a", "x");
    expect_error<UserError>([&] { check_run_folder(folder.file("")); }, "is not empty");
    expect_error<UserError>([&] { check_run_folder(file); }, "is a file");
    expect_error<UserError>([&] { check_run_folder(file + "/b/c"); }, "no folder");
    expect_error<UserError>([&] { check_run_folder(""); }, "is empty");
    EXPECT_THROW(RunFolder{folder.file("")}, UserError);
    EXPECT_EQ(read_file(file), "x");
}

TEST(RunFolder, ChecksWithoutLeavingAnything) {
    const ScratchFolder folder;
    const std::string path = folder.file("a/b");
    check_run_folder(path);
    EXPECT_FALSE(std::filesystem::exists(folder.file("a")));
    std::filesystem::create_directories(path);
    EXPECT_NO_THROW(check_run_folder(path));
    folder.write("a/b/.spion-1-0.unfinished", "half");
    EXPECT_NO_THROW(check_run_folder(path));
    std::filesystem::create_directories(path + "/ranks");
    folder.write("a/b/ranks/rank-1", "of a process that comes");
    EXPECT_NO_THROW(check_run_folder(path));
    folder.write("a/b/.other", "x");
    expect_error<UserError>([&] { check_run_folder(path); }, "is not empty");
}

TEST(RunFolder, HoldsPatternsAndKernels) {
    const ScratchFolder folder;
    RunFolder run(folder.file("run"));
    run.write_config("steps = 1\n");
    EXPECT_EQ(read_file(run.path() / "config.toml"), "steps = 1\n");

    const BlockPattern pattern(32, 16, {1, 0, 1, 1});
    run.write_patterns(2, pattern, std::vector<std::vector<double>>{{0.5, 0.25, 1, 2e-9}});
    EXPECT_EQ(read_file(run.path() / "patterns" / "layer2.bits"), "10\n11\n");
    EXPECT_EQ(read_file(run.path() / "patterns" / "layer2.csv"), "0.5,0.25\n1,2e-09\n");

    JitKernel kernel;
    kernel.source = {.name = "k-b16",
                     .entry = "k",
                     .text = "source",
                     .includes = {{.name = "body.cuh", .text = "body"}},
                     .ir = "program"};
    KernelBinary binary;
    binary.code = std::string("\0\1bin", 5);
    binary.log = "log";
    kernel.cached.binary = std::make_shared<const KernelBinary>(binary);
    kernel.rebuild = "nvcc kernel.cu";
    run.write_kernel(kernel, BackEnd::kCuda);
    run.write_kernel(kernel, BackEnd::kCuda);  // again: nothing new
    kernel.rebuild.clear();
    kernel.source.text = "other";  // the same name, another kernel
    run.write_kernel(kernel, BackEnd::kHost);
    const auto kernels = run.path() / "kernels";
    EXPECT_EQ(read_file(kernels / "k-b16" / "kernel.cu"), "source");
    EXPECT_EQ(read_file(kernels / "k-b16" / "kernel.ir"), "program");
    EXPECT_EQ(read_file(kernels / "k-b16" / "kernel.cubin"), binary.code);
    EXPECT_EQ(read_file(kernels / "k-b16" / "kernel.log"), "log");
    EXPECT_EQ(read_file(kernels / "k-b16" / "body.cuh"), "body");
    EXPECT_EQ(read_file(kernels / "k-b16" / "rebuild.sh"), rebuild_script("nvcc kernel.cu"));
    int folders = 0;
    for (const auto& entry : std::filesystem::directory_iterator(kernels)) {
        ++folders;
        if (entry.path().filename() != "k-b16") {
            EXPECT_EQ(read_file(entry.path() / "kernel.ll"), "other");
            EXPECT_EQ(read_file(entry.path() / "kernel.o"), binary.code);
        }
    }
    EXPECT_EQ(folders, 2);
}

// More than 64 rows are means over neighbours, the last of fewer.
TEST(RunFolder, WritesMapsSmallEnoughToLookAt) {
    const ScratchFolder scratch;
    RunFolder folder(scratch.file("run"));
    folder.write_map(1, 500, std::vector<double>{1, 2, 3, 4.5});
    EXPECT_EQ(read_file(scratch.file("run/maps/layer1-step00000500.csv")), "1,2\n3,4.5\n");
    constexpr std::size_t kRows = 65;
    std::vector<double> map(kRows * kRows, 1.0);
    for (std::size_t column = 0; column < kRows; ++column) map[64 * kRows + column] = 3;
    map[0] = 5;
    folder.write_map(0, 7, map);
    const std::string text = read_file(scratch.file("run/maps/layer0-step00000007.csv"));
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 33);
    EXPECT_TRUE(text.starts_with("2,1,1,")) << text.substr(0, 20);
    EXPECT_TRUE(text.ends_with(",3,3\n")) << "the last row is one row's means";
}

}  // namespace
}  // namespace spion
