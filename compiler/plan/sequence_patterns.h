// The patterns of a launch's sequences, as many as a plan's tables have room for.
#pragma once

#include "ir/attention.h"
#include "ir/head_patterns.h"

namespace spion {

// The patterns of some sequences, at most as many as the attention has; what is missing are those that
// are given over and over, or patterns without a block. Of an attention without sequence_patterns, or
// with all of them, what is given.
HeadPatterns filled(const HeadPatterns& given, const Attention& attention, bool repeated);

}  // namespace spion
