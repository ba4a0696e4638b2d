// Patterns from what others call theirs, and what can be asked of one.
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/context.h"
#include "ir/block_pattern.h"
#include "ir/head_patterns.h"

namespace spion::api {
namespace {

std::int64_t rows_of(std::int64_t length, std::int32_t block) {
    return BlockPattern::empty(length, block).rows();  // checks both
}

// body(), which gives patterns, as a C function.
template <typename Body>
std::int32_t make_pattern(spion_pattern** out, const Body& body) noexcept {
    return guarded([&] {
        present(out, "pattern") = nullptr;
        *out = new spion_pattern{body()};
    });
}

// What text() makes of each head's, with an empty line between two.
template <typename Text>
std::string of_all(const spion_pattern* pattern, const Text& text) {
    std::string all;
    for (const BlockPattern& head : present(pattern, "pattern").patterns) {
        if (!all.empty()) {
            all += '\n';
        }
        all += text(head);
    }
    return all;
}

// Bits [nb, nb] that columns are set in, each once.
class Bits {
  public:
    explicit Bits(std::int64_t rows) : rows_(rows), bits_(static_cast<std::size_t>(rows * rows)) {}

    void set(std::int64_t row, std::int64_t column, const char* array) {
        if (column < 0 || column >= rows_) {
            throw UserError("{} of row {} has column {}: columns are 0 to {}", array, row, column,
                            rows_ - 1);
        }
        std::uint8_t& bit = bits_[static_cast<std::size_t>(row * rows_ + column)];
        if (bit != 0) {
            throw UserError("{} of row {} has column {} a second time: list each block once", array,
                            row, column);
        }
        bit = 1;
    }
    std::vector<std::uint8_t> take() { return std::move(bits_); }

  private:
    std::int64_t rows_;
    std::vector<std::uint8_t> bits_;
};

BlockPattern from_csr(std::int64_t length, std::int32_t block, const std::int32_t* offsets,
                      std::size_t offset_count, const std::int32_t* columns,
                      std::size_t column_count) {
    const std::int64_t rows = rows_of(length, block);
    present(offsets, "offsets");
    if (offset_count != static_cast<std::size_t>(rows) + 1) {
        throw UserError("{} offsets were given, and {} rows of blocks need {}", offset_count, rows,
                        rows + 1);
    }
    if (column_count > 0) {
        present(columns, "columns");
    }
    if (offsets[0] != 0 || static_cast<std::size_t>(offsets[rows]) != column_count) {
        throw UserError("offsets go from {} to {}, and must go from 0 to the {} columns",
                        offsets[0], offsets[rows], column_count);
    }
    Bits bits(rows);
    for (std::int64_t row = 0; row < rows; ++row) {
        if (offsets[row + 1] < offsets[row] ||
            static_cast<std::size_t>(offsets[row + 1]) > column_count) {
            throw UserError("offsets {} and {} are {} and {}: they must not descend", row, row + 1,
                            offsets[row], offsets[row + 1]);
        }
        for (std::int32_t at = offsets[row]; at < offsets[row + 1]; ++at) {
            bits.set(row, columns[at], "columns");
        }
    }
    return BlockPattern(length, block, bits.take());
}

void set_listed(Bits& bits, const spion_block_mask& mask, const std::int32_t* counts,
                const std::int32_t* indices, std::int64_t rows, const char* name) {
    for (std::int64_t row = 0; row < rows; ++row) {
        if (counts[row] < 0 || counts[row] > rows || counts[row] > mask.row_pitch) {
            throw UserError("{} lists {} blocks in row {}: there are 0 to {}", name, counts[row],
                            row, std::min(rows, mask.row_pitch));
        }
        for (std::int32_t i = 0; i < counts[row]; ++i) {
            bits.set(row, indices[row * mask.row_pitch + i], name);
        }
    }
}

BlockPattern from_block_mask(std::int64_t length, std::int32_t block,
                             const spion_block_mask* given) {
    const spion_block_mask mask = read_struct(given, "spion_block_mask");
    const std::int64_t rows = rows_of(length, block);
    if (mask.rows != rows || mask.row_pitch < rows) {
        throw UserError(
            "the block mask has {} rows of {} entries, and length {} in blocks of {} has {} rows "
            "of "
            "at least {}: use the mask's own length and BLOCK_SIZE",
            mask.rows, mask.row_pitch, length, block, rows, rows);
    }
    if ((mask.full_kv_num_blocks == nullptr) != (mask.full_kv_indices == nullptr)) {
        throw UserError("one of full_kv_num_blocks and full_kv_indices is null: give both or none");
    }
    Bits bits(rows);
    set_listed(bits, mask, &present(mask.kv_num_blocks, "kv_num_blocks"),
               &present(mask.kv_indices, "kv_indices"), rows, "kv_indices");
    if (mask.full_kv_indices != nullptr) {
        set_listed(bits, mask, mask.full_kv_num_blocks, mask.full_kv_indices, rows,
                   "full_kv_indices");
    }
    return BlockPattern(length, block, bits.take());
}

// The bits of [heads, rows, rows] elements, the same for all heads.
template <typename Element>
std::vector<std::uint8_t> equal_heads(const Element* layout, std::int64_t heads,
                                      std::int64_t rows) {
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows * rows));
    for (std::int64_t head = 0; head < heads; ++head) {
        for (std::int64_t at = 0; at < rows * rows; ++at) {
            const std::uint8_t bit = layout[head * rows * rows + at] != 0 ? 1 : 0;
            std::uint8_t& first = bits[static_cast<std::size_t>(at)];
            if (head == 0) {
                first = bit;
            } else if (first != bit) {
                throw UserError(
                    "head {} has another layout than head 0 (row {}, column {}): a plan has one "
                    "pattern for all its heads, so give each kind of head a plan of its own",
                    head, at / rows, at % rows);
            }
        }
    }
    return bits;
}

BlockPattern from_layout(std::int64_t length, std::int32_t block, const void* layout,
                         std::int32_t element_bytes, std::int64_t heads, std::int64_t rows,
                         std::int64_t columns, const char* name) {
    const std::int64_t expected = rows_of(length, block);
    if (heads < 1 || rows != expected || columns != expected) {
        throw UserError(
            "the {} is of {} heads, {} rows and {} columns, and length {} in blocks of {} has at "
            "least 1 head, {} rows and {} columns",
            name, heads, rows, columns, length, block, expected, expected);
    }
    const void* const data = &present(static_cast<const char*>(layout), name);
    switch (element_bytes) {
        case 1:
            return {length, block,
                    equal_heads(static_cast<const std::uint8_t*>(data), heads, rows)};
        case 4:
            return {length, block,
                    equal_heads(static_cast<const std::int32_t*>(data), heads, rows)};
        case 8:
            return {length, block,
                    equal_heads(static_cast<const std::int64_t*>(data), heads, rows)};
        default:
            throw UserError("elements of {} bytes: the {} takes 1, 4 or 8", element_bytes, name);
    }
}

}  // namespace
}  // namespace spion::api

extern "C" {

using spion::BlockPattern;
using spion::HeadPatterns;
using spion::UserError;
using spion::api::guarded;
using spion::api::make_pattern;
using spion::api::present;

int32_t spion_pattern_from_bits(int64_t length, int32_t block, const uint8_t* bits, size_t count,
                                spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        const uint8_t* const first = count == 0 ? bits : &present(bits, "bits");
        return BlockPattern(length, block, std::vector<uint8_t>(first, first + count));
    });
}

int32_t spion_pattern_from_cross_bits(int64_t length, int64_t key_length, int32_t block,
                                      const uint8_t* bits, size_t count,
                                      spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        const uint8_t* const first = count == 0 ? bits : &present(bits, "bits");
        return BlockPattern(length, key_length, block, std::vector<uint8_t>(first, first + count));
    });
}

int32_t spion_pattern_from_heads(const spion_pattern* const* heads, size_t count,
                                 spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        std::vector<BlockPattern> all;
        for (size_t i = 0; i < count; ++i) {
            const HeadPatterns& some = present((&present(heads, "heads"))[i], "a head").patterns;
            all.insert(all.end(), some.begin(), some.end());
        }
        return HeadPatterns(std::move(all));
    });
}

int32_t spion_pattern_of_head(const spion_pattern* pattern, int32_t index,
                              spion_pattern** head) noexcept {
    return make_pattern(head, [&] {
        const HeadPatterns& all = present(pattern, "pattern").patterns;
        if (index < 0 || index >= all.count()) {
            throw UserError("head {} was asked for, and the pattern has {}: give 0 to {}", index,
                            all.count(), all.count() - 1);
        }
        return all[index];
    });
}

int32_t spion_pattern_from_text(int64_t length, int32_t block, const char* text,
                                spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        return spion::parse_bits(&present(text, "text"), length, block, "the pattern's text");
    });
}

int32_t spion_pattern_full(int64_t length, int32_t block, spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] { return BlockPattern::full(length, block); });
}

int32_t spion_pattern_from_csr(int64_t length, int32_t block, const int32_t* offsets,
                               size_t offset_count, const int32_t* columns, size_t column_count,
                               spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        return spion::api::from_csr(length, block, offsets, offset_count, columns, column_count);
    });
}

int32_t spion_pattern_from_block_mask(int64_t length, int32_t block, const spion_block_mask* mask,
                                      spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] { return spion::api::from_block_mask(length, block, mask); });
}

int32_t spion_pattern_from_layout(int64_t length, int32_t block, const void* layout,
                                  int32_t element_bytes, int64_t heads, int64_t rows,
                                  int64_t columns, spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        return spion::api::from_layout(length, block, layout, element_bytes, heads, rows, columns,
                                       "layout");
    });
}

int32_t spion_pattern_from_base_blockmask(int64_t length, const void* base_blockmask,
                                          int32_t element_bytes, int64_t batch, int64_t heads,
                                          int64_t rows, int64_t columns,
                                          spion_pattern** pattern) noexcept {
    return make_pattern(pattern, [&] {
        constexpr int32_t kBlock = 128;  // Block-Sparse-Attention has no other
        return spion::api::from_layout(length, kBlock, base_blockmask, element_bytes,
                                       std::max<int64_t>(batch, 0) * heads, rows, columns,
                                       "base_blockmask");
    });
}

int32_t spion_pattern_transpose(const spion_pattern* pattern, spion_pattern** transposed) noexcept {
    return make_pattern(transposed,
                        [&] { return present(pattern, "pattern").patterns.transpose(); });
}

void spion_pattern_release(spion_pattern* pattern) noexcept {
    delete pattern;
}

int32_t spion_pattern_query(const spion_pattern* pattern, spion_pattern_info* info) noexcept {
    return guarded([&] {
        const HeadPatterns& seen = present(pattern, "pattern").patterns;
        spion_pattern_info filled = SPION_PATTERN_INFO_INIT;
        filled.length = seen.length();
        filled.rows = seen.rows();
        filled.block_count = seen.block_count();
        filled.density = seen.density();
        filled.block = seen.block();
        filled.key_length = seen.key_length();
        filled.columns = seen.columns();
        filled.patterns = seen.count();
        filled.imbalance = seen.imbalance();
        const std::string digest = seen.digest();
        std::copy_n(digest.begin(), std::min(digest.size(), sizeof(filled.digest) - 1),
                    filled.digest);
        spion::api::write_struct(info, filled, "spion_pattern_info");
    });
}

int32_t spion_pattern_bits(const spion_pattern* pattern, uint8_t* bits, size_t count) noexcept {
    return guarded([&] {
        const HeadPatterns& seen = present(pattern, "pattern").patterns;
        const auto columns = static_cast<size_t>(seen.columns());
        const size_t wanted =
            static_cast<size_t>(seen.count()) * static_cast<size_t>(seen.rows()) * columns;
        if (count != wanted) {
            throw UserError("there is room for {} bits, and the pattern has {}", count, wanted);
        }
        uint8_t* at = &present(bits, "bits");
        std::fill_n(at, count, uint8_t{0});
        for (const BlockPattern& head : seen) {
            for (int row = 0; row < head.rows(); ++row, at += columns) {
                for (const int32_t column : head.row(row)) {
                    at[column] = 1;
                }
            }
        }
    });
}

int32_t spion_pattern_text(const spion_pattern* pattern, spion_blob** text) noexcept {
    return guarded([&] {
        present(text, "text") = nullptr;
        *text = spion::api::make_blob(
            spion::api::of_all(pattern, [](const BlockPattern& head) { return head.to_bits(); }));
    });
}

int32_t spion_pattern_picture(const spion_pattern* pattern, int32_t columns,
                              spion_blob** text) noexcept {
    return guarded([&] {
        present(text, "text") = nullptr;
        if (columns < 0) {
            throw UserError("a picture of {} columns: give 1 or more, or 0 for 64", columns);
        }
        *text = spion::api::make_blob(spion::api::of_all(pattern, [&](const BlockPattern& head) {
            return head.to_art(columns == 0 ? 64 : columns);
        }));
    });
}

}  // extern "C"
