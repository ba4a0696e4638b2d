// d_relative_bias[h, n] = sum over samples b and strips of SPION_BIAS_ROWS query rows of what
// attention_query_gradient has summed (docs/ir.md). A work item is 32 entries of a head.
#include "kernels/attention_arguments.h"
#include "kernels/host/vector.h"

extern "C" {
extern const int kHeads, kLength, kBiasEntries;
}

extern "C" void attention_bias_gradient(const SpionAttentionArguments* args, long long begin,
                                        long long end) {
    constexpr int kEntries = 32;
    const int items_of_head = (kBiasEntries + kEntries - 1) / kEntries;
    const int most_strips = (kLength - 1) / SPION_BIAS_ROWS + 1;
    for (long long item = begin; item < end; ++item) {
        const long long head = item / items_of_head;
        const int first = static_cast<int>(item % items_of_head) * kEntries;
        const int count = kBiasEntries - first < kEntries ? kBiasEntries - first : kEntries;
        float totals[kEntries] = {};
        for (int batch = 0; batch < args->batch; ++batch) {
            const int rows =
                args->starts == nullptr ? kLength : args->starts[batch + 1] - args->starts[batch];
            const float* of_head =
                args->bias_sums +
                (static_cast<long long>(batch) * kHeads + head) * most_strips * kBiasEntries;
            for (int row = 0; row < rows; row += SPION_BIAS_ROWS, of_head += kBiasEntries) {
                for (int n = 0; n < count; ++n) {
                    totals[n] += of_head[first + n];
                }
            }
        }
        for (int n = 0; n < count; ++n) {
            args->d_relative_bias[head * kBiasEntries + first + n] = totals[n];
        }
    }
}
