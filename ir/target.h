// What a device offers to the compiler. A plain description: tests make their own, no device
// needed.
#pragma once

#include <string>

namespace spion {

enum class BackEnd { kCuda, kHost };

struct Target {
    BackEnd back_end = BackEnd::kHost;
    std::string arch;                // "sm_90a" (what NVRTC gets) or the CPU's LLVM name ("znver4")
    std::string features;            // host: LLVM feature string ("+avx2,+fma,..."); CUDA: empty
    int compute_capability = 0;      // CUDA: 80, 86, 89, 90, 100, 120; host: 0
    int processors = 1;              // SMs, or worker threads
    int shared_bytes_per_block = 0;  // CUDA: opt-in dynamic maximum
    int vector_floats = 8;           // host: fp32 lanes of a vector register (8 AVX2, 16 AVX-512)
};

// Targets for sm_80, 86, 89, 90, 100 and 120 with the published limits; `arch` is sm_90a for 90,
// else sm_XY. Throws UserError that lists the known ones.
Target cuda_target(int compute_capability);

}  // namespace spion
