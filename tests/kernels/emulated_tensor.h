// The tensors of an emulated kernel, in the element type and layout of a case.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "ir/attention.h"
#include "kernels/attention_arguments.h"
#include "tests/kernels/cuda_emulation.h"
#include "tests/kernels/emulated_cases.h"

namespace spion {

// [B, H, L, D] in a buffer of the case's element type. Interleaved: row l of head h lies at
// (b * L + l) * 3 * H * D + (part * H + h) * D, as a fused QKV projection leaves it.
struct Tensor {
    EmulatedCase c;
    int batch;
    bool interleaved;
    bool keys;
    int heads;
    std::int64_t length;
    int width;  // D or Dv
    std::vector<std::uint8_t> bytes;

    Tensor(const EmulatedCase& c_, int batch_, bool interleaved_, bool of_keys = false,
           bool of_values = false)
        : c(c_),
          batch(batch_),
          interleaved(interleaved_),
          keys(of_keys),
          heads(of_keys && c.kv_heads > 0 ? c.kv_heads : c.heads),
          length(of_keys ? c.keys() : c.length),
          width(of_values ? c.values() : c.head_dim) {
        const auto count = static_cast<std::size_t>(heads * rows() * width);
        // Poison: NaN in every element type.
        bytes.assign(
            count * static_cast<std::size_t>(storage_bytes(c.dtype)) * (interleaved ? 3 : 1), 0xFF);
    }
    // Of a head, in all samples.
    std::int64_t rows() const { return c.varlen ? c.start(batch, keys) : batch * length; }
    // That sample b has.
    std::int64_t positions(int b) const {
        if (!c.varlen) return length;
        return keys ? c.key_positions(b) : c.positions(b);
    }
    SpionTensor view() {
        const long long d = width, h = heads, l = c.varlen ? rows() : length;
        if (interleaved) {
            return {.data = bytes.data() + h * d * storage_bytes(c.dtype),
                    .batch_stride = l * 3 * h * d,
                    .head_stride = d,
                    .row_stride = 3 * h * d};
        }
        return {
            .data = bytes.data(), .batch_stride = h * l * d, .head_stride = l * d, .row_stride = d};
    }
    std::uint8_t* at(int b, int h, std::int64_t l, int d) {
        const SpionTensor v = view();
        if (c.varlen) l += c.start(b, keys);
        if (c.varlen) b = 0;
        return static_cast<std::uint8_t*>(v.data) +
               (b * v.batch_stride + h * v.head_stride + l * v.row_stride + d) *
                   storage_bytes(c.dtype);
    }
    double get(int b, int h, std::int64_t l, int d) {
        if (storage_bytes(c.dtype) == 4) {
            float value = 0;
            std::memcpy(&value, at(b, h, l, d), 4);
            return value;
        }
        std::uint16_t bits = 0;
        std::memcpy(&bits, at(b, h, l, d), 2);
        return c.dtype == DType::kBf16 ? emulation::from_bf16(bits) : emulation::from_fp16(bits);
    }
    void set(int b, int h, std::int64_t l, int d, float value) {
        if (storage_bytes(c.dtype) == 4) {
            std::memcpy(at(b, h, l, d), &value, 4);
            return;
        }
        const std::uint16_t bits =
            c.dtype == DType::kBf16 ? emulation::to_bf16(value) : emulation::to_fp16(value);
        std::memcpy(at(b, h, l, d), &bits, 2);
    }
    void fill(std::mt19937& random, float spread) {
        std::normal_distribution<float> normal(0.0F, spread);
        for (int b = 0; b < batch; ++b) {
            for (int h = 0; h < heads; ++h) {
                for (std::int64_t l = 0; l < positions(b); ++l) {
                    for (int d = 0; d < width; ++d) set(b, h, l, d, normal(random));
                }
            }
        }
    }
};

}  // namespace spion
