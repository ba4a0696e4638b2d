#include "codegen/cuda/families/fused_backward.h"

#include <fmt/format.h>

#include "codegen/cuda/families/gpu_tiles.h"
#include "codegen/cuda/families/mma_sync.h"
#include "codegen/cuda/families/wgmma.h"

namespace spion {
namespace {

// The stationary rows of two warpgroups, which exchange what dQ needs.
constexpr int kBlock = 128;
constexpr int kTileElements = 8192;  // of a streamed tile: rows times D
constexpr int kStages = 2;
constexpr int kDeltaRows = 64;
// Fitted to medians of an H200 (docs/journal.md), D of 64 and 128.
constexpr WgmmaExposed kExposed{.products = 1.63, .scores = 0.53};
// Of a work item and column of D: its partial dQs wait for those of others.
constexpr double kWaitingClocks = 182;

bool changes_scores(const Attention& attention) {
    return attention.dropout > 0.0F || attention.softcap > 0.0F || attention.alibi ||
           attention.relative_bias > 0 || !attention.score.empty();
}

bool computes(KernelRole role) {
    return role == KernelRole::kDelta || role == KernelRole::kGradients;
}

// kDelta, whose products are none, has a body that runs on every GPU.
bool multiplies(KernelRole role, MatrixUnit unit, DType dtype, const Target& target) {
    return role == KernelRole::kDelta ? kMmaSync.multiplies(role, unit, dtype, target)
                                      : kWgmma.multiplies(role, unit, dtype, target);
}

std::string why_not(const KernelCase& launch) {
    const Attention& attention = launch.attention;
    if (!kWgmma.multiplies(KernelRole::kGradients, MatrixUnit::kWgmma, attention.dtype,
                           launch.target)) {
        return fmt::format("{} has no kernels for a fused backward", launch.target.arch);
    }
    TileShape tile;
    tile.unit = MatrixUnit::kWgmma;
    const std::string refused = why_not_nvrtc(attention, KernelRole::kGradients,
                                              tma_tile_width(attention), tile, launch.target);
    if (!refused.empty()) {
        return refused;
    }
    if (attention.key_value_heads() != attention.heads) {
        return "kernels of the fused backward take as many heads of K and V as of Q";
    }
    if (attention.patterns > 1) {
        return "kernels of the fused backward take turns that one pattern decides for all heads, "
               "and not patterns of heads";
    }
    if (changes_scores(attention)) {
        return "kernels of the fused backward have no registers for dropout, softcap, alibi, "
               "relative_bias or a score expression";
    }
    if (attention.mask == ElementMask::kSpans) {
        return "kernels of the fused backward take turns that the pattern alone decides, "
               "and not a mask of spans, which leaves out steps when it is launched";
    }
    const bool fits = storage_bytes(attention.dtype) == 2 && launch.block == kBlock &&
                      tma_tile_width(attention) >= 64;
    return fits
               ? ""
               : fmt::format(
                     "kernels of the fused backward take bf16 or fp16, D and Dv of at most 128, "
                     "one of them above 32, and blocks of {}, not {}, D={}, Dv={} and blocks of {}",
                     kBlock, to_string(attention.dtype), attention.head_dim,
                     attention.value_head_dim(), launch.block);
}

std::optional<TileShape> shape_of_role(const KernelCase& launch) {
    if (launch.role == KernelRole::kDelta) {
        return TileShape{.stationary_rows = kDeltaRows,
                         .streamed_rows = kDeltaRows,
                         .gather_rows = kDeltaRows,
                         .warps = kDeltaRows / kRowsOfWarp,
                         .stages = 1};
    }
    const int streamed = kTileElements / tma_tile_width(launch.attention);
    return TileShape{.stationary_rows = kBlock,
                     .streamed_rows = streamed,
                     .gather_rows = streamed,
                     .warps = kBlock / kRowsOfWarp,
                     .stages = kStages,
                     .unit = MatrixUnit::kWgmma};
}

int full_block(const KernelCase& /*launch*/) {
    return kBlock;
}

std::vector<TileShape> shapes(const KernelCase& launch) {
    return {*shape_of_role(launch)};
}

// kDelta's threads keep nothing but a sum.
KernelPlan plan(const KernelCase& launch, const TileShape& shape) {
    if (launch.role == KernelRole::kGradients) {
        return plan_of_wgmma(launch, shape);
    }
    constexpr int kRegisters = 32, kResident = 8;
    const int threads = 32 * shape.warps;
    return {.columns = shape.streamed_rows,
            .held_operands = 1,
            .registers = kRegisters,
            .blocks = kResident,
            .occupancy = kResident * 32.0 * shape.warps / launch.rates.resident_threads,
            .geometry = {.threads = threads, .tile_width = tma_tile_width(launch.attention)}};
}

std::string why_not_program(const TileProgram& program, const Target& target) {
    if (program.attention.mask == ElementMask::kSpans || changes_scores(program.attention) ||
        program.attention.key_value_heads() != program.attention.heads ||
        program.attention.patterns > 1 || tma_tile_width(program.attention) < 64) {
        return fmt::format(
            "{} takes no mask of spans, dropout, softcap, alibi, relative_bias or score "
            "expression, "
            "one pattern, as "
            "many heads of K and V as of Q and D and Dv of at most 128, one of them above 32: take "
            "attention_query_gradient and attention_key_value_gradient",
            to_string(program.role));
    }
    if (program.role == KernelRole::kDelta) {
        const std::string reason = why_not_warps(program);
        return reason.empty() ? why_not_gather_blocks(program) : reason;
    }
    if (std::string reason = why_not_wgmma_tile(program, target); !reason.empty()) {
        return reason;
    }
    if (program.stationary_rows != kBlock || program.stages != kStages ||
        program.streamed_rows * tma_tile_width(program.attention) != kTileElements ||
        program.gather_rows != program.streamed_rows) {
        return fmt::format(
            "attention_gradients takes stationary_rows=128, stages=2 and streamed_rows=gather_rows "
            "of 8192 / D, D padded to 64 or 128, not stationary_rows={} stages={} streamed_rows={} "
            "gather_rows={} with "
            "D={}",
            program.stationary_rows, program.stages, program.streamed_rows, program.gather_rows,
            program.attention.head_dim);
    }
    return why_not_planned(plan, program, target);
}

// kDelta streams nothing; kGradients' work items add their partial dQs, fp32, in the L2 cache.
void adjust(KernelLoad& load) {
    if (load.role == KernelRole::kDelta) {
        load.walk = {.heads = load.walk.heads, .items = load.walk.items};
    } else {
        load.more_cache_bytes = load.batch_heads * static_cast<double>(load.walk.streamed) *
                                tma_tile_width(load.attention) * 4;
    }
}

SmTime time(const KernelLoad& load) {
    if (load.role == KernelRole::kDelta) {
        return time_of_thread_blocks(load);
    }
    SmTime time = time_of_wgmma(load, kExposed);
    const double waiting = kWaitingClocks * tma_tile_width(load.attention) / load.rates.clock;
    time.compute_seconds +=
        load.batch_heads * static_cast<double>(load.walk.items) * waiting / load.target.sm_count;
    time.latency_seconds += waiting;
    return time;
}

std::string body(KernelRole role, const KernelPlan& /*plan*/) {
    return fmt::format("{}{}", role == KernelRole::kGradients ? "sm90/wgmma_" : "sm80/",
                       to_string(role));
}

std::vector<Constant> constants(const TileProgram& program, const KernelPlan& plan) {
    if (program.role == KernelRole::kGradients) {
        return wgmma_constants(program, plan);
    }
    return {integer("kColumns", program.streamed_rows, ""), integer("kWarps", program.warps, ""),
            integer("kStages", program.stages, "")};
}

}  // namespace

const KernelFamily kFusedBackward{.name = "fused backward on sm_90a",
                                  .mark = "wgmma",
                                  .computes = computes,
                                  .multiplies = multiplies,
                                  .why_not = why_not,
                                  .instead = "take the split backward",
                                  .shapes = shapes,
                                  .measured = shape_of_role,
                                  .full_block = full_block,
                                  .most_packed_rows = one_block_row,
                                  .packing_can_pay = false,
                                  .packed_shapes = no_packed_shapes,
                                  .packing_overhead = no_packing_overhead,
                                  .why_not_program = why_not_program,
                                  .plan = plan,
                                  .adjust = adjust,
                                  .time = time,
                                  .multiplies_whole_tiles = true,
                                  .body = body,
                                  .constants = constants};

}  // namespace spion
