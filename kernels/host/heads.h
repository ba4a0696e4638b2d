// Which head of K and V a query head reads, for all host bodies (ir/attention.h: kv_heads).
#pragma once

#include "kernels/host/vector.h"

extern "C" {
extern const int kHeads;      // H
extern const int kKeyHeads;   // of K and V, a divisor of H
extern const int kItemHeads;  // that have work items: kKeyHeads where K and V stay, else H
extern const int kPatterns;   // 1, kKeyHeads or H
}

// Patterns that the heads with work items have, heads that share one, and the walks of an item: of a
// pattern a query head, an item of dK and dV has one a member.
SPION_INLINE int item_patterns() {
    return kPatterns < kItemHeads ? kPatterns : kItemHeads;
}
SPION_INLINE int pattern_heads() {
    return kItemHeads / item_patterns();
}
SPION_INLINE int item_walks() {
    return kPatterns / item_patterns();
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
