// A forward and backward pass of the library on plain CUDA buffers, in bf16.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "spion/spion.h"
#include "tests/api/cuda_driver.h"
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
            .key_padding = !problem.lengths.empty()};
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
          q_(as_bf16(problem.q)),
          k_(as_bf16(problem.k)),
          v_(as_bf16(problem.v)),
          d_o_(as_bf16(problem.d_o)),
          o_(q_.bytes()),
          d_q_(q_.bytes()),
          d_k_(q_.bytes()),
          d_v_(q_.bytes()),
          lse_(problem.q.size() / static_cast<std::size_t>(problem.head_dim) * sizeof(float)),
          tables_(plan.tables(pattern_of(problem))),
          lengths_(problem.lengths),
          workspace_(plan.workspace(problem.batch, Pass::kBackward).bytes),
          padded_(!problem.lengths.empty()) {
        plan.prepare_workspace(problem.batch, Pass::kBackward, workspace_.data(),
                               workspace_.bytes(), stream);
    }

    static Pattern pattern_of(const oracle::Problem& problem) {
        return Pattern::from_bits(problem.length, problem.block, problem.bits);
    }
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
                .flags = flags};
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
                .flags = flags};
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
                .d_v = from_bf16(d_v_.read<std::uint16_t>())};
    }
    // Every output's bytes, to compare runs with.
    std::vector<std::uint8_t> bytes() const {
        std::vector<std::uint8_t> all;
        for (const auto* memory : {&o_, &lse_, &d_q_, &d_k_, &d_v_}) {
            const std::vector<std::uint8_t> some = memory->read<std::uint8_t>();
            all.insert(all.end(), some.begin(), some.end());
        }
        return all;
    }
    void poison() {
        for (const auto* memory : {&o_, &lse_, &d_q_, &d_k_, &d_v_}) {
            SPION_TEST_CUDA(cuMemsetD8_v2, reinterpret_cast<cuda::Pointer>(memory->data()), 0xFF,
                            memory->bytes());
        }
        SPION_TEST_CUDA(cuCtxSynchronize);
    }

  private:
    spion_tensor view(const cuda::Memory& memory) const {
        return tensor(memory.data(), DType::kBf16, batch_, heads_, length_, width_);
    }
    const std::int32_t* lengths() const {
        return padded_ ? static_cast<const std::int32_t*>(lengths_.data()) : nullptr;
    }

    const Plan plan_;
    std::int64_t batch_, heads_, length_, width_;
    cuda::Memory q_, k_, v_, d_o_, o_, d_q_, d_k_, d_v_, lse_, tables_, lengths_, workspace_;
    bool padded_;
};

}  // namespace spion::test
