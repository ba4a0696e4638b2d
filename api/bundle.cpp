// Bundles: kernels compiled here for devices elsewhere.
#include <string>
#include <vector>

#include "api/context.h"
#include "compiler/make_bundle.h"
#include "runtime/bundle.h"

namespace spion::api {
namespace {

std::string check_all(const std::string& path) {
    const Bundle bundle = Bundle::open(path);
    std::string text = fmt::format("format {}, written by spion {}: {}\n", kBundleFormat,
                                   bundle.spion_version(), bundle.targets());
    for (const BundledKernel& kernel : bundle.kernels()) {
        const KernelBinary binary = bundle.read(kernel);
        text += fmt::format("{} for {}: {} bytes, {}\n", kernel.name, kernel.arch,
                            binary.code.size(), kernel.compiler);
    }
    return text;
}

}  // namespace
}  // namespace spion::api

extern "C" {

using spion::api::element;
using spion::api::guarded;
using spion::api::present;

int32_t spion_bundle_write(const spion_attention* attentions, const spion_plan_options* options,
                           size_t count, const char* const* targets, size_t target_count,
                           const char* path) noexcept {
    return guarded([&] {
        std::vector<spion::PlanRequest> requests;
        for (size_t i = 0; i < count; ++i) {
            requests.push_back(spion::api::plan_request(element(attentions, i, "attentions"),
                                                        element(options, i, nullptr)));
        }
        std::vector<std::string> names;
        for (size_t i = 0; i < target_count; ++i) {
            names.emplace_back(&present((&present(targets, "targets"))[i], "a target"));
        }
        spion::make_bundle(requests, names, &present(path, "path"), spion_version());
    });
}

int32_t spion_bundle_check(const char* path, spion_blob** text) noexcept {
    return guarded([&] {
        std::string lines = spion::api::check_all(&present(path, "path"));
        if (text != nullptr) {
            *text = spion::api::make_blob(std::move(lines));
        }
    });
}

}  // extern "C"
