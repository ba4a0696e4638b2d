// What a call of the PyTorch operator is, as far as it decides about the plan.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "python/core/dlpack.h"

namespace spion::python {

namespace nb = nanobind;

// What decides about the plan.
struct PlanKey {
    std::int64_t device, dtype, heads, key_value_heads, length, key_length, width, value_width;
    std::int64_t numbers;  // in the tables
    std::int64_t block, scale, softcap, dropout, patterns;
    std::int64_t bias_entries;  // 2R + 1 of a bias by relative position; 0: there is none
    std::int64_t score;         // of ScoreNumbers
    std::int64_t softmax;
    // Key padding, causal, spans; general, ALiBi, sinks: a bit each.
    std::int64_t flags;

    friend bool operator==(const PlanKey&, const PlanKey&) = default;
};

struct PlanKeyHash {
    std::size_t operator()(const PlanKey& key) const;
};

// How a call is to be computed.
struct Words {
    std::int64_t block;
    double scale;
    const char* softmax;
    bool causal;
};

// What a call of spion::general_attention has beside that; handles may be None.
struct Changes {
    double softcap, dropout;
    std::int64_t patterns;
    nb::handle state, slopes, sinks;
    nb::handle d_sinks = Py_None, bias = Py_None, d_bias = Py_None;
    const char *score = "", *score_derivative = "";
};

// Users' expressions of scores by number, so that a key has no text in it.
class ScoreNumbers {
  public:
    // 0 of none, -1 of one that was never added.
    std::int64_t find(const Changes* changes) const;
    std::int64_t add(const Changes* changes);

  private:
    std::unordered_map<std::string, std::int64_t> numbers_;  // from 1 on
};

// The tensors of a call beside its operands; those after the tables may be None.
struct Given {
    nb::handle tables, lengths, spans;
};

// Of a call with tensors of rank 4, with `numbers` of them in the tables and the expression `score`.
PlanKey key_of(const dlpack::Tensor& q, const dlpack::Tensor& k, const dlpack::Tensor& v,
               std::int64_t numbers, const Given& given, const Words& words, const Changes* changes,
               std::int64_t score);

}  // namespace spion::python
