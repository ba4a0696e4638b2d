#include <cstdint>

#include "ir/error.h"
#include "train/settings.h"

namespace spion {

void divide_among(TrainSettings& settings, int before, int now) {
    if (before == now) return;
    const std::int64_t batches = std::int64_t{settings.accumulate} * before;
    const std::int64_t samples = batches * settings.batch;
    if (batches % now == 0) {
        settings.accumulate = static_cast<int>(batches / now);
        return;
    }
    if (samples % now != 0) {
        throw UserError(
            "the run has {} samples a step with {} processes, which {} cannot share evenly: take a "
            "number of processes that divides {}",
            samples, before, now, samples);
    }
    const std::int64_t own = samples / now;
    std::int64_t parts = 1;
    while (own % parts != 0 || own / parts > settings.batch) ++parts;
    settings.accumulate = static_cast<int>(parts);
    settings.batch = static_cast<int>(own / parts);
}

}  // namespace spion
