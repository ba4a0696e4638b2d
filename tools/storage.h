// Host floats to and from the way a dtype is stored in memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ir/dtype.h"

namespace spion {

// The nearest value that the dtype stores (ties to even; too large becomes infinite). fp32 and tf32
// store every float as it is.
float round_to(DType dtype, float value);

// Reads or writes one element of storage_bytes(dtype) at `data`.
void store(DType dtype, float value, void* data);
float load(DType dtype, const void* data);

}  // namespace spion
