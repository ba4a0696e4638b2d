// A faulting kernel is named. A program of its own: afterwards the process has no usable GPU.
#include "ir/error.h"
#include "tests/runtime/gpu_fixture.h"

namespace spion {
namespace {

using CudaFaultTest = GpuTest;

TEST_F(CudaFaultTest, NamesTheKernel) {
    const auto trespass = kernel("trespass",
                                 "struct Arguments { float* x; };\n"
                                 "extern \"C\" __global__ void trespass(\n"
                                 "    const __grid_constant__ Arguments args) { *args.x = 1; }\n");
    float* nowhere = nullptr;
    device_->launch(*trespass, {.work_items = 1, .threads = 1, .shared_bytes = 0}, nowhere);
    try {
        device_->synchronize();
        FAIL() << "a write through a null pointer went unnoticed";
    } catch (const DeviceError& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find("CUDA_ERROR_ILLEGAL_ADDRESS"), std::string::npos) << message;
        EXPECT_NE(message.find("after launching trespass"), std::string::npos) << message;
    }
}

}  // namespace
}  // namespace spion
