// Runs one attention problem through the compiler and a device, and judges what came out by the
// float64 reference. `spion verify` and the tests of both back ends share it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "compiler/compile_attention.h"
#include "ir/attention.h"
#include "ir/element_spans.h"
#include "ir/head_patterns.h"
#include "runtime/cache.h"
#include "runtime/device.h"
#include "tools/oracle/attention_buffers.h"

namespace spion {

struct AttentionCase {
    Attention attention;
    HeadPatterns pattern;
    std::int64_t batch = 1;    // B
    std::vector<int> lengths;  // [B] with key_padding, else empty
    MaskRules rules = {};      // with mask == kSpans
    // Nothing: random_score_values() of `seed`.
    std::optional<ScoreValues> values = {};
    std::uint64_t seed = 1;  // of the inputs
    Layout layout = Layout::kHeadsFirst;
    std::optional<int> packed_rows = {};  // block rows a tile; nothing: the cost model's choice
    // Nothing: random_inputs(). An empty d_o is random too. Rounded to the dtype before use.
    std::shared_ptr<const AttentionInputs> inputs = {};
};

// One line: shapes, pattern, lengths, layout and seed; enough to repeat the case.
std::string to_text(const AttentionCase& problem);

struct TensorError {
    std::string name;     // "o", "lse", "dq", "dk", "dv"
    double relative = 0;  // ||x - ref|| / ||ref|| over the elements whose reference is finite
    double tolerance = 0;
    std::int64_t faulty = 0;  // NaN (unwritten ones too), or infinite where the reference is not
    // The element that is farthest off, or the first faulty one: its place in C order; -1: none is.
    std::int64_t worst = -1;
    double got = 0, wanted = 0;  // there
    bool passed() const { return faulty == 0 && relative <= tolerance; }
};

struct CaseReport {
    AttentionInputs inputs = {};
    AttentionOutputs outputs = {};         // of the first run
    std::vector<TensorError> errors = {};  // o, lse, dq, dk, dv
    bool repeatable = false;               // a second run gave the same bytes
    bool in_bounds = false;                // nothing was written outside the outputs
    bool passed() const;
    // One line a failure, "" when passed.
    std::string failures() const;
};

// Largest relative error of a tensor: fp32 1e-5, tf32 2e-3, bf16 and fp16 1e-2.
double tolerance(DType dtype);

// Throws UserError for a case that is not one: sizes and lengths out of range, or a dtype that the
// device's back end does not compute in.
void check(const AttentionCase& problem, const Device& device);

// Of K and V with their own number of heads. Standard normal, rounded to the dtype.
AttentionInputs random_inputs(const AttentionCase& problem);

// "[0, 1, 17, 5]": where element `index` of a tensor ("lse" is [B, H, L], others [B, H, L, D]) is.
std::string place_text(const AttentionCase& problem, const std::string& tensor, std::int64_t index);

// The reference's verdict on o, lse, dq, dk and dv.
std::vector<TensorError> compare_outputs(const AttentionCase& problem,
                                         const AttentionInputs& inputs,
                                         const AttentionOutputs& outputs);

// Compiles forward and backward, runs both twice on poisoned outputs and compares with the
// reference. Throws what check() and compilation throw.
CaseReport check_case(const AttentionCase& problem, Device& device, KernelCache& cache,
                      CompileOptions options = {});

}  // namespace spion
