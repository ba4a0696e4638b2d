// What a device offers to the compiler. A plain description: tests make their own, no device
// needed.
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

enum class BackEnd { kCuda, kHost };

// A compiler's release: 12.9. Which kernels one makes well decides which ones are chosen.
struct CompilerRelease {
    int major = 0;
    int minor = 0;
    friend auto operator<=>(const CompilerRelease&, const CompilerRelease&) = default;  // NOLINT
};
// The newest NVRTC that the kernels are tested with, and what plans made without one assume.
constexpr CompilerRelease kNewestNvrtc{.major = 13, .minor = 5};

// What some GPUs have and kernels may use, beyond what all have since sm_80 (mma.sync, cp.async).
struct GpuFeatures {
    bool tma = false;    // cp.async.bulk.tensor with mbarriers
    bool wgmma = false;  // wgmma.mma_async and setmaxnreg
    friend bool operator==(const GpuFeatures&, const GpuFeatures&) = default;
};

// What cards of one architecture differ in, beside the number of SMs. 0: as the card that
// rates_of() knows the architecture by, an H200 for 90.
struct Card {
    double clock = 0;           // Hz under load
    double memory_bytes = 0;    // a second: what copies reach
    double cache_capacity = 0;  // bytes of the L2 cache
    friend bool operator==(const Card&, const Card&) = default;
};

struct Target {
    BackEnd back_end = BackEnd::kHost;
    std::string arch;                // "sm_90a" (what NVRTC gets) or the CPU's LLVM name ("znver4")
    std::string features;            // host: LLVM feature string ("+avx2,+fma,..."); CUDA: empty
    int compute_capability = 0;      // CUDA: 80, 86, 89, 90, 100, 120; host: 0
    int sm_count = 1;                // SMs, or worker threads
    int shared_bytes_per_block = 0;  // CUDA: opt-in dynamic maximum
    int vector_floats = 8;           // host: fp32 lanes of a vector register (8 AVX2, 16 AVX-512)
    CompilerRelease compiler = kNewestNvrtc;  // CUDA: the NVRTC that makes the kernels
    GpuFeatures gpu = {};                     // CUDA
    Card card = {};                           // CUDA
};

// Targets for sm_80, 86, 89, 90, 100 and 120 with the published limits; `arch` is sm_90a for 90,
// else sm_XY; `compiler` is kNewestNvrtc. Throws UserError that lists the known ones.
Target cuda_target(int compute_capability);

// "sm_80", .., "sm_90", "sm_90a", ..: what gpu_target() takes, in the order of age.
const std::vector<std::string>& gpu_names();
// sm_90 is sm_90a without its features. Throws UserError that lists the names.
Target gpu_target(std::string_view name);

// What NVRTC gets for code that runs on this compute capability alone, where that has features of
// its own: "sm_90a"; else "sm_XY".
std::string arch_of(int compute_capability);

// What an `arch` has; nothing for one that is not known.
GpuFeatures features_of(std::string_view arch);

// The same GPU for code that runs on every GPU of its compute capability: sm_90 for sm_90a.
Target without_features(Target target);

// "h100", "h200": cards that a target can be planned for without one.
const std::vector<std::string>& card_names();
// Throws UserError that lists the names, or says that `target` is of another architecture.
Card card_named(std::string_view name, const Target& target);

// What the driver says of a card: clocks in kHz, the bus in bits; 0 for what it does not say.
struct CardAttributes {
    int clock_khz = 0;
    int memory_clock_khz = 0;
    int memory_bus_bits = 0;
    int l2_bytes = 0;
};
// A known card's figures, which are measured, where the memory's bandwidth is a known card's; else
// the attributes' own, of which copies reach nine tenths.
Card card_of(int compute_capability, const CardAttributes& attributes);

// How fast a target is, for the cost model (compiler/plan/cost_model.h): what a program reaches,
// not what a data sheet's headline adds up to. Per clock figures are those of one SM. flop:
// a multiply-add is 2.
struct Rates {
    double clock = 0;           // Hz under load
    double memory_bytes = 0;    // a second, reads and writes together (HBM, GDDR, DRAM)
    double cache_bytes = 0;     // a second, from the L2 cache to all SMs
    double cache_capacity = 0;  // bytes of the L2 cache
    double tensor16_flop = 0;   // a clock: bf16 and fp16 products of mma.sync
    double wgmma_flop = 0;      // a clock: bf16 and fp16 products of wgmma; 0: there is none
    double tensor32_flop = 0;   // a clock: tf32 products of mma.sync
    double vector_flop = 0;     // a clock: fp32 products of the vector units
    double exponentials = 0;    // a clock
    double shared_bytes = 0;    // a clock: from shared memory, or from the L1 cache of a host
    int registers = 0;          // 4-byte registers of an SM
    int resident_shared = 0;    // bytes of shared memory of an SM, for its resident blocks
    int resident_threads = 0;   // at once on an SM
    int resident_blocks = 0;    // thread blocks at once on an SM
    double launch_seconds = 0;  // what a launch costs when the next one is already queued
};

// Of a GPU, those of the nearest known compute capability that is not above the target's, less what
// its card has of its own; of the host, what its vector width and its number of threads allow.
Rates rates_of(const Target& target);

}  // namespace spion
