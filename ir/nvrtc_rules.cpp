#include "ir/nvrtc_rules.h"

#include <fmt/format.h>

namespace spion {
namespace {

struct Rule {
    CompilerRelease first, last;  // of those that refuse
    bool (*covers)(const KernelKind& kind);
    const char* fault;
    CompilerRelease good;
};

constexpr Rule kRules[] = {
    {.first = {12, 5},
     .last = {12, 5},
     .covers =
         [](const KernelKind& kind) {
             return kind.unit == MatrixUnit::kWgmma && kind.role == KernelRole::kKeyValueGradient;
         },
     .fault = "runs the products of wgmma kernels of dK and dV one after the other",
     .good = {12, 6}},
    {.first = {12, 5},
     .last = {12, 5},
     .covers =
         [](const KernelKind& kind) {
             return kind.unit == MatrixUnit::kWgmma &&
                    (kind.role == KernelRole::kForward ||
                     kind.role == KernelRole::kQueryGradient) &&
                    !kind.packed && kind.dropout && kind.spans;
         },
     .fault =
         "runs the products of wgmma kernels of the forward pass and of dQ one after the other "
         "where there is dropout under a mask of spans",
     .good = {12, 6}},
    {.first = {12, 5},
     .last = {12, 5},
     .covers =
         [](const KernelKind& kind) {
             return kind.unit == MatrixUnit::kWgmma && kind.role == KernelRole::kGradients;
         },
     .fault = "runs the products of the fused backward one after the other",
     .good = {12, 6}},
    {.first = {12, 5},
     .last = {12, 5},
     .covers =
         [](const KernelKind& kind) {
             return kind.unit == MatrixUnit::kWgmma && kind.role == KernelRole::kForward &&
                    kind.head_dim == 32 && kind.stationary_rows >= 128;
         },
     .fault =
         "runs the products of wgmma kernels of the forward pass one after the other where tiles "
         "of full patterns have D=32 and 128 rows or more",
     .good = {12, 6}},
    {.first = kOldestNvrtc,
     .last = {12, 9},
     .covers =
         [](const KernelKind& kind) {
             return kind.unit == MatrixUnit::kWgmma && kind.role == KernelRole::kKeyValueGradient &&
                    kind.head_dim == 64 && kind.streamed_rows >= 128 && kind.packed;
         },
     .fault =
         "spills registers of packed wgmma kernels of dK and dV with D=64 and 128 streamed rows",
     .good = {13, 0}},
    {.first = {12, 8},
     .last = {12, 8},
     .covers =
         [](const KernelKind& kind) {
             return kind.compute_capability == 100 && kind.unit == MatrixUnit::kMmaSync &&
                    kind.role == KernelRole::kForward && kind.head_dim == 16 &&
                    kind.streamed_rows >= 64;
         },
     .fault =
         "spills registers of mma.sync kernels of the forward pass for sm_100 with D=16 and 64 "
         "streamed rows or more",
     .good = {12, 9}},
};

bool refuses(const CompilerRelease& release, const Rule& rule) {
    return release >= rule.first && release <= rule.last;
}

std::string clause(const CompilerRelease& release, const Rule& rule) {
    return fmt::format("NVRTC {} {}, and {} does not", to_text(release), rule.fault,
                       to_text(rule.good));
}

}  // namespace

std::string to_text(const CompilerRelease& release) {
    return fmt::format("{}.{}", release.major, release.minor);
}

CompilerRelease oldest_nvrtc_for(int compute_capability) {
    switch (compute_capability) {
        case 80:
        case 86:
        case 87:
        case 89:
        case 90:
            return kOldestNvrtc;
        case 100:
        case 120:
            return {.major = 12, .minor = 8};
        case 103:
        case 121:
            return {.major = 12, .minor = 9};
        default:
            return kNewestNvrtc;
    }
}

std::string why_nvrtc_refuses(const CompilerRelease& release, const KernelKind& kind) {
    for (const Rule& rule : kRules) {
        if (refuses(release, rule) && rule.covers(kind)) {
            return clause(release, rule);
        }
    }
    return "";
}

std::vector<std::string> nvrtc_refusals(const CompilerRelease& release) {
    std::vector<std::string> clauses;
    for (const Rule& rule : kRules) {
        if (refuses(release, rule)) {
            clauses.push_back(clause(release, rule));
        }
    }
    return clauses;
}

int more_producer_registers(const CompilerRelease& release, const KernelKind& kind) {
    // ptxas of both counts more for the producer of forward and dQ, which has the fewest.
    const bool generous = release >= CompilerRelease{12, 5} && release <= CompilerRelease{12, 6};
    const bool fewest =
        kind.role == KernelRole::kForward || kind.role == KernelRole::kQueryGradient;
    return !generous || !fewest || kind.unit != MatrixUnit::kWgmma ? 0 : kind.packed ? 16 : 8;
}

}  // namespace spion
