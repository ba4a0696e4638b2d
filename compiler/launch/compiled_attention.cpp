#include "compiler/launch/compiled_attention.h"

#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "compiler/launch/bias_gradient.h"
#include "compiler/launch/sink_gradient.h"
#include "ir/error.h"

namespace spion {

CompiledAttention::CompiledAttention(Attention attention, HeadPatterns patterns,
                                     LayerPrograms programs, std::span<const JitKernel> kernels,
                                     Device& device)
    : attention_(attention), patterns_(std::move(patterns)), device_(&device) {
    for (std::size_t i = 0; i < programs.size(); ++i) {
        parts_[i] = load_part(std::move(programs[i]), kernels[i], device);
    }
}

void CompiledAttention::hand_over_to(CompiledAttention&& other) {
    if (!(attention_ == other.attention_) || !(patterns_ == other.patterns_)) {
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
    if (attention_.sink && args.d_sinks != nullptr) {
        launch_sink_gradient(sink_gradient_, attention_, args, *device_);
    }
    if (attention_.relative_bias > 0 && args.d_relative_bias != nullptr) {
        launch_bias_gradient(bias_gradient_, attention_, args, *device_);
    }
}

void CompiledAttention::launch(std::size_t which, SpionAttentionArguments args) {
    if (args.batch < 1) {
        throw UserError("the batch size is {}, but it must be at least 1", args.batch);
    }
    if (attention_.sequence_patterns > 0 && args.batch > attention_.sequence_patterns) {
        throw UserError(
            "attention was compiled with patterns of {} sequences, but it is called with {}: "
            "compile it with sequence_patterns of at least that",
            attention_.sequence_patterns, args.batch);
    }
    // key_starts lie where lengths do.
    if (!attention_.key_starts && (args.lengths != nullptr) != attention_.key_padding) {
        throw UserError(
            "attention was compiled {} key padding, but it is called {} lengths: compile it with "
            "key_padding = {}, or {} lengths",
            attention_.key_padding ? "with" : "without",
            attention_.key_padding ? "without" : "with", !attention_.key_padding,
            attention_.key_padding ? "pass" : "leave out");
    }
    if (attention_.mask == ElementMask::kSpans &&
        (args.query_spans == nullptr || args.key_spans == nullptr)) {
        throw UserError(
            "attention was compiled with a mask of spans, but it is called without: pass "
            "query_spans and key_spans, which element_spans() makes");
    }
    const auto require = [](bool needed, const void* given, const char* name) {
        if (needed && given == nullptr) {
            throw UserError("attention was compiled with {0}, but it is called without: pass {0}",
                            name);
        }
    };
    require(attention_.varlen, args.starts, "starts");
    require(attention_.key_starts, args.key_starts, "key_starts");
    require(attention_.dropout > 0.0F, args.dropout, "dropout");
    require(attention_.alibi, args.alibi_slopes, "alibi_slopes");
    require(attention_.sink, args.sinks, "sinks");
    require(attention_.relative_bias > 0, args.relative_bias, "relative_bias");
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
