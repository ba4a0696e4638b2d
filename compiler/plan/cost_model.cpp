#include "compiler/plan/cost_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "codegen/kernel_families.h"
#include "compiler/plan/walk_summary.h"
#include "ir/error.h"

namespace spion {
namespace {

constexpr double kOverlapPower = 2.5;  // p of cost_model.h

// Bytes a second with `bytes` in flight on each SM: a latency's worth of them, levelling off at the
// peak. Measured on an H200: 1.1, 2.0, 3.3, 4.4 TB/s from memory with 4, 8, 16, 32 KB.
double bandwidth(double peak, double bytes, int sm_count) {
    const double linear = bytes * sm_count / kFetchSeconds;
    return 1 / std::cbrt(std::pow(linear, -3) + std::pow(peak, -3));
}

void count(Prediction& result, const KernelLoad& load, const KernelFamily& family) {
    const WalkSummary& walk = load.walk;
    const RoleWork& work = load.work;
    const double patterns = static_cast<double>(walk.heads);  // that the walk sums
    const double length =
        patterns * static_cast<double>(stationary_length(load.attention, load.role));
    const double streamed = static_cast<double>(walk.streamed);
    const double distinct = static_cast<double>(walk.distinct);
    const double stationary_bytes =
        length * ((work.loaded + work.stored) * load.row_bytes + 4.0 * work.statistics);
    const double again = 2 * (streamed - distinct) * load.row_bytes;
    // What the work items that run together read again comes from the L2 cache as far as that holds
    // the heads they belong to.
    const double at_once = static_cast<double>(load.target.sm_count) * load.plan.blocks *
                           load.plan.geometry.items_at_once;
    const double heads = std::min(load.batch_heads * patterns,
                                  std::ceil(at_once * patterns / static_cast<double>(walk.items)));
    const double working_set = heads * 2 * distinct / patterns * load.row_bytes;
    const double capacity = load.rates.cache_capacity;
    const double missed = working_set > capacity ? 1 - capacity / working_set : 0;
    result.memory_bytes =
        load.batch_heads * (stationary_bytes + 2 * distinct * load.row_bytes + missed * again);
    result.cache_bytes = load.batch_heads * (stationary_bytes + 2 * streamed * load.row_bytes) +
                         load.more_cache_bytes;
    const double rows = family.multiplies_whole_tiles
                            ? static_cast<double>(walk.mma_iterations) * load.shape.stationary_rows
                            : static_cast<double>(walk.multiplied);
    const double elements = load.batch_heads * rows * load.plan.columns;
    result.flop = 2 * work.products * elements * mean_head_dim(load.attention);
    result.exponentials = elements;
    result.waves = load.batch_heads * static_cast<double>(walk.items) / at_once;
}

void time_bytes(Prediction& result, const KernelLoad& load, const KernelFamily& family,
                double cache_share) {
    double memory = load.rates.memory_bytes, cache = load.rates.cache_bytes;
    if (!family.prefetched_by_hardware) {
        const TileShape& shape = load.shape;
        const double in_flight =
            load.plan.blocks * load.plan.geometry.items_at_once * load.row_bytes *
            (2.0 * shape.stages * shape.streamed_rows + load.work.loaded * shape.stationary_rows);
        memory = bandwidth(memory, in_flight, load.target.sm_count);
        cache = bandwidth(cache, in_flight, load.target.sm_count);
    }
    result.memory_seconds = result.memory_bytes / memory;
    result.cache_seconds = result.cache_bytes / cache * cache_share;
}

// The p-norm of the terms, and which of them is the largest.
std::pair<double, Bound> combine(const Prediction& result, Bound compute) {
    const std::array<std::pair<double, Bound>, 4> terms = {
        {{result.memory_seconds, Bound::kMemory},
         {result.cache_seconds, Bound::kCache},
         {result.compute_seconds, compute},
         {result.latency_seconds, Bound::kLatency}}};
    double sum = 0;
    for (const auto& term : terms) {
        sum += std::pow(term.first, kOverlapPower);
    }
    return {std::pow(sum, 1 / kOverlapPower), std::max_element(terms.begin(), terms.end())->second};
}

}  // namespace

Prediction predict(const KernelCase& launch, const KernelFamily& family, const TileShape& shape,
                   const KernelPlan& plan, const WalkSummary& walk, std::int64_t batch) {
    if (batch < 1 || walk.items < 1 || plan.blocks < 1) {
        throw InternalError("no time can be predicted for batch {}, {} work items and {} blocks",
                            batch, walk.items, plan.blocks);
    }
    const Attention& attention = launch.attention;
    KernelLoad load{.attention = attention,
                    .role = launch.role,
                    .shape = shape,
                    .plan = plan,
                    .target = launch.target,
                    .rates = launch.rates,
                    .work = work_of(launch.role),
                    .walk = walk,
                    .batch_heads = static_cast<double>(batch) * attention.heads /
                                   static_cast<double>(walk.heads),
                    .row_bytes = mean_head_dim(attention) * storage_bytes(attention.dtype)};
    if (family.adjust != nullptr) {
        family.adjust(load);
    }
    const SmTime time = family.time(load);
    Prediction result{.compute_seconds = time.compute_seconds,
                      .latency_seconds = time.latency_seconds};
    count(result, load, family);
    time_bytes(result, load, family, time.cache_share);
    const auto [overlapped, bound] = combine(result, time.bound);
    const double packing = shape.packed_rows > 1 ? family.packing_overhead(launch, shape) : 1;
    result.seconds = launch.rates.launch_seconds + time.ramp_seconds + packing * overlapped;
    result.bound = bound;
    return result;
}

Prediction predict(const TileProgram& program, const PlannedKernel& kernel, std::int64_t batch,
                   const Target& target) {
    const Rates rates = rates_of(target);
    return predict(case_of(program, target, rates), *kernel.family, shape_of(program), kernel.plan,
                   summarise(program, kernel.plan.columns), batch);
}

Prediction predict(const TileProgram& program, std::int64_t batch, const Target& target) {
    return predict(program, plan_kernel(program, target, kernel_families()), batch, target);
}

}  // namespace spion
