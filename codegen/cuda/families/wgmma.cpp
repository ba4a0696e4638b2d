#include "codegen/cuda/families/wgmma.h"

#include <fmt/format.h>

#include <algorithm>

#include "codegen/cuda/families/gpu_tiles.h"
#include "codegen/cuda/wgmma_plan.h"

namespace spion {
namespace {

constexpr int kGroupRows = 64;       // that a warpgroup multiplies
constexpr int kMostGroupWarps = 16;  // four warpgroups, which leaves each thread 112 registers
constexpr int kMostStages = 4, kFewestStages = 2;
// Fitted to medians of an H100 and an H200 at once (docs/journal.md), D of 32, 64 and 128.
constexpr WgmmaExposed kForwardExposed{.products = 0.83, .scores = 0.7};
constexpr WgmmaExposed kQueryGradientExposed{.products = 1.51, .scores = 0.458};
constexpr WgmmaExposed kKeyValueGradientExposed{.products = 1.79, .scores = 0.492};
// Of packed tiles, beside which stand the overheads below; fitted before, to an H200 alone.
constexpr WgmmaExposed kPackedForwardExposed{.products = 0.79, .scores = 0.82};
constexpr WgmmaExposed kPackedBackwardExposed{.products = 1.3, .scores = 0.73};
constexpr double kRampSeconds = 4.5e-6;
constexpr double kCacheShare = 0.65;  // reads run ahead of the work
constexpr double kInstructionsOfScore = 5;
// Of packed tiles.
constexpr double kPackingOverhead = 1.08;  // scores are dropped, boxes are small
constexpr double kColumnsOverhead = 1.2;   // dK and dV: columns of unequal length
constexpr double kWideOverhead = 1.25;     // the same above D = 64
constexpr double kSmallBoxes = 1.3;        // more, for gather blocks of 16

bool multiplies(KernelRole /*role*/, MatrixUnit unit, DType /*dtype*/, const Target& target) {
    return unit == MatrixUnit::kWgmma && has_sm90_instructions(target);
}

bool takes(const KernelCase& launch, int rows) {
    return has_sm90_instructions(launch.target) && storage_bytes(launch.attention.dtype) == 2 &&
           is_wgmma_head_dim(tma_tile_width(launch.attention)) && rows % kGroupRows == 0;
}

// Shapes whose tile lies within a block; smaller blocks are packed.
std::string why_not(const KernelCase& launch) {
    if (std::string reason = why_not_item_walks(launch.attention, launch.role); !reason.empty()) {
        return "wgmma on sm_90a: " + reason;
    }
    if (takes(launch, launch.block)) {
        return "";
    }
    return fmt::format(
        "wgmma kernels take bf16 or fp16 on sm_90a, D and Dv of at most 128, one of them "
        "above 16, and blocks of 64 or 128, or smaller ones packed into 64 rows, not {} on {} with "
        "D={}, Dv={} and blocks of {}",
        to_string(launch.attention.dtype), launch.target.arch, launch.attention.head_dim,
        launch.attention.value_head_dim(), launch.block);
}

std::vector<TileShape> shapes_up_to(int rows) {
    std::vector<TileShape> shapes;
    for (int stationary = rows; stationary >= kGroupRows; stationary /= 2) {
        for (const int streamed : {128, 64}) {
            for (int stages = kMostStages; stages >= kFewestStages; --stages) {
                shapes.push_back({.stationary_rows = stationary,
                                  .streamed_rows = streamed,
                                  .gather_rows = std::min(rows, streamed),
                                  .warps = stationary / kRowsOfWarp,
                                  .stages = stages,
                                  .unit = MatrixUnit::kWgmma});
            }
        }
    }
    return shapes;
}

std::vector<TileShape> shapes(const KernelCase& launch) {
    return shapes_up_to(launch.block);
}

int full_block(const KernelCase& /*launch*/) {
    return BlockPattern::kFullBlock;
}

int measured_stages(const Attention& attention) {
    return tma_tile_width(attention) == 128 ? 2 : 3;
}

// A second warpgroup shares what the first has fetched where registers leave room for one block
// only.
std::optional<TileShape> measured(const KernelCase& launch) {
    const int width = tma_tile_width(launch.attention);
    const bool forward = launch.role == KernelRole::kForward;
    const bool four = forward && width == 64 && launch.block == BlockPattern::kFullBlock;
    const bool pair =
        width == 128 && launch.block >= 128 && launch.role != KernelRole::kQueryGradient;
    const int streamed = pair && forward ? 128 : 64;
    const int rows = four ? 256 : pair ? 128 : 64;
    return TileShape{.stationary_rows = rows,
                     .streamed_rows = streamed,
                     .gather_rows = std::min(launch.block, streamed),
                     .warps = rows / kRowsOfWarp,
                     .stages = measured_stages(launch.attention),
                     .unit = MatrixUnit::kWgmma};
}

int most_packed_rows(int block) {
    return block_rows_in(kGroupRows, block);
}

// kernels/cuda/sm90/wgmma_packed_rows.cuh has one warpgroup, whose rows it fills.
std::vector<TileShape> packed_shapes(const KernelCase& launch, int packed_rows) {
    std::vector<TileShape> shapes;
    if (packed_rows * launch.block != kGroupRows || !takes(launch, kGroupRows) ||
        item_walks(launch.attention, launch.role) > 1) {
        return shapes;
    }
    for (TileShape shape : shapes_up_to(kGroupRows)) {
        if (shape.stages == measured_stages(launch.attention)) {
            shape.gather_rows = launch.block;
            shape.packed_rows = packed_rows;
            shapes.push_back(shape);
        }
    }
    return shapes;
}

double packing_overhead(const KernelCase& launch, const TileShape& shape) {
    double overhead = kPackingOverhead;
    if (launch.role == KernelRole::kKeyValueGradient) {
        overhead = tma_tile_width(launch.attention) <= 64 ? kColumnsOverhead : kWideOverhead;
    }
    return overhead * (shape.gather_rows < 32 ? kSmallBoxes : 1);
}

std::string why_not_program(const TileProgram& program, const Target& target) {
    const std::string reason = why_not_wgmma_tile(program, target);
    return reason.empty() ? why_not_planned(plan_of_wgmma, program, target) : reason;
}

SmTime time(const KernelLoad& load) {
    const bool forward = load.role == KernelRole::kForward;
    if (load.shape.packed_rows > 1) {
        return time_of_wgmma(load, forward ? kPackedForwardExposed : kPackedBackwardExposed);
    }
    return time_of_wgmma(load, forward ? kForwardExposed
                               : load.role == KernelRole::kQueryGradient
                                   ? kQueryGradientExposed
                                   : kKeyValueGradientExposed);
}

std::string body(KernelRole role, const KernelPlan& /*plan*/) {
    return fmt::format("sm90/wgmma_{}", to_string(role));
}

}  // namespace

KernelPlan plan_of_wgmma(const KernelCase& launch, const TileShape& shape) {
    ScoreNeeds needs =
        score_needs(launch.attention, launch.role, shape.packed_rows > 1, shape.streamed_rows);
    // Where a sequence begins and ends, found by compiling.
    needs.producer_registers = launch.attention.varlen ? 16 : 0;
    const WgmmaPlan plan =
        plan_wgmma(launch.role, tma_tile_width(launch.attention), shape.stationary_rows,
                   shape.streamed_rows, shape.stages, launch.target.shared_bytes_per_block,
                   launch.target.compiler, shape.packed_rows > 1, needs);
    const std::string problem =
        plan.problem.empty() ? why_not_nvrtc(launch.attention, launch.role,
                                             tma_tile_width(launch.attention), shape, launch.target)
                             : plan.problem;
    return {.problem = problem,
            .columns = shape.streamed_rows,
            .registers = plan.consumer_registers,
            .producer_registers = plan.producer_registers,
            .launch_bound = plan.resident_blocks,
            .shared_bytes = plan.shared_bytes,
            .stationary_stages = plan.stationary_stages,
            .blocks = plan.resident_blocks,
            .occupancy = static_cast<double>(plan.resident_blocks * plan.threads) /
                         launch.rates.resident_threads,
            .geometry = {.threads = plan.threads,
                         .shared_bytes = plan.shared_bytes,
                         .resident_blocks = plan.resident_blocks,
                         .tile_width = tma_tile_width(launch.attention)}};
}

std::string why_not_wgmma_tile(const TileProgram& program, const Target& target) {
    if (std::string reason = why_not_warps(program, kMostGroupWarps); !reason.empty()) {
        return reason;
    }
    if (std::string reason = why_not_gather_blocks(program); !reason.empty()) {
        return reason;
    }
    const Attention& attention = program.attention;
    if (std::string reason = why_not_item_walks(attention, program.role); !reason.empty()) {
        return reason + ": take unit=mma_sync";
    }
    const bool fits = storage_bytes(attention.dtype) == 2 &&
                      is_wgmma_head_dim(tma_tile_width(attention)) &&
                      program.stationary_rows % kGroupRows == 0 &&
                      (program.streamed_rows == 64 || program.streamed_rows == 128) &&
                      program.stages >= kFewestStages &&
                      (program.packed_rows() == 1 || program.stationary_rows == kGroupRows);
    if (!fits) {
        return fmt::format(
            "wgmma kernels take bf16 or fp16 on sm_90a, D and Dv of at most 128, one of them "
            "above 16, stationary_rows in multiples of 64 (64 alone when packed), streamed_rows of "
            "64 or 128 and 2 stages or more, not {} on {} with D={} Dv={} stationary_rows={} "
            "streamed_rows={} stages={}: take "
            "unit=mma_sync",
            to_string(attention.dtype), target.arch, attention.head_dim, attention.value_head_dim(),
            program.stationary_rows, program.streamed_rows, program.stages);
    }
    return why_not_nvrtc(program, tma_tile_width(program.attention), target);
}

// Fetches run ahead of the work across items, so that no item waits for its own.
SmTime time_of_wgmma(const KernelLoad& load, const WgmmaExposed& exposed) {
    const Rates& rates = load.rates;
    const double elements = static_cast<double>(load.shape.stationary_rows) * load.plan.columns;
    // Half of the products run along D, whose padding they leave out by pairs of 16 columns.
    const int along_d = (mma_tile_width(load.attention) + 31) / 32 * 32;
    const double width = (tma_tile_width(load.attention) + along_d) / 2.0;
    const double products =
        2 * load.work.products * elements * width / rates.wgmma_flop * exposed.products;
    const double exponentials = elements / rates.exponentials * exposed.scores;
    const double instructions = elements * kInstructionsOfScore / kGpuIssue * exposed.scores;
    const double clocks = products + exponentials + instructions;
    // The longest item has its share of an SM.
    const double longest =
        static_cast<double>(load.walk.longest_mma_iterations) * clocks * load.plan.blocks;
    return {.compute_seconds = load.batch_heads * static_cast<double>(load.walk.mma_iterations) *
                               clocks / (rates.clock * load.target.sm_count),
            .latency_seconds = kRampSeconds + longest / rates.clock,
            .ramp_seconds = kRampSeconds,
            .cache_share = kCacheShare,
            .bound = largest(products, 0, exponentials, instructions)};
}

std::vector<Constant> wgmma_constants(const TileProgram& program, const KernelPlan& plan) {
    return {integer("kColumns", program.streamed_rows, "of S at once"),
            integer("kWarps", program.warps, "that multiply"),
            integer("kStages", program.stages, "streamed tiles in shared memory at once"),
            integer("kStationaryStages", plan.stationary_stages,
                    "stationary tiles in shared memory at once"),
            integer("kResidentBlocks", plan.launch_bound, "on an SM"),
            integer("kConsumerRegisters", plan.registers, "a thread"),
            integer("kProducerRegisters", plan.producer_registers, "a thread"),
            integer("kSharedBytes", plan.geometry.shared_bytes, "of a thread block")};
}

const KernelFamily kWgmma{.name = "wgmma on sm_90a",
                          .mark = "wgmma",
                          .computes = computes_split_backward,
                          .multiplies = multiplies,
                          .why_not = why_not,
                          .shapes = shapes,
                          .measured = measured,
                          .full_block = full_block,
                          .most_packed_rows = most_packed_rows,
                          .packing_can_pay = true,
                          .packed_shapes = packed_shapes,
                          .packing_overhead = packing_overhead,
                          .why_not_program = why_not_program,
                          .plan = plan_of_wgmma,
                          .time = time,
                          .multiplies_whole_tiles = true,
                          .body = body,
                          .constants = wgmma_constants};

}  // namespace spion
