// Matrix products on the host: pieces shared out over the pool's threads, each computed by the
// kernel of the processor's vector width (runtime/host/gemm_kernel.h). No BLAS: at the shapes of
// training ours is as fast as the best of them (docs/results.md), and it goes by the processor's
// features.
#pragma once

#include <string>

#include "runtime/device.h"
#include "runtime/host/thread_pool.h"

namespace spion {

// Device::gemm for the host. lanes: fp32 numbers in a vector register, Target::vector_floats. How
// the product is cut into pieces depends on its shape alone, so the result does not depend on the
// number of threads. Zeros of padding in op(a) are left out, so that what is no number in b does not
// get into c by them. The first product of a width is preceded by one that is checked. Throws
// UserError for types other than fp32, InternalError for sizes that make no sense and DeviceError
// when the processor computes wrongly.
void host_gemm(const Gemm& gemm, ThreadPool& pool, int lanes);

// What multiplies matrices with so many lanes, for `spion doctor`, after that check. Throws
// DeviceError as above.
std::string gemm_name(int lanes);

}  // namespace spion
