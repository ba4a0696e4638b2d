#include "train/fused_layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "codegen/emit.h"
#include "ir/error.h"
#include "train/kernels.h"

namespace spion {
namespace {

constexpr int kElementBytes = 2, kFloatBytes = 4;
constexpr int kStages = 2;
constexpr int kTileRows = 64, kHalves = 2;  // of a backward pass: row_gradients.cuh
constexpr int kRowWarps = 8;
constexpr int kKeyBytes = 128;      // norm_linear_forward.cuh
constexpr int kStatisticWords = 4;  // row_gradients.cuh
// Work items of a backward pass, a thread block and an SM each: as many as sm_90's GPUs have, nearly.
constexpr std::int64_t kItems = 128;

// More than fit into a GPU's memory; their octets are counted in 32 bits.
constexpr std::int64_t kMostRows = std::int64_t{1} << 27;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

std::int64_t split(std::int64_t rows, std::int64_t items) {
    return ceil_divide(ceil_divide(rows, items), kSpionItemRows) * kSpionItemRows;
}

// Before attention, behind it, behind the last layer.
enum class Part { kBegin, kEnd, kMean };
struct Recipe {
    const char* entry;
    Part part;
    bool backward;
    int threads;
    int blocks;  // on an SM
};
constexpr std::array<Recipe, kFusedLayerKernels> kRecipes = {{
    {"norm_linear_forward", Part::kBegin, false, 256, 2},
    {"norm_linear_backward", Part::kBegin, true, 384, 1},
    {"layer_end_forward", Part::kEnd, false, 256, 2},
    {"layer_end_backward", Part::kEnd, true, 384, 1},
    {"norm_mean_forward", Part::kMean, false, 512,
     1},  // a block a sample, of which there may be few
    {"norm_mean_backward", Part::kMean, true, 256, 2},
}};

const Recipe& recipe(FusedLayerKernel kernel) {
    return kRecipes[static_cast<std::size_t>(kernel)];
}

}  // namespace

bool can_fuse(const FusedLayerShape& shape, const Target& target) {
    if (target.back_end != BackEnd::kCuda || shape.channels != 64 ||
        (shape.hidden != 64 && shape.hidden != 128) || shape.dropout > kSpionMostDrawn) {
        return false;
    }
    for (int kernel = 0; kernel < kFusedLayerKernels; ++kernel) {
        if (fused_layer_shared_bytes(static_cast<FusedLayerKernel>(kernel), shape) >
            target.shared_bytes_per_block) {
            return false;
        }
    }
    return true;
}

KernelSource fused_layer_source(FusedLayerKernel kernel, const FusedLayerShape& shape,
                                const Target& target) {
    const Recipe& made = recipe(kernel);
    const bool drops_out =
        made.part == Part::kEnd || kernel == FusedLayerKernel::kNormLinearForward;
    std::vector<Constant> constants = {
        element_constant(shape.dtype),
        {.name = "kChannels", .value = std::int64_t{shape.channels}, .comment = "of a row"},
        {.name = "kThreads",
         .value = std::int64_t{fused_layer_threads(kernel)},
         .comment = "of a block"},
        {.name = "kEpsilon", .value = shape.epsilon, .comment = "of the layer norm"}};
    std::string name = fmt::format("{}-c{}", made.entry, shape.channels);
    std::string ir = fmt::format("step kernel {} kChannels={}", made.entry, shape.channels);
    if (drops_out) {
        constants.push_back({.name = "kHidden",
                             .value = std::int64_t{shape.hidden},
                             .comment = "of the feed-forward part"});
        constants.push_back({.name = "kDropout", .value = shape.dropout, .comment = "probability"});
        name += fmt::format("-f{}-p{}", shape.hidden, shape.dropout);
        ir += fmt::format(" kHidden={} kDropout={}", shape.hidden, shape.dropout);
    }
    if (made.part == Part::kBegin) {
        constants.push_back({.name = "kOut",
                             .value = std::int64_t{3} * shape.channels,
                             .comment = "of Q, K and V together"});
    }
    name += fmt::format("-e{}{}", shape.epsilon, shape.dtype == DType::kFp16 ? "-fp16" : "");
    return specialise(target, name, fmt::format("train/{}", made.entry), made.entry, constants, ir);
}

int fused_layer_threads(FusedLayerKernel kernel) {
    return recipe(kernel).threads;
}

// As the bodies lay it out: weights, vectors, tiles, and a queue of 16 rows a warp.
int fused_layer_shared_bytes(FusedLayerKernel kernel, const FusedLayerShape& shape) {
    const int c = shape.channels, f = shape.hidden, joint = 3 * c;
    const auto queue = [&](int tensors) {
        return kRowWarps * kStages * tensors * kSpionWarpRows * c * kElementBytes;
    };
    const auto word_queue = [](int words) { return kRowWarps * kStages * words * 32 * 4; };
    switch (kernel) {
        case FusedLayerKernel::kNormLinearForward:
            return joint * c * kElementBytes + (2 * c + joint) * kFloatBytes + kKeyBytes + queue(1);
        case FusedLayerKernel::kNormLinearBackward:
            return joint * c * kElementBytes + 2 * c * kFloatBytes +
                   kHalves * kStages * kTileRows * (joint + c) * kElementBytes + queue(2) +
                   word_queue(kStatisticWords);
        case FusedLayerKernel::kLayerEndForward:
            return (c * c + 2 * c * f) * kElementBytes + (4 * c + f) * kFloatBytes + queue(2);
        case FusedLayerKernel::kLayerEndBackward:
            return 2 * c * f * kElementBytes + (2 * c + f) * kFloatBytes +
                   kHalves * kTileRows * (2 * f + 3 * c) * kElementBytes + queue(2) +
                   word_queue(kStatisticWords + spion_kept_words(c, f));
        case FusedLayerKernel::kNormMeanForward:
            return 2 * queue(1) + 2 * kRowWarps * c * kFloatBytes;  // of 16 warps
        case FusedLayerKernel::kNormMeanBackward:
            return c * kFloatBytes + queue(1);
    }
    throw InternalError("a fused layer's kernel is none of the enumerated ones");
}

std::int64_t fused_layer_rows_per_item(std::int64_t rows) {
    return split(rows, kItems);
}
std::int64_t fused_layer_items(std::int64_t rows) {
    return ceil_divide(rows, fused_layer_rows_per_item(rows));
}
std::int64_t norm_linear_partial(const FusedLayerShape& shape) {
    const std::int64_t c = shape.channels;
    return 3 * c * c + 3 * c + 2 * c;
}
std::int64_t fused_layer_kept(const FusedLayerShape& shape, std::int64_t rows) {
    return ceil_divide(rows, kSpionWarpRows) * spion_kept_words(shape.channels, shape.hidden) * 32;
}
std::int64_t layer_end_partial(const FusedLayerShape& shape) {
    const std::int64_t c = shape.channels, f = shape.hidden;
    return 2 * c * f + f + 3 * c;
}

FusedLayer::FusedLayer(Device& device, KernelCache& cache, const FusedLayerShape& shape)
    : device_(&device), shape_(shape) {
    if (!can_fuse(shape, device.target())) {
        throw InternalError("no fused kernels for a layer of {} and {} channels on {}",
                            shape.channels, shape.hidden, device.target().arch);
    }
    std::vector<KernelSource> sources;
    for (int kernel = 0; kernel < kFusedLayerKernels; ++kernel) {
        sources.push_back(
            fused_layer_source(static_cast<FusedLayerKernel>(kernel), shape, device.target()));
    }
    kernels_ = compile_kernels(sources, device, cache);
}

template <typename Arguments>
void FusedLayer::launch(FusedLayerKernel kernel, const Arguments& arguments, std::int64_t rows,
                        std::int64_t items) const {
    if (rows < 1 || rows > kMostRows) {
        throw InternalError("{} was launched on {} rows, not 1 to {}", recipe(kernel).entry, rows,
                            kMostRows);
    }
    device_->launch(*kernels_[static_cast<std::size_t>(kernel)].kernel,
                    {.work_items = items,
                     .threads = fused_layer_threads(kernel),
                     .shared_bytes = fused_layer_shared_bytes(kernel, shape_)},
                    arguments);
}

// A forward pass' rows are independent, so any split gives the same bits: one wave of thread blocks.
template <typename Arguments>
void FusedLayer::launch(FusedLayerKernel kernel, Arguments& arguments) const {
    const std::int64_t wave = std::int64_t{recipe(kernel).blocks} * device_->target().sm_count;
    const std::int64_t rows = std::max<std::int64_t>(arguments.rows, 1);
    arguments.rows_per_item =
        recipe(kernel).backward ? fused_layer_rows_per_item(rows) : split(rows, wave);
    launch(kernel, arguments, arguments.rows, ceil_divide(rows, arguments.rows_per_item));
}

void FusedLayer::norm_linear_forward(SpionNormLinearArguments arguments) const {
    launch(FusedLayerKernel::kNormLinearForward, arguments);
}
void FusedLayer::norm_linear_backward(SpionNormLinearArguments arguments) const {
    launch(FusedLayerKernel::kNormLinearBackward, arguments);
}
void FusedLayer::layer_end_forward(SpionLayerEndArguments arguments) const {
    launch(FusedLayerKernel::kLayerEndForward, arguments);
}
void FusedLayer::layer_end_backward(SpionLayerEndArguments arguments) const {
    launch(FusedLayerKernel::kLayerEndBackward, arguments);
}
void FusedLayer::norm_mean_forward(const SpionNormMeanArguments& arguments) const {
    launch(FusedLayerKernel::kNormMeanForward, arguments,
           std::int64_t{arguments.batch} * arguments.length, arguments.batch);
}
void FusedLayer::norm_mean_backward(SpionNormMeanArguments arguments) const {
    const std::int64_t rows = std::int64_t{arguments.batch} * arguments.length;
    arguments.rows_per_item =
        split(std::max<std::int64_t>(rows, 1),
              std::int64_t{recipe(FusedLayerKernel::kNormMeanBackward).blocks} *
                  device_->target().sm_count);
    launch(FusedLayerKernel::kNormMeanBackward, arguments, rows,
           ceil_divide(rows, arguments.rows_per_item));
}

}  // namespace spion
