// The attention of tests whose subject is something else.
#pragma once

#include "ir/attention.h"

namespace spion {

// L = 96: three blocks of 32.
inline Attention small_attention() {
    return {.heads = 2,
            .head_dim = 32,
            .length = 96,
            .dtype = DType::kFp32,
            .scale = 0.1F,
            .softmax = SoftmaxKind::kPrunedZero,
            .key_padding = false,
            .dropout = 0.0F};
}

}  // namespace spion
