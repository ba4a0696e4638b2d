// A work item of the attention bodies, one stationary tile of one head of one sample: which one it is,
// where its walk's tables are, and where its rows lie in tensors.
#pragma once

#include "kernels/attention_arguments.h"
#include "kernels/host/heads.h"
#include "kernels/host/mask.h"
#include "kernels/host/tile.h"

extern "C" {
extern const int kPackedRows;  // block rows of a tile, kStationaryRows each
}

// Where the walk's tables come from: the arguments (tier 0), or constants of the source (tier 1).
// kListed: gather blocks of every work item, -1 where they differ.
#ifdef SPION_BAKED_TABLES
extern "C" {
extern const int kTiles;
extern const int kListed;
extern const int* const kOrder;          // [kTiles]
extern const int* const kOffsets;        // [kTiles + 1]
extern const int* const kGatherBlocks;   // [kOffsets[kTiles]]
extern const int* const kBlockRowMasks;  // [kOffsets[kTiles]] where kPackedRows > 1
}
SPION_INLINE int tile_count(const SpionAttentionArguments&) {
    return kTiles;
}
SPION_INLINE int tile_at(const SpionAttentionArguments&, int order_index) {
    return kOrder[order_index];
}
SPION_INLINE int offset_at(const SpionAttentionArguments&, int order_index) {
    return kListed >= 0 ? order_index * kListed : kOffsets[order_index];
}
SPION_INLINE int gather_block_count(const SpionAttentionArguments&, int order_index) {
    return kListed >= 0 ? kListed : kOffsets[order_index + 1] - kOffsets[order_index];
}
SPION_INLINE const int* gather_block_table(const SpionAttentionArguments&) {
    return kGatherBlocks;
}
SPION_INLINE const int* block_row_mask_table(const SpionAttentionArguments&) {
    return kBlockRowMasks;
}
#else
SPION_INLINE int tile_count(const SpionAttentionArguments& args) {
    return args.tiles;
}
SPION_INLINE int tile_at(const SpionAttentionArguments& args, int order_index) {
    return args.order[order_index];
}
SPION_INLINE int offset_at(const SpionAttentionArguments& args, int order_index) {
    return args.offsets[order_index];
}
SPION_INLINE int gather_block_count(const SpionAttentionArguments& args, int order_index) {
    return args.offsets[order_index + 1] - args.offsets[order_index];
}
SPION_INLINE const int* gather_block_table(const SpionAttentionArguments& args) {
    return args.gather_blocks;
}
SPION_INLINE const int* block_row_mask_table(const SpionAttentionArguments& args) {
    return reinterpret_cast<const int*>(args.block_row_masks);
}
#endif

// One block row of a work item, the whole of it where tiles are not packed. Lanes gain nothing from
// the keys that block rows share, so those of a packed tile follow one another.
struct WorkItem {
    int batch, head;
    long long first;  // stationary rows [first, first + rows)
    int rows;         // that the sample has
    int start,
        key_start;       // where the sample's rows of queries and of keys begin (sequence_start())
    int streamed_start;  // of the two that of what streams past
    int order_index;
    const int* gather_blocks;  // what it streams, [gather_block_count]
    int gather_block_count;
    const int* block_row_masks;  // [gather_block_count] where kPackedRows > 1
    int row;                     // of the tile's block rows: the bit in `block_row_masks`
    long long row_base;          // of its (first) query head in lse and delta [B, H, L]
    int valid_keys;              // keys of the sample that are not padding
    TileSpans spans;             // where the operation has a mask
};

// Of `left` rows from the tile's first on.
SPION_INLINE int rows_of_tile(long long left) {
    return static_cast<int>(left < kStationaryRows ? left : kStationaryRows);
}

// Which tile of which head of which sample an item is, and the place of its walk.
struct TileOfItem {
    int batch, head, tile, order_index;
};

// As a batch-head has its walks in order; of several patterns, an entry says the head's too.
SPION_INLINE TileOfItem tile_of_item(const SpionAttentionArguments& args, long long item,
                                     int tiles) {
    const int order_index = static_cast<int>(item % tile_count(args));
    const long long batch_head = item / tile_count(args);
    const int entry = tile_at(args, order_index * item_walks());
    return {static_cast<int>(batch_head / pattern_heads()),
            entry / tiles / item_walks() * pattern_heads() +
                static_cast<int>(batch_head % pattern_heads()),
            entry % tiles, order_index};
}

// As kernels/cuda/common/work_item.cuh has it: tile t of sequence b is item
// starts[b] / tile_rows + b + t of a head; where sequences have patterns of their own, their walks
// lie sequence after sequence.
SPION_INLINE TileOfItem tile_of_sequences(const SpionAttentionArguments& args, bool rows_are_keys,
                                          long long item, int tiles, int tile_rows) {
    const int* const starts = starts_of(args, rows_are_keys);
    const int head = static_cast<int>(item / args.tiles),
              of_head = static_cast<int>(item % args.tiles);
    int sequence = 0;
    while (sequence + 1 < args.batch &&
           starts[sequence + 1] / tile_rows + sequence + 1 <= of_head) {
        ++sequence;
    }
    const int tile = of_head - (starts[sequence] / tile_rows + sequence);
    const int walk = tile < tiles ? tile : tiles - 1;
    return {sequence, head, tile,
            kSequencePatterns ? (sequence * item_patterns() + head / pattern_heads()) * tiles + walk
                              : walk};
}

// row_item: work item * kPackedRows + block row. The walk is to be opened.
SPION_INLINE WorkItem work_item(const SpionAttentionArguments& args, long long row_item,
                                bool rows_are_keys) {
    const int tile_rows = kPackedRows * kStationaryRows;
    const int tiles = (stationary_length(rows_are_keys) - 1) / tile_rows + 1;  // of a pattern
    const TileOfItem of =
        kVarlen && (kPatterns == 1 || kSequencePatterns)
            ? tile_of_sequences(args, rows_are_keys, row_item / kPackedRows, tiles, tile_rows)
            : tile_of_item(args, row_item / kPackedRows, tiles);
    WorkItem work;
    work.order_index = of.order_index;
    work.batch = of.batch;
    work.head = of.head;
    work.row = static_cast<int>(row_item % kPackedRows);
    work.first = (static_cast<long long>(of.tile) * kPackedRows + work.row) * kStationaryRows;
    work.rows = rows_of_tile(positions_of(args, rows_are_keys, work.batch) - work.first);
    work.start = sequence_start(args, false, work.batch);
    work.key_start = sequence_start(args, true, work.batch);
    work.streamed_start = rows_are_keys ? work.start : work.key_start;
    work.row_base =
        (static_cast<long long>(work.batch) * kHeads + query_head(work.head, 0)) * kLength;
    work.valid_keys = key_limit(args, work.batch);
    return work;
}

// The last packed tile may have block rows that do not exist, a sequence items without positions.
SPION_INLINE bool is_beyond_end(const WorkItem& work) {
    return (kPackedRows > 1 || kVarlen) && work.rows <= 0;
}

// Whether the item's rows use gather block i of the list.
SPION_INLINE bool has_gather_block(const WorkItem& work, int i) {
    return kPackedRows == 1 || (work.block_row_masks[i] >> work.row & 1) != 0;
}

// Row `row` of a sample that begins in row `start`.
SPION_INLINE float* row_in_head(const SpionTensor& tensor, const WorkItem& work, int head,
                                int start, long long row) {
    return static_cast<float*>(tensor.data) + (kVarlen ? 0 : work.batch) * tensor.batch_stride +
           head * tensor.head_stride + (start + row) * tensor.row_stride;
}

// The same in a tensor that streams past.
SPION_INLINE float* streamed_row(const SpionTensor& tensor, const WorkItem& work, int head,
                                 long long row) {
    return row_in_head(tensor, work, head, work.streamed_start, row);
}

// Row `row` of the item's head in a tensor of queries: Q, O, dO, dQ.
SPION_INLINE float* row_of(const SpionTensor& tensor, const WorkItem& work, long long row) {
    return row_in_head(tensor, work, work.head, work.start, row);
}

// The same in a tensor of keys: K, V, dK, dV.
SPION_INLINE float* key_row_of(const SpionTensor& tensor, const WorkItem& work, long long row) {
    return row_in_head(tensor, work, key_head(work.head), work.key_start, row);
}
