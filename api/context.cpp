#include "api/context.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "compiler/in_parallel.h"
#include "runtime/forks.h"
#ifdef SPION_CUDA_BACKEND
#include "runtime/cuda/cuda_device.h"
#endif
#ifdef SPION_HOST_BACKEND
#include "runtime/host/host_device.h"
#endif

namespace spion::api {
namespace {

std::unique_ptr<Device> open_device([[maybe_unused]] const spion_context_options& options) {
    switch (options.device) {
        case SPION_HOST:
#ifdef SPION_HOST_BACKEND
            return make_host_device(options.threads);
#else
            throw UserError(
                "a context of the host was asked for, and this spion is built without the host "
                "back end: ask for SPION_CUDA, or build it with -DSPION_HOST_BACKEND=ON");
#endif
        case SPION_CUDA:
#ifdef SPION_CUDA_BACKEND
            return std::make_unique<CudaDevice>(options.ordinal, CudaDevice::Compiler::kOptional);
#else
            throw UserError(
                "a context of a GPU was asked for, and this spion is built without the CUDA back "
                "end: ask for SPION_HOST, or build it with -DSPION_CUDA_BACKEND=ON");
#endif
        default:
            throw UserError("device kind {} is not known: use SPION_HOST or SPION_CUDA",
                            options.device);
    }
}

CacheFolders cache_of(const spion_context_options& options, const KernelCache::Log& log) {
    switch (options.cache) {
        case SPION_CACHE_DEFAULT:
            return KernelCache::checked_folders(log);
        case SPION_CACHE_MEMORY:
            return {};
        case SPION_CACHE_FOLDER: {
            const std::filesystem::path root = &present(options.cache_folder, "cache_folder");
            if (const auto reason = why_not_trusted(root)) {
                throw UserError(
                    "cache_folder names {}, which {}: what lies in it would be run; name a folder "
                    "of your own that only you may write, or set SPION_CACHE_TRUST=1",
                    root.string(), *reason);
            }
            const auto problem =
                options.frozen != 0 ? std::nullopt : KernelCache::problem_with(root);
            if (problem) {
                throw UserError(
                    "cache_folder names {}, which cannot be written ({}): give a folder that can, "
                    "or SPION_CACHE_MEMORY",
                    root.string(), *problem);
            }
            return {.kept = root};
        }
        default:
            throw UserError(
                "cache kind {} is not known: use SPION_CACHE_DEFAULT, SPION_CACHE_FOLDER or "
                "SPION_CACHE_MEMORY",
                options.cache);
    }
}

std::shared_ptr<const Bundle> open_bundle(const spion_context_options& options) {
    return options.bundle == nullptr ? nullptr
                                     : std::make_shared<const Bundle>(Bundle::open(options.bundle));
}

KernelCache::Log log_of(const spion_context_options& options) {
    return [log = Log{options.log, options.log_user}](bool warning, const std::string& line) {
        log(warning, line.c_str());
    };
}

std::unique_ptr<Device> open_and_tell(const spion_context_options& options) {
    const LogScope heard({options.log, options.log_user});
    return open_device(options);
}

void check_version(std::uint32_t given) {
    const std::uint32_t major = given >> 16, minor = given & 0xFFFFU;
    if (major != SPION_ABI_MAJOR || minor > SPION_ABI_MINOR) {
        throw UserError(
            "the program was built for the binary interface {}.{} and this library has {}.{}: set "
            "abi_version to SPION_ABI_VERSION, and build the program with this library's header or "
            "load the library of that header",
            major, minor, SPION_ABI_MAJOR, SPION_ABI_MINOR);
    }
}

std::string text_of(const PlanRequest& request) {
    return fmt::format("{} block={} max_blocks={} batch={} typical={}", to_text(request.attention),
                       request.block, request.max_blocks, request.batch,
                       request.typical ? request.typical->digest() : "");
}

}  // namespace

Context::Context(const spion_context_options& options)
    : log_{options.log, options.log_user},
      device_(open_and_tell(options)),
      cache_(std::make_unique<KernelCache>(cache_of(options, log_of(options)), open_bundle(options),
                                           log_of(options))),
      device_name_(device_->name()),
      forks_(forks()) {
    cache_->freeze(options.frozen != 0);
}

bool Context::of_this_process() const {
    return forks_ == forks();
}

void Context::check_process() const {
    if (!of_this_process()) {
        throw UserError(
            "the context was made before this process was forked, and neither its threads nor the "
            "driver come along: make the context after the fork");
    }
}

std::shared_ptr<const AttentionPlan> Context::plan(const PlanRequest& request, bool kept) {
    check_process();
    const LogScope heard(log_);
    const std::string text = text_of(request);
    std::shared_ptr<const AttentionPlan> plan;
    {
        const std::lock_guard lock(mutex_);
        plan = plans_[text].lock();
    }
    if (!plan) {
        plan = std::make_shared<const AttentionPlan>(make_plan(request, *device_, *cache_));
    }
    const std::lock_guard lock(mutex_);
    plans_[text] = plan;
    if (kept) {
        kept_.push_back(plan);
    }
    return plan;
}

}  // namespace spion::api

extern "C" {

using spion::api::guarded;
using spion::api::present;
using spion::api::read_struct;

int32_t spion_context_create(const spion_context_options* options,
                             spion_context** context) noexcept {
    return guarded([&] {
        spion_context*& out = present(context, "context");
        out = nullptr;
        const spion_context_options read = read_struct(options, "spion_context_options");
        spion::api::check_version(read.abi_version);
        out = new spion_context{std::make_shared<spion::api::Context>(read)};
    });
}

void spion_context_release(spion_context* context) noexcept {
    if (context != nullptr && !context->state->of_this_process()) {
        return;  // its threads and its driver are the parent's
    }
    delete context;
}

const char* spion_context_device(const spion_context* context) noexcept {
    return context == nullptr ? "" : context->state->device_name().c_str();
}

const char* spion_context_target(const spion_context* context) noexcept {
    return context == nullptr ? "" : context->state->device().target().arch.c_str();
}

int32_t spion_context_freeze(spion_context* context, int32_t frozen) noexcept {
    return guarded([&] { present(context, "context").state->cache().freeze(frozen != 0); });
}

int32_t spion_context_counters(const spion_context* context, spion_counters* counters) noexcept {
    return guarded([&] {
        const auto seen = present(context, "context").state->cache().counters();
        spion::api::write_struct(counters,
                                 {.size = 0,
                                  .compiled = seen.compiled,
                                  .from_disk = seen.from_disk,
                                  .from_bundle = seen.from_bundle,
                                  .from_memory = seen.from_memory},
                                 "spion_counters");
    });
}

int32_t spion_context_warm_up(spion_context* context, const spion_attention* attentions,
                              const spion_plan_options* options, size_t count) noexcept {
    return guarded([&] {
        spion::api::Context& state = *present(context, "context").state;
        std::vector<spion::PlanRequest> requests;
        for (size_t i = 0; i < count; ++i) {
            requests.push_back(
                spion::api::plan_request(spion::api::element(attentions, i, "attentions"),
                                         spion::api::element(options, i, nullptr)));
        }
        const spion::api::LogScope heard(state.log());
        spion::in_parallel(count, [&](size_t i) { state.plan(requests[i], true); });
    });
}

}  // extern "C"
