#include "ir/head_patterns.h"

#include <algorithm>
#include <utility>

#include "ir/error.h"
#include "ir/sha256.h"

namespace spion {

HeadPatterns::HeadPatterns(BlockPattern shared) {
    patterns_.push_back(std::move(shared));
}

HeadPatterns::HeadPatterns(std::vector<BlockPattern> patterns) : patterns_(std::move(patterns)) {
    if (patterns_.empty()) {
        throw UserError("no pattern was given: give one, or one for each head");
    }
    for (const BlockPattern& pattern : patterns_) {
        if (pattern.length() != length() || pattern.key_length() != key_length() ||
            pattern.block() != block()) {
            throw UserError(
                "heads' patterns of {} x {} in blocks of {} and of {} x {} in blocks of {}: give "
                "all heads of a layer the same lengths and block",
                length(), key_length(), block(), pattern.length(), pattern.key_length(),
                pattern.block());
        }
    }
}

std::int64_t HeadPatterns::block_count() const {
    std::int64_t count = 0;
    for (const BlockPattern& pattern : patterns_) {
        count += pattern.block_count();
    }
    return count;
}

double HeadPatterns::density() const {
    double sum = 0;
    for (const BlockPattern& pattern : patterns_) {
        sum += pattern.density();
    }
    return sum / static_cast<double>(count());
}

bool HeadPatterns::are_full() const {
    return std::all_of(begin(), end(), [](const BlockPattern& one) { return one.is_full(); });
}

HeadPatterns HeadPatterns::in_blocks_of(int block) const {
    std::vector<BlockPattern> cut;
    cut.reserve(patterns_.size());
    for (const BlockPattern& pattern : patterns_) {
        cut.push_back(pattern.in_blocks_of(block));
    }
    return HeadPatterns(std::move(cut));
}

double HeadPatterns::imbalance() const {
    std::int64_t most = 0;
    for (const BlockPattern& pattern : patterns_) {
        most = std::max(most, pattern.block_count());
    }
    return block_count() == 0 ? 1
                              : static_cast<double>(most) * static_cast<double>(count()) /
                                    static_cast<double>(block_count());
}

HeadPatterns HeadPatterns::transpose() const {
    std::vector<BlockPattern> transposed;
    for (const BlockPattern& pattern : patterns_) {
        transposed.push_back(pattern.transpose());
    }
    return HeadPatterns(std::move(transposed));
}

std::string HeadPatterns::digest() const {
    if (count() == 1) {
        return front().digest();
    }
    std::string digests;
    for (const BlockPattern& pattern : patterns_) {
        digests += pattern.digest();
        digests += '\n';
    }
    return digest_of(digests);
}

std::string density_text(const HeadPatterns& patterns) {
    if (patterns.count() == 1) {
        return fmt::format("density {:.4f}", patterns.density());
    }
    double least = 1, most = 0;
    for (const BlockPattern& pattern : patterns) {
        least = std::min(least, pattern.density());
        most = std::max(most, pattern.density());
    }
    return fmt::format(
        "{} patterns, densities {:.4f} to {:.4f}, mean {:.4f}, the fullest has {:.2f} times the "
        "mean",
        patterns.count(), least, most, patterns.density(), patterns.imbalance());
}

}  // namespace spion
