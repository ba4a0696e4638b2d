// The block patterns of one layer: one for all heads, one a head of K and V, or one a query head.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ir/block_pattern.h"

namespace spion {

// At least one pattern, all of equal lengths and block. One pattern converts to it: a layer whose
// heads share it.
class HeadPatterns {
  public:
    HeadPatterns(BlockPattern shared);  // NOLINT(google-explicit-constructor)
    // Throws UserError when there is none, or they differ in lengths or block.
    explicit HeadPatterns(std::vector<BlockPattern> patterns);

    int count() const { return static_cast<int>(patterns_.size()); }
    const BlockPattern& operator[](int index) const { return patterns_[index]; }
    const BlockPattern& front() const { return patterns_.front(); }
    auto begin() const { return patterns_.begin(); }
    auto end() const { return patterns_.end(); }

    std::int64_t length() const { return front().length(); }
    std::int64_t key_length() const { return front().key_length(); }
    int block() const { return front().block(); }
    int rows() const { return front().rows(); }
    int columns() const { return front().columns(); }
    std::int64_t block_count() const;  // of all patterns
    double density() const;            // their mean
    bool are_full() const;             // every one
    // Full ones, in blocks of another edge (BlockPattern::in_blocks_of).
    HeadPatterns in_blocks_of(int block) const;
    // The fullest pattern's blocks over the mean: 1 where all heads have as much to do.
    double imbalance() const;
    HeadPatterns transpose() const;
    // That of a shared pattern is the pattern's.
    std::string digest() const;

    friend bool operator==(const HeadPatterns&, const HeadPatterns&) = default;

  private:
    std::vector<BlockPattern> patterns_;
};

// "density 0.1000", or of several "4 patterns, densities 0.0800 to 0.1200, mean 0.1000, the fullest
// has 1.20 times the mean".
std::string density_text(const HeadPatterns& patterns);

}  // namespace spion
