#include "ir/block_pattern.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "ir/ceil_div.h"
#include "ir/error.h"
#include "ir/sha256.h"
#include "ir/text_reader.h"

namespace spion {
namespace {

constexpr std::int64_t kMaxBlocks = 32768;  // a side: block indices and counts fit 32 bits

// nb = ceil(length / block), after checking both.
int count_blocks(std::int64_t length, int block) {
    if (block != 16 && block != 32 && block != 64 && block != 128) {
        throw UserError("block {} is not allowed: use 16, 32, 64 or 128", block);
    }
    constexpr std::int64_t kMaxLength = std::numeric_limits<std::int32_t>::max();
    if (length < 1 || length > kMaxLength) {
        throw UserError("sequence length {} is out of range: use 1 to {}", length, kMaxLength);
    }
    const std::int64_t nb = ceil_div(length, block);
    if (nb > kMaxBlocks) {
        throw UserError(
            "length {} in blocks of {} makes {} x {} blocks: at most {} x {} are "
            "allowed, use a larger block or a shorter sequence",
            length, block, nb, nb, kMaxBlocks, kMaxBlocks);
    }
    return static_cast<int>(nb);
}

std::vector<std::uint8_t> uniform_bits(std::int64_t length, std::int64_t key_length, int block,
                                       std::uint8_t bit) {
    const auto rows = static_cast<std::size_t>(count_blocks(length, block));
    return std::vector<std::uint8_t>(rows * count_blocks(key_length, block), bit);
}

// "length 90 in blocks of 16" or "lengths 90 and 40 in blocks of 16".
std::string size_text(std::int64_t length, std::int64_t key_length, int block) {
    return length == key_length
               ? fmt::format("length {} in blocks of {}", length, block)
               : fmt::format("lengths {} and {} in blocks of {}", length, key_length, block);
}

}  // namespace

BlockPattern::BlockPattern(std::int64_t length, int block, std::vector<std::uint8_t> bits)
    : BlockPattern(length, length, block, std::move(bits)) {}

BlockPattern::BlockPattern(std::int64_t length, std::int64_t key_length, int block,
                           std::vector<std::uint8_t> bits)
    : length_(length),
      key_length_(key_length),
      block_(block),
      rows_(count_blocks(length, block)),
      columns_(count_blocks(key_length, block)) {
    const auto rows = static_cast<std::size_t>(rows_), columns = static_cast<std::size_t>(columns_);
    if (bits.size() != rows * columns) {
        throw UserError("a pattern of {} bits was given: {} needs {} x {}", bits.size(),
                        size_text(length, key_length, block), rows_, columns_);
    }
    offsets_.reserve(rows + 1);
    offsets_.push_back(0);
    for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t column = 0; column < columns; ++column) {
            if (bits[row * columns + column] != 0) {
                listed_.push_back(static_cast<std::int32_t>(column));
            }
        }
        offsets_.push_back(static_cast<std::int32_t>(listed_.size()));
    }
}

BlockPattern BlockPattern::full(std::int64_t length, int block) {
    return full(length, length, block);
}

BlockPattern BlockPattern::full(std::int64_t length, std::int64_t key_length, int block) {
    return BlockPattern(length, key_length, block, uniform_bits(length, key_length, block, 1));
}

BlockPattern BlockPattern::empty(std::int64_t length, int block) {
    return BlockPattern(length, block, uniform_bits(length, length, block, 0));
}

bool BlockPattern::is_full() const {
    return block_count() == static_cast<std::int64_t>(rows_) * columns_;
}

BlockPattern BlockPattern::in_blocks_of(int block) const {
    if (block != kFullBlock) {
        count_blocks(length_, block);
    }
    if (!is_full()) {
        throw InternalError("a pattern of {} of {} x {} blocks in blocks of another edge",
                            block_count(), rows_, columns_);
    }
    BlockPattern cut = *this;
    cut.block_ = block;
    cut.rows_ = static_cast<int>(ceil_div(length_, block));
    cut.columns_ = static_cast<int>(ceil_div(key_length_, block));
    cut.offsets_ = {0};
    cut.listed_ = {};
    for (int row = 0; row < cut.rows_; ++row) {
        for (int column = 0; column < cut.columns_; ++column) {
            cut.listed_.push_back(column);
        }
        cut.offsets_.push_back(static_cast<std::int32_t>(cut.listed_.size()));
    }
    return cut;
}

bool BlockPattern::at(int row_index, int column) const {
    const std::span<const std::int32_t> blocks = row(row_index);
    return std::binary_search(blocks.begin(), blocks.end(), column);
}

std::span<const std::int32_t> BlockPattern::row(int index) const {
    if (index < 0 || index >= rows_) {
        throw InternalError("block row {} of a pattern with {}", index, rows_);
    }
    return {listed_.data() + offsets_[index], listed_.data() + offsets_[index + 1]};
}

int BlockPattern::block_rows(int index) const {
    const std::int64_t begin = static_cast<std::int64_t>(index) * block_;
    if (index < 0 || index >= rows_) {
        throw InternalError("block {} of a pattern with {}", index, rows_);
    }
    return static_cast<int>(std::min<std::int64_t>(block_, length_ - begin));
}

int BlockPattern::block_columns(int index) const {
    const std::int64_t begin = static_cast<std::int64_t>(index) * block_;
    if (index < 0 || index >= columns_) {
        throw InternalError("block column {} of a pattern with {}", index, columns_);
    }
    return static_cast<int>(std::min<std::int64_t>(block_, key_length_ - begin));
}

std::int64_t BlockPattern::elements_in_row(int row_index) const {
    std::int64_t elements = 0;
    for (std::int32_t column : row(row_index)) {
        elements += block_columns(column);
    }
    return elements;
}

double BlockPattern::density() const {
    double elements = 0.0;  // exact: sums of integers below 2^53 for any length below 2^26
    for (int i = 0; i < rows_; ++i) {
        elements += static_cast<double>(block_rows(i)) * static_cast<double>(elements_in_row(i));
    }
    return elements / (static_cast<double>(length_) * static_cast<double>(key_length_));
}

BlockPattern BlockPattern::transpose() const {
    if (block_ == kFullBlock) {
        return full(key_length_, length_, 128).in_blocks_of(block_);
    }
    const auto pitch = static_cast<std::size_t>(rows_);
    std::vector<std::uint8_t> bits(pitch * columns_, 0);  // [columns][rows]
    for (int i = 0; i < rows_; ++i) {
        for (std::int32_t column : row(i)) {
            bits[static_cast<std::size_t>(column) * pitch + static_cast<std::size_t>(i)] = 1;
        }
    }
    return BlockPattern(key_length_, length_, block_, std::move(bits));
}

std::string BlockPattern::digest() const {
    const std::string keys =
        key_length_ == length_ ? "" : fmt::format(" key_length={}", key_length_);
    return digest_of(fmt::format("length={}{} block={}\n", length_, keys, block_) + to_bits());
}

std::string BlockPattern::to_bits() const {
    const auto pitch = static_cast<std::size_t>(columns_) + 1;
    std::string text(static_cast<std::size_t>(rows_) * pitch, '0');
    for (int i = 0; i < rows_; ++i) {
        const std::size_t begin = static_cast<std::size_t>(i) * pitch;
        for (std::int32_t column : row(i)) {
            text[begin + static_cast<std::size_t>(column)] = '1';
        }
        text[begin + pitch - 1] = '\n';
    }
    return text;
}

std::string BlockPattern::to_art(int width) const {
    if (width < 1) {
        throw UserError("a picture of width {} cannot be drawn: use at least 1", width);
    }
    const int cell = (columns_ + width - 1) / width;  // blocks a cell, in each direction
    const auto pitch = static_cast<std::size_t>((columns_ + cell - 1) / cell);
    const auto lines = static_cast<std::size_t>((rows_ + cell - 1) / cell);
    // [lines + 1][pitch]: an odd last line has an empty lower half.
    std::vector<std::uint8_t> set((lines + 1) * pitch, 0);
    for (int i = 0; i < rows_; ++i) {
        for (std::int32_t column : row(i)) {
            set[static_cast<std::size_t>(i / cell) * pitch +
                static_cast<std::size_t>(column / cell)] = 1;
        }
    }
    constexpr const char* kGlyphs[4] = {" ", "\u2580", "\u2584", "\u2588"};  // none, upper, lower
    std::string art;
    for (std::size_t line = 0; line < lines; line += 2) {
        for (std::size_t x = 0; x < pitch; ++x) {
            art += kGlyphs[set[line * pitch + x] + 2 * set[(line + 1) * pitch + x]];
        }
        art += '\n';
    }
    return art;
}

BlockPattern parse_bits(std::string_view text, std::int64_t length, int block,
                        std::string_view origin) {
    return parse_bits(text, length, length, block, origin);
}

BlockPattern parse_bits(std::string_view text, std::int64_t length, std::int64_t key_length,
                        int block, std::string_view origin) {
    const auto rows = static_cast<std::size_t>(count_blocks(length, block));
    const auto all_columns = static_cast<std::size_t>(count_blocks(key_length, block));
    text = without_byte_order_mark(text);
    std::vector<std::uint8_t> bits;
    std::size_t matrix_rows = 0;
    for (std::size_t line = 1; !text.empty(); ++line) {
        const std::size_t end = text.find('\n');
        const std::string_view content = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
        std::size_t columns = 0;
        for (char c : content) {
            if (c == '\r') {
                continue;
            }
            if (c != '0' && c != '1') {
                throw UserError("{}:{}: character {:?} is not a bit: use lines of 0 and 1", origin,
                                line, c);
            }
            bits.push_back(c == '1' ? 1 : 0);
            ++columns;
        }
        if (columns == 0) {
            continue;
        }
        if (columns != all_columns) {
            throw UserError("{}:{}: row of {} bits: {} needs {} x {}", origin, line, columns,
                            size_text(length, key_length, block), rows, all_columns);
        }
        ++matrix_rows;
    }
    if (matrix_rows != rows) {
        throw UserError("{}: {} rows of bits: {} needs {} x {}", origin, matrix_rows,
                        size_text(length, key_length, block), rows, all_columns);
    }
    return BlockPattern(length, key_length, block, std::move(bits));
}

}  // namespace spion
