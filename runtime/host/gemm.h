// Matrix products on the host: OpenBLAS, one call a piece, pieces shared out over our own threads.
#pragma once

#include "runtime/device.h"
#include "runtime/host/thread_pool.h"

namespace spion {

// Device::gemm for the host. How the product is cut into pieces depends on its shape alone, so the
// result does not depend on the number of threads. Throws UserError for types other than fp32 and
// InternalError for sizes that make no sense.
void host_gemm(const Gemm& gemm, ThreadPool& pool);

}  // namespace spion
