// What a spion_context is behind the border.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/border.h"
#include "api/log.h"
#include "compiler/attention_plan.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion::api {

// Shared by its handle, its plans and its discoverers. Thread-safe.
class Context {
  public:
    // Opens device, cache and bundle. Throws what these throw.
    explicit Context(const spion_context_options& options);

    Device& device() const { return *device_; }
    KernelCache& cache() const { return *cache_; }
    const std::string& device_name() const { return device_name_; }
    const Log& log() const { return log_; }

    // Throws UserError in a process that was forked from the one that made the context: neither
    // threads nor the GPU's driver come along.
    void check_process() const;
    bool of_this_process() const;

    // An equal plan that is alive, or a new one. kept: until the context goes.
    std::shared_ptr<const AttentionPlan> plan(const PlanRequest& request, bool kept = false);

  private:
    Log log_;
    std::unique_ptr<Device> device_;
    std::unique_ptr<KernelCache> cache_;
    std::string device_name_;
    unsigned forks_;
    std::mutex mutex_;  // guards what follows; never held while something is compiled or launched
    std::map<std::string, std::weak_ptr<const AttentionPlan>> plans_;  // by their request's text
    std::vector<std::shared_ptr<const AttentionPlan>> kept_;
};

// The plan's request as the C structs say it. Throws UserError for what is not there.
PlanRequest plan_request(const spion_attention* attention, const spion_plan_options* options);

}  // namespace spion::api

struct spion_context {
    std::shared_ptr<spion::api::Context> state;
};

struct spion_pattern {
    spion::HeadPatterns patterns;
};
