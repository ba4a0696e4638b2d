// The work items of a launch whose thread blocks take them from a counter, in the order in which
// they are taken.
#ifndef SPION_WARP_ITEMS_CUH
#define SPION_WARP_ITEMS_CUH

#include "kernels/cuda/sm90/warp_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/sm90_arguments.h"

// (b, h) after (b, h), whose rows then stay in the L2 cache; but the first lpt_tiles of every
// (b, h), the longest, come before all others, so that none of them is left for the end.
SPION_DEVICE WorkItem work_item(const SpionSm90Arguments& args, unsigned item) {
    const unsigned early = args.lpt_tiles, tiles = head_items(args.attention);
    const unsigned lpt_items = early * (args.items / tiles);
    const bool first = item < lpt_items;
    const unsigned index = first ? item : item - lpt_items;
    const unsigned count = first ? early : tiles - early;
    const unsigned batch_head = index / count;
    const int order_index = (int)(index - batch_head * count + (first ? 0 : early));
    return work_item(args.attention, batch_head, order_index);
}

#endif
