// Which head of K and V a query head reads, for all host bodies (ir/attention.h: kv_heads).
#pragma once

#include "kernels/host/vector.h"

extern "C" {
extern const int kHeads;      // H
extern const int kKeyHeads;   // of K and V, a divisor of H
extern const int kItemHeads;  // that have work items: kKeyHeads where K and V stay, else H
}

// The head of K and V that belongs to an item's head.
SPION_INLINE int key_head(int head) {
    return kItemHeads == kKeyHeads ? head : head / (kHeads / kKeyHeads);
}

// Query heads whose rows an item streams, one after the other: the group's, where K and V stay.
SPION_INLINE int member_count() {
    return kItemHeads == kHeads ? 1 : kHeads / kKeyHeads;
}

// The query head of an item's member.
SPION_INLINE int query_head(int head, int member) {
    return head * member_count() + member;
}
