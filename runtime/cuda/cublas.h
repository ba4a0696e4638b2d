// Matrix products on a GPU through cuBLASLt, opened when first needed.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda/driver_abi.h"
#include "runtime/device.h"

namespace spion {

// Why cuBLASLt cannot be used on this machine and how to mend it; nullopt when it can.
std::optional<std::string> cublas_problem();
// "13.1.0". Throws DeviceError with cublas_problem()'s sentence.
std::string cublas_version();
// The file that is taken. Throws as cublas_version().
std::string cublas_path();

// For people: "13.1 at /usr/local/cuda/lib64/libcublasLt.so.13", everything that was found, in the
// order in which it was sought. The newest that the driver runs is taken
// (runtime/cuda/cublas_choice.h).
std::vector<std::string> cublas_libraries_found();

// Scratch memory for partial sums. Fixed, because it decides which algorithms are eligible.
constexpr std::size_t kCublasWorkspaceBytes = std::size_t{32} << 20;

// Products on one stream of the current context. The algorithm is chosen once a shape, and partial
// sums of a split k are kept in fp32 and added in a fixed order: equal calls give equal bits.
class Cublas {
  public:
    // workspace: kCublasWorkspaceBytes on the device. Throws as cublas_version().
    Cublas(driver_abi::Stream stream, void* workspace);
    ~Cublas();

    // Device::gemm. Throws InternalError for a Gemm that breaks its description, DeviceError when
    // cuBLASLt refuses.
    void run(const Gemm& gemm);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// Throws InternalError naming the field if sizes, pitches, pointers or types break Gemm's
// description.
void check_cuda_gemm(const Gemm& gemm);

}  // namespace spion
