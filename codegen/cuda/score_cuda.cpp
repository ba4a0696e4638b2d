#include "codegen/cuda/score_cuda.h"

#include <iterator>

#include "ir/error.h"
#include "ir/score_expression.h"

namespace spion {

// 9 digits name every float, and always a point or an exponent.
std::string float_literal(float value) {
    std::string digits = fmt::format("{:.9g}", value);
    if (digits.find_first_of(".e") == std::string::npos) {
        digits += ".0";
    }
    return value < 0 ? fmt::format("({}F)", digits) : digits + "F";
}

namespace {

// A node's value: a literal, a parameter, or what its line has named.
std::string value_of(const ScoreGraph& graph, int index) {
    const ScoreNode& node = graph.nodes[static_cast<std::size_t>(index)];
    switch (node.op) {
        case ScoreOp::kNumber:
            return float_literal(node.number);
        case ScoreOp::kScore:
            return "score";
        case ScoreOp::kQuery:
            return "q";
        case ScoreOp::kKey:
            return "k";
        case ScoreOp::kHead:
            return "head";
        case ScoreOp::kBatch:
            return "batch";
        default:
            return fmt::format("n{}", index);
    }
}

// Dividing by a number multiplies: a quotient takes a reciprocal of its own for every element.
std::string quotient_of(const ScoreGraph& graph, const ScoreNode& node, const std::string& a,
                        const std::string& b) {
    const ScoreNode& divisor = graph.nodes[static_cast<std::size_t>(node.operands[1])];
    return divisor.op == ScoreOp::kNumber ? fmt::format("{} * (1.0F / {})", a, b)
                                          : fmt::format("F::divide({}, {})", a, b);
}

// What an operation computes; "" where value_of has it already.
std::string operation_of(const ScoreGraph& graph, const ScoreNode& node) {
    std::string of[3];
    for (int i = 0; i < operand_count(node.op); ++i) {
        of[i] = value_of(graph, node.operands[i]);
    }
    const auto& [a, b, c] = of;
    switch (node.op) {
        case ScoreOp::kNumber:
        case ScoreOp::kScore:
        case ScoreOp::kQuery:
        case ScoreOp::kKey:
        case ScoreOp::kHead:
        case ScoreOp::kBatch:
            return "";
        case ScoreOp::kNegate:
            return fmt::format("-{}", a);
        case ScoreOp::kAdd:
            return fmt::format("{} + {}", a, b);
        case ScoreOp::kSubtract:
            return fmt::format("{} - {}", a, b);
        case ScoreOp::kMultiply:
            return fmt::format("{} * {}", a, b);
        case ScoreOp::kDivide:
            return quotient_of(graph, node, a, b);
        case ScoreOp::kLess:
            return fmt::format("{} < {}", a, b);
        case ScoreOp::kLessEqual:
            return fmt::format("{} <= {}", a, b);
        case ScoreOp::kEqual:
            return fmt::format("{} == {}", a, b);
        case ScoreOp::kSelect:
            return fmt::format("{} ? {} : {}", a, b, c);
        case ScoreOp::kAbs:
            return fmt::format("fabsf({})", a);
        case ScoreOp::kExp:
            return fmt::format("F::exp({})", a);
        case ScoreOp::kLog:
            return fmt::format("F::log({})", a);
        case ScoreOp::kMax:
            return fmt::format("fmaxf({}, {})", a, b);
        case ScoreOp::kMin:
            return fmt::format("fminf({}, {})", a, b);
        case ScoreOp::kSigmoid:
            return fmt::format("F::sigmoid({})", a);
        case ScoreOp::kSqrt:
            return fmt::format("F::sqrt({})", a);
        case ScoreOp::kTanh:
            return fmt::format("F::tanh({})", a);
    }
    throw InternalError("score operation {} has no CUDA text", static_cast<int>(node.op));
}

bool is_comparison(ScoreOp op) {
    return op == ScoreOp::kLess || op == ScoreOp::kLessEqual || op == ScoreOp::kEqual;
}

}  // namespace

std::string score_cuda(const Attention& attention) {
    if (attention.score.empty()) {
        return "";
    }
    const ScoreGraph graph = score_graph(attention.score, attention.score_derivative);
    std::string lines;
    for (int index = 0; index < std::ssize(graph.nodes); ++index) {
        const ScoreNode& node = graph.nodes[static_cast<std::size_t>(index)];
        if (const std::string operation = operation_of(graph, node); !operation.empty()) {
            fmt::format_to(std::back_inserter(lines), "        const {} n{} = {};\n",
                           is_comparison(node.op) ? "bool" : "float", index, operation);
        }
    }
    constexpr const char* kParameters =
        "[[maybe_unused]] float score, [[maybe_unused]] float q,\n"
        "        [[maybe_unused]] float k, [[maybe_unused]] float head, [[maybe_unused]] float "
        "batch,\n        float& changed, float& slope";
    return fmt::format(
        "\n#define SPION_SCORE_EXPRESSION  // of a natural score, and its derivative by it\n"
        "struct ScoreExpression {{\n"
        "    template <typename F>\n"
        "    static __device__ __forceinline__ void change({}) {{\n{}"
        "        changed = {};\n        slope = {};\n    }}\n}};\n",
        kParameters, lines, value_of(graph, graph.changed), value_of(graph, graph.slope));
}

}  // namespace spion
