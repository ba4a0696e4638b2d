#include "compiler/launch/jit_kernel.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "compiler/in_parallel.h"
#include "ir/error.h"
#include "runtime/offline.h"

namespace spion {
namespace {

// Whether both give one binary: names and IR are for the reader.
bool same_kernel(const KernelSource& a, const KernelSource& b) {
    return a.entry == b.entry && a.text == b.text && a.includes == b.includes;
}

}  // namespace

CompileRequest request_for(const KernelSource& source, Device& device) {
    return {.entry = source.entry,
            .text = source.text,
            .includes = source.includes,
            .arch = device.target().arch,
            .features = device.target().features,
            .options = device.compile_options(),
            .compiler = device.compiler_version()};
}

namespace {

// Without a compiler there is no request; a frozen cache then lacks the kernel, whatever is on
// disk.
CompileRequest request_unless_frozen(const KernelSource& source, Device& device,
                                     const KernelCache& cache) {
    try {
        return request_for(source, device);
    } catch (const DeviceError&) {
        if (cache.frozen()) {
            throw cache.frozen_error(source, device.target().arch);
        }
        throw;
    }
}

}  // namespace

JitKernel compile_kernel(const KernelSource& source, Device& device, KernelCache& cache) {
    JitKernel jit{.kernel = nullptr, .source = source, .cached = {}};
    if (std::optional<CachedKernel> bundled = cache.find_in_bundle(source, device.target())) {
        jit.cached = std::move(*bundled);
    } else {
        const CompileRequest request = request_unless_frozen(source, device, cache);
        jit.cached = cache.get(source, request, [&device](const CompileRequest& seen) {
            return device.compile(seen);
        });
        jit.rebuild = rebuild_command(request);
        if (const std::string note = spill_note(request, *jit.cached.binary);
            !note.empty() && jit.cached.origin != CacheOrigin::kMemory) {
            cache.warn(note);
        }
    }
    jit.kernel = device.load(source.entry, *jit.cached.binary);
    return jit;
}

std::vector<JitKernel> compile_kernels(std::span<const KernelSource> sources, Device& device,
                                       KernelCache& cache) {
    std::vector<std::size_t> distinct;  // indices of sources
    std::vector<std::size_t> place_of;  // of a source's kernel in `distinct`
    for (std::size_t i = 0; i < sources.size(); ++i) {
        const auto found = std::find_if(distinct.begin(), distinct.end(), [&](std::size_t other) {
            return same_kernel(sources[i], sources[other]);
        });
        place_of.push_back(static_cast<std::size_t>(found - distinct.begin()));
        if (found == distinct.end()) {
            distinct.push_back(i);
        }
    }
    std::vector<JitKernel> compiled(distinct.size());
    in_parallel(distinct.size(), [&](std::size_t i) {
        compiled[i] = compile_kernel(sources[distinct[i]], device, cache);
    });
    std::vector<JitKernel> kernels;
    for (std::size_t i = 0; i < sources.size(); ++i) {
        kernels.push_back(compiled[place_of[i]]);
        if (distinct[place_of[i]] != i) {  // what an earlier source has brought
            kernels.back().source = sources[i];
            kernels.back().cached.origin = CacheOrigin::kMemory;
            kernels.back().cached.milliseconds = 0;
        }
    }
    return kernels;
}

}  // namespace spion
