// Which head of K and V a query head reads, for all host bodies (ir/attention.h).
#pragma once

#include "kernels/host/vector.h"

// Every query head has keys and values of its own.
SPION_INLINE int key_head(int head) {
    return head;
}
