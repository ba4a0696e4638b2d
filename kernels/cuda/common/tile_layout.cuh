// Where the elements of a tile lie in shared memory, and which of them a lane touches.
// Integer arithmetic only: tests/kernels checks these maps on the host.
#ifndef SPION_TILE_LAYOUT_CUH
#define SPION_TILE_LAYOUT_CUH

#ifndef SPION_DEVICE  // as common/ptx.cuh has it; the test that runs on the host says another
#define SPION_DEVICE static __device__ __forceinline__
#endif

// A tile is rows of kRowChunks chunks of 16 bytes, an even number, without padding. The chunks of a
// row are permuted in aligned groups of kGroup, the largest power of 2 in kRowChunks but 8 at most:
// by XOR with a number below kGroup made from the row. Groups stay whole, so a row never reaches
// into the next. 128 bytes pass the banks at once, 8 chunks; kRowChunks = kGroup * odd, so that 8
// adjacent rows start on 8 / kGroup different groups of them, each kGroup times, and the XOR tells
// those rows apart. So none of these meets a bank conflict, whatever kRowChunks is:
//   8 lanes reading or writing 16 bytes: the same chunk of 8 rows (ldmatrix), 8 chunks in order, or
//   a pair of chunks of 4 rows in order;
//   16 lanes reading 8 bytes: a pair of chunks of 4 rows in order (fp32 tiles of >= 8 chunks).
// 32 lanes reading 4 bytes, a pair of chunks of rows r, r + 2, r + 4, r + 6 (fp32 again), meet none
// in groups of 8; in groups of 4 two of them share a bank.
template <int kRowChunks>
SPION_DEVICE constexpr int group_chunks() {
    static_assert(kRowChunks >= 2 && kRowChunks % 2 == 0);
    return kRowChunks % 8 == 0 ? 8 : kRowChunks % 4 == 0 ? 4 : 2;
}

template <int kRowChunks>
SPION_DEVICE constexpr int row_swizzle(int row) {
    constexpr int kGroup = group_chunks<kRowChunks>();
    const int bit0 = row & 1, bit1 = (row >> 1) & 1, bit2 = (row >> 2) & 1;
    if (kGroup == 2) return bit2;
    if (kGroup == 4) return (bit1 << 1) | bit2;
    return (bit1 << 2) | ((bit0 ^ bit2) << 1) | bit0;
}

// Bytes from the start of the tile to chunk `chunk` of row `row`.
template <int kRowChunks>
SPION_DEVICE constexpr int chunk_offset(int row, int chunk) {
    return (row * kRowChunks + (chunk ^ row_swizzle<kRowChunks>(row))) * 16;
}

// chunk_offset(row, chunk + more) from offset = chunk_offset(row, chunk), for chunk < 2 and an even
// `more`: whole groups are added; the rest, with a constant `more`, is one XOR, as every row starts
// on a group.
template <int kRowChunks>
SPION_DEVICE constexpr int offset_further(int offset, int more) {
    // A row of one group needs no more than the XOR.
    constexpr int kGroup =
        group_chunks<kRowChunks>() == kRowChunks ? 8 : group_chunks<kRowChunks>();
    return (offset ^ (more % kGroup * 16)) + more / kGroup * (kGroup * 16);
}

struct LaneChunk {
    int row, chunk;
};

// What lane `index` of kLanes that move a tile together, chunk after chunk and row after row, takes
// at turn i.
template <int kRowChunks, int kLanes>
SPION_DEVICE constexpr int copied_row(int i, int index) {
    if constexpr (kLanes % kRowChunks == 0) {
        return i * (kLanes / kRowChunks) + index / kRowChunks;
    } else {
        return (int)((unsigned)(i * kLanes + index) / kRowChunks);
    }
}

// first + copied_row, summed in the order that lets the compiler fold first + i.
template <int kRowChunks, int kLanes>
SPION_DEVICE constexpr int copied_row(int first, int i, int index) {
    if constexpr (kLanes % kRowChunks == 0) {
        return first + i * (kLanes / kRowChunks) + index / kRowChunks;
    } else {
        return first + copied_row<kRowChunks, kLanes>(i, index);
    }
}

template <int kRowChunks, int kLanes>
SPION_DEVICE constexpr int copied_chunk(int i, int index) {
    if constexpr (kLanes % kRowChunks == 0) {
        return index % kRowChunks;
    } else {
        return (int)((unsigned)(i * kLanes + index) % kRowChunks);
    }
}

// The row whose address a lane gives to ldmatrix.x4 for a 16 x 16 piece (2 chunks a row):
// by_rows: matrices (rows 0-7, chunk 0), (8-15, 0), (0-7, 1), (8-15, 1): an A operand, and
//          transposed the B operands of columns 0-7 (words 0, 1) and 8-15 (words 2, 3).
SPION_DEVICE constexpr LaneChunk lane_chunk_by_rows(int lane) {
    return {lane % 16, lane / 16};
}
// by_chunks: (rows 0-7, chunk 0), (0-7, 1), (8-15, 0), (8-15, 1): the B operands of a product with
//          the transposed piece, of rows 0-7 (words 0, 1) and 8-15 (words 2, 3).
SPION_DEVICE constexpr LaneChunk lane_chunk_by_chunks(int lane) {
    return {lane % 8 + lane / 16 * 8, lane / 8 % 2};
}

#endif
