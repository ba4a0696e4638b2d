#include "codegen/cuda/emit_cuda.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "codegen/attention_constants.h"
#include "codegen/baked_tables.h"
#include "codegen/cuda/baked_cuda.h"
#include "codegen/cuda/register_plan.h"
#include "codegen/cuda/score_cuda.h"
#include "codegen/source_text.h"
#include "ir/error.h"
#include "ir/verify.h"
#include "kernels/embedded.h"

namespace spion {
namespace {

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

// width: of tiles in shared memory. blocks: of the walk, see block_coverage().
std::vector<Constant> cuda_constants(const Attention& attention, int width, Coverage blocks) {
    std::vector<Constant> constants = {
        {.name = "Element",
         .value = element_name(attention.dtype),
         .comment = "storage and arithmetic"},
        integer("kHeads", attention.heads, "H"),
        integer("kKeyHeads", attention.key_value_heads(), "of K and V"),
        integer("kHeadDim", width, "of tiles, D and Dv padded"),
        integer("kKeyDim", attention.head_dim, "D"),
        integer("kValueDim", attention.value_head_dim(), "Dv"),
    };
    for (Constant& constant : operation_constants(attention, blocks)) {
        constants.push_back(std::move(constant));
    }
    return constants;
}

// Of the score summary, whose tiles are of Q and K alone.
int summary_width(const Attention& attention) {
    return (attention.head_dim + 15) / 16 * 16;
}

int row_bytes_of(const Attention& attention) {
    return summary_width(attention) * storage_bytes(attention.dtype);
}

// There are as many stages of Q and K tiles as help, and fit.
int summary_stages(const ScoreSummaryProgram& program, const Target& target) {
    const int stage_bytes = 2 * program.tile * row_bytes_of(program.attention);
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
    source.text += comment_of(ir, "// ") + "\n";
    for (const Constant& constant : constants) {
        fmt::format_to(std::back_inserter(source.text), "{}{}{}\n", definition(constant),
                       constant.comment.empty() ? "" : "  // ", constant.comment);
    }
    fmt::format_to(std::back_inserter(source.text), "\n#include \"{}\"\n", file_name);
    return source;
}

EmittedGeometry geometry_cuda(const ScoreSummaryProgram& program, const Target& target) {
    verify(program);
    return {.threads = 2 * program.tile,
            .shared_bytes = summary_stages(program, target) * 2 * program.tile *
                            row_bytes_of(program.attention)};
}

KernelSource emit_cuda(const TileProgram& program, const PlannedKernel& kernel,
                       const Target& target) {
    Attention attention = program.attention;
    const bool full = program.block == BlockPattern::kFullBlock;
    if (full && attention.mask == ElementMask::kNone) {
        attention.softmax = SoftmaxKind::kMasked;  // nothing is pruned
    }
    const int width = kernel.plan.geometry.tile_width;
    std::vector<Constant> constants =
        cuda_constants(attention, width == 0 ? attention.head_dim : width, block_coverage(program));
    constants.push_back(
        integer("kItemHeads", item_heads(attention, program.role), "heads that have work items"));
    constants.push_back(integer("kPatterns", attention.patterns, "of all heads"));
    constants.push_back({.name = "kKeysStay",
                         .value = walks_columns(program.role),
                         .comment = "and queries stream past"});
    constants.push_back(integer("kStationaryLength", stationary_length(attention, program.role),
                                "positions of what stays"));
    constants.push_back(integer("kStreamedLength", streamed_length(attention, program.role),
                                "of what streams past"));
    constants.push_back(integer("kStationaryRows", program.stationary_rows, "of a work item"));
    constants.push_back(integer("kStreamedRows", program.streamed_rows, "of one step"));
    constants.push_back(
        integer("kGatherRows", program.gather_rows, "streamed rows adjacent in memory"));
    constants.push_back({.name = "kStepsAreFull",
                         .value = step_coverage(program) == Coverage::kFull,
                         .comment = "all elements of all steps count"});
    for (Constant& constant : kernel.family->constants(program, kernel.plan)) {
        constants.push_back(std::move(constant));
    }
    KernelSource source = specialise_cuda(
        target, source_name(program), kernel.family->body(program.role, kernel.plan),
        to_string(program.role), constants, text_without_walk(program));
    if (program.packed_rows() > 1) {
        source.text.insert(source.text.rfind("\n#include \""),
                           fmt::format("\n#define SPION_PACKED_ROWS {}  // block rows of a tile\n",
                                       program.packed_rows()));
    }
    if (full) {
        source.text.insert(source.text.rfind("\n#include \""),
                           "\n#define SPION_FULL_PATTERN  // every tile streams everything\n");
    }
    source.text.insert(source.text.rfind("\n#include \""), score_cuda(attention));
    if (program.tables == Tables::kBaked) {
        require_bakeable(program);
        source.text.insert(source.text.rfind("\n#include \""), baked_cuda(program));
    }
    source.ir = to_text(program);
    return source;
}

KernelSource emit_cuda(const ScoreSummaryProgram& program, const Target& target) {
    const EmittedGeometry geometry = geometry_cuda(program, target);
    Attention attention = program.attention;
    attention.value_dim = 0;  // of V it reads nothing
    const RegisterPlan plan =
        plan_summary_registers(attention.dtype, summary_width(attention), program.tile);
    std::vector<Constant> constants =
        cuda_constants(attention, summary_width(attention), Coverage::kPartial);
    constants.push_back(integer("kItemHeads", attention.heads, ""));
    constants.push_back(integer("kStationaryLength", attention.length, "of either side"));
    constants.push_back(integer("kBlock", program.block, "edge of a pattern block"));
    constants.push_back(integer("kTile", program.tile, "rows and columns of a work item"));
    constants.push_back(integer("kFilter", program.filter, "F of the diagonal convolution"));
    constants.push_back(integer("kWarps", geometry.threads / 32, ""));
    constants.push_back(integer("kStages", summary_stages(program, target),
                                "streamed tiles in shared memory at once"));
    constants.push_back(
        integer("kResidentBlocks", plan.resident_blocks, "an SM has registers for that many"));
    constants.push_back(integer("kSharedBytes", geometry.shared_bytes, "of a thread block"));
    return specialise_cuda(
        target,
        fmt::format("score_summary-b{}-D{}-{}-F{}", program.block, attention.head_dim,
                    to_string(attention.dtype), program.filter),
        "sm80/score_summary", "score_summary", constants, to_text(program));
}

}  // namespace spion
