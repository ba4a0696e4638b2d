#include "python/core/outputs.h"

#include <algorithm>
#include <array>

namespace spion::python {
namespace {

bool on_cuda(const Array& array) {
    return array.seen().device.type == dlpack::kCuda;
}

// Whether no element of [B, H, L, D] shares its place with another and none is left out, so that
// PyTorch's empty_like keeps the strides. Those of one element do not count.
bool is_dense(const dlpack::Tensor& tensor) {
    std::array<int, 4> order = {0, 1, 2, 3};
    std::sort(order.begin(), order.end(),
              [&](int a, int b) { return tensor.strides[a] < tensor.strides[b]; });
    std::int64_t wanted = 1;
    for (const int i : order) {
        if (tensor.shape[i] == 1) {
            continue;
        }
        if (tensor.shape[i] == 0 || tensor.strides[i] != wanted) {
            return false;
        }
        wanted *= tensor.shape[i];
    }
    return true;
}

nb::object tuple_of(const std::int64_t* numbers, int rank) {
    return rank == 3 ? nb::make_tuple(numbers[0], numbers[1], numbers[2])
                     : nb::make_tuple(numbers[0], numbers[1], numbers[2], numbers[3]);
}

void keep(const std::int64_t* shape, const std::int64_t* strides, int rank, KeptLayout& kept) {
    if (kept.sizes.is_valid() && std::equal(shape, shape + rank, kept.shape) &&
        std::equal(strides, strides + rank, kept.strides)) {
        return;
    }
    kept.sizes = tuple_of(shape, rank);
    kept.steps = tuple_of(strides, rank);
    std::copy_n(shape, rank, kept.shape);
    std::copy_n(strides, rank, kept.strides);
}

}  // namespace

Outputs::Outputs(nb::handle torch)
    : empty_like_(torch.attr("empty_like")),
      new_empty_(torch.attr("new_empty")),
      empty_cpu_(torch.attr("empty_cpu")),
      empty_cuda_(torch.attr("empty_cuda")),
      current_device_(torch.attr("current_device")),
      device_count_(torch.attr("device_count")),
      float32_(torch.attr("float32")),
      float16_(torch.attr("float16")),
      bfloat16_(torch.attr("bfloat16")) {}

bool Outputs::is_near(const Array& array) const {
    const dlpack::Device& device = array.seen().device;
    if (device.type == dlpack::kCpu) {
        return !empty_cpu_.is_none();
    }
    if (device.type != dlpack::kCuda || empty_cuda_.is_none() || current_device_.is_none()) {
        return false;
    }
    if (devices_ == 0) {  // as many as there are for as long as the process lives
        devices_ = nb::cast<int>(device_count_());
    }
    return devices_ == 1 || nb::cast<int>(current_device_()) == device.ordinal;
}

const nb::object& Outputs::allocate(const Array& seen) const {
    return on_cuda(seen) ? empty_cuda_ : empty_cpu_;
}

const nb::object& Outputs::type_of(const Array& seen) const {
    const dlpack::DataType& dtype = seen.seen().dtype;
    return dtype.code == dlpack::kBfloat ? bfloat16_ : dtype.bits == 16 ? float16_ : float32_;
}

nb::object Outputs::like(nb::handle tensor, const Array& seen, bool near, KeptLayout& kept) const {
    const dlpack::Tensor& tensor_of = seen.seen();
    if (!near || tensor_of.strides == nullptr || !is_dense(tensor_of)) {
        return empty_like_(tensor);
    }
    keep(tensor_of.shape, tensor_of.strides, 4, kept);
    return allocate(seen)(kept.sizes, kept.steps, type_of(seen));
}

nb::object Outputs::contiguous(nb::handle tensor, const Array& seen, const std::int64_t (&shape)[4],
                               bool near, KeptLayout& kept) const {
    const std::int64_t strides[] = {shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3],
                                    1};
    keep(shape, strides, 4, kept);
    return near ? allocate(seen)(kept.sizes, kept.steps, type_of(seen))
                : new_empty_(tensor, kept.sizes, type_of(seen));
}

nb::object Outputs::lse(nb::handle q, const Array& seen, bool near, KeptLayout& kept) const {
    const std::int64_t* const shape = seen.seen().shape;
    const std::int64_t strides[] = {shape[1] * shape[2], shape[2], 1};
    keep(shape, strides, 3, kept);
    return near ? allocate(seen)(kept.sizes, kept.steps, float32_)
                : new_empty_(q, kept.sizes, float32_);
}

}  // namespace spion::python
