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

TEST(ElementSpans, RulesAreSaidInWords) {
    MaskRules rules;
    EXPECT_EQ(to_text(rules), "");
    rules.causal = true;
    rules.right = 2;
    EXPECT_EQ(to_text(rules), " causal window=-1,2");
    rules = {};
    rules.left = 3;
    rules.documents = {0, 0, 1};
    rules.key_documents = {0, 1};
    rules.prefixes = {4};
    rules.query_lengths = {5};
    rules.sequence_lengths = {6};
    rules.key_sequence_lengths = {7};
    EXPECT_EQ(to_text(rules),
              " window=3,-1 documents=[0,0,1] key_documents=[0,1] prefixes=[4] query_lengths=[5] "
              "sequence_lengths=[6] key_sequence_lengths=[7]");
}

// Every conjunction: spans against the rules' words, ends that never decrease, keys the transpose
// of queries.
TEST(ElementSpans, AgreeWithTheWordsOnRandomRules) {
    std::mt19937_64 random(std::random_device{}());
    const auto below = [&](int n) { return static_cast<int>(random() % n); };
    for (int round = 0; round < 200; ++round) {
        const std::int64_t length = 1 + below(40), batch = 1 + below(3);
        const std::int64_t keys_of_sample = below(2) == 0 ? length : 1 + below(60);
        const MaskRules rules = test::random_rules(below, batch, length, keys_of_sample);
        const ElementSpans spans = element_spans(rules, batch, length, keys_of_sample);
        for (std::int64_t b = 0; b < batch; ++b) {
            const std::vector<int>& key_ids =
                rules.key_documents.empty() ? rules.documents : rules.key_documents;
            const auto same_document = [&](std::int64_t i, std::int64_t j) {
                return rules.documents.empty() ||
                       rules.documents[b * length + i] == key_ids[b * keys_of_sample + j];
            };
            const int* const queries = &spans.queries[2 * b * length];
            const int* const keys = &spans.keys[2 * b * keys_of_sample];
            const auto expect_in_order = [](const int* side, std::int64_t rows, std::int64_t end) {
                for (std::int64_t i = 0; i < rows; ++i) {
                    ASSERT_LE(0, side[2 * i]);
                    ASSERT_LE(side[2 * i], side[2 * i + 1]);
                    ASSERT_LE(side[2 * i + 1], end);
                    ASSERT_TRUE(i == 0 || (side[2 * i - 2] <= side[2 * i] &&
                                           side[2 * i - 1] <= side[2 * i + 1]));
                }
            };
            expect_in_order(queries, length, keys_of_sample);
            expect_in_order(keys, keys_of_sample, length);
            for (std::int64_t i = 0; i < length; ++i) {
                const std::int64_t beside = i + keys_of_sample - length;
                for (std::int64_t j = 0; j < keys_of_sample; ++j) {
                    const bool prefix = !rules.prefixes.empty() && j < rules.prefixes[b];
                    const bool kept = (!rules.causal || j <= beside || prefix) &&
                                      (!rules.left || beside - j <= *rules.left) &&
                                      (!rules.right || j - beside <= *rules.right) &&
                                      same_document(i, j) &&
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
    rules.documents = {0, 1, 1, 0, 2, 2};
    expect_error<UserError>(
        [&] { element_spans(rules, 2, 3, 4); },
        "document ids of 3 queries a sample were given, and none of its 4 keys");
    rules.key_documents = {0};
    expect_error<UserError>([&] { element_spans(rules, 2, 3, 4); },
                            "1 document ids of keys were given, but B * L is 8");
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
