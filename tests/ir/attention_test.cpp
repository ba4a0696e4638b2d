#include "ir/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ir/error.h"
#include "tests/support/expect_error.h"

namespace spion {
namespace {

Attention valid() {
    return Attention{.heads = 2,
                     .head_dim = 32,
                     .length = 2048,
                     .dtype = DType::kBf16,
                     .scale = default_scale(32),
                     .softmax = SoftmaxKind::kPrunedZero,
                     .key_padding = true,
                     .dropout = 0.0F};
}

TEST(Attention, PrintsOneLine) {
    EXPECT_EQ(to_text(valid()),
              "attention H=2 D=32 L=2048 dtype=bf16 scale=0.17677669 softmax=pruned_zero "
              "key_padding=true dropout=0");
    Attention other = valid();
    other.softmax = SoftmaxKind::kMasked;
    other.key_padding = false;
    other.scale = 1.0F;
    other.dtype = DType::kTf32;
    EXPECT_EQ(to_text(other),
              "attention H=2 D=32 L=2048 dtype=tf32 scale=1 softmax=masked key_padding=false "
              "dropout=0");
}

// The last query stands beside the last key.
TEST(Attention, CoverageFollowsTheDiagonalThatEndsAtTheLastKey) {
    Attention attention = valid();
    attention.key_padding = false;
    attention.mask = ElementMask::kCausal;
    attention.length = 64;
    attention.kv_length = 96;
    EXPECT_EQ(coverage(attention, {0, 16, 0, 33}), Coverage::kFull);
    EXPECT_EQ(coverage(attention, {0, 16, 0, 34}), Coverage::kPartial);
    EXPECT_EQ(coverage(attention, {0, 16, 48, 64}), Coverage::kEmpty);
    EXPECT_EQ(coverage(attention, {48, 64, 80, 96}), Coverage::kPartial);
    EXPECT_EQ(coverage(attention, {64, 80, 0, 16}), Coverage::kPartial);
    attention.kv_length = 32;  // the first 32 queries keep nothing
    EXPECT_EQ(coverage(attention, {16, 32, 0, 16}), Coverage::kEmpty);
    EXPECT_EQ(coverage(attention, {32, 48, 0, 16}), Coverage::kPartial);
    EXPECT_EQ(coverage(attention, {48, 64, 0, 16}), Coverage::kFull);
}

TEST(Attention, CoverageIsPartialBeyondLAndWithPaddedKeys) {
    Attention attention = valid();
    attention.key_padding = false;
    EXPECT_EQ(coverage(attention, {0, 2048, 0, 2048}), Coverage::kFull);
    EXPECT_EQ(coverage(attention, {0, 2049, 0, 64}), Coverage::kPartial);
    EXPECT_EQ(coverage(attention, {0, 64, 0, 2049}), Coverage::kPartial);
    attention.key_padding = true;
    EXPECT_EQ(coverage(attention, {0, 64, 0, 64}), Coverage::kPartial);
}

TEST(Attention, SoftmaxKindNames) {
    EXPECT_EQ(parse_softmax_kind("pruned_zero"), SoftmaxKind::kPrunedZero);
    EXPECT_EQ(parse_softmax_kind("masked"), SoftmaxKind::kMasked);
    EXPECT_EQ(to_string(SoftmaxKind::kPrunedZero), "pruned_zero");
    EXPECT_EQ(to_string(SoftmaxKind::kMasked), "masked");
    expect_error<UserError>([] { parse_softmax_kind("zero"); },
                            "softmax kind 'zero' is not known: use masked or pruned_zero");
}

TEST(Attention, DefaultScale) {
    EXPECT_EQ(default_scale(16), 0.25F);
    EXPECT_EQ(default_scale(64), 0.125F);
}

TEST(Attention, AcceptsEverySupportedHeadDimension) {
    for (int head_dim = 16; head_dim <= 256; head_dim += 8) {
        Attention attention = valid();
        attention.head_dim = head_dim;
        EXPECT_NO_THROW(check(attention)) << head_dim;
    }
}

TEST(Attention, RefusesFieldsOutOfRange) {
    const auto refuses = [](auto spoil, const std::string& text) {
        Attention attention = valid();
        spoil(attention);
        expect_error<UserError>([&] { check(attention); }, text);
    };
    refuses([](Attention& a) { a.heads = 0; }, "0 heads were given");
    for (int head_dim : {-16, 0, 8, 20, 100, 264, 272}) {
        refuses(
            [&](Attention& a) { a.head_dim = head_dim; },
            fmt::format("head dimension {} is not supported: use a multiple of 8 from 16 to 256",
                        head_dim));
    }
    refuses([](Attention& a) { a.length = 0; }, "sequence length 0 is out of range");
    refuses([](Attention& a) { a.length = std::int64_t{1} << 31; }, "use 1 to 2147483647");
    refuses([](Attention& a) { a.scale = 0.0F; }, "usually 0.17677669 for D=32");
    refuses([](Attention& a) { a.scale = -1.0F; }, "scale -1 is not allowed");
    refuses([](Attention& a) { a.scale = std::nanf(""); }, "scale nan is not allowed");
    refuses([](Attention& a) { a.scale = std::numeric_limits<float>::infinity(); }, "scale inf");
    refuses([](Attention& a) { a.value_dim = 12; },
            "head dimension 12 of V is not supported: use a multiple of 8 from 16 to 256");
    refuses([](Attention& a) { a.varlen = true; },
            "varlen takes mask=spans and no key padding, not mask=none and key_padding=");
    refuses(
        [](Attention& a) {
            a.varlen = true, a.mask = ElementMask::kSpans, a.key_padding = false, a.kv_length = 7;
        },
        "where keys have no starts of their own: give key_starts=true");
    refuses([](Attention& a) { a.key_starts = true; }, "give varlen=true too");
    refuses([](Attention& a) { a.sequence_patterns = 3; },
            "sequence_patterns 3 are not allowed with varlen=false: with varlen give the most "
            "sequences of a launch, up to 2147483647, or 0 where all have the same patterns");
    refuses([](Attention& a) { a.sequence_patterns = -1; }, "sequence_patterns -1 are not allowed");
    refuses([](Attention& a) { a.kv_length = -1; }, "length -1 of K and V is out of range");
    refuses([](Attention& a) { a.patterns = 3; },
            "3 patterns were given for 2 heads and 2 of K and V: give 1, one a head of K and V, or "
            "one a head");
    for (float dropout : {-0.1F, 0.001F, 0.999F, 1.0F, std::nanf("")}) {
        refuses([&](Attention& a) { a.dropout = dropout; },
                fmt::format("attention dropout {} is not supported: use 0, or 0.002 to 0.998",
                            dropout));
    }
    refuses([](Attention& a) { a.softcap = -1.0F; }, "softcap -1 is not allowed");
    refuses([](Attention& a) { a.softcap = std::nanf(""); }, "softcap nan is not allowed");
    refuses([](Attention& a) { a.relative_bias = -1; },
            "relative_bias -1 is not allowed: use 1 to 8192");
    refuses([](Attention& a) { a.relative_bias = 8193; }, "relative_bias 8193 is not allowed");
}

TEST(Attention, DropoutIsRealisedIn256ths) {
    Attention attention = valid();
    for (const auto& [dropout, dropped] : std::vector<std::pair<float, int>>{
             {0.0F, 0}, {0.002F, 1}, {0.1F, 26}, {0.25F, 64}, {0.5F, 128}, {0.998F, 255}}) {
        attention.dropout = dropout;
        EXPECT_NO_THROW(check(attention));
        EXPECT_EQ(dropped_of_256(attention), dropped) << dropout;
    }
}

TEST(Attention, ShowsDimensionsAndSequences) {
    Attention attention = valid();
    EXPECT_EQ(to_text(attention).find("Dv="), std::string::npos);
    attention.value_dim = 24;
    attention.key_padding = false;
    attention.mask = ElementMask::kSpans;
    attention.varlen = true;
    EXPECT_NO_THROW(check(attention));
    EXPECT_EQ(attention.value_head_dim(), 24);
    const std::string text = to_text(attention), end = " mask=spans Dv=24 varlen=true";
    EXPECT_EQ(text.substr(text.size() - end.size()), end);
    EXPECT_EQ(attention.pattern_count(), 1);
    attention.patterns = 2;
    attention.sequence_patterns = 3;
    EXPECT_NO_THROW(check(attention));
    EXPECT_EQ(attention.pattern_count(), 6);
    const std::string own = to_text(attention);
    const std::string own_end = " mask=spans patterns=2 Dv=24 varlen=true sequence_patterns=3";
    EXPECT_EQ(own.substr(own.size() - own_end.size()), own_end);
}

TEST(Attention, ShowsWhatChangesScores) {
    Attention attention = valid();
    attention.dropout = 0.1F;
    attention.softcap = 50.0F;
    attention.alibi = attention.sink = true;
    EXPECT_EQ(to_text(attention).find("relative_bias"), std::string::npos);
    attention.relative_bias = 128;
    EXPECT_EQ(attention.bias_entries(), 257);
    const std::string text = to_text(attention),
                      end = " dropout=0.1 softcap=50 alibi=true sink=true relative_bias=128";
    EXPECT_EQ(text.substr(text.size() - end.size()), end);
    attention.softcap = 0.0F;
    attention.score = "2 * tanh( score )";
    attention.score_derivative = "2 * (1 - tanh(score) * tanh(score))";
    EXPECT_NO_THROW(check(attention));
    const std::string expressed = to_text(attention),
                      canonical =
                          " score=2*tanh(score) score_derivative=2*(1-tanh(score)*tanh(score))";
    EXPECT_EQ(expressed.substr(expressed.size() - canonical.size()), canonical);
}

}  // namespace
}  // namespace spion
