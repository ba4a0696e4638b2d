#include "ir/score_graph.h"

#include <algorithm>

#include "ir/error.h"

namespace spion {

int ScoreGraphBuilder::node(const ScoreNode& node) {
    const auto found = std::find(nodes_.begin(), nodes_.end(), node);
    if (found == nodes_.end() && std::ssize(nodes_) == kMostScoreNodes) {
        throw InternalError("a score expression has more than {} operations", kMostScoreNodes);
    }
    const auto index = static_cast<int>(found - nodes_.begin());
    if (found == nodes_.end()) {
        nodes_.push_back(node);
    }
    return index;
}

bool ScoreGraphBuilder::is_number(int index, float value) const {
    return at(index).op == ScoreOp::kNumber && at(index).number == value;
}

int ScoreGraphBuilder::sum(int a, int b) {
    return is_number(a, 0.0F) ? b : is_number(b, 0.0F) ? a : binary(ScoreOp::kAdd, a, b);
}

int ScoreGraphBuilder::difference(int a, int b) {
    if (is_number(b, 0.0F)) {
        return a;
    }
    return is_number(a, 0.0F) ? unary(ScoreOp::kNegate, b) : binary(ScoreOp::kSubtract, a, b);
}

int ScoreGraphBuilder::product(int a, int b) {
    if (is_number(a, 0.0F) || is_number(b, 0.0F)) {
        return number(0.0F);
    }
    return is_number(a, 1.0F) ? b : is_number(b, 1.0F) ? a : binary(ScoreOp::kMultiply, a, b);
}

int ScoreGraphBuilder::quotient(int a, int b) {
    return is_number(a, 0.0F) ? a : binary(ScoreOp::kDivide, a, b);
}

namespace {

// The derivative of a node by the score, from those of its operands, `d`.
int derivative_of(ScoreGraphBuilder& graph, int index, const int (&d)[3]) {
    const ScoreNode node = graph.at(index);
    const auto [a, b, c] = node.operands;
    switch (node.op) {
        case ScoreOp::kScore:
            return graph.number(1.0F);
        case ScoreOp::kNumber:
        case ScoreOp::kQuery:
        case ScoreOp::kKey:
        case ScoreOp::kHead:
        case ScoreOp::kBatch:
        case ScoreOp::kLess:
        case ScoreOp::kLessEqual:
        case ScoreOp::kEqual:
            return graph.number(0.0F);
        case ScoreOp::kNegate:
            return graph.difference(graph.number(0.0F), d[0]);
        case ScoreOp::kAdd:
            return graph.sum(d[0], d[1]);
        case ScoreOp::kSubtract:
            return graph.difference(d[0], d[1]);
        case ScoreOp::kMultiply:
            return graph.sum(graph.product(d[0], b), graph.product(a, d[1]));
        case ScoreOp::kDivide:  // (a' - (a / b) b') / b
            return graph.quotient(graph.difference(d[0], graph.product(index, d[1])), b);
        case ScoreOp::kSelect:
            return d[1] == d[2] ? d[1] : graph.select(a, d[1], d[2]);
        case ScoreOp::kMax:
            return d[0] == d[1] ? d[0]
                                : graph.select(graph.binary(ScoreOp::kLess, a, b), d[1], d[0]);
        case ScoreOp::kMin:
            return d[0] == d[1] ? d[0]
                                : graph.select(graph.binary(ScoreOp::kLess, a, b), d[0], d[1]);
        case ScoreOp::kAbs: {
            const int negative = graph.binary(ScoreOp::kLess, a, graph.number(0.0F));
            const int opposite = graph.difference(graph.number(0.0F), d[0]);
            return opposite == d[0] ? d[0] : graph.select(negative, opposite, d[0]);
        }
        case ScoreOp::kExp:
            return graph.product(index, d[0]);
        case ScoreOp::kLog:
            return graph.quotient(d[0], a);
        case ScoreOp::kSqrt:
            return graph.quotient(d[0], graph.product(graph.number(2.0F), index));
        case ScoreOp::kSigmoid:
            return graph.product(graph.product(index, graph.difference(graph.number(1.0F), index)),
                                 d[0]);
        case ScoreOp::kTanh:
            return graph.product(graph.difference(graph.number(1.0F), graph.product(index, index)),
                                 d[0]);
    }
    throw InternalError("score operation {} has no derivative", static_cast<int>(node.op));
}

}  // namespace

int differentiate_score(ScoreGraphBuilder& builder, int root) {
    std::vector<int> derivatives;  // of nodes up to root, whose operands come before them
    for (int index = 0; index <= root; ++index) {
        int of_operands[3] = {-1, -1, -1};
        for (int i = 0; i < operand_count(builder.at(index).op); ++i) {
            of_operands[i] = derivatives[static_cast<std::size_t>(builder.at(index).operands[i])];
        }
        derivatives.push_back(derivative_of(builder, index, of_operands));
    }
    return derivatives.back();
}

}  // namespace spion
