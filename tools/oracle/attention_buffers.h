// One attention problem's tensors on a device, as training lays them out or as files do.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ir/attention.h"
#include "ir/element_spans.h"
#include "kernels/attention_arguments.h"
#include "runtime/device.h"
#include "tools/oracle/score_values.h"

namespace spion {

enum class Layout {
    kHeadsFirst,  // every tensor [B, H, L, D] of its own
    // q, k, v as one [B, L, 3, H, D], their gradients likewise; o, dO as [B, L, H, D]. Where Lk is
    // not L, q as [B, L, H, D] and k, v as one [B, Lk, 2, H, D].
    kPacked,
};

struct AttentionInputs {
    // [B, H, L, D], values that the dtype stores exactly; what a varlen sequence lacks is not read.
    std::vector<float> q, k, v, d_o;
};

struct AttentionOutputs {
    std::vector<float> o, d_q, d_k, d_v;      // [B, H, L, D]
    std::vector<float> lse;                   // [B, H, L]
    std::vector<float> d_sinks = {};          // [H] where the attention has sinks
    std::vector<float> d_relative_bias = {};  // [H, 2R + 1] where it has a bias
};

class AttentionBuffers {
  public:
    // `lengths`: [B] with key padding, or of varlen sequences, which lie end to end; else empty.
    // key_lengths: [B] of keys' sequences, with key_starts. Outputs are poison from the start.
    AttentionBuffers(const Attention& attention, std::int64_t batch, std::span<const int> lengths,
                     Layout layout, Device& device, std::span<const int> key_lengths = {});

    void set_inputs(const AttentionInputs& inputs);
    // For an attention whose mask is kSpans, before arguments().
    void set_spans(const ElementSpans& spans);
    // What the launch says about scores and probabilities; random_score_values() from the start.
    void set_score_values(const ScoreValues& values);
    // Normal values, the same few over and over: quick to make, for measurements.
    void set_arbitrary_inputs();
    // Fills every output and the guard zones around it with NaN.
    void poison_outputs();

    AttentionOutputs outputs() const;
    // Every output's bytes, guards included, to compare two runs with.
    std::string output_bytes() const;
    // Whether nothing was written in front of or behind an output since poison_outputs().
    bool guards_intact() const;

    SpionAttentionArguments arguments() const;
    std::size_t bytes() const;

  private:
    // A tensor's place: element (b, h, l, d) lies at element `offset` + b * batch_stride + ... of
    // the payload of region `region`.
    struct Place {
        int region = 0;
        std::int64_t offset = 0, batch_stride = 0, head_stride = 0, row_stride = 0;
        int heads = 0;
        std::int64_t length = 0;
        int width = 0;  // D or Dv
        bool keys = false;
    };
    struct Region {
        Buffer buffer;              // guard, payload, guard
        std::size_t payload_bytes;  // between the guards
        bool output;
    };

    int add_region(std::size_t payload_bytes, bool output);
    // [B + 1] of varlen, of Q or of K.
    const std::vector<int>& row_starts(bool keys) const {
        return keys && attention_.key_starts ? key_row_starts_ : row_starts_;
    }
    std::int64_t all_rows(bool keys) const;     // of a head, of Q or of K, in all samples
    std::size_t column_bytes(bool keys) const;  // of one element of each of them
    // Of a region of rows of `all` elements, those of H heads of Q's, or of K's and V's, from element
    // `first` on.
    struct HeadsOf {
        bool keys, values;
        int first, all;
    };
    Place place(int region, const HeadsOf& heads) const;
    // Q, K and V or their gradients, in one region or in two.
    void place_packed(Place& q, Place& k, Place& v, bool output);
    SpionTensor tensor(const Place& place) const;
    void write(const Place& place, std::span<const float> values);
    std::vector<float> read(const Place& place) const;
    std::string region_bytes(const Region& region) const;
    void* payload(int region) const;
    // Calls visit(index in [B, H, L, D], element in the payload) for every element of a tensor.
    template <typename Visit>
    void for_each_element(const Place& place, const Visit& visit) const;

    Attention attention_;
    std::int64_t batch_;
    std::vector<int> row_starts_, key_row_starts_;  // [B + 1] of varlen, of key_starts, else empty
    Layout layout_;
    Device* device_;
    std::vector<Region> regions_;
    Place q_, k_, v_, o_, d_o_, d_q_, d_k_, d_v_;
    int lse_ = 0, delta_ = 0, d_sinks_ = 0, d_relative_bias_ = 0;
    Buffer lengths_, starts_, key_starts_;
    Buffer query_spans_, key_spans_;
    Buffer dropout_, alibi_slopes_, sinks_, relative_bias_;
};

}  // namespace spion
