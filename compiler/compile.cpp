#include "compiler/compile.h"

#include <algorithm>
#include <utility>

#include "codegen/emit.h"
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

CompiledAttention::CompiledAttention(Attention attention, BlockPattern pattern,
                                     LayerPrograms programs, std::span<const JitKernel> kernels,
                                     Device& device)
    : attention_(attention), pattern_(std::move(pattern)), device_(&device) {
    for (std::size_t i = 0; i < programs.size(); ++i) {
        parts_[i] = load_part(std::move(programs[i]), kernels[i], device);
    }
}

void CompiledAttention::hand_over_to(CompiledAttention&& other) {
    if (!(attention_ == other.attention_) || !(pattern_ == other.pattern_)) {
        throw InternalError("attention was to go on with the kernels of another operation");
    }
    device_->synchronize();  // what runs still reads the tables that are freed here
    for (std::size_t i = 0; i < std::size(parts_); ++i) {
        parts_[i] = std::move(other.parts_[i]);
    }
}

void CompiledAttention::forward(const SpionAttentionArguments& args) {
    launch(0, args);
}

void CompiledAttention::backward(const SpionAttentionArguments& args) {
    launch(1, args);
    launch(2, args);
}

void CompiledAttention::launch(std::size_t which, SpionAttentionArguments args) {
    if (args.batch < 1) {
        throw UserError("the batch size is {}, but it must be at least 1", args.batch);
    }
    if ((args.lengths != nullptr) != attention_.key_padding) {
        throw UserError(
            "attention was compiled {} key padding, but it is called {} lengths: compile it with "
            "key_padding = {}, or {} lengths",
            attention_.key_padding ? "with" : "without",
            attention_.key_padding ? "without" : "with", !attention_.key_padding,
            attention_.key_padding ? "pass" : "leave out");
    }
    launch_part(parts_[which], args, *device_);
}

LaunchMemory LaunchRoom::of(const LaunchBytes& bytes, Device& device) {
    const auto zeros = [&](Buffer& buffer, std::size_t wanted) {
        if (buffer.bytes() < wanted) {
            buffer = Buffer();  // before the larger one
            buffer = Buffer(device, wanted);
            device.fill(buffer.data(), 0, wanted);
        }
    };
    zeros(counters_, bytes.counters);
    zeros(dq_semaphore_, bytes.dq_semaphore);
    return {.counters = counters_.as<unsigned>(),
            .dq_semaphore = dq_semaphore_.as<unsigned>(),
            .dq_accum = bytes.dq_accum == 0
                            ? nullptr
                            : static_cast<float*>(device.workspace(bytes.dq_accum))};
}

CompiledAttention::Part load_part(PlannedProgram planned, JitKernel jit, Device& device) {
    TileProgram& program = planned.program;
    CompiledAttention::Part part;
    part.jit = std::move(jit);
    part.launch = KernelLaunch(program, planned.kernel.plan.geometry, device.target());
    part.hints = work_hints(program);
    part.room = std::make_unique<LaunchRoom>();
    if (program.tables == Tables::kPassed) {
        part.tables = walk_tables(program, static_cast<std::int64_t>(program.gather_blocks.size()));
        std::vector<std::int32_t> block(static_cast<std::size_t>(part.tables.size));
        write_walk(program, part.tables, device.target().sm_count, block);
        part.walk = Buffer(device, block.size() * sizeof(std::int32_t));
        device.copy_in(part.walk.data(), block.data(), part.walk.bytes());
    }
    part.program = std::move(program);
    part.planned = std::move(planned.kernel);
    return part;
}

void launch_part(const CompiledAttention::Part& part, const SpionAttentionArguments& args,
                 Device& device) {
    const LaunchMemory memory = part.room->of(part.launch.bytes(args.batch), device);
    const PreparedLaunch launch = part.launch.prepare(args, part.walk.as<std::int32_t>(),
                                                      part.tables, memory, part.hints, device);
    device.launch(*part.jit.kernel, launch.geometry, launch.data(), launch.bytes());
}

}  // namespace spion
