// Plans for targets elsewhere, compiled into a bundle (runtime/bundle.h).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "compiler/attention_plan.h"

namespace spion {

// Compiles every request's kernels for every target, named as target_named() takes them. Throws
// UserError when there is nothing to compile or `path` exists, and what target_named, plan_programs
// and the compilers throw.
void make_bundle(std::span<const PlanRequest> requests, std::span<const std::string> targets,
                 const std::filesystem::path& path, std::string_view spion_version);

}  // namespace spion
