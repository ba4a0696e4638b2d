// The model's parameters: one flat fp32 buffer with a table of what lies where, and beside it, laid
// out alike, the gradients, AdamW's two moments and (on a GPU) the 16-bit copy that the GEMMs read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device.h"

namespace spion {

// What stands for a sequence at the end of the encoder.
enum class Pooling {
    kMean,  // the mean over its length, as zeros beyond its own: the sum over its rows, divided by L
    kCls,   // its first row, that of a token of its own, the last of the vocabulary, put before it
};

// Sizes of the encoder and its head. C = channels = heads * head_dim, F = feed_forward.
struct ModelShape {
    int layers = 4;
    int heads = 2;           // H
    int head_dim = 32;       // D
    int feed_forward = 128;  // F, also the width of the head's hidden layer
    int vocabulary = 32;     // V
    int classes = 10;
    std::int64_t length = 2048;  // L
    int towers = 1;              // sequences of a sample: 2 are compared by the head
    Pooling pooling = Pooling::kMean;

    int channels() const { return heads * head_dim; }
    // The token put before every sequence, if there is one.
    std::optional<std::uint16_t> class_token() const {
        if (pooling == Pooling::kMean) return std::nullopt;
        return static_cast<std::uint16_t>(vocabulary - 1);
    }
    // What the head sees of a sample: its pooled sequence [C], or of two, a and b, [a, b, a*b, a-b].
    int features() const { return towers == 1 ? channels() : 4 * channels(); }
};

enum class Initial {
    kZero,
    kOne,
    kEmbedding,  // see EmbeddingStart
    kLinear,     // uniform in +-1/sqrt(fan_in): PyTorch's default, for weights and biases
};

// How the embedding's values begin.
struct EmbeddingStart {
    double deviation = 0.02;  // of normal(0, deviation), or of sines
    bool sine = false;        // train/sine_embedding.h
    int columns = 0;          // of pictures; 0: of texts
    int before = 0;           // positions before the sample: 1 with a class token
};

struct ParameterInfo {
    std::string name;                 // "layer2.feed_forward1.weight"
    std::int64_t offset = 0;          // in elements; a multiple of 8 (16 bytes of bf16)
    std::vector<std::int64_t> shape;  // [out, in] of a linear layer's weight
    Initial initial = Initial::kZero;
    std::int64_t fan_in = 0;  // of kLinear
    std::int64_t count() const;
};

// Offsets of what belongs to one norm. The three vectors of [C] lie side by side, because the
// backward kernel of a norm leaves their gradients side by side: gamma, beta, and the bias of the
// linear layer whose output enters the residual stream just before the norm.
struct NormOffsets {
    std::int64_t gamma = 0;        // [C]
    std::int64_t beta = 0;         // [C]
    std::int64_t branch_bias = 0;  // [C]; of no use in the first layer's first norm
};

struct LayerOffsets {
    NormOffsets norm1;            // its branch bias is the previous layer's feed_forward2.bias
    std::int64_t qkv_weight = 0;  // [3C, C]: rows of Q, of K, of V, each [H, D]
    std::int64_t qkv_bias = 0;    // [3C]
    std::int64_t out_weight = 0;  // [C, C]; its bias is norm2.branch_bias
    NormOffsets norm2;
    std::int64_t feed_forward1_weight = 0;  // [F, C]
    std::int64_t feed_forward1_bias = 0;    // [F]
    std::int64_t feed_forward2_weight = 0;  // [C, F]; its bias belongs to the next norm
};

class ParameterLayout {
  public:
    explicit ParameterLayout(const ModelShape& shape);

    std::int64_t token = 0;     // [V, C]
    std::int64_t position = 0;  // [L, C]
    std::vector<LayerOffsets> layers;
    NormOffsets final_norm;
    std::int64_t head1_weight = 0;  // [F, features]
    std::int64_t head1_bias = 0;    // [F]
    std::int64_t head2_weight = 0;  // [classes, F]
    std::int64_t head2_bias = 0;    // [classes]

    const std::vector<ParameterInfo>& table() const { return table_; }
    std::int64_t vocabulary() const { return shape_of(token)[0]; }  // V
    std::int64_t length() const { return shape_of(position)[0]; }   // L
    std::int64_t channels() const { return shape_of(token)[1]; }    // C
    // Elements of the flat buffer, the gaps that alignment leaves included (they stay 0).
    std::int64_t size() const { return size_; }
    // The offset of the bias of a layer's second feed-forward layer.
    std::int64_t feed_forward2_bias(int layer) const;

    // The flat buffer's first values: each parameter draws from a generator of its own.
    std::vector<float> initial_values(std::uint64_t seed,
                                      const EmbeddingStart& embedding = {}) const;

  private:
    const std::vector<std::int64_t>& shape_of(std::int64_t offset) const;
    std::int64_t add(std::string name, std::vector<std::int64_t> shape, Initial initial,
                     std::int64_t fan_in = 0);
    NormOffsets add_norm(const std::string& name, const std::string& branch_bias, int channels,
                         std::int64_t fan_in);
    std::vector<ParameterInfo> table_;
    std::int64_t size_ = 0;
};

// The five buffers of a layout's size on a device.
class ParameterState {
  public:
    // Uploads `values` [size]; gradients and moments start at 0. dtype: of the copy on a GPU, kBf16 or
    // kFp16.
    ParameterState(Device& device, const std::vector<float>& values, DType dtype = DType::kBf16);

    float* value(std::int64_t offset) const { return values_.as<float>() + offset; }
    float* gradient(std::int64_t offset) const { return gradients_.as<float>() + offset; }
    // What a GEMM reads: the 16-bit copy on a GPU, the values themselves on the host.
    const void* gemm_operand(std::int64_t offset) const;

    std::int64_t size() const { return size_; }
    const Buffer& values() const { return values_; }        // fp32 [size]
    const Buffer& low() const { return low_; }              // T [size]; empty on the host
    const Buffer& gradients() const { return gradients_; }  // fp32 [size]
    const Buffer& first_moment() const { return m_; }       // fp32 [size]
    const Buffer& second_moment() const { return v_; }      // fp32 [size]

    // Replaces the values (and the 16-bit copy), keeps the moments.
    void upload(const std::vector<float>& values);
    void upload_moments(const std::vector<float>& first, const std::vector<float>& second);

  private:
    Device* device_;
    std::int64_t size_;
    DType dtype_;
    Buffer values_, low_, gradients_, m_, v_;
};

}  // namespace spion
