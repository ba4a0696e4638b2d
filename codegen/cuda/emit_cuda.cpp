#include "codegen/cuda/emit_cuda.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "codegen/baked_tables.h"
#include "codegen/cuda/baked_cuda.h"
#include "codegen/cuda/hopper_plan.h"
#include "codegen/cuda/register_plan.h"
#include "codegen/cuda/warp_plan.h"
#include "ir/error.h"
#include "ir/nvrtc_rules.h"
#include "ir/verify.h"
#include "kernels/embedded.h"

namespace spion {
namespace {

// 9 digits name every float, and always a point or an exponent.
std::string float_literal(float value) {
    std::string digits = fmt::format("{:.9g}", value);
    if (digits.find_first_of(".e") == std::string::npos) {
        digits += ".0";
    }
    return value < 0 ? fmt::format("({}F)", digits) : digits + "F";
}

// Enumerators and macros, because NVRTC makes a device variable of every constexpr of a namespace.
std::string definition(const Constant& constant) {
    if (const auto* value = std::get_if<bool>(&constant.value)) {
        return fmt::format("enum : bool {{ {} = {} }};", constant.name, *value);
    }
    if (const auto* value = std::get_if<std::int64_t>(&constant.value)) {
        const bool fits = *value >= std::numeric_limits<std::int32_t>::min() &&
                          *value <= std::numeric_limits<std::int32_t>::max();
        return fmt::format("enum : {} {{ {} = {} }};", fits ? "int" : "long long", constant.name,
                           *value);
    }
    if (const auto* value = std::get_if<float>(&constant.value)) {
        return fmt::format("#define {} {}", constant.name, float_literal(*value));
    }
    // The struct itself is defined by the body, which comes later.
    return fmt::format("using {} = struct {};", constant.name,
                       std::get<std::string>(constant.value));
}

void append_comment(std::string& text, std::string_view lines) {
    while (!lines.empty()) {
        const std::size_t end = std::min(lines.find('\n'), lines.size());
        fmt::format_to(std::back_inserter(text), "// {}\n", lines.substr(0, end));
        lines.remove_prefix(std::min(end + 1, lines.size()));
    }
}

// Appends the embedded file `name` and, in order of first use, what it includes.
void append_includes(std::vector<SourceFile>& files, std::string_view name,
                     std::string_view includer) {
    const auto is_name = [&](const SourceFile& file) { return file.name == name; };
    if (std::any_of(files.begin(), files.end(), is_name)) {
        return;
    }
    const EmbeddedFile* file = find_embedded(name);
    if (file == nullptr) {
        throw InternalError("no file named '{}', which {} includes, is embedded", name, includer);
    }
    files.push_back({.name = std::string(name), .text = std::string(file->text)});
    constexpr std::string_view kDirective = "#include \"";
    std::string_view rest = file->text;
    for (std::size_t at = rest.find(kDirective); at != std::string_view::npos;
         at = rest.find(kDirective)) {
        rest.remove_prefix(at + kDirective.size());
        append_includes(files, rest.substr(0, rest.find('"')), name);
    }
}

Constant integer(std::string name, std::int64_t value, std::string comment) {
    return {.name = std::move(name), .value = value, .comment = std::move(comment)};
}

// The struct of kernels/cuda/common/element.cuh.
std::string element_name(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
            return "Fp32";
        case DType::kTf32:
            return "Tf32";
        case DType::kBf16:
            return "Bf16";
        case DType::kFp16:
            return "Fp16";
    }
    throw InternalError("dtype {} has no element struct", static_cast<int>(dtype));
}

std::vector<Constant> attention_constants(const Attention& attention) {
    return {
        {.name = "Element",
         .value = element_name(attention.dtype),
         .comment = "storage and arithmetic"},
        integer("kHeads", attention.heads, "H"),
        integer("kHeadDim", attention.head_dim, "D"),
        integer("kLength", attention.length, "L"),
        {.name = "kScale", .value = attention.scale, .comment = "of Q K^T"},
        integer("kSoftmax", static_cast<int>(attention.softmax),
                fmt::format("{} (SpionSoftmax)", to_string(attention.softmax))),
        {.name = "kKeyPadding",
         .value = attention.key_padding,
         .comment = "lengths say which keys are valid"},
    };
}

void append_plan(std::vector<Constant>& constants, const RegisterPlan& plan, int stages,
                 const EmittedGeometry& geometry) {
    constants.push_back(integer("kWarps", geometry.threads / 32, ""));
    constants.push_back(integer("kStages", stages, "streamed tiles in shared memory at once"));
    constants.push_back(integer("kResidentBlocks", plan.resident_blocks,
                                "a processor has registers for that many"));
    constants.push_back(integer("kSharedBytes", geometry.shared_bytes, "of a thread block"));
}

void require_shape(const TileProgram& program) {
    const bool own_items = program.unit == MatrixUnit::kMmaWarp && program.warps == 1;
    const bool fits = (own_items || program.stationary_rows == 16 * program.warps) &&
                      program.warps <= 8 && program.granule >= 16 &&
                      program.streamed_rows % program.granule == 0 &&
                      32 % (program.streamed_rows / program.granule) == 0 && program.stages >= 1;
    if (!fits) {
        throw InternalError(
            "CUDA tiles have 16 rows a warp, at most 8 warps, granules of at least 16 rows and 1, "
            "2, 4, 8, 16 or 32 of them a step, not stationary_rows={} warps={} granule={} "
            "streamed_rows={} stages={}",
            program.stationary_rows, program.warps, program.granule, program.streamed_rows,
            program.stages);
    }
}

int row_bytes(const Attention& attention) {
    return attention.head_dim * storage_bytes(attention.dtype);
}

KernelKind kind_of(const TileProgram& program) {
    return {.unit = program.unit,
            .role = program.role,
            .head_dim = program.attention.head_dim,
            .streamed_rows = program.streamed_rows,
            .packed = program.packed_rows() > 1};
}

HopperPlan plan_of(const TileProgram& program, const Target& target) {
    const Attention& attention = program.attention;
    const bool fits = has_wgmma(target) && storage_bytes(attention.dtype) == 2 &&
                      hopper_head_dim(attention.head_dim) && program.stationary_rows % 64 == 0 &&
                      (program.streamed_rows == 64 || program.streamed_rows == 128) &&
                      program.stages >= 2 &&
                      (program.packed_rows() == 1 || program.stationary_rows == 64);
    if (!fits) {
        throw UserError(
            "wgmma kernels take bf16 or fp16 on sm_90a, D of 32, 64 or 128, stationary_rows in "
            "multiples of 64 (64 alone when packed), streamed_rows of 64 or 128 and 2 stages or "
            "more, not {} on {} with D={} stationary_rows={} streamed_rows={} stages={}: take "
            "unit=mma_sync",
            to_string(attention.dtype), target.arch, attention.head_dim, program.stationary_rows,
            program.streamed_rows, program.stages);
    }
    if (program.role == KernelRole::kGradients &&
        (program.stationary_rows != 128 || program.stages != 2 ||
         program.streamed_rows * attention.head_dim != 8192 ||
         program.granule != program.streamed_rows)) {
        throw UserError(
            "attention_gradients takes stationary_rows=128, stages=2 and streamed_rows=granule of "
            "8192 / D, not stationary_rows={} stages={} streamed_rows={} granule={} with D={}",
            program.stationary_rows, program.stages, program.streamed_rows, program.granule,
            attention.head_dim);
    }
    if (const std::string reason = why_nvrtc_refuses(target.compiler, kind_of(program));
        !reason.empty()) {
        throw UserError("{}: take other streamed_rows, or unit=mma_sync", reason);
    }
    HopperPlan plan = plan_hopper(
        program.role, attention.head_dim, program.stationary_rows, program.streamed_rows,
        program.stages, target.shared_bytes_per_block, target.compiler, program.packed_rows() > 1);
    if (!plan.problem.empty()) {
        throw UserError("the program does not fit {}: {}; take fewer stages or rows", target.arch,
                        plan.problem);
    }
    return plan;
}

WarpPlan warp_plan_of(const TileProgram& program, const Target& target) {
    const Attention& attention = program.attention;
    const bool fits = has_wgmma(target) && storage_bytes(attention.dtype) == 2 &&
                      has_warp_plan(program.role, attention.head_dim, program.stationary_rows) &&
                      program.packed_rows() == 1 && program.granule <= 32 &&
                      program.streamed_rows % 32 == 0 && program.stages >= 2;
    if (!fits) {
        throw UserError(
            "mma_warp kernels take bf16 or fp16 on sm_90a, D of 32 or 64 (dK and dV: 64), "
            "stationary_rows of 32 (forward: or 16), a granule of 32 at most, streamed_rows in "
            "multiples of 32 and 2 stages or more, not {} on {} with role={} D={} "
            "stationary_rows={} granule={} streamed_rows={} stages={}: take unit=mma_sync",
            to_string(attention.dtype), target.arch, to_string(program.role), attention.head_dim,
            program.stationary_rows, program.granule, program.streamed_rows, program.stages);
    }
    WarpPlan plan =
        plan_warps(program.role, attention.head_dim, program.stationary_rows, program.streamed_rows,
                   program.stages, target.shared_bytes_per_block);
    if (!plan.problem.empty()) {
        throw UserError("the program does not fit {}: {}; take fewer stages or rows", target.arch,
                        plan.problem);
    }
    return plan;
}

// Named constants that a body needs beside those of its tile.
void append_warp_plan(std::vector<Constant>& constants, const TileProgram& program,
                      const WarpPlan& plan) {
    constants.push_back(integer("kColumns", plan.columns, "of S at once"));
    constants.push_back(
        integer("kHeldOperands", plan.held_operands, "stationary, in registers throughout"));
    constants.push_back(integer("kWarps", plan.consumers, "that compute, an item each"));
    constants.push_back(
        integer("kStages", program.stages, "a warp's streamed tiles in shared memory at once"));
    constants.push_back(integer("kResidentBlocks", plan.resident_blocks, "on a processor"));
    constants.push_back(integer("kConsumerRegisters", plan.consumer_registers, "a thread"));
    constants.push_back(
        integer("kProducerRegisters", plan.producer_registers, "a thread; 0: as many"));
    constants.push_back(integer("kSharedBytes", plan.shared_bytes, "of a thread block"));
}

// The same for wgmma's bodies.
void append_hopper_plan(std::vector<Constant>& constants, const TileProgram& program,
                        const HopperPlan& plan) {
    constants.push_back(integer("kColumns", program.streamed_rows, "of S at once"));
    constants.push_back(integer("kWarps", program.warps, "that multiply"));
    constants.push_back(
        integer("kStages", program.stages, "streamed tiles in shared memory at once"));
    constants.push_back(integer("kSlots", plan.slots, "stationary tiles in shared memory at once"));
    constants.push_back(integer("kResidentBlocks", plan.resident_blocks, "on a processor"));
    constants.push_back(integer("kConsumerRegisters", plan.consumer_registers, "a thread"));
    constants.push_back(integer("kProducerRegisters", plan.producer_registers, "a thread"));
    constants.push_back(integer("kSharedBytes", plan.shared_bytes, "of a thread block"));
}

// As many stages of Q and K tiles as help, and fit.
int summary_stages(const ScoreSummaryProgram& program, const Target& target) {
    const int stage_bytes = 2 * program.tile * row_bytes(program.attention);
    return std::clamp(target.shared_bytes_per_block / stage_bytes, 1, stage_bytes <= 8192 ? 4 : 2);
}

}  // namespace

KernelSource specialise_cuda(const Target& /*target*/, std::string_view name, std::string_view body,
                             std::string_view entry, const std::vector<Constant>& constants,
                             std::string_view ir) {
    const std::string file_name = fmt::format("kernels/cuda/{}.cuh", body);
    KernelSource source{.name = std::string(name),
                        .entry = std::string(entry),
                        .text = fmt::format("// {}\n", name),
                        .includes = {},
                        .ir = std::string(ir)};
    append_includes(source.includes, file_name, name);
    append_comment(source.text, ir);
    source.text += '\n';
    for (const Constant& constant : constants) {
        fmt::format_to(std::back_inserter(source.text), "{}{}{}\n", definition(constant),
                       constant.comment.empty() ? "" : "  // ", constant.comment);
    }
    fmt::format_to(std::back_inserter(source.text), "\n#include \"{}\"\n", file_name);
    return source;
}

EmittedGeometry geometry_cuda(const TileProgram& program, const Target& target) {
    require_shape(program);
    if (program.unit == MatrixUnit::kWgmma) {
        const HopperPlan plan = plan_of(program, target);
        return {.threads = plan.threads,
                .shared_bytes = plan.shared_bytes,
                .resident_blocks = plan.resident_blocks};
    }
    if (program.role == KernelRole::kDelta) {
        return {.threads = 32 * program.warps, .shared_bytes = 0};
    }
    if (program.unit == MatrixUnit::kMmaWarp) {
        const WarpPlan plan = warp_plan_of(program, target);
        return {.threads = plan.threads,
                .shared_bytes = plan.shared_bytes,
                .resident_blocks = plan.resident_blocks,
                .items_at_once = plan.consumers};
    }
    const int row = row_bytes(program.attention);
    const int streamed = program.stages * program.streamed_rows;
    constexpr int kFloat = 4;  // bytes of LSE and delta
    int shared = 2 * streamed * row + program.stationary_rows * row;
    if (program.role == KernelRole::kQueryGradient) {
        shared += program.stationary_rows * (row + kFloat);
    } else if (program.role == KernelRole::kKeyValueGradient) {
        shared += program.stationary_rows * row + streamed * 2 * kFloat;
    }
    return {.threads = 32 * program.warps, .shared_bytes = shared};
}

EmittedGeometry geometry_cuda(const ScoreSummaryProgram& program, const Target& target) {
    verify(program);
    return {.threads = 2 * program.tile,
            .shared_bytes =
                summary_stages(program, target) * 2 * program.tile * row_bytes(program.attention)};
}

KernelSource emit_cuda(const TileProgram& program, const Target& target) {
    const EmittedGeometry geometry = geometry_cuda(program, target);
    const Attention& attention = program.attention;
    const bool packed = program.packed_rows() > 1;
    const std::string_view role = to_string(program.role);
    std::string body = fmt::format("sm80/{}", role);
    std::vector<Constant> constants = attention_constants(attention);
    constants.push_back(integer("kStationaryRows", program.stationary_rows, "of a work item"));
    constants.push_back(integer("kStreamedRows", program.streamed_rows, "of one step"));
    constants.push_back(integer("kGranule", program.granule, "streamed rows adjacent in memory"));
    constants.push_back({.name = "kStepsAreFull",
                         .value = step_coverage(program) == Coverage::kFull,
                         .comment = "all elements of all steps count"});
    if (program.unit == MatrixUnit::kWgmma) {
        body = fmt::format("sm90/wgmma_{}", role);
        append_hopper_plan(constants, program, plan_of(program, target));
    } else if (program.role == KernelRole::kDelta) {
        constants.push_back(integer("kColumns", program.streamed_rows, ""));
        constants.push_back(integer("kWarps", program.warps, ""));
        constants.push_back(integer("kStages", program.stages, ""));
    } else if (program.unit == MatrixUnit::kMmaWarp) {
        body = fmt::format("sm90/warp_{}", role);
        append_warp_plan(constants, program, warp_plan_of(program, target));
    } else {
        const RegisterPlan plan =
            packed ? plan_packed_registers(program.role, attention.dtype, attention.head_dim,
                                           program.streamed_rows, program.granule, program.warps)
                   : plan_registers(program.role, attention.dtype, attention.head_dim,
                                    program.streamed_rows, program.warps);
        constants.push_back(integer("kColumns", plan.columns, "streamed rows multiplied at once"));
        constants.push_back({.name = "kHeldInRegisters",
                             .value = plan.held,
                             .comment = "stationary operands, else fetched at every use"});
        append_plan(constants, plan, program.stages, geometry);
        if (packed && plan.gradients_apart) {
            throw UserError(
                "the program packs several block rows into a tile, which no body of {} does for "
                "D={}: take stationary_rows up to the block, {}",
                role, attention.head_dim, program.block);
        }
        body += plan.gradients_apart ? "_apart" : "";
    }

    // Where the walk is passed as tables, the text names only what shapes the code, so that layers
    // whose patterns differ share one kernel.
    const bool baked = program.tables == Tables::kBaked;
    const std::string full = to_text(program);
    KernelSource source =
        specialise_cuda(target,
                        fmt::format("{}-b{}-D{}-{}-{}{}{}", role, program.block, attention.head_dim,
                                    to_string(attention.dtype), to_string(attention.softmax),
                                    packed ? "-packed" : "", baked ? "-baked" : ""),
                        body, role, constants, full.substr(0, full.find("walk ")));
    if (packed) {
        source.text.insert(source.text.rfind("\n#include \""),
                           fmt::format("\n#define SPION_PACKED_ROWS {}  // block rows of a tile\n",
                                       program.packed_rows()));
    }
    if (baked) {
        require_bakeable(program);
        source.text.insert(source.text.rfind("\n#include \""), baked_cuda(program));
    }
    source.ir = full;
    return source;
}

KernelSource emit_cuda(const ScoreSummaryProgram& program, const Target& target) {
    const EmittedGeometry geometry = geometry_cuda(program, target);
    const Attention& attention = program.attention;
    const RegisterPlan plan =
        plan_summary_registers(attention.dtype, attention.head_dim, program.tile);
    std::vector<Constant> constants = attention_constants(attention);
    constants.push_back(integer("kBlock", program.block, "edge of a pattern block"));
    constants.push_back(integer("kTile", program.tile, "rows and columns of a work item"));
    constants.push_back(integer("kFilter", program.filter, "F of the diagonal convolution"));
    append_plan(constants, plan, summary_stages(program, target), geometry);
    return specialise_cuda(
        target,
        fmt::format("score_summary-b{}-D{}-{}-F{}", program.block, attention.head_dim,
                    to_string(attention.dtype), program.filter),
        "sm80/score_summary", "score_summary", constants, to_text(program));
}

}  // namespace spion
