#include "train/kernels.h"

#include <array>
#include <iterator>

#include "ir/error.h"
#include "ir/step_program.h"

namespace spion {
namespace {

// What kChannels is for a kernel.
enum class Width { kNone, kChannels, kFeedForward, kJointQueryKeyValue };
enum class Uses { kNone, kDropout, kEpsilon, kDropoutAndEpsilon };

// The launch table. Threads are of a CUDA block: enough for many rows in flight; twice as many
// where a work item is a whole sample, of which there are few.
struct Recipe {
    std::string_view entry;
    Width width;
    Uses uses;
    int threads;
};
constexpr std::array<Recipe, kStepKernels> kRecipes = {{
    {"embedding_forward", Width::kChannels, Uses::kDropout, 256},
    {"embedding_backward", Width::kChannels, Uses::kDropout, 256},
    {"embedding_position_backward", Width::kChannels, Uses::kDropout, 256},
    {"residual_norm_forward", Width::kChannels, Uses::kDropoutAndEpsilon, 256},
    {"residual_norm_backward", Width::kChannels, Uses::kDropout, 256},
    {"gelu_dropout_forward", Width::kFeedForward, Uses::kDropout, 256},
    {"gelu_dropout_backward", Width::kFeedForward, Uses::kDropout, 256},
    {"column_sums", Width::kJointQueryKeyValue, Uses::kNone, 256},
    {"sum_partials", Width::kNone, Uses::kNone, 256},
    {"masked_mean_forward", Width::kChannels, Uses::kNone, 512},
    {"masked_mean_backward", Width::kChannels, Uses::kNone, 256},
    {"classifier_forward_backward", Width::kNone, Uses::kNone, 256},
    {"classifier_weight_gradients", Width::kNone, Uses::kNone, 256},
    {"adamw", Width::kNone, Uses::kNone, 256},
    {"pair_features_forward", Width::kChannels, Uses::kNone, 256},
    {"pair_features_backward", Width::kChannels, Uses::kNone, 256},
    {"count_not_finite", Width::kNone, Uses::kNone, 256},
    {"update_loss_scale", Width::kNone, Uses::kNone, 256},
}};

bool needed(StepKernel kernel, const StepShape& shape) {
    switch (kernel) {
        case StepKernel::kPairFeaturesForward:
        case StepKernel::kPairFeaturesBackward:
            return shape.pairs;
        case StepKernel::kCountNotFinite:
        case StepKernel::kUpdateLossScale:
            return shape.loss_scale;
        default:
            return true;
    }
}

const Recipe& recipe(StepKernel kernel) {
    return kRecipes[static_cast<std::size_t>(kernel)];
}

// Where every warp's sums of a row lie in shared memory, so many threads that these are not more
// than the 48 KiB that a kernel has without asking.
int threads_of(StepKernel kernel, const StepShape& shape) {
    constexpr int kWidest = 768, kFewer = 256;
    const bool wide = kernel == StepKernel::kMaskedMeanForward && shape.channels > kWidest;
    return wide ? kFewer : recipe(kernel).threads;
}

int width_of(Width width, const StepShape& shape) {
    switch (width) {
        case Width::kNone:
            return 0;
        case Width::kChannels:
            return shape.channels;
        case Width::kFeedForward:
            return shape.feed_forward;
        case Width::kJointQueryKeyValue:
            return 3 * shape.channels;
    }
    throw InternalError("a step kernel's width is none of the enumerated ones");
}

// Rows that embedding_backward stages in shared memory at a time, beside the table.
constexpr int kStagedRows = 128;
constexpr int kMaxClasses = 1024;  // kernels/host/train/classifier_forward_backward.cpp

int embedding_shared_bytes(int vocabulary, int table_channels) {
    const int bf16_bytes = 2, id_bytes = 2, fp32_bytes = 4;
    return vocabulary * table_channels * fp32_bytes +
           kStagedRows * (table_channels * bf16_bytes + id_bytes);
}

// Channels of embedding_backward's table [V, table channels]: on the host all of them; on a GPU as
// many as leave room for a second thread block on the SM, or else as few as there may be.
int table_channels(const StepShape& shape, const Target& target) {
    if (target.back_end == BackEnd::kHost) return shape.channels;
    for (const int channels : {64, 32, 16}) {
        if (shape.channels % channels == 0 && embedding_shared_bytes(shape.vocabulary, channels) <=
                                                  target.shared_bytes_per_block / 2) {
            return channels;
        }
    }
    const int least = 8;
    if (embedding_shared_bytes(shape.vocabulary, least) > target.shared_bytes_per_block) {
        const int fits = (target.shared_bytes_per_block - embedding_shared_bytes(0, least)) / 32;
        throw UserError(
            "a vocabulary of {} tokens is too large for the gradient of the embedding on {}, which "
            "has room for {}: use a smaller vocabulary or --device cpu",
            shape.vocabulary, target.arch, fits);
    }
    return least;
}

void check_width(std::string_view name, int width, int most) {
    if (width < 8 || width > most || width % 8 != 0) {
        throw UserError("{} of {} is not allowed: choose a multiple of 8 from 8 to {}", name, width,
                        most);
    }
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

void check_embedding(const SpionEmbeddingArguments& arguments, const StepShape& shape) {
    if (arguments.length < 1 || arguments.rows % arguments.length != 0 ||
        arguments.vocabulary != shape.vocabulary) {
        throw InternalError(
            "embedding of {} rows of length {} with {} tokens, compiled for {} tokens",
            arguments.rows, arguments.length, arguments.vocabulary, shape.vocabulary);
    }
}

}  // namespace

void check(const StepShape& shape) {
    check_width("a model width", shape.channels, 1024);
    check_width("a feed-forward width", shape.feed_forward, 4096);
    if (shape.vocabulary < 1 || shape.vocabulary > 65536) {
        throw UserError("a vocabulary of {} tokens is not allowed: choose 1 to 65536",
                        shape.vocabulary);
    }
    if (!(shape.dropout >= 0.0F && shape.dropout < 1.0F)) {
        throw UserError("a dropout of {} is not allowed: choose a probability from 0 to below 1",
                        shape.dropout);
    }
    if (!(shape.epsilon > 0.0F && shape.epsilon < 1.0F)) {
        throw UserError("a layer norm epsilon of {} is not allowed: choose one between 0 and 1",
                        shape.epsilon);
    }
}

Constant element_constant(DType dtype) {
    if (dtype != DType::kBf16 && dtype != DType::kFp16) {
        throw InternalError("a GPU's training step in {}", to_string(dtype));
    }
    return {.name = "Element",
            .value = std::string(dtype == DType::kFp16 ? "Fp16" : "Bf16"),
            .comment = "T"};
}

KernelSource step_kernel_source(StepKernel kernel, const StepShape& shape, const Target& target) {
    const Recipe& made = recipe(kernel);
    std::vector<Constant> constants;
    std::string name(made.entry);
    StepProgram program{.name = name, .constants = {}};
    const auto add = [&](std::string_view label, Constant constant, auto value) {
        fmt::format_to(std::back_inserter(name), "-{}{}", label, value);
        program.constants.push_back({.name = constant.name, .value = static_cast<float>(value)});
        constants.push_back(std::move(constant));
    };
    if (made.width != Width::kNone) {
        const std::int64_t width = width_of(made.width, shape);
        add("c", {.name = "kChannels", .value = width, .comment = "of a row"}, width);
    }
    if (made.uses == Uses::kDropout || made.uses == Uses::kDropoutAndEpsilon) {
        add("p", {.name = "kDropout", .value = shape.dropout, .comment = "probability"},
            shape.dropout);
    }
    if (made.uses == Uses::kEpsilon || made.uses == Uses::kDropoutAndEpsilon) {
        add("e", {.name = "kEpsilon", .value = shape.epsilon, .comment = "of the layer norm"},
            shape.epsilon);
    }
    if (kernel == StepKernel::kEmbeddingBackward) {
        const std::int64_t slice = table_channels(shape, target);
        add("t", {.name = "kTableChannels", .value = slice, .comment = "of a work item"}, slice);
    }
    if (target.back_end == BackEnd::kCuda) {
        if (shape.dtype == DType::kFp16) name += "-fp16";
        constants.push_back(element_constant(shape.dtype));
        constants.push_back({.name = "kThreads",
                             .value = std::int64_t{threads_of(kernel, shape)},
                             .comment = "of a block"});
        if (kernel == StepKernel::kEmbeddingBackward) {
            constants.push_back({.name = "kStagedRows",
                                 .value = std::int64_t{kStagedRows},
                                 .comment = "in shared memory"});
        }
    }
    return specialise(target, name, fmt::format("train/{}", made.entry), made.entry, constants,
                      to_text(program));
}

StepKernels::StepKernels(Device& device, KernelCache& cache, const StepShape& shape)
    : device_(&device), shape_(shape) {
    check(shape);
    std::vector<KernelSource> sources;
    for (int i = 0; i < kStepKernels; ++i) {
        const auto kernel = static_cast<StepKernel>(i);
        const bool used = needed(kernel, shape_);
        places_[static_cast<std::size_t>(i)] = used ? static_cast<int>(sources.size()) : -1;
        if (used) sources.push_back(step_kernel_source(kernel, shape_, device.target()));
    }
    kernels_ = compile_kernels(sources, device, cache);
}

template <typename Arguments>
void StepKernels::launch(StepKernel kernel, std::int64_t work_items, int shared_bytes,
                         const Arguments& arguments) const {
    if (work_items < 1) {
        throw InternalError("{} was launched on nothing", recipe(kernel).entry);
    }
    const int place = places_[static_cast<std::size_t>(kernel)];
    if (place < 0) {
        throw InternalError("{} is not compiled for this shape", recipe(kernel).entry);
    }
    const LaunchGeometry geometry = {.work_items = work_items,
                                     .threads = threads_of(kernel, shape_),
                                     .shared_bytes = shared_bytes};
    device_->launch(*kernels_[static_cast<std::size_t>(place)].kernel, geometry, arguments);
}

void StepKernels::embedding_forward(const SpionEmbeddingArguments& arguments) const {
    check_embedding(arguments, shape_);
    launch(StepKernel::kEmbeddingForward,
           spion_embedding_items(arguments.rows / arguments.length, arguments.length), 0,
           arguments);
}

void StepKernels::embedding_backward(const SpionEmbeddingArguments& arguments) const {
    check_embedding(arguments, shape_);
    const int slice = table_channels(shape_, device_->target());
    launch(StepKernel::kEmbeddingBackward,
           spion_token_items(arguments.rows, shape_.vocabulary) * (shape_.channels / slice),
           embedding_shared_bytes(shape_.vocabulary, slice), arguments);
}

void StepKernels::embedding_position_backward(const SpionEmbeddingArguments& arguments) const {
    check_embedding(arguments, shape_);
    launch(StepKernel::kEmbeddingPositionBackward, arguments.length, 0, arguments);
}

void StepKernels::residual_norm_forward(const SpionNormArguments& arguments) const {
    launch(StepKernel::kResidualNormForward, spion_row_items(arguments.rows), 0, arguments);
}

void StepKernels::residual_norm_backward(const SpionNormArguments& arguments) const {
    launch(StepKernel::kResidualNormBackward, spion_row_items(arguments.rows), 0, arguments);
}

void StepKernels::gelu_dropout_forward(const SpionGeluArguments& arguments) const {
    launch(StepKernel::kGeluDropoutForward, spion_row_items(arguments.rows), 0, arguments);
}

void StepKernels::gelu_dropout_backward(const SpionGeluArguments& arguments) const {
    launch(StepKernel::kGeluDropoutBackward, spion_row_items(arguments.rows), 0, arguments);
}

void StepKernels::column_sums(const SpionColumnSumArguments& arguments) const {
    launch(StepKernel::kColumnSums, spion_row_items(arguments.rows), 0, arguments);
}

void StepKernels::sum_partials(std::span<const SpionPartialSum> sums) const {
    SpionSumPartialsArguments arguments{};
    if (sums.empty() || sums.size() > kSpionMostSums) {
        throw InternalError("sum_partials of {} sums, not 1 to {}", sums.size(),
                            static_cast<int>(kSpionMostSums));
    }
    const bool on_gpu = device_->target().back_end == BackEnd::kCuda;
    std::int64_t items = 0;
    for (const SpionPartialSum& sum : sums) {
        if (sum.columns % kSpionSumColumnsPerItem != 0 || sum.stride % 8 != 0 ||
            sum.stride < sum.columns) {
            throw InternalError("sum_partials of {} columns, {} apart, instead of multiples of 8",
                                sum.columns, sum.stride);
        }
        items += on_gpu ? spion_sum_blocks(sum.columns) : sum.columns / kSpionSumColumnsPerItem;
        arguments.sums[arguments.count++] = sum;
    }
    launch(StepKernel::kSumPartials, items, 0, arguments);
}

void StepKernels::masked_mean_forward(const SpionMaskedMeanArguments& arguments) const {
    launch(StepKernel::kMaskedMeanForward, arguments.batch, 0, arguments);
}

void StepKernels::masked_mean_backward(const SpionMaskedMeanArguments& arguments) const {
    const std::int64_t rows = std::int64_t{arguments.batch} * arguments.length;
    launch(StepKernel::kMaskedMeanBackward, spion_row_items(rows), 0, arguments);
}

void StepKernels::pair_features_forward(const SpionPairFeaturesArguments& arguments) const {
    launch(StepKernel::kPairFeaturesForward, arguments.batch, 0, arguments);
}

void StepKernels::pair_features_backward(const SpionPairFeaturesArguments& arguments) const {
    launch(StepKernel::kPairFeaturesBackward, arguments.batch, 0, arguments);
}

void StepKernels::next_loss_scale(const SpionLossScaleArguments& arguments) const {
    launch(StepKernel::kCountNotFinite, ceil_divide(arguments.count, kSpionAdamValuesPerItem), 0,
           arguments);
    launch(StepKernel::kUpdateLossScale, 1, 0, arguments);
}

void StepKernels::classifier_forward_backward(const SpionClassifierArguments& arguments) const {
    if (arguments.classes < 1 || arguments.classes > kMaxClasses) {
        throw InternalError("a classifier of {} classes, not 1 to {}", arguments.classes,
                            kMaxClasses);
    }
    const int shared_floats = arguments.channels + 2 * arguments.hidden_width + arguments.classes;
    launch(StepKernel::kClassifierForwardBackward, arguments.batch,
           shared_floats * static_cast<int>(sizeof(float)), arguments);
}

void StepKernels::classifier_weight_gradients(const SpionClassifierArguments& arguments) const {
    launch(StepKernel::kClassifierWeightGradients,
           std::int64_t{arguments.hidden_width} + arguments.classes, 0, arguments);
}

void StepKernels::adamw(const SpionAdamArguments& arguments) const {
    launch(StepKernel::kAdamw, ceil_divide(arguments.count, kSpionAdamValuesPerItem), 0, arguments);
}

}  // namespace spion
