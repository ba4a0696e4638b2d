#include "api/plan.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "api/tensors.h"
#include "compiler/lower.h"
#include "ir/score_expression.h"

namespace spion::api {
namespace {

DType dtype_of(std::int32_t dtype) {
    switch (dtype) {
        case SPION_BF16:
            return DType::kBf16;
        case SPION_FP16:
            return DType::kFp16;
        case SPION_FP32:
            return DType::kFp32;
        case SPION_TF32:
            return DType::kTf32;
        default:
            throw UserError("dtype {} is not known: use SPION_BF16, _FP16, _FP32 or _TF32", dtype);
    }
}

static_assert(SPION_MASKED == static_cast<int>(SoftmaxKind::kMasked) &&
              SPION_PRUNED_ZERO == static_cast<int>(SoftmaxKind::kPrunedZero));

SoftmaxKind softmax_of(std::int32_t softmax) {
    if (softmax < 0 || softmax >= std::ssize(kSoftmaxNames)) {
        throw UserError("softmax {} is not known: use the spion_softmax that is {}", softmax,
                        any_of_names(kSoftmaxNames));
    }
    return static_cast<SoftmaxKind>(softmax);
}

ElementMask mask_of(const spion_attention& given) {
    if (given.spans != 0 && given.causal != 0) {
        throw UserError(
            "spion_attention asks for spans and for causal: leave causal 0 and say it in "
            "spion_mask_rules");
    }
    if (given.varlen != 0 && given.causal != 0) {
        throw UserError(
            "spion_attention asks for varlen and for causal: leave causal 0 and say it in "
            "spion_mask_rules, whose spans calls with varlen are given");
    }
    return given.spans != 0 || given.varlen != 0 ? ElementMask::kSpans
           : given.causal != 0                   ? ElementMask::kCausal
                                                 : ElementMask::kNone;
}

std::string expression_of(const char* text) {
    return text == nullptr ? "" : canonical_score(text);
}

Attention attention_of(const spion_attention& given) {
    Attention attention{.heads = given.heads,
                        .head_dim = given.head_dim,
                        .length = given.length,
                        .dtype = dtype_of(given.dtype),
                        .scale = given.scale,
                        .softmax = softmax_of(given.softmax),
                        .key_padding = given.key_padding != 0,
                        .dropout = given.dropout,
                        .mask = mask_of(given),
                        .kv_heads = given.key_value_heads,
                        .kv_length = given.key_length,
                        .value_dim = given.value_dim,
                        .patterns = given.patterns == 0 ? 1 : given.patterns,
                        .softcap = given.softcap,
                        .alibi = given.alibi != 0,
                        .sink = given.sinks != 0,
                        .relative_bias = given.relative_bias,
                        .varlen = given.varlen != 0,
                        .key_starts = given.key_starts != 0,
                        .sequence_patterns = given.sequence_patterns,
                        .score = expression_of(given.score),
                        .score_derivative = expression_of(given.score_derivative)};
    if (attention.scale == 0 && attention.head_dim > 0) {
        attention.scale = default_scale(attention.head_dim);
    }
    return attention;
}

std::int32_t origin_of(const AttentionPlan& plan) {
    const auto rank = [](CacheOrigin origin) -> std::int32_t {
        switch (origin) {
            case CacheOrigin::kMemory:
                return SPION_FROM_MEMORY;
            case CacheOrigin::kBundle:
                return SPION_FROM_BUNDLE;
            case CacheOrigin::kDisk:
                return SPION_FROM_DISK;
            case CacheOrigin::kCompiled:
                return SPION_COMPILED;
        }
        throw InternalError("a kernel of origin {}", static_cast<int>(origin));
    };
    std::int32_t dearest = SPION_FROM_MEMORY;
    for (const JitKernel& kernel : plan.kernels()) {
        dearest = std::max(dearest, rank(kernel.cached.origin));
    }
    return dearest;
}

WorkspaceLayout workspace_of(const spion_plan& plan, std::int64_t batch, std::int32_t pass) {
    if (batch < 1 || batch > std::numeric_limits<std::int32_t>::max()) {
        throw UserError("the batch is {}: give 1 to {}", batch,
                        std::numeric_limits<std::int32_t>::max());
    }
    if (pass != SPION_FORWARD && pass != SPION_BACKWARD) {
        throw UserError("pass {} is not known: use SPION_FORWARD or SPION_BACKWARD", pass);
    }
    return plan.plan->workspace(batch);
}

}  // namespace

PlanRequest plan_request(const spion_attention* attention, const spion_plan_options* options) {
    const spion_attention given = read_struct(attention, "spion_attention");
    PlanRequest request{.attention = attention_of(given), .block = given.block};
    if (request.block == 0) {
        request.block = 64;
    }
    if (options != nullptr) {
        const spion_plan_options wanted = read_struct(options, "spion_plan_options");
        if (wanted.typical != nullptr) {
            request.typical = wanted.typical->patterns;
        }
        request.max_blocks = wanted.max_blocks;
        request.batch = wanted.batch == 0 ? kPlannedBatch : wanted.batch;
    }
    check(request);
    return request;
}

}  // namespace spion::api

extern "C" {

using spion::UserError;
using spion::api::guarded;
using spion::api::present;

int32_t spion_plan_create(spion_context* context, const spion_attention* attention,
                          const spion_plan_options* options, spion_plan** plan) noexcept {
    return guarded([&] {
        spion_plan*& out = present(plan, "plan");
        out = nullptr;
        const auto start = std::chrono::steady_clock::now();
        const std::shared_ptr<spion::api::Context>& state = present(context, "context").state;
        const spion::PlanRequest request = spion::api::plan_request(attention, options);
        auto made = state->plan(request);
        const std::chrono::duration<double, std::milli> spent =
            std::chrono::steady_clock::now() - start;
        out = new spion_plan{state, std::move(made), spent.count()};
    });
}

void spion_plan_release(spion_plan* plan) noexcept {
    if (plan != nullptr && !plan->context->of_this_process()) {
        return;  // its kernels are the parent's
    }
    delete plan;
}

int32_t spion_plan_query(const spion_plan* plan, spion_plan_info* info) noexcept {
    return guarded([&] {
        const spion::AttentionPlan& seen = *present(plan, "plan").plan;
        spion_plan_info filled = SPION_PLAN_INFO_INIT;
        filled.table_bytes = seen.table_bytes();
        filled.max_blocks = seen.max_blocks();
        filled.origin = spion::api::origin_of(seen);
        filled.kernels = static_cast<int32_t>(seen.kernels().size());
        filled.milliseconds = plan->milliseconds;
        spion::api::write_struct(info, filled, "spion_plan_info");
    });
}

int32_t spion_plan_explain(const spion_plan* plan, spion_blob** text) noexcept {
    return guarded([&] {
        present(text, "text") = nullptr;
        const spion_plan& seen = present(plan, "plan");
        *text = spion::api::make_blob(to_text(*seen.plan, seen.context->device().target()));
    });
}

int32_t spion_plan_write_tables(const spion_plan* plan, const spion_pattern* pattern, void* tables,
                                size_t bytes) noexcept {
    return guarded([&] {
        const spion::AttentionPlan& seen = *present(plan, "plan").plan;
        const spion::HeadPatterns& walked = present(pattern, "pattern").patterns;
        auto* const numbers = &present(static_cast<int32_t*>(tables), "tables");
        if (bytes != seen.table_bytes()) {
            throw UserError(
                "there is room for {} bytes of tables, and the plan's are {}: give "
                "the plan's table_bytes",
                bytes, seen.table_bytes());
        }
        seen.write_tables(walked, {numbers, bytes / sizeof(int32_t)});
    });
}

int32_t spion_plan_workspace(const spion_plan* plan, int64_t batch, int32_t pass, size_t* bytes,
                             size_t* alignment) noexcept {
    return guarded([&] {
        const auto layout = spion::api::workspace_of(present(plan, "plan"), batch, pass);
        present(bytes, "bytes") =
            pass == SPION_FORWARD ? layout.forward_bytes : layout.backward_bytes;
        if (alignment != nullptr) {
            *alignment = spion::api::workspace_alignment(plan->context->device());
        }
    });
}

int32_t spion_plan_prepare_workspace(const spion_plan* plan, int64_t batch, int32_t pass,
                                     void* workspace, size_t bytes, void* stream) noexcept {
    return guarded([&] {
        const spion_plan& seen = present(plan, "plan");
        seen.context->check_process();
        const auto layout = spion::api::workspace_of(seen, batch, pass);
        const size_t wanted = pass == SPION_FORWARD ? layout.forward_bytes : layout.backward_bytes;
        if (workspace == nullptr || bytes < wanted) {
            throw UserError(
                "a workspace of {} bytes at {}, and batch {} needs {}: ask "
                "spion_plan_workspace",
                bytes, workspace, batch, wanted);
        }
        const spion::Device& device = seen.context->device();
        spion::api::check_address(workspace, "the workspace",
                                  spion::api::workspace_alignment(device), device);
        device.fill_on(stream, workspace, 0, layout.zeros);
    });
}

}  // extern "C"
