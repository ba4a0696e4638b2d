// A forward and backward pass of the library on plain CUDA buffers, in bf16.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
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

// As calls are given it: of sequences [T, heads, width].
inline std::vector<std::uint16_t> as_lent(const oracle::Problem& problem,
                                          const std::vector<float>& padded, std::int64_t heads,
                                          std::int64_t width, bool of_keys = false) {
    return as_bf16(problem.cu_seqlens.empty()
                       ? padded
                       : oracle::packed(problem, padded, heads, width, of_keys));
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
          asked_(problem),
          q_(as_lent(problem, problem.q, heads_, width_)),
          k_(as_lent(problem, problem.k, kv_heads_, width_, true)),
          v_(as_lent(problem, problem.v, kv_heads_, value_width_, true)),
          d_o_(as_lent(problem, problem.d_o, heads_, value_width_)),
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
          relative_bias_(problem.relative_bias),
          d_relative_bias_(problem.relative_bias.size() * sizeof(float)),
          mask_(spans_of(problem)),
          query_spans_(mask_ ? mask_->queries : std::vector<std::int32_t>()),
          key_spans_(mask_ ? mask_->keys : std::vector<std::int32_t>()),
          starts_(problem.cu_seqlens),
          key_starts_(problem.key_cu_seqlens),
          padded_(!problem.lengths.empty()),
          drops_(problem.dropout > 0),
          slopes_(!problem.alibi_slopes.empty()),
          sink_(!problem.sinks.empty()),
          biased_(problem.reach > 0) {
        plan.prepare_workspace(problem.batch, Pass::kBackward, workspace_.data(),
                               workspace_.bytes(), stream);
    }

    static Pattern pattern_of(const oracle::Problem& problem) {
        return spion::test::pattern_of(problem);
    }
    // What dropout draws from now on.
    void set_state(const oracle::Problem& problem) { state_.write(std::vector{state_of(problem)}); }
    DropoutState* state() { return static_cast<DropoutState*>(state_.data()); }
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
                .query_spans = numbers(query_spans_, mask_.has_value()),
                .key_spans = numbers(key_spans_, mask_.has_value()),
                .dropout = drops_ ? static_cast<const DropoutState*>(state_.data()) : nullptr,
                .alibi_slopes = floats(alibi_slopes_, slopes_),
                .sinks = floats(sinks_, sink_),
                .cu_seqlens = numbers(starts_, sequences() > 0),
                .host_cu_seqlens = sequences() > 0 ? asked_.cu_seqlens.data() : nullptr,
                .sequences = sequences(),
                .relative_bias = floats(relative_bias_, biased_),
                .key_cu_seqlens = numbers(key_starts_, !asked_.key_cu_seqlens.empty())};
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
                .query_spans = numbers(query_spans_, mask_.has_value()),
                .key_spans = numbers(key_spans_, mask_.has_value()),
                .dropout = drops_ ? static_cast<const DropoutState*>(state_.data()) : nullptr,
                .alibi_slopes = floats(alibi_slopes_, slopes_),
                .sinks = floats(sinks_, sink_),
                .d_sinks = floats(d_sinks_, sink_),
                .cu_seqlens = numbers(starts_, sequences() > 0),
                .host_cu_seqlens = sequences() > 0 ? asked_.cu_seqlens.data() : nullptr,
                .sequences = sequences(),
                .relative_bias = floats(relative_bias_, biased_),
                .d_relative_bias = floats(d_relative_bias_, biased_),
                .key_cu_seqlens = numbers(key_starts_, !asked_.key_cu_seqlens.empty())};
    }
    void run(void* stream, std::uint64_t flags = 0) const {
        plan_.forward(forward_arguments(flags), stream);
        plan_.backward(backward_arguments(flags), stream);
    }
    oracle::Outputs outputs() const {
        const auto padded = [&](const cuda::Memory& memory, std::int64_t heads, std::int64_t width,
                                bool of_keys = false) {
            std::vector<float> values = from_bf16(memory.read<std::uint16_t>());
            return asked_.cu_seqlens.empty()
                       ? values
                       : oracle::unpacked(asked_, values, heads, width, of_keys);
        };
        return {.o = padded(o_, heads_, value_width_),
                .lse = lse_.read<float>(),
                .d_q = padded(d_q_, heads_, width_),
                .d_k = padded(d_k_, kv_heads_, width_, true),
                .d_v = padded(d_v_, kv_heads_, value_width_, true),
                .d_sinks = sink_ ? d_sinks_.read<float>() : std::vector<float>(),
                .d_relative_bias = biased_ ? d_relative_bias_.read<float>() : std::vector<float>()};
    }
    // Every output's bytes, to compare runs with.
    std::vector<std::uint8_t> bytes() const {
        std::vector<std::uint8_t> all;
        for (const auto* memory : outputs_of_call()) {
            const std::vector<std::uint8_t> some = memory->read<std::uint8_t>();
            all.insert(all.end(), some.begin(), some.end());
        }
        return all;
    }
    void poison() {
        for (const auto* memory : outputs_of_call()) {
            SPION_TEST_CUDA(cuMemsetD8_v2, reinterpret_cast<cuda::Pointer>(memory->data()), 0xFF,
                            memory->bytes());
        }
        SPION_TEST_CUDA(cuCtxSynchronize);
    }

  private:
    std::vector<const cuda::Memory*> outputs_of_call() const {
        return {&o_, &lse_, &d_q_, &d_k_, &d_v_, &d_sinks_, &d_relative_bias_};
    }
    spion_tensor view(const cuda::Memory& memory) const {
        const bool of_keys =
            &memory == &k_ || &memory == &v_ || &memory == &d_k_ || &memory == &d_v_;
        const bool of_values =
            &memory == &v_ || &memory == &o_ || &memory == &d_o_ || &memory == &d_v_;
        if (!asked_.cu_seqlens.empty()) {
            const std::int64_t heads = of_keys ? kv_heads_ : heads_;
            const std::int64_t width = of_values ? value_width_ : width_;
            const std::int64_t rows = asked_.starts(of_keys).back();
            return tensor(memory.data(), DType::kBf16, {heads, rows, width},
                          {width, heads * width, 1});
        }
        return tensor(memory.data(), DType::kBf16, batch_, of_keys ? kv_heads_ : heads_,
                      of_keys ? keys_ : length_, of_values ? value_width_ : width_);
    }
    static DropoutState state_of(const oracle::Problem& problem) {
        return {problem.seed, problem.offset, problem.dropout_enabled ? 1 : 0};
    }
    const std::int32_t* numbers(const cuda::Memory& memory, bool given) const {
        return given ? static_cast<const std::int32_t*>(memory.data()) : nullptr;
    }
    static float* floats(const cuda::Memory& memory, bool given) {
        return given ? static_cast<float*>(memory.data()) : nullptr;
    }
    std::int64_t sequences() const { return asked_.cu_seqlens.empty() ? 0 : batch_; }
    const std::int32_t* lengths() const {
        return padded_ ? static_cast<const std::int32_t*>(lengths_.data()) : nullptr;
    }

    const Plan plan_;
    std::int64_t batch_, heads_, length_, width_, value_width_, kv_heads_, keys_;
    oracle::Problem asked_;
    cuda::Memory q_, k_, v_, d_o_, o_, d_q_, d_k_, d_v_, lse_, tables_, lengths_, workspace_;
    cuda::Memory state_, alibi_slopes_, sinks_, d_sinks_, relative_bias_, d_relative_bias_;
    std::optional<Spans> mask_;
    cuda::Memory query_spans_, key_spans_, starts_, key_starts_;
    bool padded_, drops_, slopes_, sink_, biased_;
};

}  // namespace spion::test
