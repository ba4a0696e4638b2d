// Which head of K and V a query head reads, for all CUDA bodies (ir/attention.h: kv_heads).
#ifndef SPION_HEADS_CUH
#define SPION_HEADS_CUH

#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/ptx.cuh"

// Query heads that read one head of K and V.
enum : int { kGroupHeads = (int)kHeads / (int)kKeyHeads };
// Query heads whose rows an item streams, one after the other: the group's, where K and V stay.
enum : int { kMembers = (int)kItemHeads == (int)kHeads ? 1 : kGroupHeads };

// The head of K and V that belongs to an item's head.
SPION_DEVICE int key_head(int head) {
    return (int)kItemHeads == (int)kKeyHeads ? head : head / kGroupHeads;
}

// The query head of an item's member.
SPION_DEVICE int query_head(int head, int member) {
    return kMembers == 1 ? head : head * kGroupHeads + member;
}

// The head whose rows serve `head` in a tensor of keys (K, V), or else of queries (Q, O, dO).
template <bool kOfKeys>
SPION_DEVICE int head_in_tensor(int head) {
    return kOfKeys ? key_head(head) : head;
}

#endif
