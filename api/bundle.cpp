// Bundles: kernels compiled here for devices elsewhere.
#include <string>
#include <utility>
#include <vector>

#include "api/context.h"
#include "compiler/make_bundle.h"

extern "C" {

using spion::api::element;
using spion::api::guarded;
using spion::api::present;

int32_t spion_bundle_write(const spion_attention* attentions, const spion_plan_options* options,
                           size_t count, const char* const* targets, size_t target_count,
                           const char* path) noexcept {
    return guarded([&] {
        std::vector<spion::BundledPlan> plans;
        for (size_t i = 0; i < count; ++i) {
            const spion::PlanRequest request = spion::api::plan_request(
                element(attentions, i, "attentions"), element(options, i, nullptr));
            for (size_t j = 0; j < target_count; ++j) {
                plans.push_back({&present((&present(targets, "targets"))[j], "a target"), request});
            }
        }
        spion::make_bundle(plans, &present(path, "path"), spion_version());
    });
}

int32_t spion_bundle_check(const char* path, spion_blob** text) noexcept {
    return guarded([&] {
        std::string lines = spion::check_bundle(&present(path, "path"));
        if (text != nullptr) {
            *text = spion::api::make_blob(std::move(lines));
        }
    });
}

}  // extern "C"
