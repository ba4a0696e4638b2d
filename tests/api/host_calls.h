// A forward and backward pass of the library on the host, through C++ or through C.
#pragma once

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "spion/spion.h"
#include "tests/api/oracle.h"

namespace spion::test {

inline Attention attention_of(const oracle::Problem& problem, DType dtype = DType::kFp32) {
    return {.heads = problem.heads,
            .head_dim = problem.head_dim,
            .length = problem.length,
            .block = problem.block,
            .dtype = dtype,
            .softmax = problem.pruned_zero ? Softmax::kPrunedZero : Softmax::kMasked,
            .key_padding = !problem.lengths.empty(),
            .causal = problem.causal,
            .key_value_heads = problem.key_value_heads,
            .spans = problem.rules.has_value(),
            .dropout = problem.dropout,
            .key_length = problem.key_length,
            .softcap = problem.softcap,
            .alibi = !problem.alibi_slopes.empty(),
            .sinks = !problem.sinks.empty(),
            .patterns = problem.patterns,
            .value_dim = problem.value_dim,
            .varlen = !problem.cu_seqlens.empty(),
            .relative_bias = problem.reach,
            .score = problem.score,
            .key_starts = !problem.key_cu_seqlens.empty(),
            .sequence_patterns = problem.own_patterns ? static_cast<int>(problem.batch) : 0};
}

inline MaskRules rules_of(const oracle::Rules& given) {
    return {.causal = given.causal,
            .left = given.left,
            .right = given.right,
            .documents = given.documents,
            .key_documents = given.key_documents,
            .prefixes = given.prefixes,
            .query_lengths = given.query_lengths};
}

inline Pattern pattern_of(const oracle::Problem& problem) {
    const auto each = problem.bits.size() / static_cast<std::size_t>(problem.pattern_count());
    std::vector<Pattern> heads;
    for (int head = 0; head < problem.pattern_count(); ++head) {
        heads.push_back(Pattern::from_bits(
            problem.length, problem.keys(), problem.block,
            std::span(problem.bits).subspan(static_cast<std::size_t>(head) * each, each)));
    }
    return heads.size() == 1 ? heads[0] : Pattern::from_heads(heads);
}

// Of a problem's mask, or of its sequences, which take one.
inline std::optional<Spans> spans_of(const oracle::Problem& problem) {
    if (!problem.rules && problem.cu_seqlens.empty()) {
        return std::nullopt;
    }
    MaskRules rules = rules_of(problem.rules.value_or(oracle::Rules{}));
    rules.cu_seqlens = problem.cu_seqlens;
    rules.key_cu_seqlens = problem.key_cu_seqlens;
    return spans(rules, problem.batch, problem.length, problem.key_length);
}

// The tensors of a call, [B, H, L, D] and [B, H, L, Dv] contiguous, or [T, H, D] and [T, H, Dv] of
// sequences; outputs begin as NaN.
struct HostTensors {
    explicit HostTensors(const oracle::Problem& problem)
        : q(problem.q),
          k(problem.k),
          v(problem.v),
          d_o(problem.d_o),
          alibi_slopes(problem.alibi_slopes),
          sinks(problem.sinks),
          relative_bias(problem.relative_bias),
          lengths(problem.lengths),
          state{problem.seed, problem.offset, problem.dropout_enabled ? 1 : 0},
          drops(problem.dropout > 0),
          kv_heads(problem.key_value_heads == 0 ? problem.heads : problem.key_value_heads),
          keys(problem.keys()),
          value_width(problem.value_width()),
          starts(problem.cu_seqlens),
          asked(&problem) {
        if (!starts.empty()) {
            q = oracle::packed(problem, q, problem.heads, problem.head_dim);
            k = oracle::packed(problem, k, kv_heads, problem.head_dim, true);
            v = oracle::packed(problem, v, kv_heads, value_width, true);
            d_o = oracle::packed(problem, d_o, problem.heads, value_width);
        }
        const float nan = std::numeric_limits<float>::quiet_NaN();
        out.o.assign(d_o.size(), nan);
        out.d_q.assign(q.size(), nan);
        out.d_k.assign(k.size(), nan);
        out.d_v.assign(v.size(), nan);
        out.d_sinks.assign(sinks.size(), nan);
        out.d_relative_bias.assign(relative_bias.size(), nan);
        out.lse.assign(problem.q.size() / static_cast<std::size_t>(problem.head_dim), nan);
        shape[0] = problem.batch;
        shape[1] = problem.heads;
        shape[2] = problem.length;
        shape[3] = problem.head_dim;
        mask = spans_of(problem);
    }

    spion_tensor view(std::vector<float>& data) const {
        const bool of_keys = &data == &k || &data == &v || &data == &out.d_k || &data == &out.d_v;
        const bool of_values = &data == &v || &data == &out.o || &data == &d_o || &data == &out.d_v;
        if (!starts.empty()) {
            const std::int64_t heads = of_keys ? kv_heads : shape[1];
            const std::int64_t width = of_values ? value_width : shape[3];
            const std::int64_t rows = asked->starts(of_keys).back();
            return tensor(data.data(), DType::kFp32, {heads, rows, width},
                          {width, heads * width, 1});
        }
        return tensor(data.data(), DType::kFp32, shape[0], of_keys ? kv_heads : shape[1],
                      of_keys ? keys : shape[2], of_values ? value_width : shape[3]);
    }
    // [B, H, L, D] whatever the call was given.
    oracle::Outputs outputs() const {
        if (starts.empty()) {
            return out;
        }
        oracle::Outputs padded = out;
        padded.o = oracle::unpacked(*asked, out.o, shape[1], value_width);
        padded.d_q = oracle::unpacked(*asked, out.d_q, shape[1], shape[3]);
        padded.d_k = oracle::unpacked(*asked, out.d_k, kv_heads, shape[3], true);
        padded.d_v = oracle::unpacked(*asked, out.d_v, kv_heads, value_width, true);
        return padded;
    }
    const std::int32_t* cu_seqlens() const { return starts.empty() ? nullptr : starts.data(); }
    const std::int32_t* key_cu_seqlens() const {
        return asked->key_cu_seqlens.empty() ? nullptr : asked->key_cu_seqlens.data();
    }
    std::int64_t sequences() const { return starts.empty() ? 0 : std::ssize(starts) - 1; }
    const std::int32_t* valid() const { return lengths.empty() ? nullptr : lengths.data(); }

    const DropoutState* dropout() const { return drops ? &state : nullptr; }
    static const float* data_of(const std::vector<float>& values) {
        return values.empty() ? nullptr : values.data();
    }
    static float* data_of(std::vector<float>& values) {
        return values.empty() ? nullptr : values.data();
    }

    std::vector<float> q, k, v, d_o, alibi_slopes, sinks, relative_bias;
    const std::int32_t* query_spans() const { return mask ? mask->queries.data() : nullptr; }
    const std::int32_t* key_spans() const { return mask ? mask->keys.data() : nullptr; }

    std::vector<std::int32_t> lengths;
    std::optional<Spans> mask;
    DropoutState state;
    bool drops;
    std::int64_t kv_heads, keys, value_width;
    std::vector<std::int32_t> starts;
    const oracle::Problem* asked;  // lives as long
    oracle::Outputs out;
    std::int64_t shape[4];
};

// Tables and workspace of one plan and batch.
struct HostMemory {
    HostMemory(const Plan& plan, const Pattern& pattern, std::int64_t batch)
        : tables(plan.tables(pattern)),
          workspace(plan.workspace(batch, Pass::kBackward).bytes / sizeof(double) + 1) {
        plan.prepare_workspace(batch, Pass::kBackward, workspace.data(), bytes());
    }
    std::size_t bytes() const { return workspace.size() * sizeof(double); }
    std::size_t table_bytes() const { return tables.size() * sizeof(std::int32_t); }

    std::vector<std::int32_t> tables;
    std::vector<double> workspace;
};

inline ForwardArguments forward_arguments(HostTensors& t, HostMemory& memory) {
    return {.q = t.view(t.q),
            .k = t.view(t.k),
            .v = t.view(t.v),
            .o = t.view(t.out.o),
            .lse = t.out.lse.data(),
            .tables = memory.tables.data(),
            .table_bytes = memory.table_bytes(),
            .lengths = t.valid(),
            .workspace = memory.workspace.data(),
            .workspace_bytes = memory.bytes(),
            .query_spans = t.query_spans(),
            .key_spans = t.key_spans(),
            .dropout = t.dropout(),
            .alibi_slopes = t.data_of(t.alibi_slopes),
            .sinks = t.data_of(t.sinks),
            .cu_seqlens = t.cu_seqlens(),
            .sequences = t.sequences(),
            .relative_bias = t.data_of(t.relative_bias),
            .key_cu_seqlens = t.key_cu_seqlens()};
}

inline BackwardArguments backward_arguments(HostTensors& t, HostMemory& memory) {
    return {.q = t.view(t.q),
            .k = t.view(t.k),
            .v = t.view(t.v),
            .o = t.view(t.out.o),
            .d_o = t.view(t.d_o),
            .d_q = t.view(t.out.d_q),
            .d_k = t.view(t.out.d_k),
            .d_v = t.view(t.out.d_v),
            .lse = t.out.lse.data(),
            .tables = memory.tables.data(),
            .table_bytes = memory.table_bytes(),
            .lengths = t.valid(),
            .workspace = memory.workspace.data(),
            .workspace_bytes = memory.bytes(),
            .query_spans = t.query_spans(),
            .key_spans = t.key_spans(),
            .dropout = t.dropout(),
            .alibi_slopes = t.data_of(t.alibi_slopes),
            .sinks = t.data_of(t.sinks),
            .d_sinks = t.data_of(t.out.d_sinks),
            .cu_seqlens = t.cu_seqlens(),
            .sequences = t.sequences(),
            .relative_bias = t.data_of(t.relative_bias),
            .d_relative_bias = t.data_of(t.out.d_relative_bias),
            .key_cu_seqlens = t.key_cu_seqlens()};
}

inline oracle::Outputs run_on_host(const Plan& plan, const Pattern& pattern,
                                   const oracle::Problem& problem) {
    HostTensors tensors(problem);
    HostMemory memory(plan, pattern, problem.batch);
    plan.forward(forward_arguments(tensors, memory));
    plan.backward(backward_arguments(tensors, memory));
    return tensors.outputs();
}

}  // namespace spion::test
