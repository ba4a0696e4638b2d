// Processors by affinity and by CPU quota, from made-up control groups.
#include "runtime/threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/environment.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

class ControlGroups : public ::testing::Test {
  protected:
    void write(const std::string& path, const std::string& text) {
        const std::filesystem::path file = folder_.path() / path;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    int usable() const { return usable_processors(folder_.path()); }
    // Without any group: what affinity allows.
    int affinity() const { return usable_processors(folder_.path() / "nothing here"); }

    ScratchFolder folder_;
};

TEST_F(ControlGroups, WithoutQuotaAffinityCounts) {
    EXPECT_GE(affinity(), 1);
    write("proc/self/cgroup", "0::/user.slice\n");
    EXPECT_EQ(usable(), affinity());
    write("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
    EXPECT_EQ(usable(), affinity());
    write("sys/fs/cgroup/user.slice/cpu.max", "999900000 100000\n");
    EXPECT_EQ(usable(), affinity());
}

TEST_F(ControlGroups, VersionTwoOfTheProcessAndOfThoseAboveIt) {
    write("proc/self/cgroup", "0::/pod/container\n");
    write("sys/fs/cgroup/pod/container/cpu.max", "99900000 100000\n");
    write("sys/fs/cgroup/pod/cpu.max", "100000 100000\n");
    EXPECT_EQ(usable(), 1);
    write("sys/fs/cgroup/pod/cpu.max", "max 100000\n");
    write("sys/fs/cgroup/pod/container/cpu.max", "20000 100000\n");  // a fifth of a processor
    EXPECT_EQ(usable(), 1);
    write("sys/fs/cgroup/pod/container/cpu.max", "110000 100000\n");  // a part counts as one
    EXPECT_EQ(usable(), std::min(2, affinity()));
}

// As in a container with a namespace of its own: the group is the root of the mount.
TEST_F(ControlGroups, VersionTwoAtTheRoot) {
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/cpu.max", "100000 100000\n");
    EXPECT_EQ(usable(), 1);
}

TEST_F(ControlGroups, VersionOneByEitherNameOfTheFolder) {
    write("proc/self/cgroup",
          "11:cpuset:/\n4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n1:name=systemd:/\n");
    write("sys/fs/cgroup/memory/docker/1/cpu.cfs_quota_us", "1\n");  // not where the quota is
    EXPECT_EQ(usable(), affinity());
    write("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
    write("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(usable(), affinity());
    write("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "50000\n");
    EXPECT_EQ(usable(), 1);
    std::filesystem::remove_all(folder_.path() / "sys");
    // The host's name of the group, of which the container sees the folder alone.
    write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(usable(), 1);
}

TEST_F(ControlGroups, WhatCannotBeReadIsNoQuota) {
    for (const char* text : {"", "nonsense", "max", "0 0", "-5 100000", "1"}) {
        write("proc/self/cgroup", "0::/\nno colons here\n::\n");
        write("sys/fs/cgroup/cpu.max", text);
        EXPECT_EQ(usable(), affinity()) << text;
    }
}

TEST(ThreadCount, IsTheVariablesWhereItIsSet) {
    const Environment set("SPION_THREADS", "3");
    EXPECT_EQ(thread_count(), 3);
    const Environment unset("SPION_THREADS", std::nullopt);
    EXPECT_EQ(thread_count(), usable_processors());
}

TEST(RunOnThreads, CallsTheWorkOnEach) {
    for (const int count : {1, 2, 5}) {
        std::atomic<int> calls = 0;
        run_on_threads(count, [&] { ++calls; });
        EXPECT_EQ(calls, count);
    }
}

}  // namespace
}  // namespace spion
