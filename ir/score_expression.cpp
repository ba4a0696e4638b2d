#include "ir/score_expression.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ir/error.h"
#include "ir/score_graph.h"

namespace spion {
namespace {

// Nodes that neither result reads are left out; the order stays.
ScoreGraph only_what_is_read(const std::vector<ScoreNode>& nodes, int changed, int slope) {
    std::vector<bool> read(nodes.size());
    read[static_cast<std::size_t>(changed)] = read[static_cast<std::size_t>(slope)] = true;
    for (std::size_t n = nodes.size(); n-- > 0;) {
        for (int i = 0; read[n] && i < operand_count(nodes[n].op); ++i) {
            read[static_cast<std::size_t>(nodes[n].operands[i])] = true;
        }
    }
    ScoreGraph graph;
    std::vector<int> place(nodes.size(), -1);
    for (std::size_t n = 0; n < nodes.size(); ++n) {
        if (!read[n]) {
            continue;
        }
        ScoreNode node = nodes[n];
        for (int i = 0; i < operand_count(node.op); ++i) {
            node.operands[i] = place[static_cast<std::size_t>(node.operands[i])];
        }
        place[n] = static_cast<int>(graph.nodes.size());
        graph.nodes.push_back(node);
    }
    graph.changed = place[static_cast<std::size_t>(changed)];
    graph.slope = place[static_cast<std::size_t>(slope)];
    return graph;
}

// a, b, c: values of the operands.
double value_of(const ScoreNode& node, const ScorePlace& place, double a, double b, double c) {
    switch (node.op) {
        case ScoreOp::kNumber:
            return node.number;
        case ScoreOp::kScore:
            return place.score;
        case ScoreOp::kQuery:
            return place.query;
        case ScoreOp::kKey:
            return place.key;
        case ScoreOp::kHead:
            return place.head;
        case ScoreOp::kBatch:
            return place.batch;
        case ScoreOp::kNegate:
            return -a;
        case ScoreOp::kAdd:
            return a + b;
        case ScoreOp::kSubtract:
            return a - b;
        case ScoreOp::kMultiply:
            return a * b;
        case ScoreOp::kDivide:
            return a / b;
        case ScoreOp::kLess:
            return a < b ? 1 : 0;
        case ScoreOp::kLessEqual:
            return a <= b ? 1 : 0;
        case ScoreOp::kEqual:
            return a == b ? 1 : 0;
        case ScoreOp::kSelect:
            return a != 0 ? b : c;
        case ScoreOp::kAbs:
            return std::fabs(a);
        case ScoreOp::kExp:
            return std::exp(a);
        case ScoreOp::kLog:
            return std::log(a);
        case ScoreOp::kMax:
            return a < b ? b : a;
        case ScoreOp::kMin:
            return a < b ? a : b;
        case ScoreOp::kSigmoid:
            return 1 / (1 + std::exp(-a));
        case ScoreOp::kSqrt:
            return std::sqrt(a);
        case ScoreOp::kTanh:
            return std::tanh(a);
    }
    throw InternalError("score operation {} has no value", static_cast<int>(node.op));
}

}  // namespace

int operand_count(ScoreOp op) {
    switch (op) {
        case ScoreOp::kNumber:
        case ScoreOp::kScore:
        case ScoreOp::kQuery:
        case ScoreOp::kKey:
        case ScoreOp::kHead:
        case ScoreOp::kBatch:
            return 0;
        case ScoreOp::kNegate:
        case ScoreOp::kAbs:
        case ScoreOp::kExp:
        case ScoreOp::kLog:
        case ScoreOp::kSigmoid:
        case ScoreOp::kSqrt:
        case ScoreOp::kTanh:
            return 1;
        case ScoreOp::kAdd:
        case ScoreOp::kSubtract:
        case ScoreOp::kMultiply:
        case ScoreOp::kDivide:
        case ScoreOp::kLess:
        case ScoreOp::kLessEqual:
        case ScoreOp::kEqual:
        case ScoreOp::kMax:
        case ScoreOp::kMin:
            return 2;
        case ScoreOp::kSelect:
            return 3;
    }
    throw InternalError("score operation {} has no operands", static_cast<int>(op));
}

ScoreGraph score_graph(std::string_view score, std::string_view derivative) {
    ScoreGraphBuilder builder;
    const int changed = read_score(builder, score, "score");
    const int slope = derivative.empty() ? differentiate_score(builder, changed)
                                         : read_score(builder, derivative, "score_derivative");
    return only_what_is_read(builder.nodes(), changed, slope);
}

ScoreChange evaluate(const ScoreGraph& graph, const ScorePlace& place) {
    std::array<double, kMostScoreNodes> values;
    for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
        const ScoreNode& node = graph.nodes[n];
        double of[3] = {};
        for (int i = 0; i < operand_count(node.op); ++i) {
            of[i] = values[static_cast<std::size_t>(node.operands[i])];
        }
        values[n] = value_of(node, place, of[0], of[1], of[2]);
    }
    return {.changed = values[static_cast<std::size_t>(graph.changed)],
            .slope = values[static_cast<std::size_t>(graph.slope)]};
}

std::string canonical_score(std::string_view text) {
    if (text.empty()) {
        return "";
    }
    ScoreGraphBuilder builder;
    const int root = read_score(builder, text, "score");
    std::string canonical = print_score(builder.nodes(), root);
    if (std::ssize(canonical) > kMostScoreCharacters) {  // numbers may be written longer
        throw UserError("score is printed as {} characters: give an expression of at most {}",
                        canonical.size(), kMostScoreCharacters);
    }
    return canonical;
}

namespace {

constexpr double kMostScore = 30;  // both ways, where expressions are tried
constexpr int kTriedScores = 64;   // of every place

// None of them a number that people write down, where an expression may have a kink.
double tried_score(int n) {
    const double reach = n % 4 == 0 ? 1 : kMostScore;  // a quarter of them is near 0
    return reach * (2 * (n + 0.3711) / kTriedScores - 1);
}

std::array<ScorePlace, 5> tried_places(const ScoreExtent& extent) {
    const auto last = [](std::int64_t count) { return static_cast<double>(count - 1); };
    const double q = last(extent.queries), k = last(extent.keys), head = last(extent.heads);
    return {{{.score = 0, .query = 0, .key = 0, .head = 0, .batch = 0},
             {.score = 0, .query = q, .key = k, .head = head, .batch = 1},
             {.score = 0, .query = q, .key = 0, .head = 0, .batch = 2},
             {.score = 0, .query = 0, .key = k, .head = head, .batch = 0},
             {.score = 0,
              .query = std::floor(q / 2),
              .key = std::floor(k / 3),
              .head = std::floor(head / 2),
              .batch = 0}}};
}

struct Difference {
    double slope;
    double doubt;  // how far two steps' central differences are apart
};

Difference central_difference(const ScoreGraph& graph, ScorePlace place) {
    const double score = place.score, step = 1e-4 * std::max(1.0, std::fabs(score));
    const auto difference = [&](double h) {
        place.score = score + h;
        const double above = evaluate(graph, place).changed;
        place.score = score - h;
        return (above - evaluate(graph, place).changed) / (2 * h);
    };
    const double wide = difference(step), narrow = difference(step / 2);
    return {.slope = (4 * narrow - wide) / 3, .doubt = std::fabs(narrow - wide)};
}

// What is tried at one score.
struct Trial {
    bool finite = false;
    bool agrees = true;
    double slope = 0;
};

Trial try_score(const ScoreGraph& graph, const ScorePlace& place, bool compare) {
    const ScoreChange change = evaluate(graph, place);
    Trial trial{.finite = std::isfinite(change.changed), .agrees = true, .slope = change.slope};
    if (!trial.finite || !compare) {
        return trial;
    }
    const Difference found = central_difference(graph, place);
    if (std::isfinite(found.slope)) {
        const double allowed = 1e-4 * std::fabs(found.slope) + 4 * found.doubt +
                               1e-7 * std::max(1.0, std::fabs(change.changed));
        trial.agrees = std::fabs(change.slope - found.slope) <= allowed;
        trial.slope = found.slope;
    }
    return trial;
}

}  // namespace

void check_score(std::string_view score, std::string_view derivative, const ScoreExtent& extent) {
    if (score.empty() && derivative.empty()) {
        return;
    }
    if (score.empty()) {
        throw UserError(
            "score_derivative '{}' was given without a score: give the score that it derives, or "
            "leave it out",
            derivative);
    }
    const ScoreGraph graph = score_graph(score, derivative);
    bool finite = false;
    for (ScorePlace place : tried_places(extent)) {
        for (int n = 0; n < kTriedScores; ++n) {
            place.score = tried_score(n);
            const Trial trial = try_score(graph, place, !derivative.empty());
            finite = finite || trial.finite;
            if (finite && derivative.empty()) {
                return;
            }
            if (!trial.agrees) {
                throw UserError(
                    "score_derivative '{}' is not the derivative of score '{}': where score is "
                    "{:.4g}, q {}, k {}, head {} and batch {}, it is {:.6g} and the score grows by "
                    "{:.6g}; correct it, or leave it out to have it derived",
                    derivative, score, place.score, place.query, place.key, place.head, place.batch,
                    evaluate(graph, place).slope, trial.slope);
            }
        }
    }
    if (!finite) {
        throw UserError(
            "score '{}' is not a finite number for any score that was tried, {} to {}: give an "
            "expression that is",
            score, -kMostScore, kMostScore);
    }
}

}  // namespace spion
