// The work items of a launch whose thread blocks take them from a counter, in the order in which
// they are taken.
#ifndef SPION_WARP_ITEMS_CUH
#define SPION_WARP_ITEMS_CUH

#include "kernels/cuda/sm90/warp_contract.cuh"

#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/hopper_arguments.h"

// (b, h) after (b, h), whose rows then stay in the L2 cache; but the first early_tiles of every
// (b, h), the longest, come before all others, so that none of them is left for the end.
SPION_DEVICE WorkItem work_item(const SpionHopperArguments& args, unsigned item) {
    const unsigned early = args.early_tiles, tiles = (unsigned)tile_count(args.attention);
    const unsigned early_items = early * (args.items / tiles);
    const bool first = item < early_items;
    const unsigned index = first ? item : item - early_items;
    const unsigned count = first ? early : tiles - early;
    const unsigned pair = index / count;
    const int place = (int)(index - pair * count + (first ? 0 : early));
    return work_item(args.attention, pair, place);
}

#endif
