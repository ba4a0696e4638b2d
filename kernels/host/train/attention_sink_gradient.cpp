// d_sinks[h] = - sum over samples b and rows i of exp(sinks[h] - LSE) * delta (docs/ir.md). A work
// item is a head.
#include "kernels/attention_arguments.h"
#include "kernels/host/vector.h"

extern "C" {
extern const int kHeads, kLength;
}

extern "C" void attention_sink_gradient(const SpionAttentionArguments* args, long long begin,
                                        long long end) {
    for (long long head = begin; head < end; ++head) {
        const float sink = args->sinks[head];
        float total = 0.0F;
        for (int batch = 0; batch < args->batch; ++batch) {
            const long long first = (static_cast<long long>(batch) * kHeads + head) * kLength;
            const int rows =
                args->starts == nullptr ? kLength : args->starts[batch + 1] - args->starts[batch];
            Floats sum = 0.0F;
            int row = 0;
            for (; row + kLanes <= rows; row += kLanes) {
                const Floats p = exp2_of((sink - load(args->lse + first + row)) * kLog2E);
                sum += p * load(args->delta + first + row);
            }
            for (; row < rows; ++row) {
                const Floats p = exp2_of(Floats((sink - args->lse[first + row]) * kLog2E));
                total += p[0] * args->delta[first + row];
            }
            for (int lane = 0; lane < kLanes; ++lane) {
                total += sum[lane];
            }
        }
        args->d_sinks[head] = -total;
    }
}
