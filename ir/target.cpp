#include "ir/target.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "ir/error.h"

namespace spion {
namespace {

constexpr double kMega = 1e6;
constexpr int kKilo = 1024;

// What the parts differ in; the rest is in rates_of_gpu.
struct KnownGpu {
    int compute_capability;
    const char* arch;
    int sm_count;    // of the largest common part, named beside it
    int shared_kib;  // opt-in maximum of a thread block; an SM has 1 KiB more
    double clock;    // the fields of Rates from here on
    double memory_bytes;
    double cache_bytes;
    double cache_capacity;
    double tensor16_flop;  // tensor32_flop is half of it
    double wgmma_flop = 0;
    double vector_flop;
    int resident_threads;
    int resident_blocks;
    GpuFeatures features = {};
};

// Clocks are the boost clocks of the parts. Memory: 0.9 of the published bandwidth, which is what
// copies reach. Products: the published dense rate with fp32 accumulation, divided by SMs
// and clock. Residency, exponentials and shared memory: the tables of the CUDA programming guide.
// 90 is measured on an H200: copies, bulk reads from L2, ex2.approx, and mma.sync at 62 % of the
// rate that its data sheet gives for wgmma. Where nothing is published, estimates: mma.sync of 100
// as Ampere's, and the L2 bandwidths, 80's from its published width.
constexpr KnownGpu kKnownGpus[] = {
    // A100 80 GB: 1.41 GHz, 2.04 TB/s, 312 TFLOP/s bf16, 156 tf32, 19.5 fp32; L2 5120 bytes a clock
    {.compute_capability = 80,
     .arch = "sm_80",
     .sm_count = 108,
     .shared_kib = 163,
     .clock = 1.41e9,
     .memory_bytes = 1.84e12,
     .cache_bytes = 4.8e12,
     .cache_capacity = 40 * kMega,
     .tensor16_flop = 2048,
     .vector_flop = 128,
     .resident_threads = 2048,
     .resident_blocks = 32},
    // A40: 1.74 GHz, 696 GB/s, 150 TFLOP/s bf16, 75 tf32, 37.4 fp32
    {.compute_capability = 86,
     .arch = "sm_86",
     .sm_count = 84,
     .shared_kib = 99,
     .clock = 1.74e9,
     .memory_bytes = 0.63e12,
     .cache_bytes = 1.9e12,
     .cache_capacity = 6 * kMega,
     .tensor16_flop = 1024,
     .vector_flop = 256,
     .resident_threads = 1536,
     .resident_blocks = 16},
    // L40S: 2.52 GHz, 864 GB/s, 362 TFLOP/s bf16, 183 tf32, 91.6 fp32
    {.compute_capability = 89,
     .arch = "sm_89",
     .sm_count = 142,
     .shared_kib = 99,
     .clock = 2.52e9,
     .memory_bytes = 0.78e12,
     .cache_bytes = 4.5e12,
     .cache_capacity = 96 * kMega,
     .tensor16_flop = 1024,
     .vector_flop = 256,
     .resident_threads = 1536,
     .resident_blocks = 24},
    // H200, measured: 1.98 GHz, 4.3 TB/s copy, 9.0 TB/s from L2, 4.17e12 ex2.approx a second
    {.compute_capability = 90,
     .arch = "sm_90a",
     .sm_count = 132,
     .shared_kib = 227,
     .clock = 1.98e9,
     .memory_bytes = 4.3e12,
     .cache_bytes = 9.0e12,
     .cache_capacity = 50 * kMega,
     .tensor16_flop = 2540,
     .wgmma_flop = 4096,
     .vector_flop = 256,
     .resident_threads = 2048,
     .resident_blocks = 32,
     .features = {.tma = true, .wgmma = true}},
    // B200: 1.97 GHz, 8 TB/s, 80 TFLOP/s fp32
    {.compute_capability = 100,
     .arch = "sm_100",
     .sm_count = 148,
     .shared_kib = 227,
     .clock = 1.97e9,
     .memory_bytes = 7.2e12,
     .cache_bytes = 10e12,
     .cache_capacity = 126 * kMega,
     .tensor16_flop = 2048,
     .vector_flop = 256,
     .resident_threads = 2048,
     .resident_blocks = 32},
    // RTX 5090: 2.41 GHz, 1.79 TB/s, 210 TFLOP/s bf16, 105 tf32, 105 fp32
    {.compute_capability = 120,
     .arch = "sm_120",
     .sm_count = 170,
     .shared_kib = 99,
     .clock = 2.41e9,
     .memory_bytes = 1.61e12,
     .cache_bytes = 6e12,
     .cache_capacity = 96 * kMega,
     .tensor16_flop = 512,
     .vector_flop = 256,
     .resident_threads = 1536,
     .resident_blocks = 24},
};

// Cards of one architecture. published_bytes: the data sheet's bandwidth, by which they are told
// apart.
struct KnownCard {
    const char* name;
    int compute_capability;
    double published_bytes;
    Card card;
};

constexpr KnownCard kKnownCards[] = {
    // Of an H100, SXM, nine tenths of the published bandwidth.
    {.name = "h100",
     .compute_capability = 90,
     .published_bytes = 3.35e12,
     .card = {.clock = 1.98e9, .memory_bytes = 3.0e12, .cache_capacity = 50 * kMega}},
    // The card that kKnownGpus' 90 was measured on.
    {.name = "h200", .compute_capability = 90, .published_bytes = 4.8e12, .card = {}},
};

// `own` where the card says it, else what is known.
double known_or(double own, double known) {
    return own > 0 ? own : known;
}

Rates rates_of_gpu(const KnownGpu& gpu, const Card& card) {
    return {.clock = known_or(card.clock, gpu.clock),
            .memory_bytes = known_or(card.memory_bytes, gpu.memory_bytes),
            .cache_bytes = gpu.cache_bytes,
            .cache_capacity = known_or(card.cache_capacity, gpu.cache_capacity),
            .tensor16_flop = gpu.tensor16_flop,
            .wgmma_flop = gpu.wgmma_flop,
            .tensor32_flop = gpu.tensor16_flop / 2,
            .vector_flop = gpu.vector_flop,
            .exponentials = 16,
            .shared_bytes = 128,
            .registers = 65536,
            .resident_shared = (gpu.shared_kib + 1) * kKilo,
            .resident_threads = gpu.resident_threads,
            .resident_blocks = gpu.resident_blocks,
            .launch_seconds = 1.5e-6};
}

// A core of 2.5 GHz with two vector units, whose exponential is a polynomial of about a dozen
// operations; 10 GB/s of memory bandwidth a core until 8 of them use all that there is. Caches are
// taken together: what is read again comes from a core's own.
Rates host_rates(const Target& target) {
    const double lanes = target.vector_floats;
    const double cores = target.sm_count;
    constexpr double kClock = 2.5e9;
    return {.clock = kClock,
            .memory_bytes = 10e9 * std::min(cores, 8.0),
            .cache_bytes = 4 * lanes * kClock * cores,
            .cache_capacity = 1 * kMega * cores,
            .vector_flop = 4 * lanes,
            .exponentials = lanes / 6,
            .shared_bytes = 8 * lanes,
            .resident_threads = 1,
            .resident_blocks = 1,
            .launch_seconds = 5e-6};
}

}  // namespace

Rates rates_of(const Target& target) {
    if (target.back_end == BackEnd::kHost) {
        return host_rates(target);
    }
    const KnownGpu* nearest = kKnownGpus;
    for (const KnownGpu& gpu : kKnownGpus) {
        if (gpu.compute_capability <= target.compute_capability) {
            nearest = &gpu;
        }
    }
    return rates_of_gpu(*nearest, target.card);
}

std::string arch_of(int compute_capability) {
    for (const KnownGpu& gpu : kKnownGpus) {
        if (gpu.compute_capability == compute_capability) {
            return gpu.arch;
        }
    }
    return fmt::format("sm_{}", compute_capability);
}

const std::vector<std::string>& gpu_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const KnownGpu& gpu : kKnownGpus) {
            if (gpu.features != GpuFeatures{}) {
                all.push_back(without_features(cuda_target(gpu.compute_capability)).arch);
            }
            all.emplace_back(gpu.arch);
        }
        return all;
    }();
    return names;
}

Target gpu_target(std::string_view name) {
    for (const KnownGpu& gpu : kKnownGpus) {
        const Target target = cuda_target(gpu.compute_capability);
        if (target.arch == name) {
            return target;
        }
        if (without_features(target).arch == name) {
            return without_features(target);
        }
    }
    throw UserError("GPU '{}' is not known: use one of {}", name, fmt::join(gpu_names(), ", "));
}

GpuFeatures features_of(std::string_view arch) {
    for (const KnownGpu& gpu : kKnownGpus) {
        if (gpu.arch == arch) {
            return gpu.features;
        }
    }
    return {};
}

Target without_features(Target target) {
    target.arch = fmt::format("sm_{}", target.compute_capability);
    target.gpu = {};
    return target;
}

const std::vector<std::string>& card_names() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> all;
        for (const KnownCard& known : kKnownCards) {
            all.emplace_back(known.name);
        }
        return all;
    }();
    return names;
}

Card card_named(std::string_view name, const Target& target) {
    for (const KnownCard& known : kKnownCards) {
        if (known.name != name) {
            continue;
        }
        if (known.compute_capability != target.compute_capability) {
            throw UserError("card {} is no {}: give it with target sm_{}a", name, target.arch,
                            known.compute_capability);
        }
        return known.card;
    }
    throw UserError("card '{}' is not known: use {}", name, fmt::join(card_names(), " or "));
}

Card card_of(int compute_capability, const CardAttributes& attributes) {
    constexpr double kSame = 0.05;          // drivers and data sheets round clocks
    constexpr double kCopiesReach = 0.9;    // of the memory's bandwidth
    constexpr double kTransfersAClock = 2;  // double data rate
    const double bandwidth =
        kTransfersAClock * 1e3 * attributes.memory_clock_khz * attributes.memory_bus_bits / 8;
    for (const KnownCard& known : kKnownCards) {
        if (known.compute_capability == compute_capability &&
            std::abs(bandwidth / known.published_bytes - 1) < kSame) {
            return known.card;
        }
    }
    return {.clock = 1e3 * attributes.clock_khz,
            .memory_bytes = kCopiesReach * bandwidth,
            .cache_capacity = static_cast<double>(attributes.l2_bytes)};
}

Target cuda_target(int compute_capability) {
    for (const KnownGpu& gpu : kKnownGpus) {
        if (gpu.compute_capability == compute_capability) {
            return Target{
                .back_end = BackEnd::kCuda,
                .arch = gpu.arch,
                .features = "",
                .compute_capability = compute_capability,
                .sm_count = gpu.sm_count,
                .shared_bytes_per_block = gpu.shared_kib * kKilo,
                .gpu = gpu.features,
            };
        }
    }
    throw UserError("compute capability {} is not known: use 80, 86, 89, 90, 100 or 120",
                    compute_capability);
}

}  // namespace spion
