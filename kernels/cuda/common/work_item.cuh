// Which work items a launch has, where their walks' tables are, and which tile of which head of which
// sample an item is.
#ifndef SPION_WORK_ITEM_CUH
#define SPION_WORK_ITEM_CUH

#include "kernels/attention_arguments.h"
#include "kernels/cuda/common/contract.cuh"
#include "kernels/cuda/common/heads.cuh"
#include "kernels/cuda/common/sequences.cuh"

// Where the walk's tables come from: the arguments (tier 0), or the source (tier 1). The source
// then has, ahead of this file, SPION_BAKED_TABLES; kTiles; kListed and kSteps, the gather blocks
// and steps of every work item, -1 where they differ; GatherBlockIndex and, of packed tiles,
// BlockRowMask, the types of kGatherBlocks and kBlockRowMasks; and the tables. The first two are
// read by whole blocks, so they lie in constant memory; lanes read gather blocks side by side,
// which is what global memory is for.
#ifdef SPION_BAKED_TABLES
SPION_DEVICE int tile_count(const SpionAttentionArguments&) {
    return kTiles;
}
SPION_DEVICE int tile_at(const SpionAttentionArguments&, int order_index) {
    return kOrder[order_index];
}
SPION_DEVICE int offset_at(const SpionAttentionArguments&, int order_index) {
    if constexpr (kListed >= 0) return order_index * kListed;
    return kOffsets[order_index];
}
SPION_DEVICE const GatherBlockIndex* gather_block_table(const SpionAttentionArguments&) {
    return kGatherBlocks;
}
#ifdef SPION_PACKED_ROWS
SPION_DEVICE const BlockRowMask* block_row_mask_table(const SpionAttentionArguments&) {
    return kBlockRowMasks;
}
#endif
#else
using GatherBlockIndex = int;
enum : int { kListed = -1, kSteps = -1 };
SPION_DEVICE int tile_count(const SpionAttentionArguments& args) {
    return args.tiles;
}
SPION_DEVICE int tile_at(const SpionAttentionArguments& args, int order_index) {
    return args.order[order_index];
}
SPION_DEVICE int offset_at(const SpionAttentionArguments& args, int order_index) {
    return args.offsets[order_index];
}
SPION_DEVICE const GatherBlockIndex* gather_block_table(const SpionAttentionArguments& args) {
    return args.gather_blocks;
}
using BlockRowMask = unsigned;
SPION_DEVICE const BlockRowMask* block_row_mask_table(const SpionAttentionArguments& args) {
    return args.block_row_masks;
}
#endif

// Where heads have patterns of their own, an entry of the order is pattern * kPatternTiles + tile,
// and every pattern has kPatternHeads heads with work items. Of a pattern a query head, an item of
// dK and dV has kItemWalks entries side by side, one a member.
enum : int {
    kItemPatterns = (int)kPatterns < (int)kItemHeads ? (int)kPatterns : (int)kItemHeads,
    kPatternHeads = (int)kItemHeads / kItemPatterns,
    kItemWalks = (int)kPatterns / kItemPatterns,
    kPatternTiles = ((int)kStationaryLength - 1) / (int)kStationaryRows + 1
};

struct WorkItem {
    int batch, head;
    int order_index;  // in TileProgram::order
    int first_row;    // of the stationary tile
    long long row;    // of [B, H, L]: index of row 0 of this (batch, head)
    int start;        // sequence_start() of the batch, of the stationary side
};

// Sequences that lie end to end have no more work items than tiles, and one each: with R stationary
// rows a tile, tile t of sequence b is item starts[b] / R + b + t of a head, and those of the last
// tiles' numbers that a sequence does not reach have no positions. Walks then lie in the order of
// tiles; where sequences have patterns of their own, those of sequence 0, of 1 and so on. Patterns of
// heads that all sequences share have an item for every tile of L rows, of every sequence.
enum : bool { kItemsOfSequences = kVarlen && (kPatterns == 1 || kSequencePatterns) };

// Work items side by side: of a batch-head, or of a head in all sequences.
SPION_DEVICE unsigned head_items(const SpionAttentionArguments& args) {
    return (unsigned)(kItemsOfSequences ? args.tiles : tile_count(args));
}
SPION_DEVICE unsigned head_count(const SpionAttentionArguments& args) {
    return kItemsOfSequences ? (unsigned)kItemHeads : (unsigned)args.batch * kPatternHeads;
}

SPION_DEVICE WorkItem item_of_sequences(const SpionAttentionArguments& args, int head, int item) {
    const auto first_item = [&](int sequence) {
        return starts_of<(bool)kKeysStay>(args)[sequence] / kStationaryRows + sequence;
    };
    int sequence = 0;
    for (int end = args.batch; end - sequence > 1;) {
        const int middle = (sequence + end) / 2;
        if (first_item(middle) <= item) {
            sequence = middle;
        } else {
            end = middle;
        }
    }
    const int tile = item - first_item(sequence);
    int walk = min(tile, kPatternTiles - 1);
    if constexpr (kSequencePatterns)
        walk += (sequence * kItemPatterns + head / kPatternHeads) * kPatternTiles;
    return {sequence,
            head,
            walk,
            tile * kStationaryRows,
            ((long long)sequence * kItemHeads + head) * kLength,
            starts_of<(bool)kKeysStay>(args)[sequence]};
}

// The one at `order_index` of batch-head b * kItemHeads + h; where heads have patterns of their own,
// of b * kPatternHeads + the head among those of its pattern.
SPION_DEVICE WorkItem work_item(const SpionAttentionArguments& args, unsigned batch_head,
                                int order_index) {
    if constexpr (kItemsOfSequences) return item_of_sequences(args, (int)batch_head, order_index);
    if constexpr (kPatterns > 1) {
        const int entry = tile_at(args, order_index * kItemWalks);
        const int batch = (int)(batch_head / kPatternHeads);
        const int head =
            entry / kPatternTiles / kItemWalks * kPatternHeads + (int)(batch_head % kPatternHeads);
        return {batch,
                head,
                order_index,
                entry % kPatternTiles * kStationaryRows,
                ((long long)batch * kItemHeads + head) * kLength,
                sequence_start<(bool)kKeysStay>(args, batch)};
    }
    return {(int)(batch_head / kItemHeads),
            (int)(batch_head % kItemHeads),
            order_index,
            tile_at(args, order_index) * kStationaryRows,
            (long long)batch_head * kLength,
            sequence_start<(bool)kKeysStay>(args, (int)(batch_head / kItemHeads))};
}

SPION_DEVICE WorkItem work_item(const SpionAttentionArguments& args, unsigned item) {
    const unsigned tiles = head_items(args);
    const unsigned batch_head = item / tiles;
    return work_item(args, batch_head, (int)(item - batch_head * tiles));
}

// sequence_start() of the streamed side.
SPION_DEVICE int streamed_start(const SpionAttentionArguments& args, const WorkItem& work) {
    if constexpr (kKeyStarts) return sequence_start<!kKeysStay>(args, work.batch);
    return work.start;
}

// The item as its member's rows stream: with the member's query head and its rows of LSE and delta.
SPION_DEVICE WorkItem member_item(const WorkItem& work, int member) {
    if constexpr (kMembers == 1) return work;
    const int head = query_head(work.head, member);
    return {work.batch,
            head,
            work.order_index,
            work.first_row,
            ((long long)work.batch * kHeads + head) * kLength,
            work.start};
}

// Which member's step of the walk, of `walked` steps, is step `step` of an item.
struct MemberStep {
    int member, step;
};
SPION_DEVICE MemberStep member_step(int step, int walked) {
    if constexpr (kMembers == 1) return {0, step};
    return {step / walked, step % walked};
}

#endif
