#include "codegen/llvm/host_vectors.h"

#include <fmt/format.h>

#include <algorithm>

namespace spion {
namespace {

// kernels/host/tile.h keeps a tile's scores and operands on the stack.
constexpr int kMostStationaryRows = 64;  // of a block row
constexpr int kMostStreamedRows = 128;
constexpr int kFewestRows = 16;
constexpr int kMostPackedRows = 32;    // bits of TileProgram::block_row_masks
constexpr int kMostGatherBlocks = 32;  // of a step
constexpr double kItemSeconds = 2e-7;
constexpr double kStepSeconds = 5e-8;
constexpr double kEfficiency = 0.5;  // of the vector units' rate

bool multiplies(KernelRole /*role*/, MatrixUnit unit, DType /*dtype*/, const Target& target) {
    return unit == MatrixUnit::kVector && target.back_end == BackEnd::kHost;
}

std::string why_not(const KernelCase& launch) {
    return launch.target.back_end == BackEnd::kHost ? "" : "the host's kernels take target host";
}

TileShape shape_of_rows(int block, int stationary, int streamed) {
    return {.stationary_rows = stationary,
            .streamed_rows = streamed,
            .gather_rows = std::min(block, streamed),
            .warps = 1,
            .stages = 1,
            .unit = MatrixUnit::kVector};
}

std::vector<TileShape> shapes(const KernelCase& launch) {
    std::vector<TileShape> shapes;
    for (int stationary = std::min(launch.block, kMostStationaryRows); stationary >= kFewestRows;
         stationary /= 2) {
        for (const int streamed : {128, 64, 32, 16}) {
            shapes.push_back(shape_of_rows(launch.block, stationary, streamed));
        }
    }
    return shapes;
}

// Measured on x86.
std::optional<TileShape> measured(const KernelCase& launch) {
    const int widest = std::min(launch.block, kMostStationaryRows);
    return shape_of_rows(widest, widest, widest);
}

int most_packed_rows(int block) {
    return block <= kMostStationaryRows ? kMostPackedRows : 1;
}

std::vector<TileShape> packed_shapes(const KernelCase& launch, int packed_rows) {
    std::vector<TileShape> packed;
    if (!why_not(launch).empty()) {
        return packed;
    }
    for (TileShape shape : shapes(launch)) {
        if (shape.stationary_rows == launch.block) {
            shape.stationary_rows = packed_rows * launch.block;
            shape.packed_rows = packed_rows;
            packed.push_back(shape);
        }
    }
    return packed;
}

std::string why_not_program(const TileProgram& program, const Target& /*target*/) {
    const int lanes = program.stationary_rows / program.packed_rows();
    if (lanes % kFewestRows != 0 || lanes > kMostStationaryRows) {
        return fmt::format("it has stationary_rows={}: take 16, 32 or {} {}on the host",
                           program.stationary_rows, kMostStationaryRows,
                           program.packed_rows() > 1 ? "a block row " : "");
    }
    if (program.streamed_rows > kMostStreamedRows) {
        return fmt::format("it has streamed_rows={}: take {} at most on the host",
                           program.streamed_rows, kMostStreamedRows);
    }
    if (program.warps != 1 || program.stages != 1) {
        return fmt::format("it has warps={} stages={}: take 1 and 1 on the host", program.warps,
                           program.stages);
    }
    return program.attention.dtype == DType::kFp32
               ? ""
               : fmt::format("the CPU back end computes in fp32, not {}: choose fp32 or a GPU",
                             to_string(program.attention.dtype));
}

// Exactly the rows that there are are multiplied, one at a time.
KernelPlan plan(const KernelCase& /*launch*/, const TileShape& shape) {
    const int gather_blocks = shape.streamed_rows / shape.gather_rows;
    return {.problem = gather_blocks > kMostGatherBlocks
                           ? fmt::format("{} gather blocks a step, at most {}", gather_blocks,
                                         kMostGatherBlocks)
                           : "",
            .columns = 1,
            .held_operands = 1,
            .occupancy = 1};
}

// A core does one thing at a time: what its work takes is in the compute term.
double latency_seconds(const KernelLoad& load, double mma_iteration) {
    const WalkSummary& walk = load.walk;
    const double one_head = static_cast<double>(walk.items) * kItemSeconds +
                            static_cast<double>(walk.steps) * kStepSeconds;
    const double longest = kItemSeconds +
                           static_cast<double>(walk.longest_mma_iterations) * mma_iteration +
                           static_cast<double>(walk.longest_steps) * kStepSeconds;
    const double slots = static_cast<double>(load.target.sm_count) * load.plan.blocks;
    const double mean = one_head / static_cast<double>(walk.items);
    return std::max(longest, load.batch_heads * one_head / slots + mean / 2);
}

SmTime time(const KernelLoad& load) {
    const Rates& rates = load.rates;
    const int rows = load.shape.stationary_rows;
    const double elements = static_cast<double>(rows) * load.plan.columns;  // a pass
    const double depth = mean_head_dim(load.attention);
    const double products =
        2 * load.work.products * elements * depth / (kEfficiency * rates.vector_flop);
    const double exponentials = elements / rates.exponentials;
    const double rescale = load.work.products == 2 ? rows * depth : 0;
    const double instructions = (elements * kScoreInstructions + rescale) / (rates.vector_flop / 2);
    const double clocks = products + exponentials + instructions;
    const double mma_iterations = static_cast<double>(load.walk.multiplied) / rows;
    return {.compute_seconds =
                load.batch_heads * (mma_iterations * clocks) / (rates.clock * load.target.sm_count),
            .latency_seconds = latency_seconds(load, clocks / rates.clock),
            .bound = largest(products, 0, exponentials, instructions)};
}

std::string body(KernelRole role, const KernelPlan& /*plan*/) {
    return std::string(to_string(role));
}

std::vector<Constant> constants(const TileProgram& program, const KernelPlan& /*plan*/) {
    return {integer("kStationaryRows", program.stationary_rows / program.packed_rows(),
                    "of a block row of a work item, in lanes"),
            integer("kPackedRows", program.packed_rows(), "block rows of a work item"),
            integer("kStreamedRows", program.streamed_rows, "of one step"),
            integer("kGatherRows", program.gather_rows, "streamed rows adjacent in memory")};
}

}  // namespace

const KernelFamily kHostVectors{.name = "the host's vectors",
                                .mark = "",
                                .computes = computes_split_backward,
                                .multiplies = multiplies,
                                .why_not = why_not,
                                .shapes = shapes,
                                .measured = measured,
                                .most_packed_rows = most_packed_rows,
                                .packing_can_pay = false,
                                .packed_shapes = packed_shapes,
                                .packing_overhead = no_packing_overhead,
                                .why_not_program = why_not_program,
                                .plan = plan,
                                .time = time,
                                .prefetched_by_hardware = true,
                                .body = body,
                                .constants = constants};

}  // namespace spion
