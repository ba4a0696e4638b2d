// A random problem of an emulated case and, in double, the definition of the operation that its
// outputs are held against.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/random.h"
#include "tests/kernels/emulated_cases.h"
#include "tests/kernels/emulated_tensor.h"
#include "tests/support/random_mask.h"

namespace spion {

// One (b, h): everything as [L] or [L * D] in double.
struct EmulatedReference {
    std::vector<double> o, lse, dq, dk, dv, delta;
    // Squares of the terms P dP of dQ and dK, from which P delta is subtracted: all of it where a row
    // has one key, which leaves the rounding errors of both.
    double dq_terms = 0, dk_terms = 0;
};

struct EmulatedProblem {
    EmulatedCase c;
    int batch;
    std::vector<EmulatedBlocks> blocks;  // of each pattern
    std::vector<int> lengths;            // [B]
    MaskRules rules;                     // of a mask of spans
    ElementSpans spans;
    SpionDropoutState dropout;
    std::vector<float> slopes, sinks;  // [H]
    Tensor q, k, v, d_o, o, d_q, d_k, d_v;
    std::vector<float> lse, delta;  // [B, H, L]

    EmulatedProblem(const EmulatedCase& c, int batch, std::mt19937& random);

    // What lies beyond a sample's length must not matter, even if it is not a number.
    void poison_padded_keys();
    // By the words of ir/attention.h and ir/element_spans.h.
    bool keeps(int b, std::int64_t i, std::int64_t j) const;
    bool in_pattern(int h, std::int64_t i, std::int64_t j) const;

    // The score of an element, and its derivative by the product of its vectors; what it counts.
    struct Changed {
        double score, slope, factor;
    };
    Changed changed(int b, int h, std::int64_t i, std::int64_t j, double product) const;

    EmulatedReference reference(int b, int h);
};

}  // namespace spion
