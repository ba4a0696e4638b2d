#include "train/fused_embedding.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "codegen/emit.h"
#include "ir/error.h"
#include "train/kernels.h"

namespace spion {
namespace {

constexpr int kChannels = 64, kOctets = kChannels / 8;
constexpr int kElementBytes = 2, kFloatBytes = 4, kWordBytes = 4;
constexpr int kStages = 2;

// A thread block and an SM each: as many as sm_90's GPUs have, nearly.
constexpr std::int64_t kItems = 128;
constexpr std::int64_t kMostRows = std::int64_t{1} << 27;  // their octets are counted in 32 bits

struct Recipe {
    const char* entry;
    int threads;
};
constexpr std::array<Recipe, kFusedEmbeddingKernels> kRecipes = {
    {{"token_position_forward", 256}, {"token_position_backward", 512}}};

const Recipe& recipe(FusedEmbeddingKernel kernel) {
    return kRecipes[static_cast<std::size_t>(kernel)];
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

}  // namespace

bool can_fuse(const FusedEmbeddingShape& shape, const Target& target) {
    return target.back_end == BackEnd::kCuda && shape.channels == kChannels &&
           shape.vocabulary >= 1 && shape.dropout <= kSpionMostDrawn &&
           fused_embedding_shared_bytes(FusedEmbeddingKernel::kTokenPositionBackward, shape) <=
               target.shared_bytes_per_block;
}

KernelSource fused_embedding_source(FusedEmbeddingKernel kernel, const FusedEmbeddingShape& shape,
                                    const Target& target) {
    const Recipe& made = recipe(kernel);
    const std::vector<Constant> constants = {
        element_constant(shape.dtype),
        {.name = "kChannels", .value = std::int64_t{shape.channels}, .comment = "of a row"},
        {.name = "kThreads", .value = std::int64_t{made.threads}, .comment = "of a block"},
        {.name = "kDropout", .value = shape.dropout, .comment = "probability"}};
    const std::string name = fmt::format("{}-c{}-p{}{}", made.entry, shape.channels, shape.dropout,
                                         shape.dtype == DType::kFp16 ? "-fp16" : "");
    return specialise(target, name, fmt::format("train/{}", made.entry), made.entry, constants,
                      fmt::format("step kernel {} kChannels={} kDropout={}", made.entry,
                                  shape.channels, shape.dropout));
}

int fused_embedding_threads(FusedEmbeddingKernel kernel) {
    return recipe(kernel).threads;
}

// As token_position_backward.cuh lays it out: two tiles of rows and their tokens, and the table.
int fused_embedding_shared_bytes(FusedEmbeddingKernel kernel, const FusedEmbeddingShape& shape) {
    if (kernel == FusedEmbeddingKernel::kTokenPositionForward) return 0;
    const int rows = recipe(kernel).threads / kOctets * kSpionKeptSamples;
    return kStages * rows * (kChannels * kElementBytes + kWordBytes) +
           shape.vocabulary * kChannels * kFloatBytes;
}

std::int64_t fused_embedding_forward_items(std::int64_t batch, std::int64_t length) {
    const int positions = recipe(FusedEmbeddingKernel::kTokenPositionForward).threads / kOctets;
    return ceil_divide(batch, kSpionSamplesPerItem) * ceil_divide(length, positions);
}

int fused_embedding_positions_per_item(std::int64_t length) {
    const int most = recipe(FusedEmbeddingKernel::kTokenPositionBackward).threads / kOctets;
    return static_cast<int>(std::min<std::int64_t>(most, ceil_divide(length, kItems)));
}

std::int64_t fused_embedding_items(std::int64_t length) {
    return ceil_divide(length, fused_embedding_positions_per_item(length));
}

std::int64_t fused_embedding_kept(const FusedEmbeddingShape& shape, std::int64_t batch,
                                  std::int64_t length) {
    return ceil_divide(batch, kSpionKeptSamples) * length * (shape.channels / 8);
}

FusedEmbedding::FusedEmbedding(Device& device, KernelCache& cache, const FusedEmbeddingShape& shape)
    : device_(&device), shape_(shape) {
    if (!can_fuse(shape, device.target())) {
        throw InternalError("no fused kernels for an embedding of {} tokens and {} channels on {}",
                            shape.vocabulary, shape.channels, device.target().arch);
    }
    std::vector<KernelSource> sources;
    sources.reserve(kFusedEmbeddingKernels);
    for (int kernel = 0; kernel < kFusedEmbeddingKernels; ++kernel) {
        sources.push_back(fused_embedding_source(static_cast<FusedEmbeddingKernel>(kernel), shape,
                                                 device.target()));
    }
    kernels_ = compile_kernels(sources, device, cache);
}

void FusedEmbedding::launch(FusedEmbeddingKernel kernel,
                            const SpionTokenPositionArguments& arguments,
                            std::int64_t items) const {
    const std::int64_t rows = std::int64_t{arguments.batch} * arguments.length;
    if (rows < 1 || rows > kMostRows || arguments.vocabulary != shape_.vocabulary) {
        throw InternalError("{} was launched on {} rows with {} tokens, compiled for {} tokens",
                            recipe(kernel).entry, rows, arguments.vocabulary, shape_.vocabulary);
    }
    device_->launch(*kernels_[static_cast<std::size_t>(kernel)].kernel,
                    {.work_items = items,
                     .threads = recipe(kernel).threads,
                     .shared_bytes = fused_embedding_shared_bytes(kernel, shape_)},
                    arguments);
}

void FusedEmbedding::forward(SpionTokenPositionArguments arguments) const {
    launch(FusedEmbeddingKernel::kTokenPositionForward, arguments,
           fused_embedding_forward_items(arguments.batch, arguments.length));
}

void FusedEmbedding::backward(SpionTokenPositionArguments arguments) const {
    arguments.positions_per_item = fused_embedding_positions_per_item(arguments.length);
    launch(FusedEmbeddingKernel::kTokenPositionBackward, arguments,
           fused_embedding_items(arguments.length));
}

}  // namespace spion
