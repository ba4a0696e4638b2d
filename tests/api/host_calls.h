// A forward and backward pass of the library on the host, through C++ or through C.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
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
            .spans = problem.rules.has_value()};
}

inline MaskRules rules_of(const oracle::Rules& given) {
    return {.causal = given.causal,
            .left = given.left,
            .right = given.right,
            .documents = given.documents,
            .prefixes = given.prefixes,
            .query_lengths = given.query_lengths};
}

inline Pattern pattern_of(const oracle::Problem& problem) {
    return Pattern::from_bits(problem.length, problem.block, problem.bits);
}

// The tensors of a call, [B, H, L, D] contiguous; outputs begin as NaN.
struct HostTensors {
    explicit HostTensors(const oracle::Problem& problem)
        : q(problem.q), k(problem.k), v(problem.v), d_o(problem.d_o), lengths(problem.lengths) {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        for (auto* output : {&out.o, &out.d_q}) {
            output->assign(q.size(), nan);
        }
        for (auto* output : {&out.d_k, &out.d_v}) {
            output->assign(k.size(), nan);
        }
        out.lse.assign(q.size() / static_cast<std::size_t>(problem.head_dim), nan);
        shape[0] = problem.batch;
        shape[1] = problem.heads;
        shape[2] = problem.length;
        shape[3] = problem.head_dim;
        if (problem.rules) {
            mask = spans(rules_of(*problem.rules), problem.batch, problem.length);
        }
    }

    spion_tensor view(std::vector<float>& data) const {
        const std::int64_t row = shape[0] * shape[2] * shape[3];
        const auto heads = static_cast<std::int64_t>(data.size()) / row;
        return tensor(data.data(), DType::kFp32, shape[0], heads, shape[2], shape[3]);
    }
    const std::int32_t* valid() const { return lengths.empty() ? nullptr : lengths.data(); }

    std::vector<float> q, k, v, d_o;
    const std::int32_t* query_spans() const { return mask ? mask->queries.data() : nullptr; }
    const std::int32_t* key_spans() const { return mask ? mask->keys.data() : nullptr; }

    std::vector<std::int32_t> lengths;
    std::optional<Spans> mask;
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
            .key_spans = t.key_spans()};
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
            .key_spans = t.key_spans()};
}

inline oracle::Outputs run_on_host(const Plan& plan, const Pattern& pattern,
                                   const oracle::Problem& problem) {
    HostTensors tensors(problem);
    HostMemory memory(plan, pattern, problem.batch);
    plan.forward(forward_arguments(tensors, memory));
    plan.backward(backward_arguments(tensors, memory));
    return tensors.out;
}

}  // namespace spion::test
