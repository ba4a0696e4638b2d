#include "codegen/cuda/families/mma_sync.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "codegen/cuda/families/gpu_tiles.h"
#include "codegen/cuda/register_plan.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr int kMostStationaryRows = kRowsOfWarp * kMostWarps;

// Calibrated by medians on an H200; tests/compiler/plan/cost_model_test.cpp holds the model against
// them.
constexpr double kIssueOverlap = 0.82;   // work of an SM's units that does not hide
constexpr double kStallShare = 0.25;     // of a lone thread block's time, hidden by further ones
constexpr double kItemSeconds = 2.0e-6;  // tables, then stationary rows, then the result's store
constexpr double kMmaIterationSeconds = 0.2e-6;  // dependent products and softmax of one
constexpr double kBarrierSeconds = 1e-8;         // a step and warp
constexpr double kCopyInstructions = 10;         // a 16-byte chunk, addresses included
constexpr double kPackingOverhead = 1.08;        // warps wait for one another
// What dK and dV take where threads have all registers and still fetch operands at every use, over
// what the terms come to; 2.10 ms for 1.53 at D = 128, blocks of 32.
constexpr double kFullThreadShare = 1.5;
constexpr int kFullThread = 256;  // registers of its plan

MatrixUnit unit_for(DType dtype) {
    return dtype == DType::kFp32 ? MatrixUnit::kFma : MatrixUnit::kMmaSync;
}

bool multiplies(KernelRole /*role*/, MatrixUnit unit, DType dtype, const Target& target) {
    return target.back_end == BackEnd::kCuda && unit == unit_for(dtype);
}

// Whether dK and dV of no tile fit a thread's registers together.
bool is_dv_then_dk(const KernelCase& launch) {
    return launch.role == KernelRole::kKeyValueGradient &&
           plan_registers(launch.role, launch.attention, 16, 1).dv_then_dk;
}

std::string why_not(const KernelCase& launch) {
    if (launch.target.back_end != BackEnd::kCuda) {
        return "kernels of mma.sync take a GPU";
    }
    if (item_walks(launch.attention, launch.role) > 1 && is_dv_then_dk(launch)) {
        return fmt::format(
            "D={} and Dv={} in {} have dV and dK computed one after the other, on GPUs, where "
            "query heads that share a head of K and V share its pattern",
            launch.attention.head_dim, launch.attention.value_head_dim(),
            to_string(launch.attention.dtype));
    }
    return "";
}

std::vector<TileShape> shapes(const KernelCase& launch) {
    std::vector<TileShape> shapes;
    for (int stationary = std::min(launch.block, kMostStationaryRows); stationary >= kRowsOfWarp;
         stationary /= 2) {
        for (const int streamed : {128, 64, 32, 16}) {
            for (int stages = 4; stages >= 1; --stages) {
                shapes.push_back({.stationary_rows = stationary,
                                  .streamed_rows = streamed,
                                  .gather_rows = std::min(launch.block, streamed),
                                  .warps = stationary / kRowsOfWarp,
                                  .stages = stages,
                                  .unit = unit_for(launch.attention.dtype)});
            }
        }
    }
    return shapes;
}

// Two steps in flight, as warps multiply on their own.
std::vector<TileShape> packed_shapes(const KernelCase& launch, int packed_rows) {
    std::vector<TileShape> packed;
    if (!why_not(launch).empty()) {
        return packed;
    }
    for (TileShape shape : shapes(launch)) {
        if (shape.stationary_rows == launch.block && shape.stages == 2) {
            shape.stationary_rows = packed_rows * launch.block;
            shape.warps = shape.stationary_rows / kRowsOfWarp;
            shape.packed_rows = packed_rows;
            packed.push_back(shape);
        }
    }
    return packed;
}

int most_packed_rows(int block) {
    return block_rows_in(kMostStationaryRows, block);
}

double packing_overhead(const KernelCase& /*launch*/, const TileShape& /*shape*/) {
    return kPackingOverhead;
}

// Bytes of shared memory of a thread block: its tiles, and LSE and delta of the queries.
std::int64_t shared_bytes(KernelRole role, const TileShape& shape, std::int64_t row) {
    constexpr int kFloat = 4;
    const std::int64_t streamed = std::int64_t{shape.stages} * shape.streamed_rows;
    const std::int64_t tiles = (shape.stationary_rows + 2 * streamed) * row;
    switch (role) {
        case KernelRole::kForward:
            return tiles;
        case KernelRole::kQueryGradient:
            return tiles + shape.stationary_rows * (row + kFloat);
        case KernelRole::kKeyValueGradient:
            return tiles + shape.stationary_rows * row + streamed * 2 * kFloat;
        case KernelRole::kDelta:
        case KernelRole::kGradients:
            break;
    }
    throw InternalError("kernel role {} has no tiles", static_cast<int>(role));
}

RegisterPlan registers_of(const KernelCase& launch, const TileShape& shape) {
    const Attention& attention = launch.attention;
    return shape.packed_rows > 1
               ? plan_packed_registers(launch.role, attention, shape.streamed_rows,
                                       shape.gather_rows, shape.warps)
               : plan_registers(launch.role, attention, shape.streamed_rows, shape.warps);
}

std::string problem_of(const KernelCase& launch, const TileShape& shape,
                       const RegisterPlan& registers, std::int64_t shared) {
    if (std::string problem = why_not_step(shape); !problem.empty()) {
        return problem;
    }
    if (registers.dv_then_dk && item_walks(launch.attention, launch.role) > 1) {
        return "dV and dK are computed one after the other, and the body has one walk an item then";
    }
    if (shape.packed_rows > 1 && registers.dv_then_dk) {
        return "dV and dK are computed one after the other, and the body does not pack then";
    }
    if (shared > launch.target.shared_bytes_per_block) {
        return fmt::format("shared memory: {} bytes of {}", shared,
                           launch.target.shared_bytes_per_block);
    }
    const int needed = 32 * shape.warps * registers.registers;
    return needed > launch.rates.registers
               ? fmt::format("registers: {} of {}", needed, launch.rates.registers)
               : "";
}

KernelPlan plan(const KernelCase& launch, const TileShape& shape) {
    const RegisterPlan registers = registers_of(launch, shape);
    const Rates& rates = launch.rates;
    const int threads = 32 * shape.warps;
    const std::int64_t shared = shared_bytes(launch.role, shape, row_bytes(launch.attention));
    KernelPlan plan{.problem = problem_of(launch, shape, registers, shared),
                    .columns = registers.columns,
                    .held_operands = registers.held ? 1 : 0,
                    .dv_then_dk = registers.dv_then_dk,
                    .registers = registers.registers,
                    .launch_bound = registers.resident_blocks,
                    .shared_bytes = shared,
                    .blocks = 0,
                    .geometry = {.threads = threads,
                                 .shared_bytes = static_cast<int>(std::min<std::int64_t>(
                                     shared, std::numeric_limits<int>::max())),
                                 .tile_width = mma_tile_width(launch.attention)}};
    if (plan.problem.empty()) {
        const auto by_shared = static_cast<int>(rates.resident_shared /
                                                (static_cast<double>(shared) + kReservedShared));
        plan.blocks = std::min({by_shared, rates.registers / (threads * registers.registers),
                                registers.resident_blocks, rates.resident_threads / threads,
                                rates.resident_blocks});
    }
    plan.occupancy = static_cast<double>(plan.blocks * threads) / rates.resident_threads;
    if (plan.problem.empty()) {
        plan.problem = why_not_nvrtc(launch.attention, launch.role,
                                     mma_tile_width(launch.attention), shape, launch.target);
    }
    return plan;
}

// Most streamed rows whose products stay in registers: a thread holds its results, a row of S and,
// going backward, of dP, and fragments of the stationary operands, twice as many of them for 4-byte
// elements.
int rows_in_registers(KernelRole role, const Attention& attention) {
    const bool wide_result = role != KernelRole::kForward && mma_tile_width(attention) >= 128;
    const bool wide_elements =
        storage_bytes(attention.dtype) == 4 && mma_tile_width(attention) >= 64;
    return wide_result || wide_elements ? 32 : 64;
}

// The block, 64 rows at most; two stages of as many streamed rows as leave a thread's accumulators
// in registers, fewer of both where shared memory is short.
std::optional<TileShape> measured(const KernelCase& launch) {
    const int widest = std::min(launch.block, 64);
    for (int rows = rows_in_registers(launch.role, launch.attention); rows >= kRowsOfWarp;
         rows /= 2) {
        for (const int stages : {2, 1}) {
            const TileShape shape{.stationary_rows = widest,
                                  .streamed_rows = rows,
                                  .gather_rows = std::min(launch.block, rows),
                                  .warps = widest / kRowsOfWarp,
                                  .stages = stages,
                                  .unit = unit_for(launch.attention.dtype)};
            if (plan(launch, shape).blocks > 0) {
                return shape;
            }
        }
    }
    return std::nullopt;
}

std::string why_not_program(const TileProgram& program, const Target& target) {
    if (std::string reason = why_not_warps(program); !reason.empty()) {
        return reason;
    }
    if (std::string reason = why_not_gather_blocks(program); !reason.empty()) {
        return reason;
    }
    // Sums of bytes are made only of what comes near the limit: a file may say anything.
    const std::int64_t limit = target.shared_bytes_per_block;
    if (std::int64_t{2} * program.stages * program.streamed_rows >
        limit / row_bytes(program.attention)) {
        return fmt::format(
            "it needs more than {} bytes of shared memory, and {} has {} for a thread block: give "
            "it fewer stages or streamed_rows",
            limit, target.arch, limit);
    }
    const Rates rates = rates_of(target);
    const KernelCase launch = case_of(program, target, rates);
    if (std::string reason = why_not(launch); !reason.empty()) {
        return reason;
    }
    const KernelPlan planned = plan(launch, shape_of(program));
    if (program.packed_rows() > 1 && planned.dv_then_dk) {
        return fmt::format(
            "the program packs several block rows into a tile, which no body of {} does for D={}: "
            "take stationary_rows up to the block, {}",
            to_string(program.role), program.attention.head_dim, program.block);
    }
    return planned.shared_bytes > limit ? fmt::format(
                                              "it needs {} bytes of shared memory, and {} has {} "
                                              "for a thread block: give it "
                                              "fewer stages or streamed_rows",
                                              planned.shared_bytes, target.arch, limit)
                                        : "";
}

// dV and then dK: S, dV, then S, dP, dK make 5 products over two walks.
void adjust(KernelLoad& load) {
    if (!load.plan.dv_then_dk) {
        return;
    }
    load.work.products = 2.5;
    load.work.stationary_left = 1.5;
    for (std::int64_t* sum :
         {&load.walk.streamed, &load.walk.steps, &load.walk.later_steps, &load.walk.mma_iterations,
          &load.walk.multiplied, &load.walk.longest_steps, &load.walk.longest_mma_iterations}) {
        *sum *= 2;
    }
}

double products_rate(DType dtype, const Rates& rates) {
    switch (dtype) {
        case DType::kFp32:
            return rates.vector_flop;
        case DType::kTf32:
            return rates.tensor32_flop;
        case DType::kBf16:
        case DType::kFp16:
            return rates.tensor16_flop;
    }
    throw InternalError("dtype {} has no rate", static_cast<int>(dtype));
}

// Seconds of a thread block that has an SM to itself.
struct Alone {
    double mma_iteration;
    double step;  // beside its passes
};

double latency_seconds(const KernelLoad& load, const Alone& alone) {
    const TileShape& shape = load.shape;
    const WalkSummary& walk = load.walk;
    const int blocks = load.plan.blocks;
    const double first = std::min<double>(shape.streamed_rows, load.mean_rows());
    const double share = load.rates.cache_bytes / load.target.sm_count;
    const double fill = blocks / 2.0 * load.row_bytes *
                        (2 * first + load.work.loaded * shape.stationary_rows) / share;
    const double item = kItemSeconds + fill;
    const double mma_iteration = kMmaIterationSeconds + alone.mma_iteration;
    const double step = kBarrierSeconds * shape.warps + alone.step;
    // A step's copies have the time of the steps before it to arrive.
    const double mma_iterations_a_step =
        static_cast<double>(shape.streamed_rows) / load.plan.columns;
    const double ahead = (shape.stages - 1) * mma_iterations_a_step * alone.mma_iteration * blocks;
    const double wait = std::max(0.0, kFetchSeconds - ahead);
    const double one_head = static_cast<double>(walk.items) * item +
                            static_cast<double>(walk.mma_iterations) * mma_iteration +
                            static_cast<double>(walk.steps) * step +
                            static_cast<double>(walk.later_steps) * wait;
    const double longest = item + static_cast<double>(walk.longest_mma_iterations) * mma_iteration +
                           static_cast<double>(walk.longest_steps) * (step + wait);
    const double slots = static_cast<double>(load.target.sm_count) * blocks;
    // Work is handed out in order, longest first: the device empties while the last items finish.
    const double mean = one_head / static_cast<double>(walk.items);
    return std::max(longest, load.batch_heads * one_head / slots + mean / 2);
}

std::string body(KernelRole role, const KernelPlan& plan) {
    return fmt::format("sm80/{}{}", to_string(role), plan.dv_then_dk ? "_dv_then_dk" : "");
}

std::vector<Constant> constants(const TileProgram& program, const KernelPlan& plan) {
    return {integer("kColumns", plan.columns, "streamed rows multiplied at once"),
            {.name = "kHeldInRegisters",
             .value = plan.held_operands > 0,
             .comment = "stationary operands, else fetched at every use"},
            integer("kWarps", program.warps, ""),
            integer("kStages", program.stages, "streamed tiles in shared memory at once"),
            integer("kResidentBlocks", plan.launch_bound, "an SM has registers for that many"),
            integer("kSharedBytes", plan.geometry.shared_bytes, "of a thread block")};
}

}  // namespace

SmTime time_of_thread_blocks(const KernelLoad& load) {
    const Rates& rates = load.rates;
    const TileShape& shape = load.shape;
    const double elements =
        static_cast<double>(shape.stationary_rows) * load.plan.columns;  // a pass
    const double depth = mma_tile_width(load.attention);
    const auto tile_row_bytes = static_cast<double>(row_bytes(load.attention));
    const double products =
        2 * load.work.products * elements * depth / products_rate(load.attention.dtype, rates);
    // A warp of 16 rows reads the whole streamed operand of every product; fp32 operands reach 4
    // lanes of a warp at a time.
    const double spread = load.attention.dtype == DType::kFp32 ? 4 : 1;
    const double left =
        load.plan.held_operands > 0 ? 0 : load.work.stationary_left * shape.stationary_rows;
    const double shared = (load.work.products * load.plan.columns * shape.warps * spread + left) *
                          tile_row_bytes / rates.shared_bytes;
    const double exponentials = elements / rates.exponentials;
    const double rescale = load.work.products == 2 ? shape.stationary_rows * depth : 0;
    const double instructions = (elements * kScoreInstructions + rescale) / kGpuIssue;
    const double chunks = 2 * shape.streamed_rows * tile_row_bytes / 16;  // a step, with padding
    const double copies = chunks * kCopyInstructions / kGpuIssue;

    const bool full_thread = load.role == KernelRole::kKeyValueGradient &&
                             load.shape.unit == MatrixUnit::kMmaSync &&
                             load.plan.held_operands == 0 && load.plan.registers == kFullThread;
    const double clocks = (std::max(products, shared) + exponentials + instructions) *
                          (full_thread ? kFullThreadShare : 1);
    const double hidden = kIssueOverlap * (1 + kStallShare / load.plan.blocks);
    // Passes that all rows of the tile take part in: a packed tile's warps leave some out.
    const double mma_iterations = static_cast<double>(load.walk.multiplied) / shape.stationary_rows;
    const double total = mma_iterations * clocks + static_cast<double>(load.walk.steps) * copies;
    // Fewer than 4 warps leave some of an SM's 4 schedulers idle.
    const double alone = std::max(1.0, 4.0 / shape.warps);
    return {
        .compute_seconds = load.batch_heads * total * hidden / (rates.clock * load.target.sm_count),
        .latency_seconds = latency_seconds(load, {.mma_iteration = clocks * alone / rates.clock,
                                                  .step = copies * alone / rates.clock}),
        .bound = largest(products, shared, exponentials, instructions)};
}

const KernelFamily kMmaSync{.name = "mma.sync",
                            .mark = "",
                            .computes = computes_split_backward,
                            .multiplies = multiplies,
                            .why_not = why_not,
                            .instead = "give one pattern a head of K and V, or one a layer",
                            .shapes = shapes,
                            .measured = measured,
                            .most_packed_rows = most_packed_rows,
                            .packing_can_pay = true,
                            .packed_shapes = packed_shapes,
                            .packing_overhead = packing_overhead,
                            .why_not_program = why_not_program,
                            .plan = plan,
                            .adjust = adjust,
                            .time = time_of_thread_blocks,
                            .body = body,
                            .constants = constants};

}  // namespace spion
