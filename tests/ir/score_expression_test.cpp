#include "ir/score_expression.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <string>

#include "ir/error.h"
#include "tests/support/random_score.h"

namespace spion {
namespace {

double value(std::string_view text, ScorePlace place = {}) {
    return evaluate(score_graph(text, ""), place).changed;
}

double slope(std::string_view text, ScorePlace place = {}) {
    return evaluate(score_graph(text, ""), place).slope;
}

TEST(ScoreExpression, HasTheArithmeticOfC) {
    EXPECT_EQ(value("1 + 2 * 3"), 7);
    EXPECT_EQ(value("(1 + 2) * 3"), 9);
    EXPECT_EQ(value("8 - 4 - 2"), 2);
    EXPECT_EQ(value("8 / 4 / 2"), 1);
    EXPECT_EQ(value("8 / (4 / 2)"), 4);
    EXPECT_EQ(value("-2 * -3"), 6);
    EXPECT_EQ(value("2 - -3"), 5);
    EXPECT_EQ(value("--2"), 2);
    EXPECT_EQ(value(".5 + 1e2 + 2.5f + 1E-1F"), double{0.1F} + 103);
    EXPECT_EQ(value("1 < 2 ? 3 : 4"), 3);
    EXPECT_EQ(value("1 > 2 ? 3 : 2 >= 2 ? 5 : 6"), 5);
    EXPECT_EQ(value("(1 == 2 ? 3 : 4) + 1"), 5);
    EXPECT_EQ(value("1 != 2 ? 3 : 4"), 3);
    EXPECT_EQ(value("1 <= 0 ? 3 : 4"), 4);
}

TEST(ScoreExpression, HasItsVariablesAndFunctions) {
    const ScorePlace place{.score = 2, .query = 3, .key = 5, .head = 7, .batch = 11};
    EXPECT_EQ(value("score + 10 * q + 100 * k + 1000 * head + 10000 * batch", place), 117532);
    EXPECT_EQ(value("min(score, q) + 10 * max(score, q) + 100 * fabs(q - k)", place), 232);
    EXPECT_EQ(value("exp(score)", place), std::exp(2.0));
    EXPECT_EQ(value("log(score)", place), std::log(2.0));
    EXPECT_EQ(value("sqrt(score)", place), std::sqrt(2.0));
    EXPECT_EQ(value("tanh(score)", place), std::tanh(2.0));
    EXPECT_EQ(value("sigmoid(score)", place), 1 / (1 + std::exp(-2.0)));
}

TEST(ScoreExpression, DerivativesAreThoseOfTheSideThatCounts) {
    EXPECT_EQ(slope("fabs(score)", {.score = -2}), -1);
    EXPECT_EQ(slope("fabs(score)", {.score = 2}), 1);
    EXPECT_EQ(slope("min(score, 3)", {.score = 2}), 1);
    EXPECT_EQ(slope("min(score, 3)", {.score = 4}), 0);
    EXPECT_EQ(slope("max(score, 3)", {.score = 2}), 0);
    EXPECT_EQ(slope("score < q ? 2 * score : 5", {.score = 2, .query = 3}), 2);
    EXPECT_EQ(slope("score < q ? 2 * score : 5", {.score = 4, .query = 3}), 0);
    EXPECT_EQ(slope("q * score - k", {.score = 4, .query = 3}), 3);
    EXPECT_EQ(slope("-fabs(q - k)", {.score = 4, .query = 3}), 0);
    EXPECT_DOUBLE_EQ(slope("score / (1 + score)", {.score = 3}), 1.0 / 16);
    EXPECT_EQ(slope("sqrt(score)", {.score = 4}), 0.25);
}

// The derivative that is derived against differences, at places away from kinks.
TEST(ScoreExpression, DerivesWhatDifferencesSay) {
    std::mt19937_64 random(71);
    int compared = 0;
    for (int round = 0; round < 400; ++round) {
        const std::string text = test::random_score(random, 4);
        const ScoreGraph graph = score_graph(text, "");
        for (int n = 0; n < 20; ++n) {
            std::uniform_real_distribution<double> any(-4, 4);
            ScorePlace place{
                .score = any(random), .query = 9, .key = std::floor(8 + any(random)), .head = 1};
            const auto difference = [&](double h) {
                ScorePlace above = place, below = place;
                above.score += h;
                below.score -= h;
                return (evaluate(graph, above).changed - evaluate(graph, below).changed) / (2 * h);
            };
            const double wide = difference(2e-5), narrow = difference(1e-5);
            const ScoreChange here = evaluate(graph, place);
            if (!std::isfinite(wide) || std::fabs(here.changed) > 1e4 ||
                std::fabs(wide - narrow) > 1e-5 * (1 + std::fabs(narrow))) {
                continue;
            }
            ++compared;
            EXPECT_NEAR(here.slope, narrow, 1e-4 * (1 + std::fabs(narrow)))
                << text << " at " << place.score;
        }
    }
    EXPECT_GT(compared, 4000);
}

TEST(ScoreExpression, EqualTreesHaveOneText) {
    const auto is = [](std::string_view text, std::string_view canonical) {
        EXPECT_EQ(canonical_score(text), canonical);
        EXPECT_EQ(canonical_score(canonical), canonical);
    };
    is("", "");
    is(" 50 *\ttanh( score/50.0f ) ", "50*tanh(score/50)");
    is("((score)) + (q + k)", "score+(q+k)");
    is("(score + q) + k", "score+q+k");
    is("(score * q) / (k * 2)", "score*q/(k*2)");
    is("-(score + 1) - -q", "-(score+1)--q");
    is("q > k ? score : 0.1", "k<q?score:0.1");
    is("q >= k ? score : (q == k ? 1 : 2)", "k<=q?score:q==k?1:2");
    is("(q != k ? score : 1) * 1e30", "(q==k?1:score)*1e+30");
    is("max(score, (q))", "max(score,q)");
    std::mt19937_64 random(72);
    for (int round = 0; round < 300; ++round) {
        const std::string text = test::random_score(random, 5), once = canonical_score(text);
        EXPECT_EQ(canonical_score(once), once);
        const ScorePlace place{.score = 1.3, .query = 4, .key = 7, .head = 2, .batch = 1};
        const double before = value(text, place), after = value(once, place);
        EXPECT_TRUE(before == after || (std::isnan(before) && std::isnan(after))) << text;
    }
}

void refuses(const std::function<void()>& act, std::string_view part) {
    try {
        act();
        ADD_FAILURE() << "nothing was refused where " << part << " was expected";
    } catch (const UserError& error) {
        EXPECT_NE(std::string_view(error.what()).find(part), std::string_view::npos)
            << error.what();
        EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
    }
}

TEST(ScoreExpression, RefusesAllElseByOneSentence) {
    const auto is_refused = [](std::string_view text, std::string_view part) {
        refuses([&] { score_graph(text, ""); }, part);
        refuses([&] { canonical_score(text); }, part);
    };
    is_refused("tanh(scor)",
               "score 'tanh(scor)': at column 6, 'scor' is not known: use numbers, score, "
               "q, k, head, batch, + - * /, parentheses, a < b ? x : y, and exp, fabs, "
               "log, max, min, sigmoid, sqrt, tanh");
    is_refused("score;", "at column 6, ';' is not expected");
    is_refused("score # 1", "at column 7, '#' is not expected");
    is_refused("asm(score)", "'asm' is not known");
    is_refused("__ldg(score)", "'__ldg' is not known");
    is_refused("score = 2", "'=' is not expected");
    is_refused("score[0]", "'[' is not expected");
    is_refused("score, q", "',' is not expected");
    is_refused("\"score\"", "'\"' stands where a value is expected");
    is_refused("score \\", "'\\' is not expected");
    is_refused("score\n", "byte 10 is not expected");
    is_refused("2 q", "'q' is not expected");
    is_refused("2 +", "the end stands where a value is expected");
    is_refused("(2", "the end stands where ')' is expected");
    is_refused("max(2)", "')' stands where ',' is expected");
    is_refused("tanh 2", "'2' stands where '(' is expected");
    is_refused("q < k", "the end stands where '?' is expected");
    is_refused("q < k ? 1", "the end stands where ':' is expected");
    is_refused("(q < k) * 2", "')' stands where '?' is expected");
    is_refused("q < k < 2 ? 1 : 2", "'<' stands where '?' is expected");
    is_refused("1e999", "'1' is no fp32 number");
    is_refused("inf", "'inf' is not known");
    is_refused("Score", "'Score' is not known");
    is_refused(std::string(60, '(') + "1" + std::string(60, ')'), "more than 50 levels are nested");
    is_refused(std::string(60, '-') + "1", "more than 50 levels are nested");
    is_refused(std::string(501, '1'),
               "score has 501 characters: give an expression of at most 500");
    std::string long_one = "1e9";
    for (int n = 0; n < 120; ++n) long_one += "+1e9";
    refuses([&] { canonical_score(long_one); }, "is printed as 1330 characters");
    refuses([&] { score_graph("score", "q+"); }, "score_derivative 'q+': at column 3");
}

TEST(ScoreExpression, DerivativesAreCheckedByDifferences) {
    const ScoreExtent extent{.queries = 300, .keys = 200, .heads = 4};
    check_score("", "", extent);
    check_score("50*tanh(score/50)", "", extent);
    check_score("50*tanh(score/50)", "1-tanh(score/50)*tanh(score/50)", extent);
    check_score("fabs(score)", "score < 0 ? -1 : 1", extent);
    check_score("score - 0.1*log(1 + fabs(q - k))", "1", extent);
    check_score("exp(score)", "exp(score)", extent);
    check_score("exp(9*score)", "9*exp(9*score)", extent);
    check_score("log(score)", "1/score", extent);
    check_score("head*score*score*1e-6", "head*score*2e-6", extent);
    refuses([&] { check_score("50*tanh(score/50)", "1-tanh(score/50)", extent); },
            "score_derivative '1-tanh(score/50)' is not the derivative of score "
            "'50*tanh(score/50)': where score is ");
    refuses([&] { check_score("50*tanh(score/50)", "1-tanh(score/50)", extent); },
            "correct it, or leave it out to have it derived");
    refuses([&] { check_score("score", "0.999", extent); },
            "it is 0.999 and the score grows by 1;");
    // Only where head or position is another than 0, and only on one side of 0.
    refuses([&] { check_score("score*(1+head)", "1", extent); }, "q 299, k 199, head 3");
    refuses([&] { check_score("max(score,0)", "1", extent); }, "it is 1 and the score grows by 0;");
    refuses([&] { check_score("score", "log(0-1)", extent); }, "nan and the score grows by 1");
    refuses([&] { check_score("", "1", extent); }, "was given without a score");
    refuses([&] { check_score("log(-1-score*score)", "", extent); },
            "is not a finite number for any score that was tried, -30 to 30");
}

}  // namespace
}  // namespace spion
