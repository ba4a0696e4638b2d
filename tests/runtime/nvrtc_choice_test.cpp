// Which of several NVRTCs is taken; none of them need be here.
#include "runtime/cuda/nvrtc_choice.h"

#include <gtest/gtest.h>

namespace spion {
namespace {

const FoundNvrtc kOld{.path = "/a", .release = {12, 3}, .capabilities = {80, 90}};
const FoundNvrtc kTwelve{.path = "/b", .release = {12, 4}, .capabilities = {80, 90}};
const FoundNvrtc kTwelveNine{.path = "/c", .release = {12, 9}, .capabilities = {80, 90, 120}};
const FoundNvrtc kThirteen{.path = "/d", .release = {13, 0}, .capabilities = {80, 90, 120}};

TEST(NvrtcChoice, TakesTheNewestThatKnowsTheTarget) {
    const std::vector<FoundNvrtc> found{kTwelve, kThirteen, kOld, kTwelveNine};
    EXPECT_EQ(choose_nvrtc(found, 90, {}).taken, 1U);
    EXPECT_EQ(choose_nvrtc(found, 0, {}).taken, 1U);
    FoundNvrtc without = kThirteen;
    without.capabilities = {90};
    EXPECT_EQ(choose_nvrtc({kTwelve, without, kTwelveNine}, 120, {}).taken, 2U);
    EXPECT_EQ(choose_nvrtc({kTwelve, without, kTwelveNine}, 90, {}).taken, 1U);
    EXPECT_EQ(choose_nvrtc({kTwelve, kTwelve}, 90, {}).taken, 0U);  // in the order of the search
}

TEST(NvrtcChoice, KeepsToWhatTheDriverLoads) {
    const std::vector<FoundNvrtc> found{kThirteen, kTwelve, kTwelveNine};
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{13, 0}).taken, 0U);
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{13, 2}).taken, 0U);
    // Within 12.x a driver loads what newer releases have made.
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{12, 2}).taken, 2U);
    // Files can be made all the same where none is loaded.
    const NvrtcChoice choice = choose_nvrtc({kThirteen}, 90, CompilerRelease{12, 8});
    EXPECT_EQ(choice.taken, 0U);
    EXPECT_EQ(choice.problem, "");
    EXPECT_EQ(choice.driver_problem,
              "the driver loads kernels of CUDA up to 12.x, and NVRTC 13.0 at /d is the best that "
              "was found: install an NVRTC of CUDA 12 (Python's package nvidia-cuda-nvrtc-cu12), "
              "or a newer driver");
    EXPECT_EQ(choose_nvrtc(found, 90, CompilerRelease{12, 2}).driver_problem, "");
    // To know the target comes first.
    EXPECT_EQ(choose_nvrtc({kTwelve, kThirteen}, 120, CompilerRelease{12, 8}).taken, 1U);
}

TEST(NvrtcChoice, SaysWhyNoneIsTaken) {
    const auto problem = [](const std::vector<FoundNvrtc>& found, int capability) {
        const NvrtcChoice choice = choose_nvrtc(found, capability, {});
        EXPECT_FALSE(choice.taken);
        return choice.problem;
    };
    const std::string remedy = nvrtc_remedy();
    EXPECT_NE(remedy.find("install NVRTC 12.4 or later"), std::string::npos) << remedy;
    EXPECT_NE(remedy.find("SPION_NVRTC_LIBRARY"), std::string::npos) << remedy;
    EXPECT_EQ(problem({}, 90), "no NVRTC was found; " + remedy);
    EXPECT_EQ(problem({kOld}, 90),
              "NVRTC 12.3 at /a is too old, for the oldest release that works is 12.4: " + remedy);
    EXPECT_EQ(problem({kOld, kTwelve}, 120),
              "NVRTC 12.4 at /b does not compile for sm_120, only for sm_80, sm_90: " +
                  nvrtc_remedy({12, 8}));
    EXPECT_NE(nvrtc_remedy({12, 8}).find("install NVRTC 12.8 or later"), std::string::npos);
    FoundNvrtc old_that_knows = kOld;
    old_that_knows.capabilities.push_back(120);
    EXPECT_NE(problem({old_that_knows, kTwelve}, 120).find("sm_120"), std::string::npos);
}

}  // namespace
}  // namespace spion
