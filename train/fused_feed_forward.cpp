#include "train/fused_feed_forward.h"

#include <fmt/format.h>

#include "codegen/emit.h"
#include "ir/error.h"
#include "train/kernels.h"

namespace spion {
namespace {

constexpr int kThreads = 256;
constexpr int kElementBytes = 2;
constexpr int kMostWeights = 128 * 128;  // of each map
constexpr int kResidentBlocks = 3;       // an SM's, as the kernel's launch bounds say

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace

bool can_fuse(const FusedFeedForwardShape& shape, const Target& target) {
    return target.back_end == BackEnd::kCuda && shape.channels >= 64 && shape.channels % 64 == 0 &&
           shape.hidden >= 64 && shape.hidden % 64 == 0 &&
           shape.channels * shape.hidden <= kMostWeights &&
           fused_feed_forward_shared_bytes(shape) <= target.shared_bytes_per_block;
}

KernelSource fused_feed_forward_source(const FusedFeedForwardShape& shape, const Target& target) {
    const std::vector<Constant> constants = {
        element_constant(shape.dtype),
        {.name = "kChannels", .value = std::int64_t{shape.channels}, .comment = "of x and y"},
        {.name = "kHidden", .value = std::int64_t{shape.hidden}, .comment = "of hidden and gated"},
        {.name = "kDropout", .value = shape.dropout, .comment = "probability"},
        {.name = "kThreads", .value = std::int64_t{kThreads}, .comment = "of a block"}};
    const std::string name = fmt::format("feed_forward-c{}-f{}-p{}{}", shape.channels, shape.hidden,
                                         shape.dropout, shape.dtype == DType::kFp16 ? "-fp16" : "");
    const std::string ir =
        fmt::format("step kernel feed_forward kChannels={} kHidden={} kDropout={}", shape.channels,
                    shape.hidden, shape.dropout);
    return specialise(target, name, "train/feed_forward", "feed_forward", constants, ir);
}

int fused_feed_forward_shared_bytes(const FusedFeedForwardShape& shape) {
    const int row = shape.hidden + 2 * shape.channels;  // gated, and x twice
    return kElementBytes * (2 * shape.channels * shape.hidden + kSpionLinearTileRows * row);
}

FusedFeedForward::FusedFeedForward(Device& device, KernelCache& cache,
                                   const FusedFeedForwardShape& shape)
    : device_(&device), shape_(shape) {
    if (!can_fuse(shape, device.target())) {
        throw InternalError("no fused kernel for a feed-forward part of {} and {} channels on {}",
                            shape.channels, shape.hidden, device.target().arch);
    }
    kernel_ = compile_kernel(fused_feed_forward_source(shape, device.target()), device, cache);
}

// One wave of thread blocks: rows are independent, so any split gives the same bits.
void FusedFeedForward::forward(SpionFeedForwardArguments arguments) const {
    if (arguments.rows < 1) throw InternalError("feed_forward was launched on nothing");
    const std::int64_t blocks = std::int64_t{kResidentBlocks} * device_->target().sm_count;
    arguments.rows_per_item =
        ceil_divide(ceil_divide(arguments.rows, blocks), kSpionLinearTileRows) *
        kSpionLinearTileRows;
    device_->launch(*kernel_.kernel,
                    {.work_items = ceil_divide(arguments.rows, arguments.rows_per_item),
                     .threads = kThreads,
                     .shared_bytes = fused_feed_forward_shared_bytes(shape_)},
                    arguments);
}

}  // namespace spion
