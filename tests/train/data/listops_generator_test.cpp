#include "train/data/listops_generator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "ir/error.h"
#include "ir/sha256.h"
#include "tests/support/expect_error.h"
#include "tests/support/seed.h"
#include "train/data/listops.h"

namespace spion {
namespace {

// Reads an expression from its text alone, by a stack, and checks its grammar on the way. Shares no
// code with the generator: its own tokens, operators and median.
struct Reading {
    int value = -1;
    int depth = 0;      // levels, a lone digit is 1
    int arguments = 0;  // most of any operator
};
Reading read_expression(const std::string& text) {
    struct Open {
        std::string op;
        std::vector<int> values;
    };
    std::vector<Open> stack;
    Reading reading;
    const auto deliver = [&](int value) {
        if (stack.empty()) {
            EXPECT_EQ(reading.value, -1) << "more than one expression: " << text;
            reading.value = value;
        } else {
            stack.back().values.push_back(value);
        }
    };
    std::istringstream words(text);
    for (std::string word; words >> word;) {
        if (word[0] == '[') {
            stack.push_back({word, {}});
            continue;
        }
        if (word != "]") {
            reading.depth = std::max(reading.depth, static_cast<int>(stack.size()) + 1);
            deliver(std::stoi(word));
            continue;
        }
        if (stack.empty()) throw std::runtime_error("unbalanced: " + text);
        Open open = stack.back();
        stack.pop_back();
        auto& values = open.values;
        const int count = static_cast<int>(values.size());
        EXPECT_GE(count, 2) << text;
        reading.arguments = std::max(reading.arguments, count);
        std::sort(values.begin(), values.end());
        int sum = 0;
        for (const int value : values) sum += value;
        if (open.op == "[MIN") deliver(values.front());
        if (open.op == "[MAX") deliver(values.back());
        if (open.op == "[SM") deliver(sum % 10);
        if (open.op == "[MED") deliver((values[(count - 1) / 2] + values[count / 2]) / 2);
    }
    EXPECT_TRUE(stack.empty()) << text;
    return reading;
}

TEST(ListOps, OperatorsHaveTheirValues) {
    const std::vector<int> digits = {4, 9, 0, 7};
    EXPECT_EQ(apply_list_op(ListOp::kMin, digits), 0);
    EXPECT_EQ(apply_list_op(ListOp::kMax, digits), 9);
    EXPECT_EQ(apply_list_op(ListOp::kMedian, digits), 5);  // (4 + 7) / 2, rounded down
    EXPECT_EQ(apply_list_op(ListOp::kSumModulo, digits), 0);
    EXPECT_EQ(apply_list_op(ListOp::kMedian, std::vector<int>{8, 1, 3}), 3);
    EXPECT_EQ(read_expression("[MAX 4 3 [MIN 2 3 ] 1 0 ]").value, 4);
}

TEST(ListOps, TokensAreWrittenAndRead) {
    for (std::uint16_t token = 1; token < kListOpsTokens; ++token) {
        EXPECT_EQ(parse_list_ops_token(list_ops_token_text(token)), token);
    }
    EXPECT_EQ(kListOpsTokens, 16);
    EXPECT_FALSE(parse_list_ops_token("").has_value());
    EXPECT_FALSE(parse_list_ops_token("10").has_value());
    EXPECT_THROW(list_ops_token_text(0), InternalError);
    EXPECT_THROW(list_ops_token_text(16), InternalError);
}

TEST(ListOpsGenerator, SamplesAreExpressionsWithTheirValue) {
    ListOpsSettings settings;
    settings.seed = test::fresh_seed();
    SCOPED_TRACE(settings.seed);
    std::map<int, int> labels;
    std::map<std::string, int> operators;
    int deepest = 0, widest = 0;
    for (int i = 0; i < 300; ++i) {
        const ListOpsSample sample = generate_list_ops_sample(settings, i % 3, i);
        ASSERT_GE(sample.tokens.size(), 500U);
        ASSERT_LE(sample.tokens.size(), 2000U);
        const std::string text = list_ops_text(sample.tokens);
        const Reading reading = read_expression(text);
        ASSERT_EQ(reading.value, sample.label) << text;
        ASSERT_LE(reading.depth, 10);
        ASSERT_LE(reading.arguments, 10);
        deepest = std::max(deepest, reading.depth);
        widest = std::max(widest, reading.arguments);
        ++labels[sample.label];
        for (std::size_t at = text.find('['); at != std::string::npos;
             at = text.find('[', at + 1)) {
            ++operators[text.substr(at, text.find(' ', at) - at)];
        }
    }
    EXPECT_EQ(deepest, 10);
    EXPECT_EQ(widest, 10);
    // Every class appears; none is more than half of all. (Values lean to 0 and 9 through MIN and
    // MAX, and each class has about 10 % over 2000 samples of the public data.)
    EXPECT_EQ(labels.size(), 10U);
    for (const auto& [label, count] : labels) EXPECT_LT(count, 150) << label;
    EXPECT_EQ(operators.size(), 4U);
    const auto [least, most] =
        std::minmax_element(operators.begin(), operators.end(),
                            [](const auto& a, const auto& b) { return a.second < b.second; });
    EXPECT_LT(most->second, least->second * 1.1);
}

TEST(ListOpsGenerator, ObeysItsBounds) {
    ListOpsSettings settings;
    settings.seed = test::fresh_seed();
    SCOPED_TRACE(settings.seed);
    settings.min_length = 20;
    settings.max_length = 60;
    settings.max_depth = 4;
    settings.max_arguments = 5;
    for (int i = 0; i < 300; ++i) {
        const ListOpsSample sample = generate_list_ops_sample(settings, 0, i);
        const Reading reading = read_expression(list_ops_text(sample.tokens));
        EXPECT_EQ(reading.value, sample.label);
        EXPECT_LE(reading.depth, 4);
        EXPECT_LE(reading.arguments, 5);
        EXPECT_GE(sample.tokens.size(), 20U);
        EXPECT_LE(sample.tokens.size(), 60U);
    }
}

TEST(ListOpsGenerator, DependsOnNothingButItsSettings) {
    ListOpsSettings settings;
    settings.train_samples = 150;
    settings.validation_samples = 70;
    settings.test_samples = 3;
    settings.seed = 42;
    const Dataset one = generate_list_ops(settings, 1);
    const Dataset four = generate_list_ops(settings, 4);
    EXPECT_EQ(one.train, four.train);
    EXPECT_EQ(one.validation, four.validation);
    EXPECT_EQ(one.test, four.test);
    const auto first = one.train.sample(0), other = one.validation.sample(0);
    EXPECT_FALSE(std::equal(first.begin(), first.end(), other.begin(), other.end()));
    // The same bytes on every machine: a change here changes every recorded result.
    std::string text;
    for (std::int64_t i = 0; i < one.train.samples(); ++i) {
        text += list_ops_text(one.train.sample(i)) +
                fmt::format("\t{}\n", one.train.labels[static_cast<std::size_t>(i)]);
    }
    EXPECT_EQ(digest_of(text), "6e3212e8eaadebdaf03209acd1504866");
    settings.seed = 43;
    EXPECT_NE(generate_list_ops(settings, 2).train, one.train);
}

TEST(ListOpsGenerator, RefusesSettingsThatAllowNoExpression) {
    ListOpsSettings settings;
    settings.min_length = 2001;
    expect_error<UserError>([&] { check(settings); }, "min-length 2001");
    settings = {};
    settings.max_arguments = 1;
    expect_error<UserError>([&] { check(settings); }, "2..64");
    settings = {};
    settings.max_depth = 2;  // 12 tokens at most
    expect_error<UserError>([&] { generate_list_ops(settings, 2); }, "500 to 2000");
}

}  // namespace
}  // namespace spion
