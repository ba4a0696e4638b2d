#include "tests/api/oracle.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <random>
#include <span>

#include "tests/support/random_mask.h"
#include "tools/oracle/random_pattern.h"
#include "tools/oracle/reference_attention.h"

namespace oracle {
namespace {

std::string fault(const char* name, std::span<const float> actual,
                  std::span<const double> reference, double terms, double tolerance) {
    double distance = 0, norm = 0;
    long faulty = 0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
        const double x = i < actual.size() ? actual[i] : std::nan("");
        if (std::isinf(reference[i])) {
            faulty += x == reference[i] ? 0 : 1;
        } else if (!std::isfinite(x)) {
            ++faulty;
        } else {
            distance += (x - reference[i]) * (x - reference[i]);
            norm += reference[i] * reference[i];
        }
    }
    const double error =
        distance == 0 ? 0 : std::sqrt(distance) / spion::error_scale(std::sqrt(norm), terms);
    return faulty == 0 && error <= tolerance
               ? ""
               : fmt::format("{}: relative error {:.3e}, {} faulty elements\n", name, error,
                             faulty);
}

}  // namespace

std::vector<std::uint8_t> random_bits(std::int64_t length, int block, double density,
                                      std::uint64_t seed) {
    std::vector<std::uint8_t> bits;
    for (const char c : spion::random_pattern(length, block, density, seed).to_bits()) {
        if (c != '\n') {
            bits.push_back(c == '1' ? 1 : 0);
        }
    }
    return bits;
}

Problem random_problem(std::int64_t length, int block, int heads, int head_dim, std::int64_t batch,
                       double density, bool padding, std::uint64_t seed) {
    Problem problem{.heads = heads,
                    .head_dim = head_dim,
                    .block = block,
                    .length = length,
                    .batch = batch,
                    .bits = random_bits(length, block, density, seed),
                    .lengths = {},
                    .q = {},
                    .k = {},
                    .v = {},
                    .d_o = {}};
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    for (auto* tensor : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
        tensor->resize(static_cast<std::size_t>(batch * heads * length * head_dim));
        for (float& value : *tensor) {
            value = normal(generator);
        }
    }
    std::uniform_int_distribution<std::int32_t> some(0, static_cast<std::int32_t>(length));
    for (std::int64_t sample = 0; padding && sample < batch; ++sample) {
        problem.lengths.push_back(some(generator));
    }
    return problem;
}

Rules random_rules(std::int64_t length, std::int64_t batch, std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    const spion::MaskRules made = spion::test::random_rules(
        [&](int below) { return std::uniform_int_distribution<int>(0, below - 1)(generator); },
        batch, length);
    return {.causal = made.causal,
            .left = made.left,
            .right = made.right,
            .documents = made.documents,
            .prefixes = made.prefixes,
            .query_lengths = made.query_lengths};
}

std::string faults(const Problem& problem, const Outputs& outputs, double tolerance) {
    const spion::Attention attention{.heads = problem.heads,
                                     .head_dim = problem.head_dim,
                                     .length = problem.length,
                                     .dtype = spion::DType::kFp32,
                                     .scale = spion::default_scale(problem.head_dim),
                                     .softmax = problem.pruned_zero
                                                    ? spion::SoftmaxKind::kPrunedZero
                                                    : spion::SoftmaxKind::kMasked,
                                     .key_padding = !problem.lengths.empty(),
                                     .mask = problem.rules    ? spion::ElementMask::kSpans
                                             : problem.causal ? spion::ElementMask::kCausal
                                                              : spion::ElementMask::kNone,
                                     .kv_heads = problem.key_value_heads};
    const Rules given = problem.rules.value_or(Rules{});
    const spion::MaskRules rules{.causal = given.causal,
                                 .left = given.left,
                                 .right = given.right,
                                 .documents = given.documents,
                                 .key_documents = {},
                                 .prefixes = given.prefixes,
                                 .query_lengths = given.query_lengths};
    const spion::BlockPattern pattern(problem.length, problem.block, problem.bits);
    const std::vector<int> lengths(problem.lengths.begin(), problem.lengths.end());
    const spion::ReferenceResult reference = spion::reference_attention({.attention = attention,
                                                                         .pattern = pattern,
                                                                         .batch = problem.batch,
                                                                         .lengths = lengths,
                                                                         .q = problem.q,
                                                                         .k = problem.k,
                                                                         .v = problem.v,
                                                                         .d_o = problem.d_o,
                                                                         .rules = &rules});
    std::string text = fault("o", outputs.o, reference.o, 0, tolerance);
    if (!outputs.lse.empty()) {
        text += fault("lse", outputs.lse, reference.lse, 0, tolerance);
    }
    if (!outputs.d_q.empty()) {
        text += fault("d_q", outputs.d_q, reference.d_q, reference.d_q_terms, tolerance) +
                fault("d_k", outputs.d_k, reference.d_k, reference.d_k_terms, tolerance) +
                fault("d_v", outputs.d_v, reference.d_v, 0, tolerance);
    }
    return text;
}

std::uint16_t bf16_bits(float value) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float from_bf16_bits(std::uint16_t bits) {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float value = 0;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
}

float to_bf16(float value) {
    return from_bf16_bits(bf16_bits(value));
}

}  // namespace oracle
