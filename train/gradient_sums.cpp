#include "train/gradient_sums.h"

#include "ir/error.h"

namespace spion {

void GradientSums::launched(std::int64_t first, std::int64_t count) {
    if (count_ > 0 && first + count != first_) {
        throw InternalError("gradients up to {} were told after those from {}", first + count,
                            first_);
    }
    first_ = first;
    count_ += count;
    if (count_ * static_cast<std::int64_t>(sizeof(float)) >= kBucketBytes) begin();
}

void GradientSums::begin() {
    if (count_ > 0) ranks_->begin_sum(gradients_ + first_, count_);
    count_ = 0;
}

void GradientSums::finish() {
    begin();
    ranks_->finish_sums();
}

}  // namespace spion
