// One's own tensors for `spion verify`, from files.
#pragma once

#include <cstdint>
#include <string>

#include "tools/oracle/attention_buffers.h"

namespace spion {

// Names for open_array(): each tensor of its own, or all of one place.
struct TensorFiles {
    std::string q, k, v, d_o;
    // A folder with q.npy, k.npy, v.npy and do.npy (what `verify --dump` writes), or an .npz or
    // .safetensors file with tensors of these names; "": none.
    std::string all;
    bool any() const { return !(q + k + v + d_o + all).empty(); }
};

struct GivenTensors {
    std::int64_t batch = 1, heads = 1, length = 0, head_dim = 0;
    AttentionInputs tensors;  // as the files have them, not rounded; d_o empty where none was given
};

// Tensors of shape (B, H, L, D), (H, L, D) or (L, D), all of one. dO may be missing. Throws
// UserError that names the file for other shapes, for values that are not finite and for what
// open_array() refuses.
GivenTensors read_tensors(const TensorFiles& files);

}  // namespace spion
