#include "ir/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/error.h"
#include "ir/score_expression.h"

namespace spion {

namespace {

// The kind whose place in `names` its name has; `what` says in the message what was named.
template <typename Kind, std::size_t kCount>
Kind parse_kind(const std::array<std::string_view, kCount>& names, std::string_view name,
                std::string_view what) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) {
        throw UserError("{} '{}' is not known: use {}", what, name, any_of_names(names));
    }
    return static_cast<Kind>(found - names.begin());
}

}  // namespace

std::string any_of_names(std::span<const std::string_view> names) {
    std::string text(names.front());
    for (std::size_t n = 1; n < names.size(); ++n) {
        text += fmt::format("{}{}", n + 1 == names.size() ? " or " : ", ", names[n]);
    }
    return text;
}

std::string_view to_string(SoftmaxKind kind) {
    return kSoftmaxNames.at(static_cast<std::size_t>(kind));
}

SoftmaxKind parse_softmax_kind(std::string_view name) {
    return parse_kind<SoftmaxKind>(kSoftmaxNames, name, "softmax kind");
}

std::string_view to_string(ElementMask mask) {
    return kElementMaskNames.at(static_cast<std::size_t>(mask));
}

ElementMask parse_element_mask(std::string_view name) {
    return parse_kind<ElementMask>(kElementMaskNames, name, "mask");
}

Coverage coverage(const Attention& attention, const ScoreRectangle& rectangle) {
    const bool causal = attention.mask == ElementMask::kCausal;
    const std::int64_t diagonal = attention.diagonal();
    if (causal && rectangle.key_begin >= std::min(rectangle.row_end, attention.length) + diagonal) {
        return Coverage::kEmpty;
    }
    const bool inside =
        rectangle.row_end <= attention.length && rectangle.key_end <= attention.key_value_length();
    const bool known = !attention.key_padding && attention.mask != ElementMask::kSpans;
    const bool below_diagonal = rectangle.key_end <= rectangle.row_begin + 1 + diagonal;
    return inside && known && (!causal || below_diagonal) ? Coverage::kFull : Coverage::kPartial;
}

float default_scale(int head_dim) {
    return 1.0F / std::sqrt(static_cast<float>(head_dim));
}

int dropped_of_256(const Attention& attention) {
    return static_cast<int>(std::lround(attention.dropout * 256.0F));
}

namespace {

void check_score_changes(const Attention& attention) {
    const float dropout = attention.dropout;
    constexpr float kLeast = 0.002F, kMost = 0.998F;  // 1 and 255 of 256
    if (dropout != 0.0F && !(dropout >= kLeast && dropout <= kMost)) {
        throw UserError("attention dropout {} is not supported: use 0, or {} to {}", dropout,
                        kLeast, kMost);
    }
    if (!std::isfinite(attention.softcap) || attention.softcap < 0.0F) {
        throw UserError("softcap {} is not allowed: use a finite number above 0, or 0 for none",
                        attention.softcap);
    }
    if (attention.relative_bias < 0 || attention.relative_bias > kMaxRelativeBias) {
        throw UserError(
            "relative_bias {} is not allowed: use 1 to {}, the distance from which on all keys of "
            "a side share a bias, or 0 for none",
            attention.relative_bias, kMaxRelativeBias);
    }
}

void check_expressions(const Attention& attention) {
    check_score(attention.score, attention.score_derivative,
                {.queries = attention.length,
                 .keys = attention.key_value_length(),
                 .heads = attention.heads});
    if (!attention.score.empty() && attention.softcap > 0.0F) {
        throw UserError(
            "softcap={} beside score '{}' is not supported: write the cap into the expression, as "
            "{}*tanh((..)/{})",
            attention.softcap, attention.score, attention.softcap, attention.softcap);
    }
}

// Spans keep the queries and keys of a sequence together; what lies beyond its end is another's.
void check_varlen(const Attention& attention) {
    const int most = std::numeric_limits<std::int32_t>::max() / std::max(1, attention.patterns);
    if (attention.sequence_patterns < 0 || attention.sequence_patterns > most ||
        (attention.sequence_patterns > 0 && !attention.varlen)) {
        throw UserError(
            "sequence_patterns {} are not allowed with varlen={}: with varlen give the most "
            "sequences of a launch, up to {}, or 0 where all have the same patterns",
            attention.sequence_patterns, attention.varlen, most);
    }
    if (attention.varlen && (attention.mask != ElementMask::kSpans || attention.key_padding)) {
        throw UserError(
            "varlen takes mask=spans and no key padding, not mask={} and key_padding={}: the "
            "starts "
            "of sequences say their lengths",
            to_string(attention.mask), attention.key_padding);
    }
    if (attention.varlen && !attention.key_starts && attention.diagonal() != 0) {
        throw UserError(
            "varlen takes as many keys as queries, not {} keys for {} queries, where keys have no "
            "starts of their own: give key_starts=true",
            attention.key_value_length(), attention.length);
    }
    if (attention.key_starts && !attention.varlen) {
        throw UserError("key_starts=true is of sequences end to end: give varlen=true too");
    }
}

}  // namespace

void check(const Attention& attention) {
    // H * D numbers the elements of a row of all heads with 32 bits.
    constexpr int kMaxHeads = 65536;
    if (attention.heads < 1 || attention.heads > kMaxHeads) {
        throw UserError("{} heads were given: at least 1 is needed and at most {} are allowed",
                        attention.heads, kMaxHeads);
    }
    if (attention.kv_heads < 0 ||
        (attention.kv_heads > 0 && attention.heads % attention.kv_heads != 0)) {
        throw UserError(
            "{} heads of K and V were given for {} heads: give a number that divides it, or 0 for "
            "as many",
            attention.kv_heads, attention.heads);
    }
    if (attention.patterns != 1 && attention.patterns != attention.key_value_heads() &&
        attention.patterns != attention.heads) {
        throw UserError(
            "{} patterns were given for {} heads and {} of K and V: give 1, one a head of K and V, "
            "or one a head",
            attention.patterns, attention.heads, attention.key_value_heads());
    }
    const int d = attention.head_dim;
    const auto is_width = [](int width) {
        return width >= 16 && width <= kMaxHeadDim && width % 8 == 0;
    };
    if (!is_width(d)) {
        throw UserError("head dimension {} is not supported: use a multiple of 8 from 16 to {}", d,
                        kMaxHeadDim);
    }
    if (attention.value_dim != 0 && !is_width(attention.value_dim)) {
        throw UserError(
            "head dimension {} of V is not supported: use a multiple of 8 from 16 to {}, or 0 for "
            "that of Q and K",
            attention.value_dim, kMaxHeadDim);
    }
    // Rows are numbered with 32 bits in the programs' tables.
    constexpr std::int64_t kMaxLength = std::numeric_limits<std::int32_t>::max();
    if (attention.length < 1 || attention.length > kMaxLength) {
        throw UserError("sequence length {} is out of range: use 1 to {}", attention.length,
                        kMaxLength);
    }
    if (attention.kv_length < 0 || attention.kv_length > kMaxLength) {
        throw UserError(
            "length {} of K and V is out of range: use 1 to {}, or 0 for as many as Q's {}",
            attention.kv_length, kMaxLength, attention.length);
    }
    if (!std::isfinite(attention.scale) || attention.scale <= 0.0F) {
        throw UserError("scale {} is not allowed: use a finite number above 0, usually {} for D={}",
                        attention.scale, default_scale(d), d);
    }
    check_score_changes(attention);
    check_expressions(attention);
    check_varlen(attention);
}

std::string to_text(const Attention& attention) {
    std::string text = fmt::format(
        "attention H={} D={} L={} dtype={} scale={} softmax={} key_padding={} dropout={}",
        attention.heads, attention.head_dim, attention.length, to_string(attention.dtype),
        attention.scale, to_string(attention.softmax), attention.key_padding, attention.dropout);
    if (attention.mask != ElementMask::kNone) {
        text += fmt::format(" mask={}", to_string(attention.mask));
    }
    if (attention.key_value_heads() != attention.heads) {
        text += fmt::format(" kv_heads={}", attention.kv_heads);
    }
    if (attention.key_value_length() != attention.length) {
        text += fmt::format(" kv_length={}", attention.kv_length);
    }
    if (attention.patterns != 1) {
        text += fmt::format(" patterns={}", attention.patterns);
    }
    if (attention.softcap > 0.0F) {
        text += fmt::format(" softcap={}", attention.softcap);
    }
    text += attention.alibi ? " alibi=true" : "";
    text += attention.sink ? " sink=true" : "";
    if (attention.relative_bias > 0) {
        text += fmt::format(" relative_bias={}", attention.relative_bias);
    }
    if (attention.value_head_dim() != attention.head_dim) {
        text += fmt::format(" Dv={}", attention.value_dim);
    }
    text += attention.varlen ? " varlen=true" : "";
    text += attention.key_starts ? " key_starts=true" : "";
    if (attention.sequence_patterns > 0) {
        text += fmt::format(" sequence_patterns={}", attention.sequence_patterns);
    }
    if (!attention.score.empty()) {
        text += fmt::format(" score={}", canonical_score(attention.score));
    }
    if (!attention.score_derivative.empty()) {
        text += fmt::format(" score_derivative={}", canonical_score(attention.score_derivative));
    }
    return text;
}

}  // namespace spion
