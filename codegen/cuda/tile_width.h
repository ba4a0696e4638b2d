// How wide the tiles are that CUDA kernels keep of Q, K, V and O: D and Dv, padded with zeros.
#pragma once

#include "ir/attention.h"

namespace spion {

// Columns of the tiles of mma.sync: the wider of D and Dv, in whole products of 16.
constexpr int mma_tile_width(const Attention& attention) {
    const int wider = attention.head_dim > attention.value_head_dim() ? attention.head_dim
                                                                      : attention.value_head_dim();
    return (wider + 15) / 16 * 16;
}
// Of those that TMA fetches: in whole swizzle atoms, 32, 64 or 128 columns; 0 where there are more.
// A D of 16 alone has none, as mma.sync takes it as it is.
constexpr int tma_tile_width(const Attention& attention) {
    const int width = mma_tile_width(attention);
    return width <= 16 || width > 128 ? 0 : width <= 32 ? 32 : width <= 64 ? 64 : 128;
}

}  // namespace spion
