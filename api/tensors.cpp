#include "api/tensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <span>
#include <string_view>

#include "ir/dtype.h"
#include "ir/error.h"

namespace spion::api {
namespace {

constexpr std::int64_t kEngineBytes = 16;  // of rows that kernels of a GPU copy at once

const char* name_of(std::int32_t dtype) {
    switch (dtype) {
        case SPION_BF16:
            return "SPION_BF16";
        case SPION_FP16:
            return "SPION_FP16";
        case SPION_FP32:
            return "SPION_FP32";
        case SPION_TF32:
            return "SPION_TF32";
        default:
            return "no dtype";
    }
}

// How tensors of the attention are stored: tf32 is a way to multiply.
bool is_stored_as(DType dtype, std::int32_t given) {
    switch (dtype) {
        case DType::kBf16:
            return given == SPION_BF16;
        case DType::kFp16:
            return given == SPION_FP16;
        case DType::kFp32:
        case DType::kTf32:
            return given == SPION_FP32 || given == SPION_TF32;
    }
    return false;
}

// Dimensions of a tensor: B is none of sequences that lie end to end.
int rank_of(const Attention& attention) {
    return attention.varlen ? 3 : 4;
}

void check_shape(const spion_tensor& tensor, const char* name, const Attention& attention,
                 const BatchSize& size) {
    const std::string_view of = name;
    const bool of_keys = of == "k" || of == "v" || of == "d_k" || of == "d_v";
    const std::int64_t heads = of_keys ? attention.key_value_heads() : attention.heads;
    const std::int64_t positions = of_keys ? attention.key_value_length() : attention.length;
    const bool of_values = of == "v" || of == "o" || of == "d_o" || of == "d_v";
    const int width = of_values ? attention.value_head_dim() : attention.head_dim;
    const std::int64_t all[] = {size.batch, heads, attention.varlen ? size.rows : positions, width};
    const std::span<const std::int64_t> wanted = std::span(all).last(rank_of(attention));
    if (tensor.rank != std::ssize(wanted) ||
        !std::equal(wanted.begin(), wanted.end(), tensor.shape)) {
        const auto seen = std::span(tensor.shape).first(std::clamp(tensor.rank, 0, 4));
        throw UserError("{} has rank {} and shape [{}], and the plan takes [{}, {}] = [{}]", name,
                        tensor.rank, fmt::join(seen, ", "), attention.varlen ? "H, T" : "B, H, L",
                        of_values && attention.value_dim != 0 ? "Dv" : "D",
                        fmt::join(wanted, ", "));
    }
    if (!is_stored_as(attention.dtype, tensor.dtype)) {
        throw UserError(
            "{} is of dtype {} ({}), and the plan is for {}: convert it, or make a plan "
            "for its dtype",
            name, tensor.dtype, name_of(tensor.dtype), to_string(attention.dtype));
    }
}

// Of a dimension of more than one element, in elements.
void check_stride(const char* name, int dimension, std::int64_t stride, std::int64_t bytes,
                  Access access, bool on_host) {
    constexpr const char* kDimensions[] = {"batch", "head", "row"};
    const bool aligned = on_host || stride * bytes % kEngineBytes == 0;
    const bool counts = dimension < 2 || stride * bytes <= std::numeric_limits<std::int32_t>::max();
    if (stride < (access == Access::kWrite ? 1 : 0) || !aligned || !counts) {
        throw UserError(
            "{} has a {} stride of {} elements of {} bytes: it must be {}{}{}; make it contiguous",
            name, kDimensions[dimension], stride, bytes,
            access == Access::kWrite ? "above 0" : "at least 0",
            on_host ? "" : ", a multiple of 16 bytes",
            dimension < 2 ? "" : ", less than 2^31 bytes");
    }
}

}  // namespace

std::int64_t batch_of(const spion_tensor& tensor, const char* name) {
    const std::int64_t batch = tensor.shape[0];
    if (tensor.rank != 4 || batch < 1 || batch > std::numeric_limits<std::int32_t>::max()) {
        throw UserError(
            "{} has rank {} and shape[0] = {}: give a tensor [B, H, L, D] with B of at "
            "least 1",
            name, tensor.rank, batch);
    }
    return batch;
}

std::int64_t rows_of(const spion_tensor& tensor, const char* name) {
    const std::int64_t rows = tensor.shape[1];
    if (tensor.rank != 3 || rows < 1 || rows > std::numeric_limits<std::int32_t>::max()) {
        throw UserError(
            "{} has rank {} and shape[1] = {}: give a tensor [H, T, D], as the plan was made with "
            "varlen, with T of at least 1",
            name, tensor.rank, rows);
    }
    return rows;
}

SpionTensor read_tensor(const spion_tensor& tensor, const char* name, const Attention& attention,
                        const BatchSize& size, Access access, const Where& where) {
    const bool on_host = where.device.target().back_end == BackEnd::kHost;
    const std::int64_t bytes = storage_bytes(attention.dtype);
    check_shape(tensor, name, attention, size);
    const int rank = rank_of(attention);
    if (tensor.strides[rank - 1] != 1) {
        throw UserError("{} has a stride of {} elements along D: it must be 1; make it contiguous",
                        name, tensor.strides[rank - 1]);
    }
    std::int64_t strides[3];  // of B, H and L
    for (int at = 0; at < 3; ++at) {
        const int dimension = at + rank - 4;   // of the tensor
        strides[at] = tensor.shape[rank - 1];  // of one element, or none: any will do
        if (dimension >= 0 && tensor.shape[dimension] > 1) {
            check_stride(name, at, tensor.strides[dimension], bytes, access, on_host);
            strides[at] = tensor.strides[dimension];
        }
    }
    check_address(tensor.data, name, static_cast<std::size_t>(on_host ? bytes : kEngineBytes),
                  where);
    return {.data = tensor.data,
            .batch_stride = strides[0],
            .head_stride = strides[1],
            .row_stride = strides[2]};
}

void check_address(const void* data, const char* name, std::size_t alignment, const Where& where) {
    const auto& [device, known] = where;
    if (data == nullptr) {
        throw UserError("{} is null: pass memory of {}", name, device.name());
    }
    if (reinterpret_cast<std::uintptr_t>(data) % alignment != 0) {
        throw UserError("{} is at {}: its address must be a multiple of {} bytes", name, data,
                        alignment);
    }
    if (known) {
        return;
    }
    if (const std::string_view problem = device.problem_with_address(data); !problem.empty()) {
        throw UserError("{} is at {}, which {}: pass memory of {}", name, data, problem,
                        device.name());
    }
}

void check_valid(const Attention& attention, std::span<const std::int32_t> lengths) {
    for (std::size_t sample = 0; sample < lengths.size(); ++sample) {
        if (lengths[sample] < 0 || lengths[sample] > attention.key_value_length()) {
            throw UserError("lengths[{}] is {}: give 0 to {}, the number of keys", sample,
                            lengths[sample], attention.key_value_length());
        }
    }
}

void check_ordered(const SpanSizes& sizes, std::int64_t batch, const std::int32_t* spans,
                   const char* name) {
    const auto [length, limit] = sizes;
    for (std::int64_t at = 0; at < batch * length; ++at) {
        const std::int32_t begin = spans[2 * at], end = spans[2 * at + 1];
        const bool first = at % length == 0;
        if (begin < (first ? 0 : spans[2 * at - 2]) || end < (first ? 0 : spans[2 * at - 1]) ||
            begin > limit || end > limit) {
            throw UserError(
                "{} of position {} in sample {} are {}, {}: give positions in [0, {}] that do not "
                "decrease, as spion_write_spans does",
                name, at % length, at / length, begin, end, limit);
        }
    }
}

}  // namespace spion::api
