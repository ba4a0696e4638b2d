// A user's score expression as LLVM IR.
#pragma once

#include <string>

#include "ir/attention.h"

namespace spion {

// The function express_score that kernels/host/score.h declares: a call of
// kernels/host/score_operations.h for every operation. "" for an operation without an expression.
std::string score_llvm(const Attention& attention);

}  // namespace spion
