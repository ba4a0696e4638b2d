// The pages of `spion inspect` and `spion sweep`, opened in a browser: each draws every picture and reports no error.
// `./run test` installs Chromium where Debian's packages are at hand, and says so loudly where these
// tests were skipped.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "tests/support/run_command.h"
#include "tests/tools/inspect/tiny_run.h"
#include "tests/train/files.h"

namespace spion {
namespace {

std::optional<std::string> find_chromium() {
    for (const char* name : {"chromium", "chromium-browser", "google-chrome"}) {
        for (const char* folder : {"/usr/bin/", "/usr/local/bin/", "/snap/bin/"}) {
            if (std::filesystem::exists(std::string(folder) + name)) {
                return std::string(folder) + name;
            }
        }
    }
    return std::nullopt;
}

// The page opens from disk, says nothing on the console and has something in every picture.
void expect_opens(const std::string& page) {
    const std::optional<std::string> browser = find_chromium();
    if (!browser) {
        GTEST_SKIP() << "no chromium in /usr/bin, /usr/local/bin or /snap/bin";
    }
    const ScratchFolder folder;
    const std::string command =
        "timeout 120 " + *browser +
        " --headless --no-sandbox --disable-gpu --enable-logging=stderr --user-data-dir=" +
        folder.file("profile") + " --dump-dom file://" + page + " >" + folder.file("dom") + " 2>" +
        folder.file("log");
    ASSERT_EQ(std::system(command.c_str()), 0) << read_file(folder.file("log"));
    const std::string dom = read_file(folder.file("dom"));
    EXPECT_EQ(read_file(folder.file("log")).find("CONSOLE"), std::string::npos)
        << read_file(folder.file("log"));
    EXPECT_NE(dom.find("data-empty=\"\""), std::string::npos) << dom.substr(0, 300);
    EXPECT_EQ(dom.find("data-pictures=\"0\""), std::string::npos);
    EXPECT_NE(dom.find("data-pictures=\""), std::string::npos);
}

TEST(InspectPageInBrowser, OpensTheReportOfARun) {
    const ScratchFolder folder;
    const CommandResult made =
        run_command("inspect " + tiny_run() + " --html " + folder.file("page.html"));
    ASSERT_EQ(made.exit_code, 0) << made.err;
    expect_opens(folder.file("page.html"));
}

TEST(InspectPageInBrowser, OpensTheReportOfCompiledKernels) {
    const ScratchFolder folder;
    folder.write("a.bits", "100\n110\n011\n");
    const CommandResult compiled = run_command("compile --pattern " + folder.file("a.bits") +
                                               " --block 16 --length 48 --head-dim 16 --dtype fp32 "
                                               "--target host --emit all -o " +
                                               folder.file("kernels"));
    ASSERT_EQ(compiled.exit_code, 0) << compiled.err;
    const CommandResult made =
        run_command("inspect " + folder.file("kernels") + " --html " + folder.file("page.html"));
    ASSERT_EQ(made.exit_code, 0) << made.err;
    expect_opens(folder.file("page.html"));
}

// Two seeds of a second each, so that there are an error bar and curves.
TEST(SweepPageInBrowser, OpensWithItsPictures) {
    const ScratchFolder folder;
    folder.write("sweep.toml",
                 "arms = ['dense', 'cf']\nseeds = [0, 1]\n[settings]\ndevice = 'cpu'\nlength = 64\n"
                 "min-length = 10\nmax-length = 60\nlayers = 1\nheads = 1\nhead-dim = 16\n"
                 "d-model = 16\nfeed-forward = 16\nbatch = 4\nblock = 16\ntrain-samples = 50\n"
                 "validation-samples = 5\ntest-samples = 20\nwarmup = 2\nsteps = 30\n"
                 "eval-every = 10\ntransition-step = 10\nquantile = 0.8\n");
    const CommandResult made =
        run_command("sweep " + folder.file("sweep.toml") + " --out " + folder.file("sweep"));
    ASSERT_EQ(made.exit_code, 0) << made.err;
    expect_opens(folder.file("sweep/page.html"));
    EXPECT_NE(made.out.find(folder.file("sweep/page.html")), std::string::npos) << made.out;
}

}  // namespace
}  // namespace spion
