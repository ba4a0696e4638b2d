#include "ir/target.h"

#include "ir/error.h"

namespace spion {
namespace {

struct KnownGpu {
    int compute_capability;
    const char* arch;
    int processors;  // of the largest common part: A100, A40, L40S, H200, B200, RTX 5090
    int shared_kib;  // opt-in maximum of a thread block
};

constexpr KnownGpu kKnownGpus[] = {
    {.compute_capability = 80, .arch = "sm_80", .processors = 108, .shared_kib = 163},
    {.compute_capability = 86, .arch = "sm_86", .processors = 84, .shared_kib = 99},
    {.compute_capability = 89, .arch = "sm_89", .processors = 142, .shared_kib = 99},
    {.compute_capability = 90, .arch = "sm_90a", .processors = 132, .shared_kib = 227},
    {.compute_capability = 100, .arch = "sm_100", .processors = 148, .shared_kib = 227},
    {.compute_capability = 120, .arch = "sm_120", .processors = 170, .shared_kib = 99},
};

}  // namespace

Target cuda_target(int compute_capability) {
    for (const KnownGpu& gpu : kKnownGpus) {
        if (gpu.compute_capability == compute_capability) {
            return Target{
                .back_end = BackEnd::kCuda,
                .arch = gpu.arch,
                .features = "",
                .compute_capability = compute_capability,
                .processors = gpu.processors,
                .shared_bytes_per_block = gpu.shared_kib * 1024,
            };
        }
    }
    throw UserError("compute capability {} is not known: use 80, 86, 89, 90, 100 or 120",
                    compute_capability);
}

}  // namespace spion
