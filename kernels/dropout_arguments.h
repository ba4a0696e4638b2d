// The parameter of advance_dropout, on both back ends.
#pragma once

#include "kernels/attention_arguments.h"

struct SpionDropoutAdvance {
    SpionDropoutState* state;
    unsigned by;  // is added to its offset, modulo 2^32
};
