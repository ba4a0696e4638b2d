// How graphs of score expressions are built, for their reader and their differentiation.
#pragma once

#include <string_view>
#include <vector>

#include "ir/score_expression.h"

namespace spion {

// Nodes that are made one after the other; equal ones are one.
class ScoreGraphBuilder {
  public:
    int node(const ScoreNode& node);
    int number(float value) { return node({.op = ScoreOp::kNumber, .number = value}); }
    int unary(ScoreOp op, int a) { return node({.op = op, .operands = {a, -1, -1}}); }
    int binary(ScoreOp op, int a, int b) { return node({.op = op, .operands = {a, b, -1}}); }
    int select(int condition, int a, int b) {
        return node({.op = ScoreOp::kSelect, .operands = {condition, a, b}});
    }

    // The same with what is known of zeros and ones left out.
    int sum(int a, int b);
    int difference(int a, int b);
    int product(int a, int b);
    int quotient(int a, int b);

    const ScoreNode& at(int index) const { return nodes_[static_cast<std::size_t>(index)]; }
    const std::vector<ScoreNode>& nodes() const { return nodes_; }

  private:
    bool is_number(int index, float value) const;

    std::vector<ScoreNode> nodes_;
};

// Appends the expression and returns its node. what: its name in messages.
int read_score(ScoreGraphBuilder& builder, std::string_view text, std::string_view what);

// The text of a node that read_score made.
std::string print_score(const std::vector<ScoreNode>& nodes, int index);

// Appends the derivative of node `root` by the score and returns its node.
int differentiate_score(ScoreGraphBuilder& builder, int root);

}  // namespace spion
