// Which blocks of an L x L attention map are computed: a bit matrix of nb x nb, nb = ceil(L /
// block).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// Immutable. Row I holds the key blocks that query block I attends to. The last row and column of
// blocks are ragged when L is not a multiple of the block edge.
class BlockPattern {
  public:
    // bits: row-major [nb][nb], non-zero = computed. Throws UserError unless block is 16, 32, 64 or
    // 128, length >= 1 and bits.size() == nb * nb.
    BlockPattern(std::int64_t length, int block, std::vector<std::uint8_t> bits);

    static BlockPattern full(std::int64_t length, int block);  // dense attention
    static BlockPattern empty(std::int64_t length, int block);

    std::int64_t length() const { return length_; }
    int block() const { return block_; }
    int rows() const { return rows_; }  // nb
    bool at(int row, int column) const;

    // Column indices of a row's blocks, ascending.
    std::span<const std::int32_t> row(int index) const;
    std::int64_t block_count() const { return static_cast<std::int64_t>(columns_.size()); }
    // Computed elements / L^2, ragged edges counted exactly.
    double density() const;
    // Elements in the pattern of any query row of block row `row` (the n_i of ir/attention.h).
    std::int64_t elements_in_row(int row) const;
    // Rows of block index i: block, less in a ragged last block.
    int block_rows(int index) const;

    BlockPattern transpose() const;

    // 32 hex digits of SHA-256 over length, block and bits.
    std::string digest() const;
    // nb lines of nb characters 0 or 1, each ending in a newline.
    std::string to_bits() const;
    // A picture for terminals: two block rows a line in half-block characters, at most `width`
    // columns (several blocks a cell when nb is larger: a cell is set if any of its blocks is).
    std::string to_art(int width = 64) const;

    friend bool operator==(const BlockPattern&, const BlockPattern&) = default;

  private:
    std::int64_t length_;
    int block_;
    int rows_;
    std::vector<std::int32_t> offsets_;  // [rows + 1]
    std::vector<std::int32_t> columns_;  // [block_count], ascending within a row
};

// Reads to_bits' form (blank lines and carriage returns ignored). `origin` names the text in
// errors. Throws UserError naming origin and line for other characters, ragged rows or a matrix
// whose size is not ceil(length / block).
BlockPattern parse_bits(std::string_view text, std::int64_t length, int block,
                        std::string_view origin);

}  // namespace spion
