// delta of one query tile: delta [kStationaryRows] = rowsum(dO * O), a warp's 16 rows each. Rows of
// a tile without gather blocks get dQ = 0: no kernel after this one adds to them.
#include "kernels/cuda/common/attention_walk.cuh"
#include "kernels/cuda/common/contract.cuh"

enum : int { kLanesOfRow = kRowChunks };  // a chunk of 16 bytes each
static_assert(32 % kLanesOfRow == 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    attention_delta(const __grid_constant__ SpionAttentionArguments args) {
    const WorkItem work = work_item(args, blockIdx.x);
    const ValueRows output = value_rows_of(args, args.o, work.batch, work.head);
    const ValueRows output_gradient = value_rows_of(args, args.d_o, work.batch, work.head);
    const Rows query_gradient = rows_of(args, args.d_q, work.batch, work.head);
    const bool empty = offset_at(args, work.order_index + 1) == offset_at(args, work.order_index);
    const int chunk = lane_index() % kLanesOfRow;
#pragma unroll
    for (int first = 0; first < 16; first += 32 / kLanesOfRow) {
        const int row = work.first_row + warp_index() * 16 + first + lane_index() / kLanesOfRow;
        float sum = 0.0F;
        if (row < kLength) {
            if (output.has(chunk)) {
                sum = dot_chunk<Element>(*(const uint4*)output.at(row, chunk),
                                         *(const uint4*)output_gradient.at(row, chunk));
            }
            if (empty && query_gradient.has(chunk))
                *(uint4*)query_gradient.at(row, chunk) = make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int distance = 1; distance < kLanesOfRow; distance *= 2) {
            sum += __shfl_xor_sync(0xFFFFFFFFU, sum, distance);
        }
        if (chunk == 0 && row < kLength) args.delta[work.row + row] = sum;
    }
}
