#include "runtime/cuda/foreign.h"

#include "ir/error.h"

namespace spion {

using driver_abi::kSuccess;

const char* problem_with_foreign_memory(const driver_abi::Functions& cuda,
                                        driver_abi::Context context, driver_abi::Device device,
                                        const void* data) {
    int asked[] = {driver_abi::kPointerMemoryType, driver_abi::kPointerDeviceOrdinal,
                   driver_abi::kPointerContext};
    unsigned type = 0;
    int ordinal = 0;
    driver_abi::Context owner = nullptr;
    void* answers[] = {&type, &ordinal, &owner};
    if (cuda.cuPointerGetAttributes(3, asked, answers,
                                    reinterpret_cast<driver_abi::Pointer>(data)) != kSuccess) {
        return "";
    }
    if (type == 0) {
        return "is an address that CUDA does not know";
    }
    if (type != driver_abi::kMemoryOfDevice) {
        return "";
    }
    if (ordinal != device) {
        return "is memory of another GPU";
    }
    // Memory of a pool or of a mapping is of no context, and may be read by every one.
    return owner != nullptr && owner != context
               ? "is memory of another CUDA context than the GPU's primary one"
               : "";
}

void check_foreign_stream(const driver_abi::Functions& cuda, driver_abi::Context context,
                          driver_abi::Stream stream) {
    driver_abi::Context owner = nullptr;
    if (stream != nullptr && cuda.cuStreamGetCtx(stream, &owner) == kSuccess && owner != context) {
        throw UserError(
            "the stream is of another CUDA context than the GPU's primary one, which spion's "
            "kernels are in: pass a stream that was made while the primary context (CUDA's "
            "runtime, PyTorch) of this GPU was current");
    }
}

void read_in_order(const driver_abi::Functions& cuda, driver_abi::Context context,
                   driver_abi::Stream stream, void* host, const void* device, std::size_t bytes) {
    check_foreign_stream(cuda, context, stream);
    int capture = driver_abi::kStreamNotCaptured;
    check_driver(cuda.cuStreamIsCapturing(stream, &capture), "cuStreamIsCapturing");
    if (capture != driver_abi::kStreamNotCaptured) {
        throw UserError(
            "a call with SPION_CHECK waits for its stream, which is being captured in a graph: "
            "check a call before the capture, and capture calls without the flag");
    }
    check_driver(cuda.cuMemcpyDtoHAsync_v2(host, reinterpret_cast<driver_abi::Pointer>(device),
                                           bytes, stream),
                 "copying from the device");
    check_driver(cuda.cuStreamSynchronize(stream), "waiting for the stream");
}

}  // namespace spion
