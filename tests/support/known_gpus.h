// The GPUs that ir/target.cpp has a row for, so that no test lists them once more.
#pragma once

#include <vector>

#include "ir/nvrtc_rules.h"
#include "ir/target.h"

namespace spion::test {

// Their compute capabilities, in the table's order: 80, 86, ..
inline const std::vector<int>& known_capabilities() {
    static const std::vector<int> known = [] {
        std::vector<int> all;
        for (const std::string& name : gpu_names()) {
            const int capability = gpu_target(name).compute_capability;
            if (all.empty() || all.back() != capability) {  // sm_90 stands beside sm_90a
                all.push_back(capability);
            }
        }
        return all;
    }();
    return known;
}

// Whether the GPU and its NVRTC have the fused backward.
inline bool has_fused_backward(const Target& target) {
    const KernelKind kind{.unit = MatrixUnit::kWgmma, .role = KernelRole::kGradients};
    return target.gpu.wgmma && why_nvrtc_refuses(target.compiler, kind).empty();
}

}  // namespace spion::test
