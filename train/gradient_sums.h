// Adds up the gradients of several processes while the backward pass goes on.
#pragma once

#include <cstdint>

#include "runtime/ranks/communicator.h"

namespace spion {

// Gradients are added up in buckets: stretches of the flat buffer that end where a layer ends, of at
// least kBucketBytes (the last one aside). Which they are depends on the model alone, so that every
// process adds up the same ones in the same order, in every run.
class GradientSums {
  public:
    static constexpr std::int64_t kBucketBytes = std::int64_t{128} * 1024;

    // gradients: the whole flat buffer on the device, fp32. Both must outlive this.
    GradientSums(Communicator& ranks, float* gradients) : ranks_(&ranks), gradients_(gradients) {}

    // [first, first + count) has been launched; as GradientsLaunched (train/model.h) says.
    void launched(std::int64_t first, std::int64_t count);
    // What is launched from here on sees the sums of all that were told.
    void finish();

  private:
    void begin();
    Communicator* ranks_;
    float* gradients_;
    std::int64_t first_ = 0, count_ = 0;  // of the bucket that is being filled
};

}  // namespace spion
