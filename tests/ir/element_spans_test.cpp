#include "ir/element_spans.h"

#include <gtest/gtest.h>

#include <random>

#include "ir/error.h"
#include "tests/support/expect_error.h"
#include "tests/support/random_mask.h"

namespace spion {
namespace {

std::vector<int> queries_of(const MaskRules& rules, std::int64_t length) {
    return element_spans(rules, 1, length).queries;
}

TEST(ElementSpans, AreWhatEachRuleSays) {
    MaskRules rules;
    EXPECT_EQ(queries_of(rules, 3), (std::vector<int>{0, 3, 0, 3, 0, 3}));
    rules.causal = true;
    EXPECT_EQ(queries_of(rules, 3), (std::vector<int>{0, 1, 0, 2, 0, 3}));
    rules.prefixes = {2};
    EXPECT_EQ(queries_of(rules, 4), (std::vector<int>{0, 2, 0, 2, 0, 3, 0, 4}));
    rules = {};
    rules.left = 1;
    EXPECT_EQ(queries_of(rules, 3), (std::vector<int>{0, 3, 0, 3, 1, 3}));
    rules.right = 0;
    EXPECT_EQ(queries_of(rules, 3), (std::vector<int>{0, 1, 0, 2, 1, 3}));
    rules = {};
    rules.documents = {4, 4, 9};
    EXPECT_EQ(queries_of(rules, 3), (std::vector<int>{0, 2, 0, 2, 2, 3}));
    rules = {};
    rules.query_lengths = {1};
    EXPECT_EQ(queries_of(rules, 3), (std::vector<int>{0, 3, 3, 3, 3, 3}));
}

// Every conjunction: spans against the rules' words, ends that never decrease, keys the transpose
// of queries.
TEST(ElementSpans, AgreeWithTheWordsOnRandomRules) {
    std::mt19937_64 random(std::random_device{}());
    const auto below = [&](int n) { return static_cast<int>(random() % n); };
    for (int round = 0; round < 200; ++round) {
        const std::int64_t length = 1 + below(40), batch = 1 + below(3);
        const MaskRules rules = test::random_rules(below, batch, length);
        const ElementSpans spans = element_spans(rules, batch, length);
        for (std::int64_t b = 0; b < batch; ++b) {
            const auto document = [&](std::int64_t l) {
                return rules.documents.empty() ? 0 : rules.documents[b * length + l];
            };
            const int* const queries = &spans.queries[2 * b * length];
            const int* const keys = &spans.keys[2 * b * length];
            for (std::int64_t i = 0; i < length; ++i) {
                for (const int* side : {queries, keys}) {
                    ASSERT_LE(0, side[2 * i]);
                    ASSERT_LE(side[2 * i], side[2 * i + 1]);
                    ASSERT_LE(side[2 * i + 1], length);
                    ASSERT_TRUE(i == 0 || (side[2 * i - 2] <= side[2 * i] &&
                                           side[2 * i - 1] <= side[2 * i + 1]));
                }
                for (std::int64_t j = 0; j < length; ++j) {
                    const bool prefix = !rules.prefixes.empty() && j < rules.prefixes[b];
                    const bool kept = (!rules.causal || j <= i || prefix) &&
                                      (!rules.left || i - j <= *rules.left) &&
                                      (!rules.right || j - i <= *rules.right) &&
                                      document(i) == document(j) &&
                                      (rules.query_lengths.empty() || i < rules.query_lengths[b]);
                    ASSERT_EQ(kept, queries[2 * i] <= j && j < queries[2 * i + 1])
                        << b << ", " << i << ", " << j;
                    ASSERT_EQ(kept, keys[2 * j] <= i && i < keys[2 * j + 1])
                        << b << ", " << i << ", " << j;
                }
            }
        }
    }
}

TEST(ElementSpans, RulesThatAreWrongAreRefused) {
    const auto refused = [](const MaskRules& rules, const char* message) {
        expect_error<UserError>([&] { element_spans(rules, 2, 3); }, message);
    };
    MaskRules rules;
    rules.left = -1;
    refused(rules, "the window reaches -1 positions: give at least 0");
    rules = {};
    rules.documents = {0, 0, 0};
    refused(rules, "3 document ids were given, but B * L is 6");
    rules.documents = {0, 1, 1, 0, 2, 1};
    refused(rules, "document id 1 follows 2 at position 2 of sample 1: ids must not decrease");
    rules = {};
    rules.query_lengths = {1, 4};
    refused(rules, "one of the query lengths is 4: give 0 to L = 3");
    rules.query_lengths = {1};
    refused(rules, "1 query lengths were given for a batch of 2");
    rules = {};
    rules.prefixes = {1, 1};
    refused(rules, "a prefix was given without causal");
}

TEST(ElementSpans, CausalVisitsTheBlocksUpToTheDiagonal) {
    Attention attention{.length = 90, .scale = 1, .mask = ElementMask::kCausal};
    EXPECT_EQ(visited_blocks(BlockPattern::full(90, 32), attention).to_bits(), "100\n110\n111\n");
    attention.mask = ElementMask::kSpans;  // the launch says which
    EXPECT_EQ(visited_blocks(BlockPattern::full(90, 32), attention).to_bits(), "111\n111\n111\n");
    attention.mask = ElementMask::kNone;
    EXPECT_EQ(visited_blocks(BlockPattern::full(90, 32), attention), BlockPattern::full(90, 32));
}

TEST(ElementSpans, CoverageUnderAMask) {
    Attention attention{.length = 256, .scale = 1, .mask = ElementMask::kCausal};
    EXPECT_EQ(coverage(attention, {64, 128, 0, 65}), Coverage::kFull);
    EXPECT_EQ(coverage(attention, {64, 128, 0, 66}), Coverage::kPartial);
    EXPECT_EQ(coverage(attention, {64, 128, 127, 128}), Coverage::kPartial);
    EXPECT_EQ(coverage(attention, {64, 128, 128, 192}), Coverage::kEmpty);
    attention.key_padding = true;
    EXPECT_EQ(coverage(attention, {64, 128, 0, 64}), Coverage::kPartial);
    attention.key_padding = false;
    attention.mask = ElementMask::kSpans;
    EXPECT_EQ(coverage(attention, {64, 128, 0, 64}), Coverage::kPartial);
}

TEST(ElementSpans, NamesReadBack) {
    for (const ElementMask mask : {ElementMask::kNone, ElementMask::kCausal, ElementMask::kSpans}) {
        EXPECT_EQ(parse_element_mask(to_string(mask)), mask);
    }
    expect_error<UserError>([] { parse_element_mask("triangle"); },
                            "mask 'triangle' is not known: use none, causal or spans");
    const Attention attention{.length = 9, .scale = 1, .mask = ElementMask::kCausal};
    EXPECT_NE(to_text(attention).find(" dropout=0 mask=causal"), std::string::npos);
}

}  // namespace
}  // namespace spion
