// Which head of K and V a query head reads, for all CUDA bodies (ir/attention.h: key_head).
#ifndef SPION_HEADS_CUH
#define SPION_HEADS_CUH

#include "kernels/cuda/common/ptx.cuh"

// Every query head has keys and values of its own.
SPION_DEVICE int key_head(int head) {
    return head;
}

// The head whose rows serve `head` in a tensor of keys (K, V), or else of queries (Q, O, dO).
template <bool kOfKeys>
SPION_DEVICE int head_in_tensor(int head) {
    return kOfKeys ? key_head(head) : head;
}

#endif
