// Embeddings that begin as sines (Vaswani et al., Attention is all you need, section 3.5), so that what
// lies near each other is alike from the first step. They are learnt on like any others.
#pragma once

#include <cstdint>
#include <vector>

#include "train/parameters.h"

namespace spion {

// Replaces rows of `position` [L, C] and, of pictures, of `token` [V, C] in a layout's first values.
// Texts: position p has all channels. Pictures: a pixel's row, its column and its grey value have a
// third of the channels each, in `position` the last third and in `token` the first two are 0. Of n
// rows, columns, grey values or positions, number i has sin(w i) and cos(w i) for w from 1 to 1/n in
// geometric steps, times sqrt(2) * deviation; the last channel of an odd number is 0.
void place_sines(const ParameterLayout& layout, const EmbeddingStart& start,
                 std::vector<float>& values);

}  // namespace spion
