// What attention on a block pattern means, in float64 and as plainly as it can be written: the
// judge of both back ends. It shares no code with codegen or kernels and follows the formulas of
// ir/attention.h and of SPION, section 3, row by row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ir/attention.h"
#include "ir/element_spans.h"
#include "ir/head_patterns.h"
#include "tools/oracle/score_values.h"

namespace spion {

struct ReferenceProblem {
    const Attention& attention;
    HeadPatterns pattern;                 // held: one pattern is made into these on the way
    std::int64_t batch = 1;               // B
    std::span<const int> lengths;         // [B] valid keys; read only with attention.key_padding
    std::span<const float> q, k, v, d_o;  // [B, H, L, D]; K and V [B, kv_heads, Lk, D]
    const MaskRules* rules = nullptr;     // read only with attention.mask == kSpans
    ScoreValues values = {};              // of dropout, slopes, sinks and biases
};

struct ReferenceResult {
    std::vector<double> o, d_q;    // [B, H, L, D]
    std::vector<double> d_k, d_v;  // [B, kv_heads, Lk, D], sums over the heads that read them
    std::vector<double> lse;       // [B, H, L] natural logarithm
    std::vector<double> delta;     // [B, H, L] rowsum(dP * P), which is rowsum(dO * O)
    std::vector<double> d_sinks;   // [H] where the attention has sinks, else empty
    std::vector<double> d_relative_bias;  // [H, 2R + 1] where it has one, else empty

    // Norms of what dQ and dK would be if dP and delta did not cancel in dP - delta: the error of
    // rounding either is proportional to these. Where a row has one large P, |dQ| is far smaller.
    // So for the sinks' and the bias' gradients, whose terms cancel between rows too: there the root
    // of the squares' sum of all terms, which is what so many terms add up to as a rule.
    // And for the LSE: of a row of one key it is a score, which may lie near 0 while the products
    // that it sums do not.
    double lse_terms = 0;
    double d_q_terms = 0;
    double d_k_terms = 0;
    double d_sinks_terms = 0;
    double d_relative_bias_terms = 0;
};

// What the distance of a tensor of norm `norm` from its reference is divided by, so that it can be
// held against a tolerance. `terms` as above, 0 for a tensor that has none.
double error_scale(double norm, double terms);

// Throws UserError when a size does not fit the attention.
void check(const ReferenceProblem& problem);

// Threads over (b, h). Checks the problem.
ReferenceResult reference_attention(const ReferenceProblem& problem);

}  // namespace spion
