#include "ir/sizes.h"

#include <algorithm>
#include <limits>

#include "ir/error.h"

namespace spion {

void check_batch(const Attention& attention, std::int64_t batch) {
    if (batch < 1) {
        throw UserError("the batch is {}; give at least 1", batch);
    }
    constexpr std::int64_t kMaxBatch = std::numeric_limits<std::int32_t>::max();
    if (batch > kMaxBatch) {
        throw UserError("the batch is {}; give at most {}", batch, kMaxBatch);
    }
    std::int64_t rows = 0;
    const std::int64_t length = std::max(attention.length, attention.key_value_length());
    if (__builtin_mul_overflow(batch * attention.heads, length, &rows) || rows > kMaxRows) {
        throw UserError(
            "the batch is {} with {} heads of length {}, which makes more than {} rows; give a "
            "smaller batch or shorter samples",
            batch, attention.heads, length, kMaxRows);
    }
}

void check_summary_filter(int filter, int block) {
    if (filter < 1 || filter > 2 * block + 1) {
        throw UserError("filter {} reaches beyond the neighbours of block {}: give 1 to {}", filter,
                        block, 2 * block + 1);
    }
}

}  // namespace spion
