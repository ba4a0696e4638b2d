// A user's score expression as CUDA text.
#pragma once

#include <string>

#include "ir/attention.h"

namespace spion {

// A literal of C++ that names the float.
std::string float_literal(float value);

// SPION_SCORE_EXPRESSION and the struct that kernels/cuda/common/score_expression.cuh calls, a line
// for every operation. "" for an operation without an expression.
std::string score_cuda(const Attention& attention);

}  // namespace spion
