// The caller's tensors as kernels take them, or a sentence about what is wrong with them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "api/border.h"
#include "ir/attention.h"
#include "kernels/attention_arguments.h"
#include "runtime/device.h"

namespace spion::api {

enum class Access { kRead, kWrite };

// Of a call's tensors.
struct BatchSize {
    std::int64_t batch;
    std::int64_t rows = 0;  // T of sequences that lie end to end
};

// Where a call's memory must be. The driver is asked about each address, unless they are known to be
// of the device.
struct Where {
    Where(const Device& of, bool known_addresses = false) : device(of), known(known_addresses) {}
    const Device& device;
    bool known;
};

// T of a [H, T, D] tensor of an attention with varlen. Throws UserError when it has no three
// dimensions, or no rows.
std::int64_t rows_of(const spion_tensor& tensor, const char* name);

// B of a [B, H, L, D] tensor. Throws UserError when it has no four dimensions, or is no batch.
std::int64_t batch_of(const spion_tensor& tensor, const char* name);

// A [B, H, L, D] or, of V and O, [B, H, L, Dv] tensor of the attention; with varlen [H, T, D] or
// [H, T, Dv]. Throws UserError for another shape or dtype, and for strides, an address or memory
// that the device's kernels cannot take.
SpionTensor read_tensor(const spion_tensor& tensor, const char* name, const Attention& attention,
                        const BatchSize& size, Access access, const Where& where);

// Throws UserError when `data` is null, no multiple of `alignment`, or no memory of the device.
void check_address(const void* data, const char* name, std::size_t alignment, const Where& where);

// Throws UserError for a number of valid keys that is not in [0, Lk]. lengths: [B], on the host.
void check_valid(const Attention& attention, std::span<const std::int32_t> lengths);

struct SpanSizes {
    std::int64_t length;  // positions that have a span
    std::int64_t limit;   // positions that spans are of
};

// Throws UserError for a span that does not lie in [0, limit], or begins or ends before the one in
// front of it. spans: [batch, length, 2], on the host.
void check_ordered(const SpanSizes& sizes, std::int64_t batch, const std::int32_t* spans,
                   const char* name);

}  // namespace spion::api
