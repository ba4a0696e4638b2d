#include "runtime/atomic_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::set<std::string> names_in(const fs::path& folder) {
    std::set<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
        names.insert(entry.path().filename());
    }
    return names;
}

unsigned mode_of(const fs::path& path) {
    struct stat found {};
    EXPECT_EQ(stat(path.c_str(), &found), 0);
    return found.st_mode & 07777U;
}

// While one exists, files of this process end at `bytes`, as they do on a full disk.
class SizeLimit {
  public:
    explicit SizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        getrlimit(RLIMIT_FSIZE, &usual_);
        const rlimit tight{.rlim_cur = bytes, .rlim_max = usual_.rlim_max};
        setrlimit(RLIMIT_FSIZE, &tight);
    }
    ~SizeLimit() {
        setrlimit(RLIMIT_FSIZE, &usual_);
        std::signal(SIGXFSZ, handler_);
    }
    SizeLimit(const SizeLimit&) = delete;
    SizeLimit& operator=(const SizeLimit&) = delete;

  private:
    rlimit usual_{};
    void (*handler_)(int);
};

TEST(AtomicFile, HasItsNameOnlyWhenItIsWhole) {
    const ScratchFolder folder;
    const fs::path path = folder.write("a", "old");
    {
        AtomicFile file(path);
        file.write("ne");
        EXPECT_EQ(contents(path), "old");
        EXPECT_EQ(names_in(folder.path()).size(), 2U);
        file.write("w");
        file.commit();
        EXPECT_EQ(contents(path), "new");
        EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"a"});
    }
    {
        AtomicFile dropped(path);
        dropped.write("never seen");
    }
    EXPECT_EQ(contents(path), "new");
    EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"a"});
}

TEST(AtomicFile, SeveralGetTheirNamesTogetherOrNot) {
    const ScratchFolder folder;
    const std::string large(1000, 'x');
    const NamedBytes files[] = {{.path = folder.path() / "sub/a", .bytes = "1"},
                                {.path = folder.path() / "sub/deeper/b", .bytes = large},
                                {.path = folder.path() / "c", .bytes = "3"}};
    {
        const SizeLimit limit(999);
        expect_error<UserError>([&] { write_files(files, "make room"); },
                                "deeper/b cannot be written: File too large; make room");
    }
    EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"sub"});
    EXPECT_EQ(names_in(folder.path() / "sub"), std::set<std::string>{"deeper"});
    EXPECT_EQ(names_in(folder.path() / "sub/deeper"), std::set<std::string>{});
    write_files(files, "make room");
    EXPECT_EQ(contents(folder.path() / "sub/a"), "1");
    EXPECT_EQ(contents(folder.path() / "sub/deeper/b"), large);
    EXPECT_EQ(contents(folder.path() / "c"), "3");
}

// The child dies as by kill -9, with half of the file written.
TEST(AtomicFile, AKilledWriterLeavesTheEarlierFile) {
    const ScratchFolder folder;
    const fs::path path = folder.write("a", "old");
    const pid_t child = fork();
    if (child == 0) {
        AtomicFile file(path);
        file.write("half");
        std::raise(SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(contents(path), "old");
    std::set<std::string> left = names_in(folder.path());
    ASSERT_EQ(left.erase("a"), 1U);
    ASSERT_EQ(left.size(), 1U);
    EXPECT_TRUE(is_unfinished(*left.begin())) << *left.begin();
    EXPECT_FALSE(is_unfinished(path));
}

TEST(AtomicFile, FollowsLinksAndKeepsModes) {
    const ScratchFolder folder;
    const fs::path path = folder.write("a", "old");
    ASSERT_EQ(chmod(path.c_str(), 0640), 0);
    fs::create_symlink("a", folder.file("link"));
    write_file(folder.file("link"), "new", "");
    EXPECT_TRUE(fs::is_symlink(folder.file("link")));
    EXPECT_EQ(contents(path), "new");
    EXPECT_EQ(mode_of(path), 0640U);
    const mode_t mask = umask(027);
    write_file(folder.file("fresh"), "x", "");
    umask(mask);
    EXPECT_EQ(mode_of(folder.file("fresh")), 0640U);
}

TEST(AtomicFile, WritesIntoWhatIsNoRegularFile) {
    const ScratchFolder folder;
    const std::string pipe = folder.file("pipe");
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    const pid_t child = fork();
    if (child == 0) {
        const std::string read = contents(pipe);
        _exit(read == "through" ? 0 : 1);
    }
    write_file(pipe, "through", "");
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(fs::is_fifo(pipe));
    write_file("/dev/null", "x", "");
    expect_error<UserError>([&] { write_file("/dev/full", "x", "make room"); },
                            "/dev/full cannot be written: No space left on device; make room");
}

TEST(AtomicFile, NamesWhatItCannotWrite) {
    const ScratchFolder folder;
    const std::string file = folder.write("a", "old");
    const auto refuses = [](const std::string& path, const std::string& reason) {
        expect_error<UserError>([&] { write_file(path, "x", "mend it"); },
                                path + " cannot be written: " + reason + "; mend it");
    };
    refuses(file + "/b", "Not a directory");
    refuses(folder.path(), "Is a directory");
    refuses(folder.file("no/folder"), "No such file or directory");
    refuses("/proc/none/b", "No such file or directory");
    refuses(folder.file(std::string(300, 'n')), "File name too long");
    EXPECT_EQ(contents(file), "old");
    EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"a"});
    EXPECT_THROW(AtomicFile{folder.file("no/folder")}, std::system_error);
}

TEST(OutputFile, TakesBackWhatIsTooMuch) {
    const ScratchFolder folder;
    OutputFile file(folder.file("rows"), O_WRONLY | O_CREAT, 0600);
    file.append("one\ntwo");
    file.cut_to(4);
    file.append("three\n");
    file.sync();
    file.close();
    EXPECT_EQ(contents(folder.file("rows")), "one\nthree\n");
}

}  // namespace
}  // namespace spion
