// Discovery: from a score map, from a pooled one, or from Q and K on the device.
#include <algorithm>
#include <span>
#include <vector>

#include "api/context.h"
#include "api/tensors.h"
#include "compiler/discovery/discover.h"
#include "compiler/discovery/score_summary.h"
#include "compiler/score_summary_plan.h"

struct spion_discoverer {
    std::shared_ptr<spion::api::Context> context;  // outlives the kernel
    spion::DiscoverySettings settings;
    spion::ScoreSummaryPlan plan;
};

namespace spion::api {
namespace {

Variant variant_of(std::int32_t variant) {
    switch (variant) {
        case SPION_VARIANT_CF:
            return Variant::kCF;
        case SPION_VARIANT_F:
            return Variant::kF;
        case SPION_VARIANT_C:
            return Variant::kC;
        default:
            throw UserError(
                "variant {} is not known: use SPION_VARIANT_CF, SPION_VARIANT_F or SPION_VARIANT_C",
                variant);
    }
}

DiscoverySettings settings_of(const spion_discovery* discovery) {
    const spion_discovery given = read_struct(discovery, "spion_discovery");
    DiscoverySettings settings;
    settings.variant = variant_of(given.variant);
    const auto set = [](auto& field, auto value) {
        if (value != 0) {
            field = value;
        }
    };
    set(settings.block, given.block);
    set(settings.filter, given.filter);
    set(settings.quantile, given.quantile);
    set(settings.density, given.density);
    check(settings);
    return settings;
}

BlockPattern discover_whole(const DiscoverySettings& settings, std::int64_t length,
                            const float* scores) {
    BlockPattern::empty(length, settings.block);  // checks the length
    const auto count = static_cast<std::size_t>(length) * static_cast<std::size_t>(length);
    const std::vector<double> wide(scores, scores + count);
    return discover(pool_scores(wide, length, settings), length, settings);
}

// Throws UserError for maps that the kernel of discovery does not make.
void check_pooled(const Attention& attention) {
    const auto refuse = [](bool given, const char* what, const char* instead) {
        if (given) {
            throw UserError("the attention has {}, and discovery pools {}", what, instead);
        }
    };
    refuse(attention.varlen, "varlen", "maps of one length: leave varlen 0");
    refuse(attention.mask == ElementMask::kSpans, "spans",
           "the whole map or a causal one: leave spans 0");
    refuse(attention.key_value_length() != attention.length, "keys of another length",
           "maps of one sequence: leave key_length 0");
    refuse(attention.relative_bias > 0, "relative_bias",
           "scores that no bias by relative position is added to: leave relative_bias 0");
    refuse(!attention.score.empty(), "an expression of scores", "plain scores: leave score null");
    refuse(attention.patterns != 1, "patterns of its heads",
           "all heads together: leave patterns 0, or make one of "
           "each group's heads");
}

void run(const spion_discoverer& discoverer, const spion_discoverer_args& call, void* stream) {
    discoverer.context->check_process();
    const Device& device = discoverer.context->device();
    const Attention& attention = discoverer.plan.program.attention;
    const std::int64_t batch = batch_of(call.q, "q");
    SpionAttentionArguments args = {};
    args.batch = static_cast<int>(batch);
    args.q = read_tensor(call.q, "q", attention, {.batch = batch}, Access::kRead, device);
    args.k = read_tensor(call.k, "k", attention, {.batch = batch}, Access::kRead, device);
    check_address(call.lse, "lse", sizeof(float), device);
    if ((call.lengths != nullptr) != attention.key_padding) {
        throw UserError("lengths are {} and the discoverer was made with key_padding = {}: {}",
                        call.lengths == nullptr ? "null" : "given", attention.key_padding ? 1 : 0,
                        attention.key_padding ? "pass them" : "pass null");
    }
    if (call.lengths != nullptr) {
        check_address(call.lengths, "lengths", sizeof(std::int32_t), device);
        if (device.target().back_end == BackEnd::kHost) {
            check_valid(attention, {call.lengths, static_cast<std::size_t>(batch)});
        }
    }
    if ((call.alibi_slopes != nullptr) != attention.alibi) {
        throw UserError("alibi_slopes are {} and the discoverer was made with alibi = {}: {}",
                        call.alibi_slopes == nullptr ? "null" : "given", attention.alibi ? 1 : 0,
                        attention.alibi ? "pass them" : "pass null");
    }
    if (call.alibi_slopes != nullptr) {
        check_address(call.alibi_slopes, "alibi_slopes", sizeof(float), device);
    }
    const auto wanted = static_cast<std::size_t>(discoverer.plan.sums) * sizeof(float);
    if (call.sum_bytes < wanted) {
        throw UserError(
            "there is room for {} bytes of sums, and {} are written: ask "
            "spion_discoverer_sum_bytes",
            call.sum_bytes, wanted);
    }
    check_address(call.sums, "sums", 16, device);
    args.lse = const_cast<float*>(call.lse);  // it is only read
    args.lengths = call.lengths;
    args.summary = call.sums;
    args.alibi_slopes = call.alibi_slopes;
    device.launch_on(stream, *discoverer.plan.jit.kernel, discoverer.plan.geometry, &args,
                     sizeof(args));
}

}  // namespace
}  // namespace spion::api

extern "C" {

using spion::UserError;
using spion::api::guarded;
using spion::api::present;

int32_t spion_discover_scores(const spion_discovery* discovery, int64_t length, const float* scores,
                              spion_pattern** pattern) noexcept {
    return guarded([&] {
        present(pattern, "pattern") = nullptr;
        *pattern = new spion_pattern{spion::api::discover_whole(
            spion::api::settings_of(discovery), length, &present(scores, "scores"))};
    });
}

int32_t spion_discover_pooled(const spion_discovery* discovery, int64_t length,
                              const double* pooled, spion_pattern** pattern) noexcept {
    return guarded([&] {
        present(pattern, "pattern") = nullptr;
        const spion::DiscoverySettings settings = spion::api::settings_of(discovery);
        const auto rows =
            static_cast<size_t>(spion::BlockPattern::empty(length, settings.block).rows());
        *pattern = new spion_pattern{
            spion::discover(std::span(&present(pooled, "pooled"), rows * rows), length, settings)};
    });
}

int32_t spion_discoverer_create(spion_context* context, const spion_attention* attention,
                                const spion_discovery* discovery,
                                spion_discoverer** discoverer) noexcept {
    return guarded([&] {
        present(discoverer, "discoverer") = nullptr;
        const std::shared_ptr<spion::api::Context>& state = present(context, "context").state;
        state->check_process();
        const spion::api::LogScope heard(state->log());
        const spion::DiscoverySettings settings = spion::api::settings_of(discovery);
        spion::PlanRequest request = spion::api::plan_request(attention, nullptr);
        spion::api::check_pooled(request.attention);
        spion::check_dtype(request.attention, state->device().target());
        *discoverer =
            new spion_discoverer{state, settings,
                                 spion::make_score_summary_plan(request.attention, settings,
                                                                state->device(), state->cache())};
    });
}

void spion_discoverer_release(spion_discoverer* discoverer) noexcept {
    if (discoverer != nullptr && !discoverer->context->of_this_process()) {
        return;  // its kernel is the parent's
    }
    delete discoverer;
}

int32_t spion_discoverer_sum_bytes(const spion_discoverer* discoverer, size_t* bytes) noexcept {
    return guarded([&] {
        present(bytes, "bytes") =
            static_cast<size_t>(present(discoverer, "discoverer").plan.sums) * sizeof(float);
    });
}

int32_t spion_discoverer_run(const spion_discoverer* discoverer, const spion_discoverer_args* args,
                             void* stream) noexcept {
    return guarded([&] {
        spion::api::run(present(discoverer, "discoverer"),
                        spion::api::read_struct(args, "spion_discoverer_args"), stream);
    });
}

int32_t spion_discoverer_finish(const spion_discoverer* discoverer, const float* sums,
                                size_t sum_bytes, double* pooled,
                                spion_pattern** pattern) noexcept {
    return guarded([&] {
        present(pattern, "pattern") = nullptr;
        const spion_discoverer& made = present(discoverer, "discoverer");
        const auto count = static_cast<size_t>(made.plan.sums);
        if (sum_bytes != count * sizeof(float)) {
            throw UserError("{} bytes of sums were given, and a run writes {}: copy them all",
                            sum_bytes, count * sizeof(float));
        }
        const spion::ScoreSummaryProgram& program = made.plan.program;
        const std::vector<double> map =
            spion::combine_summary(std::span(&present(sums, "sums"), count),
                                   program.attention.length, program.block, program.tile);
        if (pooled != nullptr) {
            std::copy(map.begin(), map.end(), pooled);
        }
        *pattern = new spion_pattern{spion::discover_layer(map, program.attention, made.settings)};
    });
}

}  // extern "C"
