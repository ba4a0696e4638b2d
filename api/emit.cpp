// The compiler's stages for targets that need not be here.
#include <optional>
#include <string>

#include "api/context.h"
#include "codegen/emit.h"
#include "compiler/lower.h"
#include "compiler/plan/layer_plan.h"
#include "ir/parser.h"
#include "runtime/disassemble.h"
#include "runtime/offline.h"

namespace spion::api {
namespace {

std::string assembly_of(const OfflineKernel& compiled, BackEnd back_end) {
    if (back_end == BackEnd::kHost) {
        return compiled.assembly;
    }
    const std::optional<std::string> disassembler = find_disassembler();
    if (!disassembler) {
        throw DeviceError("{}", disassembler_missing());
    }
    return disassemble(*disassembler, compiled.binary.code);
}

void check_stage(std::int32_t stage, BackEnd back_end, const char* target) {
    const bool other = (stage == SPION_STAGE_PTX && back_end == BackEnd::kHost) ||
                       (stage == SPION_STAGE_LLVM && back_end == BackEnd::kCuda);
    if (other) {
        throw UserError("target {} has no {}: ask for {}, SPION_STAGE_SOURCE, _BINARY or _ASSEMBLY",
                        target, stage == SPION_STAGE_PTX ? "PTX" : "LLVM IR",
                        stage == SPION_STAGE_PTX ? "SPION_STAGE_LLVM" : "SPION_STAGE_PTX");
    }
}

std::string stage_of(const PlanRequest& request, const char* target_name, std::int32_t kernel,
                     std::int32_t stage) {
    const Target target = target_named(target_name);
    check_stage(stage, target.back_end, target_name);
    if (kernel < SPION_KERNEL_FORWARD || kernel > SPION_KERNEL_BACKWARD_SECOND) {
        throw UserError(
            "kernel {} is not known: use SPION_KERNEL_FORWARD, _BACKWARD_FIRST or _BACKWARD_SECOND",
            kernel);
    }
    const LayerPrograms programs = plan_programs(request, target);
    const auto& [program, planned] = programs[static_cast<std::size_t>(kernel)];
    switch (stage) {
        case SPION_STAGE_ATTENTION:
            return to_text(IrModule{.attention = request.attention,
                                    .pattern = typical_pattern(request),
                                    .programs = {}});
        case SPION_STAGE_PROGRAM:
            return to_text(program);
        case SPION_STAGE_SOURCE:
            return emit(program, planned, target).text;
        default:
            break;
    }
    const CompileRequest asked = request_for(emit(program, planned, target), target);
    switch (stage) {
        case SPION_STAGE_PTX:
            return compile_offline(asked, target.back_end).ptx;
        case SPION_STAGE_LLVM:
            return compile_offline(asked, target.back_end).optimised_ir;
        case SPION_STAGE_BINARY:
            return compile_binary(asked, target.back_end).code;
        case SPION_STAGE_ASSEMBLY:
            return assembly_of(compile_offline(asked, target.back_end), target.back_end);
        default:
            throw UserError("stage {} is not known: use one of spion_stage", stage);
    }
}

std::string explain_all(const PlanRequest& request, const char* target_name) {
    const Target target = target_named(target_name);
    const HeadPatterns pattern = typical_pattern(request);
    const LayerPlan plan = plan_of(request, target);
    std::string text;
    for (const LaunchPlan& launch : plan.launches) {
        text += explain(plan, launch, pattern) + "\n";
    }
    return text + explain_roles(plan);
}

}  // namespace
}  // namespace spion::api

extern "C" {

using spion::api::guarded;
using spion::api::make_blob;
using spion::api::plan_request;
using spion::api::present;

int32_t spion_emit(const spion_attention* attention, const spion_plan_options* options,
                   const char* target, int32_t kernel, int32_t stage, spion_blob** blob) noexcept {
    return guarded([&] {
        present(blob, "blob") = nullptr;
        *blob = make_blob(spion::api::stage_of(plan_request(attention, options),
                                               &present(target, "target"), kernel, stage));
    });
}

int32_t spion_explain(const spion_attention* attention, const spion_plan_options* options,
                      const char* target, spion_blob** text) noexcept {
    return guarded([&] {
        present(text, "text") = nullptr;
        *text = make_blob(
            spion::api::explain_all(plan_request(attention, options), &present(target, "target")));
    });
}

}  // extern "C"
