// Where the elements of a tile lie in shared memory, and which of them a lane touches.
// Integer arithmetic only: tests/kernels checks these maps on the host.
#ifndef SPION_TILE_LAYOUT_CUH
#define SPION_TILE_LAYOUT_CUH

// A tile is rows of kRowChunks (2, 4, 8, 16 or 32) chunks of 16 bytes. The chunks of a row are
// permuted by XOR with a number made from the row, so that none of these meets a bank conflict:
//   8 lanes reading or writing 16 bytes: the same chunk of 8 rows (ldmatrix), or 8 chunks in order;
//   16 lanes reading 8 bytes: a pair of chunks of 4 rows in order (fp32 tiles of >= 8 chunks);
//   32 lanes reading 4 bytes: a pair of chunks of rows r, r + 2, r + 4, r + 6 (the same tiles).
template <int kRowChunks>
SPION_DEVICE constexpr int row_swizzle(int row) {
    const int bit0 = row & 1, bit1 = (row >> 1) & 1, bit2 = (row >> 2) & 1;
    if (kRowChunks == 2) return bit2;
    if (kRowChunks == 4) return (bit1 << 1) | bit2;
    return (bit1 << 2) | ((bit0 ^ bit2) << 1) | bit0;
}

// Bytes from the start of the tile to chunk `chunk` of row `row`.
template <int kRowChunks>
SPION_DEVICE constexpr int chunk_offset(int row, int chunk) {
    return (row * kRowChunks + (chunk ^ row_swizzle<kRowChunks>(row))) * 16;
}

// chunk_offset(row, chunk + more) from offset = chunk_offset(row, chunk), for chunk < 2 and an even
// `more`: with a constant `more`, one XOR that only the low 3 bits of the chunk take part in.
SPION_DEVICE constexpr int offset_further(int offset, int more) {
    return (offset ^ (more % 8 * 16)) + more / 8 * 128;
}

struct LanePlace {
    int row, chunk;
};

// The row whose address a lane gives to ldmatrix.x4 for a 16 x 16 piece (2 chunks a row):
// by_rows: matrices (rows 0-7, chunk 0), (8-15, 0), (0-7, 1), (8-15, 1): an A operand, and
//          transposed the B operands of columns 0-7 (words 0, 1) and 8-15 (words 2, 3).
SPION_DEVICE constexpr LanePlace place_by_rows(int lane) {
    return {lane % 16, lane / 16};
}
// by_chunks: (rows 0-7, chunk 0), (0-7, 1), (8-15, 0), (8-15, 1): the B operands of a product with
//          the transposed piece, of rows 0-7 (words 0, 1) and 8-15 (words 2, 3).
SPION_DEVICE constexpr LanePlace place_by_chunks(int lane) {
    return {lane % 8 + lane / 16 * 8, lane / 8 % 2};
}

#endif
