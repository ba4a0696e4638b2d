// Random score expressions (ir/score_expression.h), finite for scores and positions of tests; where
// they jump, positions decide, which rounding cannot change.
#pragma once

#include <fmt/format.h>

#include <random>
#include <string>

namespace spion::test {

// `depth` operations deep at most. Every one keeps numbers of some tens within some tens. Without
// `corners` the derivative has no jumps, which the score's last bits would decide: a kernel's scores
// differ in them from the reference's, and those of dQ from those of dK and dV.
inline std::string random_score(std::mt19937_64& random, int depth, bool corners = true) {
    const auto pick = [&](int count) { return static_cast<int>(random() % count); };
    const auto inner = [&] { return random_score(random, depth - 1, corners); };
    if (depth == 0) {
        const char* const leaves[] = {"score",         "score",        "score", "0.25",
                                      "fabs(q-k)/100", "(head-1)*0.5", "2",     "(batch+1)*0.3"};
        return leaves[pick(8)];
    }
    switch (pick(corners ? 15 : 10)) {
        case 0:
            return fmt::format("({}+{})*0.5", inner(), inner());
        case 1:
            return fmt::format("{}-0.5*({})", inner(), inner());
        case 2:
            return fmt::format("5*tanh(({})/5)", inner());
        case 3:
            return fmt::format("3*sigmoid({})", inner());
        case 4:
            return fmt::format("(q {} k ? {} : {})", pick(2) == 0 ? "<" : ">=", inner(), inner());
        case 5:
            return fmt::format("(k != {} ? score : -({}))", pick(40), inner());
        case 6:
            return inner();
        case 7:
            return "3*max(tanh(score),0)*max(tanh(score),0)";
        case 8:
            return fmt::format("{}+min(score,0)*fabs(tanh(score))", inner());
        case 9:
            return fmt::format("({})/sqrt(1+score*score)", inner());
        case 10:
            return fmt::format("log(1+exp(min({},9)))", inner());
        case 11:
            return fmt::format("sqrt(1+fabs({}))", inner());
        case 12:
            return fmt::format("max({},0.3*score)", inner());
        case 13:
            return fmt::format("min({},4+{})", inner(), inner());
        default:
            return fmt::format("({})/(1.5+fabs({}))", inner(), inner());
    }
}

}  // namespace spion::test
