// A user's own change of scores: one expression of a score and of where it stands, and its derivative
// by the score. FlexAttention's score_mod, as a text that both back ends compile (docs/ir.md).
//
//   score, q, k, head, batch    the score, scale * q . k; its query, key, query head and sample
//   3, 0.5, 1e-3                fp32 numbers
//   + - * / ( )  - x            as in C
//   a < b ? x : y               and > <= >= == !=
//   exp fabs log max min sigmoid sqrt tanh    functions of fp32 numbers
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// A comparison is the first operand of kSelect alone.
enum class ScoreOp : std::uint8_t {
    kNumber,
    kScore,
    kQuery,
    kKey,
    kHead,
    kBatch,
    kNegate,
    kAdd,
    kSubtract,
    kMultiply,
    kDivide,
    kLess,
    kLessEqual,
    kEqual,
    kSelect,
    kAbs,
    kExp,
    kLog,
    kMax,
    kMin,
    kSigmoid,
    kSqrt,
    kTanh
};

constexpr int kMostScoreCharacters = 500;  // of an expression
constexpr int kMostScoreNodes = 1000;      // more than one and its derivative can have

// One operation; operands are numbers of nodes before it, -1 where it has fewer.
struct ScoreNode {
    ScoreOp op = ScoreOp::kNumber;
    float number = 0.0F;  // of kNumber
    int operands[3] = {-1, -1, -1};
    friend bool operator==(const ScoreNode&, const ScoreNode&) = default;
};

// How many operands it has: 0 to 3.
int operand_count(ScoreOp op);

// Equal nodes are one node, and every node is read by another, or is one of the two results.
struct ScoreGraph {
    std::vector<ScoreNode> nodes;
    int changed = -1;  // the node of the new score
    int slope = -1;    // of d(new score) / d(score)
};

// What an expression may read.
struct ScorePlace {
    double score = 0.0, query = 0.0, key = 0.0, head = 0.0, batch = 0.0;
};

struct ScoreChange {
    double changed, slope;
};

// The graph of an expression and its derivative; where `derivative` is "", it is derived: those of
// fabs, min, max and ?: are those of the side that counts. Throws UserError, a sentence that says
// where the text is wrong and what is allowed.
ScoreGraph score_graph(std::string_view score, std::string_view derivative);

// In fp64.
ScoreChange evaluate(const ScoreGraph& graph, const ScorePlace& place);

// The one text of all that mean the same tree: no spaces, fewest parentheses; "" stays "". Throws as
// score_graph does.
std::string canonical_score(std::string_view text);

// Positions and heads that an expression is asked about: 0 up to one less than these.
struct ScoreExtent {
    std::int64_t queries = 1, keys = 1;
    int heads = 1;
};

// Throws UserError unless both texts can be read, the score is finite somewhere in -30 to 30, and a
// `derivative` that is not "" is what the score grows by there, compared with its differences in
// fp64. A derivative needs a score.
void check_score(std::string_view score, std::string_view derivative, const ScoreExtent& extent);

}  // namespace spion
