#include "tools/oracle/attention_case.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

#include "compiler/compile_attention.h"
#include "ir/error.h"
#include "ir/sizes.h"
#include "tools/oracle/reference_attention.h"
#include "tools/storage.h"

namespace spion {
namespace {

// `terms`: norm of the sum without cancellation, 0 for tensors that do not cancel.
TensorError compare(std::string name, std::span<const float> actual,
                    std::span<const double> reference, double terms, double tolerance) {
    TensorError error{.name = std::move(name), .tolerance = tolerance};
    double distance = 0, norm = 0, farthest = 0;
    for (std::size_t n = 0; n < reference.size(); ++n) {
        const double x = actual[n];
        const bool infinite = std::isinf(reference[n]);
        const bool faulty = infinite ? x != reference[n] : !std::isfinite(x);
        const double off = infinite || faulty ? 0 : std::abs(x - reference[n]);
        if (!infinite && !faulty) {
            distance += off * off;
            norm += reference[n] * reference[n];
        }
        error.faulty += faulty ? 1 : 0;
        const bool first_fault = faulty && error.faulty == 1;
        if (first_fault || (error.faulty == 0 && off > farthest)) {
            farthest = off;
            error.worst = static_cast<std::int64_t>(n);
            error.got = x;
            error.wanted = reference[n];
        }
    }
    if (distance > 0) {  // a reference of zeros is to be met exactly
        error.relative = std::sqrt(distance) / error_scale(std::sqrt(norm), terms);
    }
    return error;
}

// Names what is wrong with a request that the device's back end cannot serve at all.
void check_dtype(DType dtype, const Device& device) {
    if (device.target().back_end == BackEnd::kHost && dtype != DType::kFp32) {
        throw UserError(
            "the host computes in fp32 only, not in {}; give --dtype fp32, or --device cuda",
            to_string(dtype));
    }
}

void check_batch(const AttentionCase& problem) {
    check_batch(problem.attention, problem.batch);
    const std::vector<int>& lengths = problem.lengths;
    const std::size_t sequences = problem.rules.sequence_lengths.size();
    if (problem.attention.varlen != (sequences > 0)) {
        throw UserError("{} lengths of sequences were given {} varlen: give one for each sample",
                        sequences, problem.attention.varlen ? "with" : "without");
    }
    const std::vector<int>& of_keys = problem.rules.key_sequence_lengths;
    if (problem.attention.key_starts != !of_keys.empty()) {
        throw UserError("{} lengths of keys' sequences were given {} key_starts: give one for each",
                        of_keys.size(), problem.attention.key_starts ? "with" : "without");
    }
    for (const std::vector<int>* side : {&problem.rules.sequence_lengths, &of_keys}) {
        if (!side->empty() &&
            std::all_of(side->begin(), side->end(), [](int length) { return length == 0; })) {
            throw UserError("all {} sequences have length 0: give one of at least 1", side->size());
        }
    }
    if (problem.attention.key_padding && std::ssize(lengths) != problem.batch) {
        throw UserError("{} lengths were given for a batch of {}; give one for each sample",
                        lengths.size(), problem.batch);
    }
    for (const int length : lengths) {
        if (length < 0 || length > problem.attention.key_value_length()) {
            throw UserError("a sample's length is {}; give 0 to L = {}", length,
                            problem.attention.key_value_length());
        }
    }
}

}  // namespace

std::string to_text(const AttentionCase& problem) {
    return fmt::format("{}{} B={} lengths=[{}] block={} density={:.4f} layout={} seed={}{}",
                       to_text(problem.attention), to_text(problem.rules), problem.batch,
                       fmt::join(problem.lengths, ","), problem.pattern.block(),
                       problem.pattern.density(),
                       problem.layout == Layout::kPacked ? "packed" : "heads_first", problem.seed,
                       problem.packed_rows ? fmt::format(" pack={}", *problem.packed_rows) : "");
}

bool CaseReport::passed() const {
    return repeatable && in_bounds &&
           std::all_of(errors.begin(), errors.end(),
                       [](const TensorError& error) { return error.passed(); });
}

std::string CaseReport::failures() const {
    std::string text;
    for (const TensorError& error : errors) {
        if (!error.passed()) {
            text += fmt::format("{}: relative error {:.3e}, tolerance {:.0e}, {} faulty elements\n",
                                error.name, error.relative, error.tolerance, error.faulty);
        }
    }
    text += repeatable ? "" : "a second run gave other bytes\n";
    text += in_bounds ? "" : "memory outside the outputs was written\n";
    return text;
}

double tolerance(DType dtype) {
    switch (dtype) {
        case DType::kFp32:
            return 1e-5;
        case DType::kTf32:
            return 2e-3;
        case DType::kBf16:
        case DType::kFp16:
            return 1e-2;
    }
    throw InternalError("there is no tolerance for dtype {}", static_cast<int>(dtype));
}

namespace {

ScoreValues values_of(const AttentionCase& problem) {
    return problem.values ? *problem.values : random_score_values(problem.attention, problem.seed);
}

}  // namespace

void check(const AttentionCase& problem, const Device& device) {
    check(problem.attention);
    check_batch(problem);
    check(problem.rules, problem.batch, problem.attention.length,
          problem.attention.key_value_length());
    check(values_of(problem), problem.attention);
    check_dtype(problem.attention.dtype, device);
}

AttentionInputs random_inputs(const AttentionCase& problem) {
    const Attention& attention = problem.attention;
    const std::int64_t rows = problem.batch * attention.heads * attention.length;
    const std::int64_t key_rows =
        problem.batch * attention.key_value_heads() * attention.key_value_length();
    std::mt19937_64 generator(problem.seed);
    std::normal_distribution<float> normal;
    AttentionInputs inputs;
    for (auto* tensor : {&inputs.q, &inputs.k, &inputs.v, &inputs.d_o}) {
        const bool keys = tensor == &inputs.k || tensor == &inputs.v;
        const bool values = tensor == &inputs.v || tensor == &inputs.d_o;
        tensor->resize((keys ? key_rows : rows) *
                       (values ? attention.value_head_dim() : attention.head_dim));
        for (float& value : *tensor) {
            value = round_to(attention.dtype, normal(generator));
        }
    }
    return inputs;
}

std::string place_text(const AttentionCase& problem, const std::string& tensor,
                       std::int64_t index) {
    const Attention& a = problem.attention;
    if (tensor == "dsinks") {
        return fmt::format("[{}]", index);
    }
    if (tensor == "dbias") {
        return fmt::format("[{}, {}]", index / a.bias_entries(), index % a.bias_entries());
    }
    std::string column;
    if (tensor != "lse") {
        const int width = tensor == "o" || tensor == "dv" ? a.value_head_dim() : a.head_dim;
        column = fmt::format(", {}", index % width);
        index /= width;
    }
    const bool keys = tensor == "dk" || tensor == "dv";
    const std::int64_t length = keys ? a.key_value_length() : a.length;
    const std::int64_t rows = index / length;
    const int heads = keys ? a.key_value_heads() : a.heads;
    return fmt::format("[{}, {}, {}{}]", rows / heads, rows % heads, index % length, column);
}

namespace {

// The case's own tensors rounded to its dtype, random where it has none.
AttentionInputs inputs_of(const AttentionCase& problem) {
    AttentionInputs inputs = random_inputs(problem);
    if (!problem.inputs) {
        return inputs;
    }
    for (auto tensor :
         {&AttentionInputs::q, &AttentionInputs::k, &AttentionInputs::v, &AttentionInputs::d_o}) {
        const std::vector<float>& given = *problem.inputs.*tensor;
        if (given.empty() && tensor == &AttentionInputs::d_o) {
            continue;
        }
        if (given.size() != (inputs.*tensor).size()) {
            throw InternalError("a tensor of {} elements for a problem with {}", given.size(),
                                (inputs.*tensor).size());
        }
        std::transform(given.begin(), given.end(), (inputs.*tensor).begin(),
                       [&](float value) { return round_to(problem.attention.dtype, value); });
    }
    return inputs;
}

// LSE of positions that no sequence has is not defined: as the reference has it.
std::vector<float> defined_lse(const AttentionCase& problem, const AttentionOutputs& outputs,
                               const ReferenceResult& reference) {
    std::vector<float> lse = outputs.lse;
    const std::int64_t length = problem.attention.length, heads = problem.attention.heads;
    for (std::size_t n = 0; problem.attention.varlen && n < lse.size(); ++n) {
        const auto row = static_cast<std::int64_t>(n);
        if (row % length >= problem.rules.sequence_lengths[row / length / heads]) {
            lse[n] = static_cast<float>(reference.lse[n]);
        }
    }
    return lse;
}

}  // namespace

std::vector<TensorError> compare_outputs(const AttentionCase& problem,
                                         const AttentionInputs& inputs,
                                         const AttentionOutputs& outputs) {
    const ReferenceResult reference = reference_attention({.attention = problem.attention,
                                                           .pattern = problem.pattern,
                                                           .batch = problem.batch,
                                                           .lengths = problem.lengths,
                                                           .q = inputs.q,
                                                           .k = inputs.k,
                                                           .v = inputs.v,
                                                           .d_o = inputs.d_o,
                                                           .rules = &problem.rules,
                                                           .values = values_of(problem)});
    const double allowed = tolerance(problem.attention.dtype);
    std::vector<TensorError> errors = {
        compare("o", outputs.o, reference.o, 0, allowed),
        compare("lse", defined_lse(problem, outputs, reference), reference.lse, reference.lse_terms,
                allowed),
        compare("dq", outputs.d_q, reference.d_q, reference.d_q_terms, allowed),
        compare("dk", outputs.d_k, reference.d_k, reference.d_k_terms, allowed),
        compare("dv", outputs.d_v, reference.d_v, 0, allowed)};
    if (problem.attention.sink) {
        // A number a head: the error of one is seldom beyond three deviations, that of a tensor's norm
        // is the deviation.
        errors.push_back(compare("dsinks", outputs.d_sinks, reference.d_sinks,
                                 reference.d_sinks_terms, 2 * allowed));
    }
    if (problem.attention.relative_bias > 0) {
        errors.push_back(compare("dbias", outputs.d_relative_bias, reference.d_relative_bias,
                                 reference.d_relative_bias_terms, allowed));
    }
    return errors;
}

CaseReport check_case(const AttentionCase& problem, Device& device, KernelCache& cache,
                      CompileOptions options) {
    check(problem, device);
    options.packed_rows = problem.packed_rows;
    options.batch = problem.batch;
    const auto compiled = compile_attention(problem.attention, std::span(&problem.pattern, 1),
                                            device, cache, options);
    AttentionBuffers buffers(
        problem.attention, problem.batch,
        problem.attention.varlen ? problem.rules.sequence_lengths : problem.lengths, problem.layout,
        device, problem.rules.key_sequence_lengths);
    if (problem.attention.mask == ElementMask::kSpans) {
        buffers.set_spans(element_spans(problem.rules, problem.batch, problem.attention.length,
                                        problem.attention.key_value_length()));
    }
    buffers.set_score_values(values_of(problem));
    CaseReport report;
    report.inputs = inputs_of(problem);
    buffers.set_inputs(report.inputs);
    const auto run = [&] {
        buffers.poison_outputs();
        compiled.front()->forward(buffers.arguments());
        compiled.front()->backward(buffers.arguments());
        device.synchronize();
        return buffers.output_bytes();
    };
    const std::string first = run();
    report.outputs = buffers.outputs();
    report.in_bounds = buffers.guards_intact();
    report.repeatable = run() == first;
    report.errors = compare_outputs(problem, report.inputs, report.outputs);
    return report;
}

}  // namespace spion
