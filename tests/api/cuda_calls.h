// A forward and backward pass of the library on plain CUDA buffers, in bf16.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "spion/spion.h"
#include "tests/api/cuda_driver.h"
#include "tests/api/host_calls.h"
#include "tests/api/oracle.h"

namespace spion::test {

inline std::vector<std::uint16_t> as_bf16(const std::vector<float>& values) {
    std::vector<std::uint16_t> bits;
    bits.reserve(values.size());
    for (const float value : values) bits.push_back(oracle::bf16_bits(value));
    return bits;
}

inline std::vector<float> from_bf16(const std::vector<std::uint16_t>& bits) {
    std::vector<float> values;
    values.reserve(bits.size());
    for (const std::uint16_t value : bits) values.push_back(oracle::from_bf16_bits(value));
    return values;
}

// The problem with inputs that bf16 stores exactly.
inline oracle::Problem rounded(oracle::Problem problem) {
    for (auto* tensor : {&problem.q, &problem.k, &problem.v, &problem.d_o}) {
        for (float& value : *tensor) value = oracle::to_bf16(value);
    }
    return problem;
}

inline Attention cuda_attention(const oracle::Problem& problem) {
    return {.heads = problem.heads,
            .head_dim = problem.head_dim,
            .length = problem.length,
            .block = problem.block,
            .dtype = DType::kBf16,
            .softmax = problem.pruned_zero ? Softmax::kPrunedZero : Softmax::kMasked,
            .key_padding = !problem.lengths.empty(),
            .causal = problem.causal,
            .key_value_heads = problem.key_value_heads,
            .dropout = problem.dropout,
            .key_length = problem.key_length,
            .softcap = problem.softcap,
            .alibi = !problem.alibi_slopes.empty(),
            .sinks = !problem.sinks.empty(),
            .patterns = problem.patterns,
            .value_dim = problem.value_dim};
}

// Tensors, tables and workspace of one caller, for a plan and the problem's pattern.
class CudaCall {
  public:
    CudaCall(const Plan& plan, const oracle::Problem& problem, void* stream)
        : plan_(plan),
          batch_(problem.batch),
          heads_(problem.heads),
          length_(problem.length),
          width_(problem.head_dim),
          value_width_(problem.value_width()),
          kv_heads_(problem.key_value_heads == 0 ? problem.heads : problem.key_value_heads),
          keys_(problem.keys()),
          q_(as_bf16(problem.q)),
          k_(as_bf16(problem.k)),
          v_(as_bf16(problem.v)),
          d_o_(as_bf16(problem.d_o)),
          o_(d_o_.bytes()),
          d_q_(q_.bytes()),
          d_k_(k_.bytes()),
          d_v_(v_.bytes()),
          lse_(problem.q.size() / static_cast<std::size_t>(problem.head_dim) * sizeof(float)),
          tables_(plan.tables(pattern_of(problem))),
          lengths_(problem.lengths),
          workspace_(plan.workspace(problem.batch, Pass::kBackward).bytes),
          state_(std::vector{state_of(problem)}),
          alibi_slopes_(problem.alibi_slopes),
          sinks_(problem.sinks),
          d_sinks_(problem.sinks.size() * sizeof(float)),
          padded_(!problem.lengths.empty()),
          drops_(problem.dropout > 0),
          slopes_(!problem.alibi_slopes.empty()),
          sink_(!problem.sinks.empty()) {
        plan.prepare_workspace(problem.batch, Pass::kBackward, workspace_.data(),
                               workspace_.bytes(), stream);
    }

    static Pattern pattern_of(const oracle::Problem& problem) {
        return spion::test::pattern_of(problem);
    }
    // What dropout draws from now on.
    void set_state(const oracle::Problem& problem) { state_.write(std::vector{state_of(problem)}); }
    void set_pattern(const Pattern& pattern) { tables_.write(plan_.tables(pattern)); }

    cuda::Memory& tables() { return tables_; }
    cuda::Memory& valid() { return lengths_; }

    ForwardArguments forward_arguments(std::uint64_t flags = 0) const {
        return {.q = view(q_),
                .k = view(k_),
                .v = view(v_),
                .o = view(o_),
                .lse = static_cast<float*>(lse_.data()),
                .tables = tables_.data(),
                .table_bytes = tables_.bytes(),
                .lengths = lengths(),
                .workspace = workspace_.data(),
                .workspace_bytes = workspace_.bytes(),
                .flags = flags,
                .dropout = drops_ ? static_cast<const DropoutState*>(state_.data()) : nullptr,
                .alibi_slopes = slopes_ ? static_cast<const float*>(alibi_slopes_.data()) : nullptr,
                .sinks = sink_ ? static_cast<const float*>(sinks_.data()) : nullptr};
    }
    BackwardArguments backward_arguments(std::uint64_t flags = 0) const {
        return {.q = view(q_),
                .k = view(k_),
                .v = view(v_),
                .o = view(o_),
                .d_o = view(d_o_),
                .d_q = view(d_q_),
                .d_k = view(d_k_),
                .d_v = view(d_v_),
                .lse = static_cast<const float*>(lse_.data()),
                .tables = tables_.data(),
                .table_bytes = tables_.bytes(),
                .lengths = lengths(),
                .workspace = workspace_.data(),
                .workspace_bytes = workspace_.bytes(),
                .flags = flags,
                .dropout = drops_ ? static_cast<const DropoutState*>(state_.data()) : nullptr,
                .alibi_slopes = slopes_ ? static_cast<const float*>(alibi_slopes_.data()) : nullptr,
                .sinks = sink_ ? static_cast<const float*>(sinks_.data()) : nullptr,
                .d_sinks = sink_ ? static_cast<float*>(d_sinks_.data()) : nullptr};
    }
    void run(void* stream, std::uint64_t flags = 0) const {
        plan_.forward(forward_arguments(flags), stream);
        plan_.backward(backward_arguments(flags), stream);
    }
    oracle::Outputs outputs() const {
        return {.o = from_bf16(o_.read<std::uint16_t>()),
                .lse = lse_.read<float>(),
                .d_q = from_bf16(d_q_.read<std::uint16_t>()),
                .d_k = from_bf16(d_k_.read<std::uint16_t>()),
                .d_v = from_bf16(d_v_.read<std::uint16_t>()),
                .d_sinks = sink_ ? d_sinks_.read<float>() : std::vector<float>()};
    }
    // Every output's bytes, to compare runs with.
    std::vector<std::uint8_t> bytes() const {
        std::vector<std::uint8_t> all;
        for (const auto* memory : {&o_, &lse_, &d_q_, &d_k_, &d_v_, &d_sinks_}) {
            const std::vector<std::uint8_t> some = memory->read<std::uint8_t>();
            all.insert(all.end(), some.begin(), some.end());
        }
        return all;
    }
    void poison() {
        for (const auto* memory : {&o_, &lse_, &d_q_, &d_k_, &d_v_, &d_sinks_}) {
            SPION_TEST_CUDA(cuMemsetD8_v2, reinterpret_cast<cuda::Pointer>(memory->data()), 0xFF,
                            memory->bytes());
        }
        SPION_TEST_CUDA(cuCtxSynchronize);
    }

  private:
    spion_tensor view(const cuda::Memory& memory) const {
        const bool of_keys =
            &memory == &k_ || &memory == &v_ || &memory == &d_k_ || &memory == &d_v_;
        const bool of_values =
            &memory == &v_ || &memory == &o_ || &memory == &d_o_ || &memory == &d_v_;
        return tensor(memory.data(), DType::kBf16, batch_, of_keys ? kv_heads_ : heads_,
                      of_keys ? keys_ : length_, of_values ? value_width_ : width_);
    }
    static DropoutState state_of(const oracle::Problem& problem) {
        return {problem.seed, problem.offset, problem.dropout_enabled ? 1 : 0};
    }
    const std::int32_t* lengths() const {
        return padded_ ? static_cast<const std::int32_t*>(lengths_.data()) : nullptr;
    }

    const Plan plan_;
    std::int64_t batch_, heads_, length_, width_, value_width_, kv_heads_, keys_;
    cuda::Memory q_, k_, v_, d_o_, o_, d_q_, d_k_, d_v_, lse_, tables_, lengths_, workspace_;
    cuda::Memory state_, alibi_slopes_, sinks_, d_sinks_;
    bool padded_, drops_, slopes_, sink_;
};

}  // namespace spion::test
