#include "tests/codegen/compile_jobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <initializer_list>
#include <utility>

#include "compiler/plan/summary_tile.h"
#include "ir/error.h"
#include "tests/compiler/plan/plan_of.h"
#include "tests/support/known_gpus.h"
#include "tests/support/lower_planned.h"

namespace spion::test {
namespace {

constexpr DType kTypes[] = {DType::kBf16, DType::kFp16, DType::kTf32, DType::kFp32};
constexpr int kHeadDims[] = {16, 32, 64, 128};
constexpr int kBlocks[] = {64, 32, 16, 128};
constexpr int kUnitBlocks[] = {64, 32, 16, 128, BlockPattern::kFullBlock};
constexpr KernelRole kRoles[] = {KernelRole::kForward, KernelRole::kQueryGradient,
                                 KernelRole::kKeyValueGradient};

// Varies what the loops of the callers do not: switches, block and length.
Attention attention_of(DType dtype, int head_dim, int variant) {
    return {.heads = 2,
            .head_dim = head_dim,
            .length = variant % 3 == 0 ? 1000 : 1024,
            .dtype = dtype,
            .scale = default_scale(head_dim),
            .softmax = variant % 2 == 0 ? SoftmaxKind::kPrunedZero : SoftmaxKind::kMasked,
            .key_padding = variant / 2 % 2 == 0};
}

std::string tile_of(const TileProgram& program) {
    const bool packed = program.packed_rows() > 1;
    return fmt::format("{} {}/{} x{}{}", to_string(program.unit), program.stationary_rows,
                       program.streamed_rows, program.stages,
                       packed ? fmt::format(" of {}", program.packed_rows()) : "");
}

CompileJob job_of(const TileProgram& program, const Target& target) {
    return {.what = tile_of(program),
            .source = emit(program, target),
            .geometry = geometry(program, target),
            .target = target};
}

CompileJob attention_job(DType dtype, int head_dim, KernelRole role, const Target& target,
                         int variant) {
    const Attention attention = attention_of(dtype, head_dim, variant);
    const BlockPattern pattern = BlockPattern::full(attention.length, kBlocks[variant % 4]);
    return job_of(lower(attention, pattern, role, target), target);
}

// Of all heads, or of one, as training makes each head's map.
CompileJob summary_job(DType dtype, int head_dim, const Target& target, int variant) {
    const int block = kBlocks[variant % 4];
    Attention attention = attention_of(dtype, head_dim, variant);
    attention.heads -= variant % 2;
    const ScoreSummaryProgram program{.attention = attention,
                                      .block = block,
                                      .filter = variant % 2 == 0 ? 31 : 1,
                                      .tile = choose_summary_tile(attention, block, target)};
    return {.what = fmt::format("tile {}", program.tile),
            .source = emit(program, target),
            .geometry = geometry(program, target),
            .target = target};
}

// Whether one of the candidates is the same tile with fewer stages.
bool has_fewer_stages(const std::vector<TileCandidate>& candidates, TileShape shape) {
    return std::any_of(candidates.begin(), candidates.end(), [&](const TileCandidate& other) {
        TileShape same = other.shape;
        same.stages = shape.stages;
        return same == shape && other.shape.stages < shape.stages && other.plan.problem.empty();
    });
}

// The tiles of a unit that one launch can have, on a full pattern.
void add_tiles(CompileJobs& jobs, MatrixUnit unit, const Attention& attention, int block,
               KernelRole role, const Target& target) {
    const BlockPattern pattern = BlockPattern::full(attention.length, 128).in_blocks_of(block);
    const auto candidates = candidates_of(attention, pattern, role, target, 4);
    for (const TileCandidate& candidate : candidates) {
        if (candidate.shape.unit == unit && candidate.plan.problem.empty() &&
            !has_fewer_stages(candidates, candidate.shape)) {
            jobs.push_back(
                job_of(lower(attention, pattern, role, target, candidate.shape), target));
        }
    }
}

// The architectures on which baked and packed kernels are compiled.
bool compiles_every_kind(const Target& target) {
    return target.compute_capability == 80 || target.compute_capability == 90 ||
           target.compute_capability == 120;
}

// A pattern whose neighbouring block rows share blocks.
BlockPattern shared_pattern(std::int64_t length, int block) {
    const auto blocks = static_cast<int>((length + block - 1) / block);
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks));
    for (int i = 0; i < blocks; ++i) {
        bits[static_cast<std::size_t>(i * blocks + i)] = 1;
        bits[static_cast<std::size_t>(i * blocks + i / 4)] = 1;
    }
    return BlockPattern(length, block, std::move(bits));
}

}  // namespace

CompileJobs chosen_jobs(const Target& target, bool all) {
    const std::vector<int>& known = known_capabilities();
    const auto place = std::find(known.begin(), known.end(), target.compute_capability);
    const auto third = static_cast<int>(place - known.begin()) % 3;
    const bool everything = all || target.compute_capability == 90;
    CompileJobs jobs;
    int variant = target.compute_capability;
    for (int type = 0; type < 4; ++type) {
        for (int dim = 0; dim < 4; ++dim) {
            for (KernelRole role : kRoles) {
                ++variant;
                if (!everything && (type + dim) % 3 != third) continue;
                jobs.push_back(attention_job(kTypes[type], kHeadDims[dim], role, target, variant));
            }
        }
    }
    return jobs;
}

CompileJobs unit_jobs(MatrixUnit unit, const Target& target, bool all) {
    CompileJobs jobs;
    int count = 0;
    for (const int dim : {32, 64, 128}) {
        for (const int block : kUnitBlocks) {
            for (const KernelRole role : kRoles) {
                ++count;
                for (int variant = all ? 0 : count; variant < (all ? 4 : count + 1); ++variant) {
                    for (const DType dtype : {DType::kBf16, DType::kFp16}) {
                        if (!all && (count % 2 == 0) != (dtype == DType::kBf16)) continue;
                        add_tiles(jobs, unit, attention_of(dtype, dim, variant), block, role,
                                  target);
                    }
                }
            }
        }
    }
    return jobs;
}

CompileJobs fused_backward_jobs(const Target& target) {
    if (!has_fused_backward(target)) return {};
    CompileJobs jobs;
    for (int variant = 0; variant < 8; ++variant) {  // dtype, padding and softmax vary with it
        const Attention attention = attention_of(variant < 4 ? DType::kBf16 : DType::kFp16,
                                                 variant % 2 == 0 ? 64 : 128, variant / 2);
        const BlockPattern pattern = BlockPattern::full(attention.length, 128);
        for (const KernelRole role : {KernelRole::kDelta, KernelRole::kGradients}) {
            jobs.push_back(job_of(lower(attention, pattern, role, target), target));
        }
    }
    return jobs;
}

CompileJobs other_dimension_jobs(const Target& target, bool all) {
    constexpr int kFewArchitectures[] = {80, 86, 90, 120};
    const auto* place = std::find(std::begin(kFewArchitectures), std::end(kFewArchitectures),
                                  target.compute_capability);
    if (!all && place == std::end(kFewArchitectures)) return {};
    const auto quarter = static_cast<int>(place - std::begin(kFewArchitectures));
    CompileJobs jobs;
    for (int head_dim = 16; head_dim <= kMaxHeadDim; head_dim += 16) {
        if (std::count(std::begin(kHeadDims), std::end(kHeadDims), head_dim) > 0) continue;
        const int step = head_dim / 16;
        for (int type = 0; type < 4; ++type) {
            for (int role = 0; role < 4; ++role) {
                const int variant = target.compute_capability + step + type + role;
                const bool mine =
                    type < 2 ? (step + type + role) % 4 == quarter && type == step % 2
                             : role == step / 4 && type == 2 + step % 2 && step % 4 == quarter;
                if (!all && !mine) continue;
                jobs.push_back(role == 3 ? summary_job(kTypes[type], head_dim, target, variant)
                                         : attention_job(kTypes[type], head_dim, kRoles[role],
                                                         target, variant));
            }
        }
    }
    return jobs;
}

CompileJobs padded_jobs(const Target& target) {
    if (target.compute_capability != 80 && target.compute_capability != 90) return {};
    constexpr std::array<std::array<int, 2>, 6> kDimensions = {
        {{24, 32}, {40, 40}, {80, 80}, {96, 72}, {64, 128}, {200, 136}}};  // D, Dv
    CompileJobs jobs;
    int variant = 0;
    for (const auto [dim, value_dim] : kDimensions) {
        for (const int block : {128, 32}) {
            Attention attention = attention_of(kTypes[variant % 2], dim, variant);
            attention.value_dim = value_dim;
            if (variant % 5 == 4) attention.mask = ElementMask::kCausal;
            if (variant % 3 == 1) {  // sequences end to end
                attention.mask = ElementMask::kSpans;
                attention.varlen = true;
                attention.key_padding = false;
                attention.sequence_patterns = variant % 2 == 0 ? 2 : 0;
                attention.key_starts = variant >= 7;  // with and without patterns of their own
            }
            ++variant;
            const HeadPatterns pattern(
                std::vector(static_cast<std::size_t>(attention.pattern_count()),
                            BlockPattern::full(attention.length, block)));
            for (const KernelRole role : kRoles) {
                jobs.push_back(job_of(lower(attention, pattern, role, target), target));
            }
            if (has_fused_backward(target) && block == 128 && dim > 32 && dim <= 128 &&
                !attention.varlen) {
                for (const KernelRole role : {KernelRole::kDelta, KernelRole::kGradients}) {
                    jobs.push_back(job_of(lower(attention, pattern, role, target), target));
                }
            }
        }
    }
    return jobs;
}

CompileJobs summary_jobs(const Target& target) {
    CompileJobs jobs;
    for (int i = 0; i < 4; ++i) {
        jobs.push_back(
            summary_job(kTypes[i], kHeadDims[(i + target.compute_capability) % 4], target, i));
    }
    return jobs;
}

CompileJobs baked_jobs(const Target& target) {
    if (!compiles_every_kind(target)) return {};
    CompileJobs jobs;
    int variant = target.compute_capability;
    for (const int dim : kHeadDims) {
        for (KernelRole role : kRoles) {
            const DType dtype = kTypes[variant % 4];
            Attention attention = attention_of(dtype, dim, variant);
            const int block = kBlocks[variant++ % 4];
            const bool uniform = variant % 2 == 0;
            if (uniform) attention.length = 1024;  // no ragged edge
            const auto blocks = static_cast<int>((attention.length + block - 1) / block);
            std::vector<std::uint8_t> bits(static_cast<std::size_t>(blocks * blocks));
            for (int i = 0; i < blocks; ++i) {
                for (int j = 0; j < (uniform ? 3 : 1 + i % 5); ++j) {
                    bits[static_cast<std::size_t>(i * blocks + (i + j) % blocks)] = 1;
                }
            }
            attention.key_padding = attention.key_padding && !uniform;
            LaunchOptions options;
            options.tables = Tables::kBaked;
            const BlockPattern pattern(attention.length, block, std::move(bits));
            jobs.push_back(job_of(lower(attention, pattern, role, target, options), target));
        }
    }
    return jobs;
}

CompileJobs masked_jobs(const Target& target) {
    if (!compiles_every_kind(target)) return {};
    CompileJobs jobs;
    int variant = 0;
    const auto add = [&](const Attention& attention, const BlockPattern& pattern, KernelRole role,
                         const LaunchOptions& options = {}) {
        jobs.push_back(job_of(lower(attention, pattern, role, target, options), target));
    };
    for (const int dim : {32, 64, 128, 256}) {
        for (const int block : kBlocks) {
            for (const KernelRole role : kRoles) {
                const bool tf32 = dim == 256 || (!target.gpu.wgmma && variant % 3 == 0);
                Attention attention =
                    attention_of(tf32 ? DType::kTf32 : kTypes[variant % 2], dim, variant);
                attention.mask = variant / 2 % 2 == 0 ? ElementMask::kCausal : ElementMask::kSpans;
                if (variant % 4 == 3) attention.kv_heads = 1;
                ++variant;
                add(attention, BlockPattern::full(attention.length, block), role);
                Attention biased = attention;
                biased.relative_bias = 128;
                if ((block == 64 && (dim == 64 || role == KernelRole::kQueryGradient)) ||
                    (block == 32 && dim <= 64)) {
                    add(biased, BlockPattern::full(attention.length, block), role);
                }
                if (block == 32 && dim == 64) {  // and packed
                    LaunchOptions options;
                    options.packed_rows = 2;
                    add(attention, shared_pattern(attention.length, block), role, options);
                    add(biased, shared_pattern(attention.length, block), role, options);
                }
            }
            ++variant;  // the masks change places with the next block
        }
    }
    for (const int dim : {64, 128}) {
        Attention attention = attention_of(DType::kBf16, dim, dim / 64);
        attention.mask = ElementMask::kCausal;
        if (has_fused_backward(target)) {
            add(attention, BlockPattern::full(attention.length, 128), KernelRole::kGradients);
        }
        // One gather block in all, baked, in the ragged edge: ptxas must not know its row.
        attention.head_dim = dim / 2;
        attention.length = 60;
        LaunchOptions options;
        options.tables = Tables::kBaked;
        add(attention, BlockPattern::full(attention.length, 64), KernelRole::kKeyValueGradient,
            options);
    }
    return jobs;
}

// Of its variables, functions and comparisons, in the place of what else changes scores.
void set_expression(Attention& attention, int variant) {
    constexpr const char* kExpressions[] = {
        "30*tanh(score/30)", "score-0.1*(1+head)*log(1+fabs(q-k))",
        "q<k+9?score/(1+exp(-score)):max(score,sqrt(1+batch))-sigmoid(score)"};
    attention.score = kExpressions[variant % 3];
    attention.softcap = attention.dropout = 0.0F;
    attention.alibi = attention.sink = false;
}

CompileJobs changed_jobs(const Target& target, bool expressed) {
    if (!compiles_every_kind(target)) return {};
    CompileJobs jobs;
    int variant = 0;
    const auto add = [&](const Attention& attention, const BlockPattern& pattern, KernelRole role,
                         const LaunchOptions& options = {}) {
        jobs.push_back(job_of(lower(attention, pattern, role, target, options), target));
    };
    for (const int dim : {32, 64, 128, 256}) {
        for (const int block : kBlocks) {
            for (const KernelRole role : kRoles) {
                const bool wide = dim == 256 || (!target.gpu.wgmma && variant % 3 == 0);
                const DType types[] = {DType::kTf32, DType::kFp32};
                Attention attention =
                    attention_of(wide ? types[variant % 2] : kTypes[variant % 2], dim, variant);
                // Dropout alone, the others alone, and all of them.
                attention.dropout = variant % 3 != 1 ? 0.1F : 0.0F;
                attention.softcap = variant % 3 != 0 ? 30.0F : 0.0F;
                attention.alibi = attention.sink = variant % 3 != 0;
                if (expressed) set_expression(attention, variant);
                if (variant % 5 == 0) attention.mask = ElementMask::kSpans;
                if (variant % 4 == 3) attention.kv_heads = 1;
                ++variant;
                add(attention, BlockPattern::full(attention.length, block), role);
                if (block == 32 && dim == 64) {  // and packed
                    LaunchOptions options;
                    options.packed_rows = 2;
                    add(attention, shared_pattern(attention.length, block), role, options);
                }
            }
            ++variant;
        }
    }
    return jobs;
}

CompileJobs packed_jobs(const Target& target, bool all) {
    if (!compiles_every_kind(target)) return {};
    constexpr std::array<std::array<int, 2>, 6> kPackings = {
        {{16, 2}, {32, 2}, {16, 4}, {64, 2}, {32, 4}, {16, 8}}};  // block, block rows
    CompileJobs jobs;
    int variant = target.compute_capability;
    for (int dim = 16; dim <= 128; dim += 16) {
        for (std::size_t one = 0; one < std::size(kRoles) * kPackings.size() * 4; ++one) {
            const KernelRole role = kRoles[one % 3];
            if (!all && one >= std::size(kRoles)) break;
            const auto [block, rows] = kPackings[all ? one / 3 % 6 : variant % 6];
            const Attention attention =
                attention_of(kTypes[all ? one / 18 : variant / 6 % 4], dim, variant);
            const BlockPattern pattern = shared_pattern(attention.length, block);
            variant += 5;
            std::vector<TileCandidate> candidates;
            try {
                candidates = candidates_of(attention, pattern, role, target, 4, rows);
            } catch (const UserError&) {  // so many rows fit no tile
                continue;
            }
            const auto place =
                std::find_if(candidates.begin(), candidates.end(), [&](const TileCandidate& c) {
                    return c.shape.packed_rows == rows && !is_special(c.shape.unit) && c.prediction;
                });
            if (place == candidates.end()) continue;
            LaunchOptions options;
            options.shape = place->shape;
            options.tables = variant % 3 == 0 ? Tables::kBaked : Tables::kPassed;
            jobs.push_back(job_of(lower(attention, pattern, role, target, options), target));
        }
    }
    return jobs;
}

}  // namespace spion::test
