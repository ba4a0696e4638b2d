// Plans for targets elsewhere, compiled into a bundle (runtime/bundle.h).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "compiler/attention_plan.h"

namespace spion {

struct BundledPlan {
    std::string target;  // as target_named() takes it
    PlanRequest request;
};

// Compiles every plan's kernels. Throws UserError when there is nothing to compile or `path` exists,
// and what target_named, plan_programs and the compilers throw.
void make_bundle(std::span<const BundledPlan> plans, const std::filesystem::path& path,
                 std::string_view spion_version);

// Opens the bundle and reads every kernel. Text: a line for the bundle, a line a kernel. Throws as
// Bundle does for what is damaged.
std::string check_bundle(const std::filesystem::path& path);

}  // namespace spion
