#include "ir/nvrtc_rules.h"

#include <fmt/format.h>

namespace spion {
namespace {

struct Rule {
    CompilerRelease last;  // of those that refuse, from kOldestNvrtc on
    KernelKind kind;
    const char* what;
    CompilerRelease first_good;
};

constexpr Rule kRules[] = {
    {.last = {12, 9},
     .kind = {.unit = MatrixUnit::kWgmma,
              .role = KernelRole::kKeyValueGradient,
              .head_dim = 64,
              .streamed_rows = 128,
              .packed = true},
     .what =
         "spills registers of packed wgmma kernels of dK and dV with D=64 and 128 streamed rows",
     .first_good = {13, 0}},
};

std::string clause(const CompilerRelease& release, const Rule& rule) {
    return fmt::format("NVRTC {} {}, and {} does not", to_text(release), rule.what,
                       to_text(rule.first_good));
}

bool covers(const KernelKind& rule, const KernelKind& kind) {
    return rule.unit == kind.unit && rule.role == kind.role && rule.head_dim == kind.head_dim &&
           rule.streamed_rows == kind.streamed_rows && rule.packed == kind.packed;
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
        if (release <= rule.last && covers(rule.kind, kind)) {
            return clause(release, rule);
        }
    }
    return "";
}

std::vector<std::string> nvrtc_refusals(const CompilerRelease& release) {
    std::vector<std::string> clauses;
    for (const Rule& rule : kRules) {
        if (release <= rule.last) {
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
