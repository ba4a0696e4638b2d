#include "compiler/attention_plan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "codegen/emit.h"
#include "compiler/launch/advance_dropout.h"
#include "compiler/launch/bias_gradient.h"
#include "compiler/launch/sink_gradient.h"
#include "compiler/plan/sequence_patterns.h"
#include "ir/ceil_div.h"
#include "ir/element_spans.h"
#include "ir/error.h"
#include "ir/sha256.h"
#include "kernels/dropout_arguments.h"

namespace spion {
namespace {

constexpr std::int32_t kMagic = 0x6E6F7073;  // "spon"

// Where what is in the head of a plan's tables. Hints: those of three launches, side by side.
enum HeadNumber {
    kMagicAt,
    kLayoutAt,
    kFirstFingerprintAt,
    kSecondFingerprintAt,
    kBlocksAt,
    kHintsAt,
    kHintNumbers = 3,
    kSequencesAt = kHintsAt + 3 * kHintNumbers,
    kHeadEnd
};
static_assert(kHeadEnd <= kTableHead && kTableHead % 4 == 0,
              "tables begin at multiples of 16 bytes");

std::int32_t clamped(std::int64_t number) {
    return static_cast<std::int32_t>(
        std::min<std::int64_t>(number, std::numeric_limits<std::int32_t>::max()));
}

// Of all patterns of the layer.
std::int64_t blocks_of(const PlanRequest& request) {
    const Attention& attention = request.attention;
    return attention.pattern_count() * ceil_div(attention.length, request.block) *
           ceil_div(attention.key_value_length(), request.block);
}

// A block a row, from the first corner of the map to the last.
HeadPatterns diagonals(const Attention& attention, int block) {
    const std::int64_t rows = ceil_div(attention.length, block);
    const std::int64_t columns = ceil_div(attention.key_value_length(), block);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(rows * columns));
    for (std::int64_t row = 0; row < rows; ++row) {
        bits[static_cast<std::size_t>(row * columns + row * columns / rows)] = 1;
    }
    const BlockPattern one(attention.length, attention.key_value_length(), block, std::move(bits));
    return HeadPatterns(
        std::vector<BlockPattern>(static_cast<std::size_t>(attention.pattern_count()), one));
}

TileProgram lower_as(const TileProgram& shaped, const PlanRequest& request,
                     const HeadPatterns& pattern, const Target& target) {
    return lower(request.attention, pattern, shaped.role, target, shape_of(shaped));
}

std::size_t rounded(std::size_t bytes) {
    return (bytes + WorkspaceLayout::kAlignment - 1) / WorkspaceLayout::kAlignment *
           WorkspaceLayout::kAlignment;
}

// Throws UserError when the patterns are not of the request's lengths, block and number.
void require_equal(const char* name, const HeadPatterns& patterns, const char* of,
                   const PlanRequest& request) {
    const Attention& attention = request.attention;
    if (patterns.length() != attention.length || patterns.block() != request.block ||
        patterns.key_length() != attention.key_value_length()) {
        const auto lengths = [](std::int64_t queries, std::int64_t keys) {
            return queries == keys ? fmt::format("length {}", queries)
                                   : fmt::format("{} queries and {} keys", queries, keys);
        };
        throw UserError(
            "the {} is for {} in blocks of {}, the {} for {} in blocks of {}: make "
            "them equal",
            name, lengths(patterns.length(), patterns.key_length()), patterns.block(), of,
            lengths(attention.length, attention.key_value_length()), request.block);
    }
    if (attention.sequence_patterns == 0 && patterns.count() != attention.patterns) {
        throw UserError("the {} has {} patterns and the {} {}: give as many", name,
                        patterns.count(), of, attention.patterns);
    }
    if (patterns.count() % attention.patterns != 0 ||
        patterns.count() > attention.pattern_count()) {
        throw UserError(
            "the {} has {} patterns and the {} takes {} of each sequence, at most {}: give those "
            "of "
            "all sequences",
            name, patterns.count(), of, attention.patterns, attention.pattern_count());
    }
}

}  // namespace

void check(const PlanRequest& request) {
    check(request.attention);
    BlockPattern::empty(request.attention.length, request.block);  // checks the block
    if (request.max_blocks < 0 || request.max_blocks > blocks_of(request)) {
        throw UserError(
            "max_blocks is {}, and {} rows of {} blocks have {}: give 0 for all of them",
            request.max_blocks,
            request.attention.patterns * ceil_div(request.attention.length, request.block),
            ceil_div(request.attention.key_value_length(), request.block), blocks_of(request));
    }
    if (request.batch < 1) {
        throw UserError("the usual batch is {}: give at least 1, or 0 for {}", request.batch,
                        kPlannedBatch);
    }
    if (request.typical) {
        require_equal("typical pattern", *request.typical, "attention", request);
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

HeadPatterns typical_pattern(const PlanRequest& request) {
    return request.typical ? filled(*request.typical, request.attention, true)
                           : diagonals(request.attention, request.block);
}

LayerPlan plan_of(const PlanRequest& request, const Target& target) {
    check(request);
    check_dtype(request.attention, target);
    const HeadPatterns typical = typical_pattern(request);
    // What is not known to be full is taken for sparse: of one block the diagonal is both.
    return plan_layer(request.attention, typical, target,
                      {.batch = request.batch,
                       .packed_rows = request.typical ? std::nullopt : std::optional(1),
                       .density = request.typical ? std::nullopt : std::optional(kPlannedDensity)});
}

LayerPrograms plan_programs(const PlanRequest& request, const Target& target) {
    return lower_layer(plan_of(request, target), typical_pattern(request));
}

std::vector<KernelSource> plan_sources(const PlanRequest& request, const LayerPrograms& programs,
                                       const Target& target) {
    std::vector<KernelSource> sources;
    for (const auto& [program, kernel] : programs) {
        sources.push_back(emit(program, kernel, target));
    }
    if (request.attention.sink) {
        sources.push_back(sink_gradient_source(request.attention, target));
    }
    if (request.attention.relative_bias > 0) {
        sources.push_back(bias_gradient_source(request.attention, target));
    }
    if (request.attention.dropout > 0.0F) {
        sources.push_back(advance_dropout_source(target));
    }
    return sources;
}

AttentionPlan::AttentionPlan(PlanRequest request, LayerPrograms programs,
                             std::vector<JitKernel> kernels, const Device& device)
    : request_(std::move(request)),
      programs_(std::move(programs)),
      kernels_(std::move(kernels)),
      target_(device.target()),
      max_blocks_(request_.max_blocks == 0 ? blocks_of(request_) : request_.max_blocks),
      table_numbers_(kTableHead) {
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
    if (request_.attention.sink) {
        device.prepare(*sink_gradient().kernel, sink_gradient_geometry(request_.attention));
    }
    if (request_.attention.relative_bias > 0) {
        device.prepare(*bias_gradient().kernel, bias_gradient_geometry(request_.attention));
    }
    if (request_.attention.dropout > 0.0F) {
        device.prepare(*kernels_.back().kernel, advance_dropout_geometry());
    }
    std::memcpy(fingerprint_, digest_of(text).data(), sizeof(fingerprint_));
}

void AttentionPlan::write_tables(const HeadPatterns& patterns,
                                 std::span<std::int32_t> numbers) const {
    require_equal("pattern", patterns, "plan", request_);
    const std::int64_t blocks = patterns.block_count();
    if (blocks > max_blocks_) {
        throw UserError(
            "the pattern has {} blocks and the plan's tables have room for {}: make the plan with "
            "max_blocks of at least {}",
            blocks, max_blocks_, blocks);
    }
    std::fill_n(numbers.begin(), kTableHead, 0);
    numbers[kMagicAt] = kMagic;
    numbers[kLayoutAt] = kTableLayout;
    numbers[kFirstFingerprintAt] = fingerprint_[0];
    numbers[kSecondFingerprintAt] = fingerprint_[1];
    numbers[kBlocksAt] = clamped(blocks);
    const Attention& attention = request_.attention;
    const HeadPatterns all = filled(patterns, attention, false);
    numbers[kSequencesAt] =
        attention.sequence_patterns == 0 ? 0 : patterns.count() / attention.patterns;
    for (std::size_t i = 0; i < programs_.size(); ++i) {
        const TileProgram walked = lower_as(programs_[i].program, request_, all, target_);
        write_walk(walked, tables_[i], target_.sm_count,
                   numbers.subspan(static_cast<std::size_t>(table_starts_[i]),
                                   static_cast<std::size_t>(tables_[i].size)));
        const WorkHints hints = work_hints(walked);
        std::int32_t* const at = &numbers[kHintsAt + i * kHintNumbers];
        at[0] = clamped(hints.listed);
        at[1] = clamped(hints.longest);
        at[2] = static_cast<std::int32_t>(hints.long_tiles);
    }
}

std::int64_t sequences_of_tables(TableHead head) {
    return head[kSequencesAt];
}

std::string AttentionPlan::problem_with_tables(TableHead head) const {
    if (head[kMagicAt] != kMagic) {
        return "are no tables of spion";
    }
    if (head[kLayoutAt] != kTableLayout) {
        return fmt::format("are of layout {}, not {}", head[kLayoutAt], kTableLayout);
    }
    const bool ours = head[kFirstFingerprintAt] == fingerprint_[0] &&
                      head[kSecondFingerprintAt] == fingerprint_[1];
    return ours ? ""
                : "were written for another plan, of other heads, dimensions, lengths or options";
}

WorkHints AttentionPlan::hints_of(std::size_t launch, const std::optional<TableHead>& head) const {
    if (!head) {
        return hints_[launch];
    }
    const std::int32_t* const at = &(*head)[kHintsAt + launch * kHintNumbers];
    // Fewer than all tiles, whatever the numbers are: kernels divide by those that are left.
    const auto most = static_cast<unsigned>(programs_[launch].program.tiles() - 1);
    return {.listed = at[0],
            .longest = at[1],
            .long_tiles = std::min(static_cast<unsigned>(at[2]), most)};
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
    bytes += rounded(dq_accum);
    layout.bias_sums = bytes;
    if (request_.attention.relative_bias > 0) {
        const std::int64_t floats = bias_gradient_floats(request_.attention, batch);
        bytes += rounded(static_cast<std::size_t>(floats) * sizeof(float));
    }
    layout.backward_bytes = bytes;
    return layout;
}

void AttentionPlan::run(PlanPass pass, SpionAttentionArguments args, const PlanCall& call,
                        const Device& device, ForeignStream stream) const {
    const WorkspaceLayout layout = workspace(args.batch);
    auto* const start = static_cast<std::byte*>(call.workspace);
    auto* const rows = reinterpret_cast<float*>(start + layout.rows);
    args.delta = rows;
    if (args.lse == nullptr) {
        args.lse = rows;
    }
    float* const d_relative_bias = args.d_relative_bias;
    if (d_relative_bias != nullptr) {
        args.d_relative_bias = reinterpret_cast<float*>(start + layout.bias_sums);
    }
    const std::size_t first = pass == PlanPass::kForward ? 0 : 1;
    const std::size_t end = pass == PlanPass::kForward ? 1 : 3;
    std::array<PreparedLaunch, 2> prepared;  // all, before anything is launched
    for (std::size_t i = first; i < end; ++i) {
        const LaunchMemory memory{
            .counters = reinterpret_cast<unsigned*>(start + layout.counters[i]),
            .dq_semaphore = reinterpret_cast<unsigned*>(start + layout.dq_semaphore[i]),
            .dq_accum = reinterpret_cast<float*>(start + layout.dq_accum)};
        prepared[i - first] = launches_[i].prepare(args, call.tables + table_starts_[i], tables_[i],
                                                   memory, hints_of(i, call.head), device);
    }
    // Those behind it start when it has waited.
    prepared[0].arguments.waits_first = call.tables_settled ? 0 : 1;
    for (std::size_t i = first; i < end; ++i) {
        const PreparedLaunch& launch = prepared[i - first];
        device.launch_on(stream, *kernels_[i].kernel, launch.geometry, launch.data(),
                         launch.bytes());
    }
    if (pass == PlanPass::kBackward) {
        run_score_gradients(args, d_relative_bias, device, stream);
    }
}

void AttentionPlan::run_score_gradients(const SpionAttentionArguments& args, float* d_relative_bias,
                                        const Device& device, ForeignStream stream) const {
    const Attention& attention = request_.attention;
    if (attention.sink && args.d_sinks != nullptr) {
        device.launch_on(stream, *sink_gradient().kernel, sink_gradient_geometry(attention), &args,
                         sizeof(args));
    }
    if (attention.relative_bias > 0 && d_relative_bias != nullptr) {
        const SpionAttentionArguments own =
            bias_gradient_arguments(attention, args, d_relative_bias);
        device.launch_on(stream, *bias_gradient().kernel, bias_gradient_geometry(attention), &own,
                         sizeof(own));
    }
}

void AttentionPlan::advance_dropout(SpionDropoutState* state, unsigned by, const Device& device,
                                    ForeignStream stream) const {
    const SpionDropoutAdvance args{.state = state, .by = by};
    device.launch_on(stream, *kernels_.back().kernel, advance_dropout_geometry(), &args,
                     sizeof(args));
}

AttentionPlan make_plan(const PlanRequest& request, Device& device, KernelCache& cache) {
    LayerPrograms programs = plan_programs(request, cache.as_compiled_for(device.target()));
    const std::vector<KernelSource> sources = plan_sources(request, programs, device.target());
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
