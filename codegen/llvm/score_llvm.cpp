#include "codegen/llvm/score_llvm.h"

#include <bit>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "ir/error.h"
#include "ir/score_expression.h"

namespace spion {
namespace {

// The function of an operation; "" for variables, whose lanes are given.
std::string_view function_of(ScoreOp op) {
    switch (op) {
        case ScoreOp::kNumber:
            return "number";
        case ScoreOp::kScore:
        case ScoreOp::kQuery:
        case ScoreOp::kKey:
        case ScoreOp::kHead:
        case ScoreOp::kBatch:
            return "";
        case ScoreOp::kNegate:
            return "negate";
        case ScoreOp::kAdd:
            return "add";
        case ScoreOp::kSubtract:
            return "subtract";
        case ScoreOp::kMultiply:
            return "multiply";
        case ScoreOp::kDivide:
            return "divide";
        case ScoreOp::kLess:
            return "less";
        case ScoreOp::kLessEqual:
            return "less_equal";
        case ScoreOp::kEqual:
            return "equal";
        case ScoreOp::kSelect:
            return "select";
        case ScoreOp::kAbs:
            return "abs";
        case ScoreOp::kExp:
            return "exp";
        case ScoreOp::kLog:
            return "log";
        case ScoreOp::kMax:
            return "max";
        case ScoreOp::kMin:
            return "min";
        case ScoreOp::kSigmoid:
            return "sigmoid";
        case ScoreOp::kSqrt:
            return "sqrt";
        case ScoreOp::kTanh:
            return "tanh";
    }
    throw InternalError("score operation {} has no function", static_cast<int>(op));
}

// The lanes of a node's value: a parameter or a place of its own.
std::string lanes_of(const ScoreGraph& graph, int index) {
    switch (graph.nodes[static_cast<std::size_t>(index)].op) {
        case ScoreOp::kScore:
            return "%score";
        case ScoreOp::kQuery:
            return "%q";
        case ScoreOp::kKey:
            return "%k";
        case ScoreOp::kHead:
            return "%head";
        case ScoreOp::kBatch:
            return "%batch";
        default:
            return fmt::format("%n{}", index);
    }
}

std::string call_of(const ScoreGraph& graph, int index) {
    const ScoreNode& node = graph.nodes[static_cast<std::size_t>(index)];
    std::string operands;
    if (node.op == ScoreOp::kNumber) {
        // LLVM spells a float as the hexadecimal bits of the equal double: exact.
        const auto bits = std::bit_cast<std::uint64_t>(static_cast<double>(node.number));
        operands = fmt::format("float 0x{:016X}, ", bits);
    }
    for (int i = 0; i < operand_count(node.op); ++i) {
        operands += fmt::format("ptr {}, ", lanes_of(graph, node.operands[i]));
    }
    return fmt::format("  call void @score_{}({}ptr %n{})\n", function_of(node.op), operands,
                       index);
}

std::string declarations() {
    std::string text =
        "declare void @score_number(float, ptr)\ndeclare void @score_copy(ptr, ptr)\n";
    for (int n = 0; n <= static_cast<int>(ScoreOp::kTanh); ++n) {
        const auto op = static_cast<ScoreOp>(n);
        constexpr std::string_view kPointers[] = {"ptr", "ptr, ptr", "ptr, ptr, ptr"};
        if (const int count = operand_count(op); count > 0) {
            fmt::format_to(std::back_inserter(text), "declare void @score_{}({}, ptr)\n",
                           function_of(op), kPointers[count - 1]);
        }
    }
    return text;
}

}  // namespace

std::string score_llvm(const Attention& attention) {
    if (attention.score.empty()) {
        return "";
    }
    const ScoreGraph graph = score_graph(attention.score, attention.score_derivative);
    std::string places, calls;
    for (int index = 0; index < std::ssize(graph.nodes); ++index) {
        if (function_of(graph.nodes[static_cast<std::size_t>(index)].op).empty()) {
            continue;
        }
        places += fmt::format("  %n{} = alloca [16 x float], align 64\n", index);
        calls += call_of(graph, index);
    }
    // The attributes are those that a rebuild puts its CPU's into, as it does in the bodies.
    return fmt::format(
        "{}define void @express_score(ptr %score, ptr %q, ptr %k, ptr %head, ptr %batch, "
        "ptr %changed, ptr %slope) alwaysinline \"target-cpu\"=\"generic\" "
        "\"target-features\"=\"\" {{\n{}{}  call void @score_copy(ptr {}, ptr %changed)\n"
        "  call void @score_copy(ptr {}, ptr %slope)\n  ret void\n}}\n",
        declarations(), places, calls, lanes_of(graph, graph.changed),
        lanes_of(graph, graph.slope));
}

}  // namespace spion
