// Memory for outputs of PyTorch's operator, from PyTorch.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "python/core/array.h"

namespace spion::python {

// Sizes and strides of an output as PyTorch wants them, kept from call to call.
struct KeptLayout {
    std::int64_t shape[4] = {}, strides[4] = {};
    nb::object sizes, steps;  // tuples; null before the first call
};

class Outputs {
  public:
    // An object with functions of PyTorch: empty_like(tensor), new_empty(tensor, sizes, dtype) and,
    // each of them or None, empty_cpu and empty_cuda(sizes, strides, dtype), which allocate on the host
    // and on the current GPU past the dispatcher, and current_device(); with device_count(), that of
    // GPUs; and with its types float32, float16 and bfloat16.
    explicit Outputs(nb::handle torch);

    // Whether empty_cpu or empty_cuda allocates where that tensor is.
    bool is_near(const Array& array) const;
    // As empty_like of a tensor [B, H, L, D] whose D is contiguous: of its strides if it is dense.
    nb::object like(nb::handle tensor, const Array& seen, bool near, KeptLayout& kept) const;
    // Contiguous, of the tensor's type.
    nb::object contiguous(nb::handle tensor, const Array& seen, const std::int64_t (&shape)[4],
                          bool near, KeptLayout& kept) const;
    // Contiguous [B, H, L] of float32 for the LSE of q.
    nb::object lse(nb::handle q, const Array& seen, bool near, KeptLayout& kept) const;

  private:
    const nb::object& allocate(const Array& seen) const;
    const nb::object& type_of(const Array& seen) const;

    nb::object empty_like_, new_empty_, empty_cpu_, empty_cuda_, current_device_, device_count_;
    nb::object float32_, float16_, bfloat16_;
    mutable int devices_ = 0;  // GPUs that PyTorch sees; 0: not asked yet
};

}  // namespace spion::python
