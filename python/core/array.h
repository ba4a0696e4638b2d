// The door for arrays of any library: read by DLPack, checked, and shown to the library as tensors.
#pragma once

#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include <cstdint>

#include "python/core/dlpack.h"

namespace spion::python {

namespace nb = nanobind;

enum class Access { kRead, kWrite };

// An array while it is lent. Where its class has DLPack's table of C functions (PyTorch's has) the
// object is borrowed, which takes some 0.1 us; else it is asked for a capsule by __dlpack__.
class Array {
  public:
    // name: in sentences. stream: what a capsule's owner is told that the array will be used on;
    // null is the legacy default stream. Throws UserError when the object is no array, or one that
    // may not be written and is to be.
    Array(nb::handle object, const char* name, Access access, void* stream);
    // Heads first, first + 1 ... of `whole`, [B, L, heads, D], as [B, count, L, D]. `whole` outlives it.
    Array(const Array& whole, const char* name, std::int64_t first, std::int64_t count);
    ~Array();
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    const dlpack::Tensor& seen() const { return tensor_; }
    const char* name() const { return name_; }
    void* data() const { return static_cast<char*>(tensor_.data) + tensor_.byte_offset; }
    std::size_t bytes() const;

    // Throws UserError unless it is on the device of a plan.
    void check_device(bool cuda, int ordinal) const;
    // Throws UserError unless it is contiguous, of that rank, and of that type.
    void check_plain(int rank, dlpack::TypeCode code, int bits) const;
    // [B, H, L, D], or [H, T, D] of sequences; the library checks shape and strides.
    spion_tensor as_tensor(int rank = 4) const;

  private:
    void take_capsule(nb::handle object, Access access, void* stream);

    const char* name_;
    dlpack::Tensor tensor_ = {};
    dlpack::ManagedTensor* managed_ = nullptr;
    dlpack::VersionedTensor* versioned_ = nullptr;
    std::int64_t shape_[4] = {}, strides_[4] = {};  // of heads of another array
};

// The stream that the object's library works on, where its class has DLPack's table; else null.
void* current_stream(nb::handle object, int ordinal);

}  // namespace spion::python
