// Which blocks of an attention map of L queries and as many keys, or another number of them, are
// computed: a bit matrix of ceil(L / block) rows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// Immutable. Row I holds the key blocks that query block I attends to. The last row and column of
// blocks are ragged when the number of queries, or of keys, is not a multiple of the block edge.
class BlockPattern {
  public:
    // bits: row-major [rows][columns], non-zero = computed. Throws UserError unless block is 16, 32,
    // 64 or 128, both lengths are >= 1 and there are as many bits as blocks. With one length the map
    // is square.
    BlockPattern(std::int64_t length, int block, std::vector<std::uint8_t> bits);
    BlockPattern(std::int64_t length, std::int64_t key_length, int block,
                 std::vector<std::uint8_t> bits);

    static BlockPattern full(std::int64_t length, int block);  // dense attention
    static BlockPattern full(std::int64_t length, std::int64_t key_length, int block);
    static BlockPattern empty(std::int64_t length, int block);

    bool is_full() const;  // every block is computed
    // A full pattern, which is the same attention whatever blocks it is cut into, in blocks of 16,
    // 32, 64, 128 or kFullBlock.
    static constexpr int kFullBlock = 256;
    BlockPattern in_blocks_of(int block) const;

    std::int64_t length() const { return length_; }          // queries
    std::int64_t key_length() const { return key_length_; }  // keys
    int block() const { return block_; }
    int rows() const { return rows_; }        // of blocks: ceil(length / block)
    int columns() const { return columns_; }  // ceil(key_length / block)
    bool at(int row, int column) const;

    // Column indices of a row's blocks, ascending.
    std::span<const std::int32_t> row(int index) const;
    std::int64_t block_count() const { return static_cast<std::int64_t>(listed_.size()); }
    // Computed elements / all elements, ragged edges counted exactly.
    double density() const;
    // Elements in the pattern of any query row of block row `row` (the n_i of ir/attention.h).
    std::int64_t elements_in_row(int row) const;
    // Queries of block row `index`: block, less in a ragged last block.
    int block_rows(int index) const;
    // Keys of block column `index`, likewise.
    int block_columns(int index) const;

    BlockPattern transpose() const;

    // 32 hex digits of SHA-256 over lengths, block and bits.
    std::string digest() const;
    // A line of characters 0 or 1 a block row, each ending in a newline.
    std::string to_bits() const;
    // A picture for terminals: two block rows a line in half-block characters, at most `width`
    // columns (several blocks a cell when nb is larger: a cell is set if any of its blocks is).
    std::string to_art(int width = 64) const;

    friend bool operator==(const BlockPattern&, const BlockPattern&) = default;

  private:
    std::int64_t length_, key_length_;
    int block_;
    int rows_, columns_;
    std::vector<std::int32_t> offsets_;  // [rows + 1]
    std::vector<std::int32_t> listed_;   // [block_count] block columns, ascending within a row
};

// Reads to_bits' form (blank lines and carriage returns ignored). `origin` names the text in
// errors. Throws UserError naming origin and line for other characters, ragged rows or a matrix
// whose size is not ceil(length / block) x ceil(key_length / block); with one length it is square.
BlockPattern parse_bits(std::string_view text, std::int64_t length, int block,
                        std::string_view origin);
BlockPattern parse_bits(std::string_view text, std::int64_t length, std::int64_t key_length,
                        int block, std::string_view origin);

}  // namespace spion
