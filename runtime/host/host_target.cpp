#include "runtime/host/host_target.h"

#include <llvm/ADT/StringMap.h>
#include <llvm/Config/llvm-config.h>
#if LLVM_VERSION_MAJOR >= 17
#include <llvm/TargetParser/Host.h>
#else
#include <llvm/Support/Host.h>
#endif

#include <algorithm>
#include <fstream>
#include <map>

#include "ir/error.h"
#include "runtime/environment.h"
#include "runtime/threads.h"

namespace spion {
namespace {

// Sorted, so that the feature string, which is part of every cache key, is always the same.
std::map<std::string, bool> cpu_features() {
#if LLVM_VERSION_MAJOR >= 19
    const llvm::StringMap<bool> found = llvm::sys::getHostCPUFeatures();
#else
    llvm::StringMap<bool> found;
    llvm::sys::getHostCPUFeatures(found);
#endif
    std::map<std::string, bool> features;
    for (const auto& entry : found) {
        features[entry.getKey().str()] = entry.getValue();
    }
    return features;
}

// x86 features that bring registers wider than 256 bits, or than 128.
bool needs_wide_vectors(const std::string& feature, HostVectors vectors) {
    const bool above_avx2 = feature.starts_with("avx512") || feature.starts_with("avx10") ||
                            feature.starts_with("evex512") || feature.starts_with("amx");
    if (vectors == HostVectors::kAvx2) {
        return above_avx2;
    }
    return above_avx2 || feature.starts_with("avx") || feature == "fma" || feature == "fma4" ||
           feature == "f16c" || feature == "xop" || feature == "vaes" || feature == "vpclmulqdq";
}

}  // namespace

HostVectors parse_host_vectors(std::string_view name) {
    if (name.empty() || name == "best") {
        return HostVectors::kBest;
    }
    if (name == "avx2") {
        return HostVectors::kAvx2;
    }
    if (name == "sse") {
        return HostVectors::kSse;
    }
    throw UserError(
        "SPION_HOST_FEATURES is '{}', but must be best, avx2 or sse: unset it to use all that the "
        "CPU offers",
        name);
}

Target host_target(HostVectors vectors, int threads) {
    std::map<std::string, bool> features = cpu_features();
    std::string text;
    for (auto& [feature, present] : features) {
        if (vectors != HostVectors::kBest && needs_wide_vectors(feature, vectors)) {
            present = false;
        }
        fmt::format_to(std::back_inserter(text), "{}{}{}", text.empty() ? "" : ",",
                       present ? '+' : '-', feature);
    }
    const auto has = [&](const char* feature) {
        const auto found = features.find(feature);
        return found != features.end() && found->second;
    };
    const bool avx2 = has("avx2") && has("fma");
    return {.back_end = BackEnd::kHost,
            .arch = llvm::sys::getHostCPUName().str(),
            .features = text,
            .sm_count = threads,
            .vector_floats = avx2 && has("avx512f") ? 16
                             : avx2                 ? 8
                                                    : 4};
}

Target this_host_target(int threads) {
    const HostVectors vectors =
        parse_host_vectors(environment_value("SPION_HOST_FEATURES").value_or(""));
    return host_target(vectors, threads != 0 ? threads : thread_count());
}

std::string cpu_model() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        const std::size_t colon = line.find(": ");
        if (line.starts_with("model name") && colon != std::string::npos) {
            return line.substr(colon + 2);
        }
    }
    return llvm::sys::getHostCPUName().str();
}

}  // namespace spion
