// What a spion_plan is behind the border.
#pragma once

#include <memory>

#include "api/context.h"
#include "compiler/attention_plan.h"

namespace spion::api {

// Of workspaces: what malloc gives will do on the host.
constexpr std::size_t kHostAlignment = 16;
inline std::size_t workspace_alignment(const Device& device) {
    return device.target().back_end == BackEnd::kHost ? kHostAlignment
                                                      : WorkspaceLayout::kAlignment;
}

}  // namespace spion::api

struct spion_plan {
    std::shared_ptr<spion::api::Context> context;  // outlives the plan's kernels
    std::shared_ptr<const spion::AttentionPlan> plan;
    double milliseconds = 0;
};
