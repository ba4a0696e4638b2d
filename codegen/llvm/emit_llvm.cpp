#include "codegen/llvm/emit_llvm.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>

#include "codegen/attention_constants.h"
#include "codegen/baked_tables.h"
#include "codegen/llvm/score_llvm.h"
#include "codegen/source_text.h"
#include "ir/error.h"
#include "ir/verify.h"
#include "kernels/embedded.h"

namespace spion {
namespace {

struct IrConstant {
    std::string_view type;
    std::string value;
};

// The LLVM type and value of a constant: bodies declare bool, int and float.
IrConstant ir_constant(const Constant& constant) {
    if (const auto* value = std::get_if<bool>(&constant.value)) {
        return {"i8", *value ? "1" : "0"};
    }
    if (const auto* value = std::get_if<std::int64_t>(&constant.value)) {
        if (*value < std::numeric_limits<std::int32_t>::min() ||
            *value > std::numeric_limits<std::int32_t>::max()) {
            throw InternalError("host constant {} = {} does not fit an int", constant.name, *value);
        }
        return {"i32", fmt::format("{}", *value)};
    }
    if (const auto* value = std::get_if<float>(&constant.value)) {
        // LLVM spells a float as the hexadecimal bits of the equal double: exact.
        const auto bits = std::bit_cast<std::uint64_t>(static_cast<double>(*value));
        return {"float", fmt::format("0x{:016X}", bits)};
    }
    throw InternalError("host constant {} is an identifier, which LLVM IR has no use for",
                        constant.name);
}

std::string shown_value(const Constant& constant) {
    const auto* value = std::get_if<float>(&constant.value);
    return value == nullptr ? std::string() : fmt::format("{}", *value);
}

void append_constant(std::string& text, const Constant& constant) {
    const IrConstant ir = ir_constant(constant);
    std::string comment = shown_value(constant);
    if (!constant.comment.empty()) {
        comment += (comment.empty() ? "" : ", ") + constant.comment;
    }
    fmt::format_to(std::back_inserter(text), "@{} = constant {} {}{}{}\n", constant.name, ir.type,
                   ir.value, comment.empty() ? "" : "  ; ", comment);
}

// items: heads that have work items of their own. blocks: of the walk, see block_coverage().
std::vector<Constant> host_constants(const Attention& attention, int items, Coverage blocks) {
    std::vector<Constant> constants = {
        integer("kHeads", attention.heads, "H"),
        integer("kKeyHeads", attention.key_value_heads(), "of K and V"),
        integer("kItemHeads", items, "that have work items"),
        integer("kHeadDim", attention.head_dim, "D"),
        integer("kValueDim", attention.value_head_dim(), "Dv"),
        integer("kPatterns", attention.patterns, "of all heads"),
    };
    for (Constant& constant : operation_constants(attention, blocks)) {
        constants.push_back(std::move(constant));
    }
    constants.push_back({.name = "kExpression",
                         .value = !attention.score.empty(),
                         .comment = "express_score() says what scores become"});
    return constants;
}

void require_supported(const Attention& attention) {
    if (attention.dtype != DType::kFp32) {
        throw UserError("the CPU back end computes in fp32, not {}: choose fp32 or a GPU",
                        to_string(attention.dtype));
    }
    check(attention);
}

// What kernels/host/attention_walk.h reads in place of its arguments' tables: int arrays of any
// size, so the body knows them by pointers.
void append_tables(std::string& text, const TileProgram& program) {
    append_constant(text,
                    integer("kTiles", program.tiles() / item_walks(program.attention, program.role),
                            "work items of one (b, h)"));
    append_constant(text, integer("kListed", uniform_walk(program).listed,
                                  "gather blocks of every work item, -1 where they differ"));
    const auto table = [&](std::string_view name, const std::vector<std::int32_t>& entries) {
        fmt::format_to(std::back_inserter(text),
                       "@{0}Entries = constant [{1} x i32] [\n    {2}]\n"
                       "@{0} = constant ptr @{0}Entries\n",
                       name, std::max<std::size_t>(1, entries.size()), table_text(entries, "i32 "));
    };
    table("kOrder", program.order);
    table("kOffsets", program.offsets);
    table("kGatherBlocks", program.gather_blocks);
    table("kBlockRowMasks", {program.block_row_masks.begin(), program.block_row_masks.end()});
}

}  // namespace

KernelSource specialise_host(const Target& target, std::string_view name, std::string_view body,
                             std::string_view entry, const std::vector<Constant>& constants,
                             std::string_view ir) {
    const std::string file_name = fmt::format("{}.bc", body);
    const EmbeddedFile* file = find_embedded(file_name);
    if (file == nullptr) {
        throw InternalError("no host body named '{}' is embedded", body);
    }
    KernelSource source{.name = std::string(name),
                        .entry = std::string(entry),
                        .text = fmt::format("; {}\n", name),
                        .includes = {{.name = file_name, .text = std::string(file->text)}},
                        .ir = std::string(ir)};
    source.text += comment_of(ir, "; ");
    for (const Constant& constant : constants) {
        append_constant(source.text, constant);
    }
    append_constant(source.text, integer("kVectorFloats", target.vector_floats,
                                         "fp32 lanes of a vector register"));
    fmt::format_to(std::back_inserter(source.text), "; entry @{} of kernels/host/{}.cpp\n", entry,
                   body);
    return source;
}

KernelSource emit_host(const TileProgram& program, const PlannedKernel& kernel,
                       const Target& target) {
    require_supported(program.attention);
    std::vector<Constant> constants = host_constants(
        program.attention, item_heads(program.attention, program.role), block_coverage(program));
    for (Constant& constant : kernel.family->constants(program, kernel.plan)) {
        constants.push_back(std::move(constant));
    }
    const bool baked = program.tables == Tables::kBaked;
    const std::string body =
        fmt::format("{}{}", kernel.family->body(program.role, kernel.plan), baked ? "_baked" : "");
    KernelSource source =
        specialise_host(target, source_name(program), body, to_string(program.role), constants,
                        text_without_walk(program));
    source.text += score_llvm(program.attention);
    if (baked) {
        require_bakeable(program);
        append_tables(source.text, program);
    }
    source.ir = to_text(program);
    return source;
}

KernelSource emit_host(const ScoreSummaryProgram& program, const Target& target) {
    require_supported(program.attention);
    verify(program);
    std::vector<Constant> constants =
        host_constants(program.attention, program.attention.heads, Coverage::kPartial);
    constants.push_back(integer("kBlock", program.block, "edge of a pattern block"));
    constants.push_back(integer("kStationaryRows", program.tile, "of a work item, in lanes"));
    constants.push_back(integer("kTile", program.tile, "rows and columns of a work item"));
    constants.push_back(integer("kFilter", program.filter, "F of the diagonal convolution"));
    return specialise_host(target,
                           fmt::format("score_summary-b{}-D{}-F{}", program.block,
                                       program.attention.head_dim, program.filter),
                           "score_summary", "score_summary", constants, to_text(program));
}

}  // namespace spion
