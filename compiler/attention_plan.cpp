#include "compiler/attention_plan.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "codegen/emit.h"
#include "ir/error.h"
#include "ir/sha256.h"

namespace spion {
namespace {

constexpr std::int32_t kMagic = 0x6E6F7073;  // "spon"

// What is in the head of a plan's tables.
enum HeadNumber { kMagicAt, kLayoutAt, kFirstFingerprintAt, kSecondFingerprintAt, kBlocksAt };

std::int64_t blocks_of(const PlanRequest& request) {
    const std::int64_t rows = (request.attention.length + request.block - 1) / request.block;
    return rows * rows;
}

BlockPattern diagonal(std::int64_t length, int block) {
    const std::int64_t rows = (length + block - 1) / block;
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows * rows));
    for (std::int64_t row = 0; row < rows; ++row) {
        bits[static_cast<std::size_t>(row * rows + row)] = 1;
    }
    return BlockPattern(length, block, std::move(bits));
}

TileProgram lower_as(const TileProgram& shaped, const PlanRequest& request,
                     const BlockPattern& pattern, const Target& target) {
    return lower(request.attention, pattern, shaped.role, target, shape_of(shaped));
}

std::size_t rounded(std::size_t bytes) {
    return (bytes + WorkspaceLayout::kAlignment - 1) / WorkspaceLayout::kAlignment *
           WorkspaceLayout::kAlignment;
}

}  // namespace

void check(const PlanRequest& request) {
    check(request.attention);
    const BlockPattern seen = BlockPattern::empty(request.attention.length, request.block);
    if (request.max_blocks < 0 || request.max_blocks > blocks_of(request)) {
        throw UserError(
            "max_blocks is {}, and {} rows of {} blocks have {}: give 0 for all of them",
            request.max_blocks, seen.rows(), seen.rows(), blocks_of(request));
    }
    if (request.batch < 1) {
        throw UserError("the usual batch is {}: give at least 1, or 0 for {}", request.batch,
                        kPlannedBatch);
    }
    if (request.typical && (request.typical->length() != request.attention.length ||
                            request.typical->block() != request.block)) {
        throw UserError(
            "the typical pattern is for length {} in blocks of {}, the attention for length {} in "
            "blocks of {}: make them equal",
            request.typical->length(), request.typical->block(), request.attention.length,
            request.block);
    }
}

void check_dtype(const Attention& attention, const Target& target) {
    if (target.back_end == BackEnd::kHost && attention.dtype != DType::kFp32) {
        throw UserError(
            "the host computes in fp32 only, and {} was asked for: convert the tensors, or use a "
            "GPU",
            to_string(attention.dtype));
    }
}

BlockPattern typical_pattern(const PlanRequest& request) {
    return request.typical ? *request.typical : diagonal(request.attention.length, request.block);
}

LayerPlan plan_of(const PlanRequest& request, const Target& target) {
    check(request);
    check_dtype(request.attention, target);
    const BlockPattern typical = typical_pattern(request);
    // What is not known to be full is taken for sparse: of one block the diagonal is both.
    return plan_layer(request.attention, typical, target,
                      {.batch = request.batch,
                       .packed_rows = request.typical ? std::nullopt : std::optional(1),
                       .density = request.typical ? density_of(typical) : PatternDensity::kSparse});
}

LayerPrograms plan_programs(const PlanRequest& request, const Target& target) {
    return lower_layer(plan_of(request, target), typical_pattern(request));
}

AttentionPlan::AttentionPlan(PlanRequest request, LayerPrograms programs,
                             std::vector<JitKernel> kernels, const Device& device)
    : request_(std::move(request)),
      programs_(std::move(programs)),
      kernels_(std::move(kernels)),
      target_(device.target()),
      max_blocks_(request_.max_blocks == 0 ? blocks_of(request_) : request_.max_blocks),
      table_numbers_(kHead) {
    std::string text = fmt::format("{} {} {} {}", to_text(request_.attention), request_.block,
                                   max_blocks_, target_.sm_count);
    for (std::size_t i = 0; i < programs_.size(); ++i) {
        const auto& [program, kernel] = programs_[i];
        launches_[i] = KernelLaunch(program, kernel.plan.geometry, device.target());
        hints_[i] = work_hints(program);
        tables_[i] = walk_tables(program, most_gather_blocks(program, max_blocks_));
        table_starts_[i] = table_numbers_;
        table_numbers_ += tables_[i].size;
        text += fmt::format(" {} {} {} {}", to_string(program.role), program.stationary_rows,
                            program.gather_rows, tables_[i].size);
        device.prepare(*kernels_[i].kernel, launches_[i].geometry());
    }
    std::memcpy(fingerprint_, digest_of(text).data(), sizeof(fingerprint_));
}

void AttentionPlan::write_tables(const BlockPattern& pattern,
                                 std::span<std::int32_t> numbers) const {
    if (pattern.length() != request_.attention.length || pattern.block() != request_.block) {
        throw UserError(
            "the pattern is for length {} in blocks of {}, the plan for length {} in blocks of {}: "
            "make them equal",
            pattern.length(), pattern.block(), request_.attention.length, request_.block);
    }
    if (pattern.block_count() > max_blocks_) {
        throw UserError(
            "the pattern has {} blocks and the plan's tables have room for {}: make the plan with "
            "max_blocks of at least {}",
            pattern.block_count(), max_blocks_, pattern.block_count());
    }
    std::fill_n(numbers.begin(), kHead, 0);
    numbers[kMagicAt] = kMagic;
    numbers[kLayoutAt] = kTableLayout;
    numbers[kFirstFingerprintAt] = fingerprint_[0];
    numbers[kSecondFingerprintAt] = fingerprint_[1];
    numbers[kBlocksAt] = static_cast<std::int32_t>(
        std::min<std::int64_t>(pattern.block_count(), std::numeric_limits<std::int32_t>::max()));
    for (std::size_t i = 0; i < programs_.size(); ++i) {
        const TileProgram walked = lower_as(programs_[i].program, request_, pattern, target_);
        write_walk(walked, tables_[i], target_.sm_count,
                   numbers.subspan(static_cast<std::size_t>(table_starts_[i]),
                                   static_cast<std::size_t>(tables_[i].size)));
    }
}

std::string AttentionPlan::problem_with_tables(const std::int32_t* numbers) const {
    if (numbers[kMagicAt] != kMagic) {
        return "are no tables of spion";
    }
    if (numbers[kLayoutAt] != kTableLayout) {
        return fmt::format("are of layout {}, not {}", numbers[kLayoutAt], kTableLayout);
    }
    const bool ours = numbers[kFirstFingerprintAt] == fingerprint_[0] &&
                      numbers[kSecondFingerprintAt] == fingerprint_[1];
    return ours ? "" : "were written for another plan";
}

WorkspaceLayout AttentionPlan::workspace(std::int64_t batch) const {
    WorkspaceLayout layout;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < launches_.size(); ++i) {
        layout.of_launch[i] = launches_[i].bytes(batch);
        layout.counters[i] = bytes;
        bytes += rounded(layout.of_launch[i].counters);
    }
    for (std::size_t i = 0; i < launches_.size(); ++i) {
        layout.dq_semaphore[i] = bytes;
        bytes += rounded(layout.of_launch[i].dq_semaphore);
    }
    layout.zeros = bytes;
    layout.rows = bytes;
    const auto rows =
        static_cast<std::size_t>(batch * request_.attention.heads * request_.attention.length);
    bytes += rounded(rows * sizeof(float));
    layout.forward_bytes = bytes;
    layout.dq_accum = bytes;
    std::size_t dq_accum = 0;
    for (const LaunchBytes& launch : layout.of_launch) {
        dq_accum = std::max(dq_accum, launch.dq_accum);
    }
    layout.backward_bytes = bytes + rounded(dq_accum);
    return layout;
}

void AttentionPlan::run(PlanPass pass, SpionAttentionArguments args, const std::int32_t* tables,
                        void* workspace, bool overlap, const Device& device,
                        ForeignStream stream) const {
    const WorkspaceLayout layout = this->workspace(args.batch);
    auto* const start = static_cast<std::byte*>(workspace);
    auto* const rows = reinterpret_cast<float*>(start + layout.rows);
    args.delta = rows;
    if (args.lse == nullptr) {
        args.lse = rows;
    }
    const std::size_t first = pass == PlanPass::kForward ? 0 : 1;
    const std::size_t end = pass == PlanPass::kForward ? 1 : 3;
    std::array<PreparedLaunch, 2> prepared;  // all, before anything is launched
    for (std::size_t i = first; i < end; ++i) {
        const LaunchMemory memory{
            .counters = reinterpret_cast<unsigned*>(start + layout.counters[i]),
            .dq_semaphore = reinterpret_cast<unsigned*>(start + layout.dq_semaphore[i]),
            .dq_accum = reinterpret_cast<float*>(start + layout.dq_accum)};
        prepared[i - first] = launches_[i].prepare(args, tables + table_starts_[i], tables_[i],
                                                   memory, hints_[i], device);
    }
    prepared[0].geometry.overlaps_previous &= overlap;
    for (std::size_t i = first; i < end; ++i) {
        const PreparedLaunch& launch = prepared[i - first];
        device.launch_on(stream, *kernels_[i].kernel, launch.geometry, launch.data(),
                         launch.bytes());
    }
}

AttentionPlan make_plan(const PlanRequest& request, Device& device, KernelCache& cache) {
    LayerPrograms programs = plan_programs(request, cache.as_compiled_for(device.target()));
    std::vector<KernelSource> sources;
    for (const auto& [program, kernel] : programs) {
        sources.push_back(emit(program, kernel, device.target()));
    }
    std::vector<JitKernel> kernels = compile_kernels(sources, device, cache);
    return {request, std::move(programs), std::move(kernels), device};
}

std::string to_text(const AttentionPlan& plan, const Target& target) {
    std::string text = to_text(plan.request().attention) + "\n";
    for (std::size_t i = 0; i < plan.programs().size(); ++i) {
        const TileProgram& program = plan.programs()[i].program;
        const JitKernel& jit = plan.kernels()[i];
        const char* const origin = jit.cached.origin == CacheOrigin::kCompiled ? "compiled"
                                   : jit.cached.origin == CacheOrigin::kDisk   ? "from the cache"
                                   : jit.cached.origin == CacheOrigin::kBundle ? "from the bundle"
                                                                               : "in memory";
        text += fmt::format(
            "{}: {} rows stay, {} stream past in gather blocks of {}, {} by {}{}; {} in {:.1f} "
            "ms\n",
            to_string(program.role), program.stationary_rows, program.streamed_rows,
            program.gather_rows, target.arch, to_string(program.unit),
            program.packed_rows() > 1 ? fmt::format(", {} block rows packed", program.packed_rows())
                                      : "",
            origin, jit.cached.milliseconds);
    }
    return text + explain_roles(plan_of(plan.request(), target));
}

}  // namespace spion
