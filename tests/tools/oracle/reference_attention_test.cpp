#include "tools/oracle/reference_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "ir/error.h"
#include "kernels/random.h"
#include "tests/support/seed.h"
#include "tests/support/softmax_kinds.h"
#include "tests/tools/oracle/naive_attention.h"

namespace spion {
namespace {

using test::expect_equals_naive;
using test::Inputs;
using test::Keeps;
using test::pattern_with_empty_rows;
using test::problem_of;
using test::random_inputs;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(ReferenceAttention, EqualsDenseMatricesOnRandomPatterns) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 generator(seed);
    for (const SoftmaxKind softmax : test::softmax_kinds()) {
        for (const std::int64_t length : {1, 32, 75}) {
            for (const bool padded : {false, true}) {
                const Attention attention{.heads = 2,
                                          .head_dim = 16,
                                          .length = length,
                                          .dtype = DType::kFp32,
                                          .scale = default_scale(16),
                                          .softmax = softmax,
                                          .key_padding = padded};
                const std::vector<int> lengths{int(length), 0, int(generator() % (length + 1))};
                expect_equals_naive(problem_of(attention,
                                               pattern_with_empty_rows(length, 16, generator), 3,
                                               lengths, random_inputs(attention, 3, generator)));
            }
        }
    }
}

// Each rule with its words as a predicate, and all of them together.
TEST(ReferenceAttention, EqualsDenseMatricesUnderMasks) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 generator(seed);
    constexpr std::int64_t kLength = 40;
    std::vector<int> documents;
    for (int l = 0; l < kLength; ++l) documents.push_back(l < 7 ? 2 : l < 30 ? 3 : 5);
    MaskRules causal, window, packed, prefix, padded, all;
    all.causal = prefix.causal = causal.causal = true;
    all.left = window.left = 6;
    all.right = window.right = 3;
    all.documents = packed.documents = documents;
    all.prefixes = prefix.prefixes = {12};
    all.query_lengths = padded.query_lengths = {31};
    const Keeps is_causal = [](auto i, auto j) { return j <= i; };
    const Keeps in_window = [](auto i, auto j) { return i - 6 <= j && j <= i + 3; };
    const Keeps in_document = [&](auto i, auto j) { return documents[i] == documents[j]; };
    const Keeps has_prefix = [](auto i, auto j) { return j <= i || j < 12; };
    const Keeps is_query = [](auto i, auto) { return i < 31; };
    const Keeps is_all = [&](auto i, auto j) {
        return in_window(i, j) && in_document(i, j) && has_prefix(i, j) && is_query(i, j);
    };
    for (const SoftmaxKind softmax : test::softmax_kinds()) {
        Attention attention{.heads = 1,
                            .head_dim = 16,
                            .length = kLength,
                            .dtype = DType::kFp32,
                            .scale = default_scale(16),
                            .softmax = softmax,
                            .key_padding = true,
                            .mask = ElementMask::kSpans};
        const Inputs inputs = random_inputs(attention, 1, generator);
        const std::vector<int> lengths{35};
        const BlockPattern pattern = pattern_with_empty_rows(kLength, 16, generator);
        const auto expect = [&](const MaskRules& rules, const Keeps& keeps) {
            ReferenceProblem problem = problem_of(attention, pattern, 1, lengths, inputs);
            problem.rules = &rules;
            expect_equals_naive(problem, keeps);
        };
        expect(causal, is_causal);
        expect(window, in_window);
        expect(packed, in_document);
        expect(prefix, has_prefix);
        expect(padded, is_query);
        expect(all, is_all);
        attention.mask = ElementMask::kCausal;
        expect_equals_naive(problem_of(attention, pattern, 1, lengths, inputs), is_causal);
    }
}

// Each change of scores and probabilities alone, and all of them together.
TEST(ReferenceAttention, EqualsDenseMatricesWithChangedScores) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 generator(seed);
    constexpr std::int64_t kLength = 43;
    const Attention plain{.heads = 2,
                          .head_dim = 16,
                          .length = kLength,
                          .dtype = DType::kFp32,
                          .scale = 0.5F,
                          .key_padding = true};
    Attention dropping = plain, capped = plain, sloped = plain, sunk = plain, biased = plain,
              expressed = plain, all = plain;
    all.dropout = dropping.dropout = 0.3F;
    all.softcap = capped.softcap = 2.5F;
    all.alibi = sloped.alibi = true;
    all.sink = sunk.sink = true;
    all.relative_bias = biased.relative_bias = 5;
    expressed.score = test::kNaiveScore;
    Attention all_expressed = all;
    all_expressed.softcap = 0;
    all_expressed.score = test::kNaiveScore;
    for (const SoftmaxKind softmax : test::softmax_kinds()) {
        for (Attention attention :
             {dropping, capped, sloped, sunk, biased, expressed, all, all_expressed}) {
            attention.softmax = softmax;
            const Inputs inputs = random_inputs(attention, 2, generator);
            const std::vector<int> lengths{35, 0};
            const BlockPattern pattern = pattern_with_empty_rows(kLength, 16, generator);
            ReferenceProblem problem = problem_of(attention, pattern, 2, lengths, inputs);
            problem.values = {.seed = generator(),
                              .offset = static_cast<unsigned>(generator()),
                              .dropout_enabled = generator() % 4 != 0,
                              .alibi_slopes = {0.3F, -0.01F},
                              .sinks = {0.7F, -3.0F},
                              .relative_bias = {}};
            for (int n = 0; n < 2 * attention.bias_entries(); ++n) {
                problem.values.relative_bias.push_back(0.3F * float(generator() % 9) - 1.0F);
            }
            expect_equals_naive(problem);
        }
    }
}

TEST(ScoreValues, BytesOfDropoutAreThoseOfPhilox) {
    // Philox 4x32-7 of zeros (Salmon et al., the authors' test vectors) is 5F6FB709 0D893F64
    // 4F121F81 4F730A48: element (0, 0) has its lowest byte, (8, 8) its word's highest.
    const ScoreValues zeros;
    EXPECT_EQ(dropout_byte(zeros, 0, 0, 0), 0x09);
    EXPECT_EQ(dropout_byte(zeros, 0, 0, 8), 0xB7);
    EXPECT_EQ(dropout_byte(zeros, 0, 8, 0), 0x6F);
    EXPECT_EQ(dropout_byte(zeros, 0, 8, 8), 0x5F);
    EXPECT_EQ(dropout_byte(zeros, 0, 0, 1), 0x64);
    EXPECT_EQ(dropout_byte(zeros, 0, 1, 0), 0x81);
    EXPECT_EQ(dropout_byte(zeros, 0, 9, 9), 0x4F);
    // And it is the contract's code that says the same everywhere.
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 random(seed);
    for (int n = 0; n < 1000; ++n) {
        ScoreValues values;
        values.seed = random();
        values.offset = static_cast<unsigned>(random());
        const auto i = static_cast<unsigned>(random() % 100000), j = i ^ unsigned(random() % 64);
        const auto head = static_cast<unsigned>(random() % 5000);
        const SpionRandomBits bits = spion_attention_bits(
            i / 16 * 4 + i % 8 / 2, j / 16 * 4 + j % 8 / 2, head, values.offset, values.seed);
        const unsigned word = bits.word[i % 2 * 2 + j % 2];
        EXPECT_EQ(dropout_byte(values, head, i, j),
                  int(word >> (i / 8 % 2 * 16 + j / 8 % 2 * 8) & 255));
    }
}

TEST(ScoreValues, DropTheShareThatIsAsked) {
    ScoreValues values;
    values.seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(values.seed));
    Attention attention;
    attention.dropout = 0.1F;
    double kept = 0, sum = 0;
    for (int i = 0; i < 500; ++i) {
        for (int j = 0; j < 500; ++j) {
            const double factor = dropout_factor(attention, values, 5, i, j);
            EXPECT_TRUE(factor == 0 || factor == 256.0 / 230) << factor;
            kept += factor > 0;
            sum += factor;
        }
    }
    EXPECT_NEAR(kept / 250000, 230.0 / 256, 0.005);  // 8 standard deviations
    EXPECT_NEAR(sum / 250000, 1, 0.006);
}

// Heads that share K and V are heads with a copy each, and their dK and dV add up.
TEST(ReferenceAttention, SharedHeadsEqualCopies) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 generator(seed);
    constexpr std::int64_t kLength = 40, kWidth = 16, kHead = kLength * kWidth, kBatch = 2;
    Attention attention{.heads = 6, .head_dim = 16, .length = kLength, .scale = 0.25F};
    const BlockPattern pattern = pattern_with_empty_rows(kLength, 16, generator);
    Inputs inputs = random_inputs(attention, kBatch, generator);
    attention.kv_heads = 2;
    Inputs shared = inputs;  // the first of each three heads
    shared.k.clear();
    shared.v.clear();
    for (std::int64_t head = 0; head < 6 * kBatch; ++head) {
        for (auto [own, few] : {std::pair(&inputs.k, &shared.k), std::pair(&inputs.v, &shared.v)}) {
            const auto first = own->begin() + head / 3 * 3 * kHead;
            std::copy(first, first + kHead, own->begin() + head * kHead);
            if (head % 3 == 0) few->insert(few->end(), first, first + kHead);
        }
    }
    const ReferenceResult few =
        reference_attention(problem_of(attention, pattern, kBatch, {}, shared));
    attention.kv_heads = 0;
    const ReferenceResult copies =
        reference_attention(problem_of(attention, pattern, kBatch, {}, inputs));
    EXPECT_EQ(few.o, copies.o);
    EXPECT_EQ(few.d_q, copies.d_q);
    ASSERT_EQ(few.d_k.size(), copies.d_k.size() / 3);
    for (std::int64_t n = 0; n < std::ssize(few.d_k); ++n) {
        const std::int64_t first = n / kHead * 3 * kHead + n % kHead;
        double d_k = 0, d_v = 0;
        for (int member = 0; member < 3; ++member) {
            d_k += copies.d_k[first + member * kHead];
            d_v += copies.d_v[first + member * kHead];
        }
        ASSERT_NEAR(few.d_k[n], d_k, 1e-12);
        ASSERT_NEAR(few.d_v[n], d_v, 1e-12);
    }
}

// The gradients of loss = sum(O * dO), by central differences of the forward pass alone.
TEST(ReferenceAttention, GradientsAreThoseOfTheForwardPass) {
    const std::uint64_t seed = test::fresh_seed();
    SCOPED_TRACE(test::seed_note(seed));
    std::mt19937_64 generator(seed);
    for (const int kind : {0, 1, 2, 3, 4}) {
        const bool changed = kind >= 2, expressed = kind == 4;
        const Attention attention{
            .heads = 1,
            .head_dim = 16,
            .length = 40,
            .dtype = DType::kFp32,
            .scale = default_scale(16),
            .softmax = kind % 2 == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked,
            .key_padding = true,
            .dropout = changed ? 0.2F : 0.0F,
            .softcap = changed && !expressed ? 3.0F : 0.0F,
            .alibi = changed,
            .sink = changed,
            .relative_bias = changed ? 9 : 0,
            .score = expressed ? "sqrt(1+score*score)-log(1+fabs(q-k))*0.2+score/4" : ""};
        const BlockPattern pattern = pattern_with_empty_rows(40, 16, generator);
        const std::vector<int> lengths{33};
        Inputs inputs = random_inputs(attention, 1, generator);
        ReferenceProblem problem = problem_of(attention, pattern, 1, lengths, inputs);
        problem.values = random_score_values(attention, generator());
        const ReferenceResult result = reference_attention(problem);
        const auto loss = [&] {
            const ReferenceResult moved = reference_attention(problem);
            double sum = 0;
            for (std::size_t n = 0; n < moved.o.size(); ++n) {
                sum += moved.o[n] * inputs.d_o[n];
            }
            return sum;
        };
        const auto check = [&](std::vector<float>& input, const std::vector<double>& gradient) {
            for (int n = 0; n < 40; ++n) {
                float& value = input[generator() % input.size()];
                const float before = value;
                value = before + 0x1p-9F;
                const double above = value, loss_above = loss();
                value = before - 0x1p-9F;
                const double below = value, loss_below = loss();
                value = before;
                EXPECT_NEAR((loss_above - loss_below) / (above - below),
                            gradient[&value - input.data()], 2e-4);
            }
        };
        check(inputs.q, result.d_q);
        check(inputs.k, result.d_k);
        check(inputs.v, result.d_v);
        if (changed) check(problem.values.sinks, result.d_sinks);
        if (changed) check(problem.values.relative_bias, result.d_relative_bias);
    }
}

TEST(ReferenceAttention, RowsWithoutAnyKey) {
    std::mt19937_64 generator(1);
    for (const bool full : {false, true}) {  // pruned by the pattern, or padded altogether
        for (const SoftmaxKind softmax : {SoftmaxKind::kPrunedZero, SoftmaxKind::kMasked}) {
            const Attention attention{.heads = 1,
                                      .head_dim = 16,
                                      .length = 20,
                                      .dtype = DType::kFp32,
                                      .scale = 0.25F,
                                      .softmax = softmax,
                                      .key_padding = full};
            const BlockPattern pattern =
                full ? BlockPattern::full(20, 16) : BlockPattern::empty(20, 16);
            const Inputs inputs = random_inputs(attention, 1, generator);
            const std::vector<int> lengths{0};
            const ReferenceResult result =
                reference_attention(problem_of(attention, pattern, 1, lengths, inputs));
            const bool counts_pruned = !full && softmax == SoftmaxKind::kPrunedZero;
            EXPECT_EQ(result.lse,
                      std::vector<double>(20, counts_pruned ? std::log(20.0) : -kInfinity));
            const std::vector<double> zeros(20 * 16);
            EXPECT_EQ(result.o, zeros);
            EXPECT_EQ(result.d_q, zeros);
            EXPECT_EQ(result.d_k, zeros);
            EXPECT_EQ(result.d_v, zeros);
        }
    }
}

// Padded queries, on a full pattern and an empty one: no key is theirs, and none is pruned. A sink has
// all of their weight.
TEST(ReferenceAttention, RowsThatTheirMaskDrops) {
    std::mt19937_64 generator(1);
    MaskRules rules;
    rules.query_lengths = {0};
    for (const bool sink : {false, true}) {
        for (const SoftmaxKind softmax : test::softmax_kinds()) {
            for (const bool full : {false, true}) {
                const Attention attention{.heads = 1,
                                          .head_dim = 16,
                                          .length = 20,
                                          .dtype = DType::kFp32,
                                          .scale = 0.25F,
                                          .softmax = softmax,
                                          .mask = ElementMask::kSpans,
                                          .sink = sink};
                const BlockPattern pattern =
                    full ? BlockPattern::full(20, 16) : BlockPattern::empty(20, 16);
                const Inputs inputs = random_inputs(attention, 1, generator);
                const std::vector<int> lengths;
                ReferenceProblem problem = problem_of(attention, pattern, 1, lengths, inputs);
                problem.rules = &rules;
                if (sink) problem.values.sinks = {1.5F};
                const ReferenceResult result = reference_attention(problem);
                EXPECT_EQ(result.lse, std::vector<double>(20, sink ? 1.5 : -kInfinity));
                const std::vector<double> zeros(20 * 16);
                for (const auto* output : {&result.o, &result.d_q, &result.d_k, &result.d_v}) {
                    EXPECT_EQ(*output, zeros);
                }
                EXPECT_EQ(result.d_sinks, std::vector<double>(sink ? 1 : 0, 0.0));
            }
        }
    }
}

TEST(ReferenceAttention, RefusesSizesThatDoNotFit) {
    const Attention attention{.length = 20, .scale = 1, .key_padding = true};
    const BlockPattern pattern = BlockPattern::full(20, 16);
    const Inputs inputs{.q = std::vector<float>(3), .k = {}, .v = {}, .d_o = {}};
    const std::vector<int> lengths{20};
    try {
        reference_attention(problem_of(attention, pattern, 1, lengths, inputs));
        FAIL() << "a tensor of 3 elements was accepted";
    } catch (const UserError& error) {
        EXPECT_STREQ(error.what(),
                     "the reference was given a tensor of 3 elements, but B*H*L*D is 1280");
    }
}

}  // namespace
}  // namespace spion
