#include "compiler/compile.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <utility>

#include "codegen/emit.h"
#include "ir/error.h"
#include "runtime/offline.h"
#include "runtime/output.h"
#include "runtime/threads.h"

namespace spion {
namespace {

// Runs job(0) .. job(count - 1) on thread_count() threads, and throws the first
// failure in the order of the jobs.
template <typename Job>
void in_parallel(std::size_t count, const Job& job) {
    std::vector<std::exception_ptr> failures(count);
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t i = next++; i < count; i = next++) {
            try {
                job(i);
            } catch (...) {
                failures[i] = std::current_exception();
            }
        }
    };
    run_on_threads(
        static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(thread_count()), count)),
        work);
    for (const std::exception_ptr& failure : failures) {
        if (failure) {
            std::rethrow_exception(failure);
        }
    }
}

// Whether both give one binary: names and IR are for the reader.
bool same_kernel(const KernelSource& a, const KernelSource& b) {
    return a.entry == b.entry && a.text == b.text && a.includes == b.includes;
}

// [table.size()] on the device; never empty, so that its address can be passed.
template <typename Entry>
Buffer upload(const std::vector<Entry>& table, Device& device) {
    Buffer buffer(device, std::max<std::size_t>(1, table.size()) * sizeof(Entry));
    device.copy_in(buffer.data(), table.data(), table.size() * sizeof(Entry));
    return buffer;
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

JitKernel compile_kernel(const KernelSource& source, Device& device, KernelCache& cache) {
    const CompileRequest request = request_for(source, device);
    CachedKernel cached = cache.get(
        source, request, [&device](const CompileRequest& seen) { return device.compile(seen); });
    if (const std::string note = spill_note(request, *cached.binary);
        !note.empty() && cached.origin != CacheOrigin::kMemory) {
        say("spion: {}\n", note);
    }
    std::shared_ptr<const LoadedKernel> kernel = device.load(source.entry, *cached.binary);
    return {.kernel = std::move(kernel),
            .source = source,
            .cached = std::move(cached),
            .rebuild = rebuild_command(request)};
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

CompiledAttention::Part load_part(PlannedProgram planned, JitKernel jit, Device& device) {
    TileProgram& program = planned.program;
    const EmittedGeometry& emitted = planned.kernel.plan.geometry;
    CompiledAttention::Part part;
    part.jit = std::move(jit);
    if (program.tables == Tables::kPassed) {
        part.order = upload(program.order, device);
        part.offsets = upload(program.offsets, device);
        part.granules = upload(program.granules, device);
        part.uses = upload(program.uses, device);
    }
    part.geometry = {.work_items = program.tiles(),
                     .threads = emitted.threads,
                     .shared_bytes = emitted.shared_bytes};
    if (emitted.resident_blocks > 0) {
        part.hopper = std::make_unique<HopperLaunch>(program, emitted, device);
    }
    part.program = std::move(program);
    part.planned = std::move(planned.kernel);
    return part;
}

void launch_part(const CompiledAttention::Part& part, SpionAttentionArguments args,
                 Device& device) {
    args.order = part.order.as<int>();
    args.offsets = part.offsets.as<int>();
    args.granules = part.granules.as<int>();
    args.uses = part.uses.as<unsigned>();
    args.tiles = part.program.tiles();
    LaunchGeometry geometry = part.geometry;
    geometry.work_items *= std::int64_t{args.batch} * part.program.attention.heads;
    if (part.hopper) {
        part.hopper->launch(*part.jit.kernel, geometry, args, device);
    } else {
        device.launch(*part.jit.kernel, geometry, args);
    }
}

}  // namespace spion
