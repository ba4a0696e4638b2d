// One kernel on a device: compiled or fetched, and loaded. Used for attention and for train's
// kernels.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ir/kernel_source.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

// A loaded kernel, the source it was made from and where its binary came from.
struct JitKernel {
    std::shared_ptr<const LoadedKernel> kernel;  // shared by equal kernels
    KernelSource source;
    CachedKernel cached;
    std::string rebuild = {};  // the shell line of runtime/offline.h
};
// What compiling `source` for the device asks for.
CompileRequest request_for(const KernelSource& source, Device& device);
// Compiles or fetches one emitted kernel, and loads it.
JitKernel compile_kernel(const KernelSource& source, Device& device, KernelCache& cache);
// The same for several, in parallel on worker threads; in the order of `sources`. Equal ones are
// compiled and loaded once, and count as found in memory from the second on. Throws what the first
// that failed has thrown.
std::vector<JitKernel> compile_kernels(std::span<const KernelSource> sources, Device& device,
                                       KernelCache& cache);

}  // namespace spion
