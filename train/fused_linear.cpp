#include "train/fused_linear.h"

#include <fmt/format.h>

#include "codegen/emit.h"
#include "ir/error.h"
#include "train/kernels.h"

namespace spion {
namespace {

constexpr int kThreads = 256;
constexpr int kStages = 2;  // tiles in shared memory
constexpr int kElementBytes = 2;
// Weights whose gradient eight warps hold without spilling, two thread blocks on a processor; with
// gelu's terms there is room for less.
constexpr int kMostWeights = 192 * 64, kMostWeightsWithGelu = 128 * 64, kMostInputs = 128;
// Work items: as many as thread blocks that are resident on the largest GPU, so that each sums as
// many rows as it can.
constexpr std::int64_t kItems = 256;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace

FusedLinearShape fused_qkv(const ModelShape& shape, DType dtype) {
    return {.out = 3 * shape.channels(), .in = shape.channels(), .dtype = dtype};
}

FusedLinearShape fused_out(const ModelShape& shape, DType dtype) {
    return {.out = shape.channels(), .in = shape.channels(), .dtype = dtype};
}

FusedLinearShape fused_feed_forward1(const ModelShape& shape, double dropout, DType dtype) {
    return {.out = shape.feed_forward,
            .in = shape.channels(),
            .gelu = true,
            .dropout = static_cast<float>(dropout),
            .dtype = dtype};
}

bool can_fuse(const FusedLinearShape& shape, const Target& target) {
    return target.back_end == BackEnd::kCuda && shape.out >= 64 && shape.out % 64 == 0 &&
           shape.in >= 64 && shape.in <= kMostInputs && shape.in % 64 == 0 &&
           shape.out * shape.in <= (shape.gelu ? kMostWeightsWithGelu : kMostWeights) &&
           fused_linear_shared_bytes(shape) <= target.shared_bytes_per_block;
}

KernelSource fused_linear_source(const FusedLinearShape& shape, const Target& target) {
    const std::vector<Constant> constants = {
        element_constant(shape.dtype),
        {.name = "kOut", .value = std::int64_t{shape.out}, .comment = "rows of the weights"},
        {.name = "kIn", .value = std::int64_t{shape.in}, .comment = "columns of the weights"},
        {.name = "kGelu", .value = shape.gelu, .comment = "d_y is behind dropout(gelu(y))"},
        {.name = "kDropout", .value = shape.dropout, .comment = "probability"},
        {.name = "kThreads", .value = std::int64_t{kThreads}, .comment = "of a block"}};
    const std::string name = fmt::format("linear_backward-o{}-i{}{}{}", shape.out, shape.in,
                                         shape.gelu ? fmt::format("-gelu-p{}", shape.dropout) : "",
                                         shape.dtype == DType::kFp16 ? "-fp16" : "");
    const std::string ir =
        fmt::format("step kernel linear_backward kOut={} kIn={} kGelu={} kDropout={}", shape.out,
                    shape.in, shape.gelu, shape.dropout);
    return specialise(target, name, "train/linear_backward", "linear_backward", constants, ir);
}

int fused_linear_shared_bytes(const FusedLinearShape& shape) {
    const int row = (shape.gelu ? 2 : 1) * shape.out + shape.in;  // of a tile
    return kElementBytes * (shape.out * shape.in + kStages * kSpionLinearTileRows * row);
}

std::int64_t fused_linear_rows_per_item(std::int64_t rows) {
    return ceil_divide(ceil_divide(rows, kItems), kSpionLinearTileRows) * kSpionLinearTileRows;
}

std::int64_t fused_linear_items(std::int64_t rows) {
    return ceil_divide(rows, fused_linear_rows_per_item(rows));
}

std::int64_t fused_linear_partial(const FusedLinearShape& shape) {
    return std::int64_t{shape.out} * shape.in + shape.out;
}

FusedLinear::FusedLinear(Device& device, KernelCache& cache, const FusedLinearShape& shape)
    : device_(&device), shape_(shape) {
    if (!can_fuse(shape, device.target())) {
        throw InternalError("no fused kernel for a linear map of {} to {} on {}", shape.in,
                            shape.out, device.target().arch);
    }
    kernel_ = compile_kernel(fused_linear_source(shape, device.target()), device, cache);
}

void FusedLinear::backward(SpionLinearBackwardArguments arguments) const {
    if (arguments.rows < 1) throw InternalError("linear_backward was launched on nothing");
    arguments.rows_per_item = fused_linear_rows_per_item(arguments.rows);
    device_->launch(*kernel_.kernel,
                    {.work_items = fused_linear_items(arguments.rows),
                     .threads = kThreads,
                     .shared_bytes = fused_linear_shared_bytes(shape_)},
                    arguments);
}

}  // namespace spion
