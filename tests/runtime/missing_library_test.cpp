// Without NVRTC or cuBLASLt: a sentence that says where it was sought and how to mend it, never a loader error.
// A program of its own, because libraries are opened once a process.
#include <gtest/gtest.h>

#include <cstdlib>

#include "ir/error.h"
#include "runtime/cuda/cublas.h"
#include "runtime/cuda/nvrtc.h"
#include "runtime/cuda/shared_library.h"

namespace spion {
namespace {

TEST(MissingNvrtc, IsADeviceErrorWithARemedy) {
    setenv("SPION_NVRTC_LIBRARY", "/nonexistent/libnvrtc.so", 1);
    ASSERT_TRUE(nvrtc_problem().has_value());
    try {
        compile_with_nvrtc({.entry = "x",
                            .text = "",
                            .includes = {},
                            .arch = "sm_90a",
                            .features = "",
                            .options = {},
                            .compiler = ""});
        FAIL() << "compiled without a compiler";
    } catch (const DeviceError& error) {
        const std::string message = error.what();
        EXPECT_EQ(message, *nvrtc_problem());
        EXPECT_NE(message.find("/nonexistent/libnvrtc.so (not found)"), std::string::npos)
            << message;
        EXPECT_NE(message.find("set SPION_NVRTC_LIBRARY"), std::string::npos) << message;
    }
    EXPECT_THROW(nvrtc_version(), DeviceError);
    EXPECT_THROW(nvrtc_options(), DeviceError);
}

TEST(MissingCublas, IsADeviceErrorWithARemedy) {
    setenv("SPION_CUBLASLT_LIBRARY", "/nonexistent/libcublasLt.so", 1);
    ASSERT_TRUE(cublas_problem().has_value());
    for (const char* part : {"/nonexistent/libcublasLt.so (not found)", "nvidia-cublas",
                             "set SPION_CUBLASLT_LIBRARY", "cannot be opened"}) {
        EXPECT_NE(cublas_problem()->find(part), std::string::npos) << *cublas_problem();
    }
    EXPECT_THROW(cublas_path(), DeviceError);
    EXPECT_TRUE(cublas_libraries_found().empty());
}

TEST(SharedLibrary, OpensTheFirstThatCanBeAndKnowsItsIdentity) {
    const SharedLibrary library({"libnone-of-that-name.so", "libm.so.6"});
    ASSERT_TRUE(library.is_open());
    EXPECT_NE(library.path().find("/libm.so.6"), std::string::npos) << library.path();
    EXPECT_NE(library.symbol("cos"), nullptr);
    EXPECT_EQ(library.symbol("no_such_symbol"), nullptr);
    EXPECT_FALSE(library.identity().empty());
    EXPECT_NE(library.identity(), SharedLibrary({"libc.so.6"}).identity());
    EXPECT_EQ(library.identity(), SharedLibrary({"libm.so.6"}).identity());
    EXPECT_EQ(library.failures(), "libnone-of-that-name.so (not found)");
}

}  // namespace
}  // namespace spion
