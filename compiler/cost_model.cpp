#include "compiler/cost_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "compiler/packing.h"
#include "ir/error.h"

namespace spion {
namespace {

// Calibrated by medians of the CUDA kernels on an H200; tests/compiler/cost_model_test.cpp holds
// the model against them.
constexpr double kOverlapPower = 2.5;     // p of cost_model.h
constexpr double kIssueOverlap = 0.82;    // work of a processor's units that does not hide
constexpr double kStallShare = 0.25;      // of a lone thread block's time, hidden by further ones
constexpr double kItemSeconds = 2.0e-6;   // tables, then stationary rows, then the result's store
constexpr double kPassSeconds = 0.2e-6;   // dependent products and softmax of one pass
constexpr double kBarrierSeconds = 1e-8;  // a step and warp
constexpr double kFetchSeconds = 0.5e-6;  // a copy from the L2 cache under load
constexpr double kCopyInstructions = 10;  // a 16-byte chunk, addresses included
constexpr double kScoreInstructions = 4;  // an element of S, but for its exponential
constexpr double kGpuIssue = 128;         // instructions of a lane a clock and processor
// Of the bodies for wgmma: how much of the products' and of the scores' time does not hide behind
// the other, and what a kernel takes until its first tiles have arrived and after its last.
struct HopperShares {
    double products, scores;
};
constexpr HopperShares kHopperForward{.products = 0.79, .scores = 0.82};
constexpr HopperShares kHopperBackward{.products = 1.3, .scores = 0.73};
constexpr HopperShares kHopperTogether{.products = 2.0, .scores = 0.77};
constexpr double kHopperRampSeconds = 5e-6;
constexpr double kHopperCacheShare =
    0.7;  // of the time of reads from L2, which run ahead of the work
constexpr double kHopperScoreInstructions = 5;
// Of the bodies whose warps have items of their own: how much of the work, and of the reads from
// L2, does not hide behind the rest.
constexpr double kWarpRampSeconds = 3e-6;
constexpr double kLongestShare = 0.5;  // of what the longest item would take beside others
constexpr double kWarpForward = 0.9, kWarpRows = 1.15, kWarpColumns = 1.4, kWarpCacheShare = 0.8;
// Of the host's bodies, which leave memory to the hardware's prefetchers.
constexpr double kHostItemSeconds = 2e-7;
constexpr double kHostStepSeconds = 5e-8;
constexpr double kHostEfficiency = 0.5;  // of the vector units' rate

// What the formulas need to know of a kernel's role.
struct Work {
    double products;         // matrix products a pass
    double stationary_left;  // of them with a stationary operand
    int loaded;              // stationary tensors [L, D] read
    int stored;              // stationary tensors [L, D] written
    int statistics;          // floats a row read and written beside: LSE, delta
};

Work work_of(KernelRole role) {
    switch (role) {
        case KernelRole::kForward:  // Q | O | LSE
            return {.products = 2, .stationary_left = 1, .loaded = 1, .stored = 1, .statistics = 1};
        case KernelRole::kQueryGradient:  // Q, dO, O | dQ | LSE, delta
            return {.products = 3, .stationary_left = 2, .loaded = 3, .stored = 1, .statistics = 2};
        case KernelRole::kKeyValueGradient:  // K, V | dK, dV | LSE, delta
            return {.products = 4, .stationary_left = 2, .loaded = 2, .stored = 2, .statistics = 2};
        case KernelRole::kDelta:  // dO, O | | delta
            return {.products = 0, .stationary_left = 0, .loaded = 2, .stored = 0, .statistics = 1};
        case KernelRole::kGradients:  // K, V | dK, dV, dQ | LSE, delta
            return {.products = 5, .stationary_left = 2, .loaded = 2, .stored = 3, .statistics = 2};
    }
    throw InternalError("kernel role {} has no work", static_cast<int>(role));
}

// dV and then dK: S, dV, then S, dP, dK make 5 products over two walks.
constexpr double kProductsApart = 2.5, kStationaryLeftApart = 1.5;

WalkSummary twice(WalkSummary walk) {
    for (std::int64_t* sum : {&walk.streamed, &walk.steps, &walk.later_steps, &walk.passes,
                              &walk.multiplied, &walk.longest_steps, &walk.longest_passes}) {
        *sum *= 2;
    }
    return walk;
}

// kDelta streams nothing.
WalkSummary stationary_only(const WalkSummary& walk) {
    return {.items = walk.items};
}

// Bytes a second with `bytes` in flight on each processor: a latency's worth of them, levelling off
// at the peak. Measured on an H200: 1.1, 2.0, 3.3, 4.4 TB/s from memory with 4, 8, 16, 32 KB.
double bandwidth(double peak, double bytes, int processors) {
    const double linear = bytes * processors / kFetchSeconds;
    return 1 / std::cbrt(std::pow(linear, -3) + std::pow(peak, -3));
}

double products_rate(DType dtype, const Rates& rates, bool host) {
    if (host) {
        return kHostEfficiency * rates.vector_flop;
    }
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

// Seconds of a thread block that has a processor to itself.
struct Alone {
    double pass = 0;
    double step = 0;  // beside its passes
};

// One prediction in the making.
struct Model {
    const Attention& attention;
    const TileShape& shape;
    const WalkSummary walk;
    const Target& target;
    const Rates& rates;
    const Work work;
    double pairs;      // B * H
    double row_bytes;  // of a head
    Residency resident;
    bool host;

    double items() const { return pairs * static_cast<double>(walk.items); }
    double mean_rows() const {
        return static_cast<double>(walk.streamed) / static_cast<double>(walk.items);
    }
    void count(Prediction& result) const;
    void time_bytes(Prediction& result) const;
    void time_compute(Prediction& result, Alone& alone_seconds, Bound& bound) const;
    void time_latency(Prediction& result, const Alone& alone) const;
    void time_wgmma(Prediction& result, Bound& bound) const;
    void time_warp_items(Prediction& result, Bound& bound) const;
};

void Model::count(Prediction& result) const {
    const double length = static_cast<double>(attention.length);
    const double streamed = static_cast<double>(walk.streamed);
    const double distinct = static_cast<double>(walk.distinct);
    const double stationary_bytes =
        length * ((work.loaded + work.stored) * row_bytes + 4.0 * work.statistics);
    const double again = 2 * (streamed - distinct) * row_bytes;
    // What the work items that run together read again comes from the L2 cache as far as that holds
    // the heads they belong to.
    const double at_once =
        static_cast<double>(target.processors) * resident.blocks * resident.items_at_once;
    const double heads = std::min(pairs, std::ceil(at_once / static_cast<double>(walk.items)));
    const double working_set = heads * 2 * distinct * row_bytes;
    const double missed =
        working_set > rates.cache_capacity ? 1 - rates.cache_capacity / working_set : 0;
    result.memory_bytes = pairs * (stationary_bytes + 2 * distinct * row_bytes + missed * again);
    result.cache_bytes = pairs * (stationary_bytes + 2 * streamed * row_bytes);
    if (work.products == 5) {  // shares of dQ, fp32
        result.cache_bytes += pairs * streamed * attention.head_dim * 4;
    }
    // wgmma multiplies all rows of a tile alike.
    const double rows = shape.wgmma ? static_cast<double>(walk.passes) * shape.stationary_rows
                                    : static_cast<double>(walk.multiplied);
    const double elements = pairs * rows * resident.columns;
    result.flop = 2 * work.products * elements * attention.head_dim;
    result.exponentials = elements;
    result.waves = items() / at_once;
}

void Model::time_bytes(Prediction& result) const {
    double memory = rates.memory_bytes, cache = rates.cache_bytes;
    if (!host) {
        const double in_flight =
            resident.blocks * resident.items_at_once * row_bytes *
            (2.0 * shape.stages * shape.streamed_rows + work.loaded * shape.stationary_rows);
        memory = bandwidth(memory, in_flight, target.processors);
        cache = bandwidth(cache, in_flight, target.processors);
    }
    result.memory_seconds = result.memory_bytes / memory;
    const double share = shape.wgmma ? kHopperCacheShare : shape.warp_items ? kWarpCacheShare : 1;
    result.cache_seconds = result.cache_bytes / cache * share;
}

void Model::time_compute(Prediction& result, Alone& alone_seconds, Bound& bound) const {
    const double elements =
        static_cast<double>(shape.stationary_rows) * resident.columns;  // a pass
    const double depth = attention.head_dim;
    const double products =
        2 * work.products * elements * depth / products_rate(attention.dtype, rates, host);
    // A warp of 16 rows reads the whole streamed operand of every product; fp32 operands reach 4
    // lanes of a warp at a time.
    const double spread = attention.dtype == DType::kFp32 && !host ? 4 : 1;
    const double left = resident.held ? 0 : work.stationary_left * shape.stationary_rows;
    const double shared = host ? 0
                               : (work.products * resident.columns * shape.warps * spread + left) *
                                     row_bytes / rates.shared_bytes;
    const double exponentials = elements / rates.exponentials;
    const double issue = host ? rates.vector_flop / 2 : kGpuIssue;
    const double rescale = work.products == 2 ? shape.stationary_rows * depth : 0;
    const double instructions = (elements * kScoreInstructions + rescale) / issue;
    const double chunks = 2 * shape.streamed_rows * row_bytes / 16;  // a step, padding included
    const double copies = host ? 0 : chunks * kCopyInstructions / issue;

    const double clocks = std::max(products, shared) + exponentials + instructions;
    const double hidden = host ? 1 : kIssueOverlap * (1 + kStallShare / resident.blocks);
    // Passes that all rows of the tile take part in: a packed tile's warps leave some out.
    const double passes = static_cast<double>(walk.multiplied) / shape.stationary_rows;
    const double total = passes * clocks + static_cast<double>(walk.steps) * copies;
    result.compute_seconds = pairs * total * hidden / (rates.clock * target.processors);
    // Fewer than 4 warps leave some of a processor's 4 schedulers idle.
    const double alone = host ? 1 : std::max(1.0, 4.0 / shape.warps);
    alone_seconds = {.pass = clocks * alone / rates.clock, .step = copies * alone / rates.clock};
    const std::array<std::pair<double, Bound>, 4> parts = {{{products, Bound::kProducts},
                                                            {shared, Bound::kSharedMemory},
                                                            {exponentials, Bound::kExponentials},
                                                            {instructions, Bound::kInstructions}}};
    bound = std::max_element(parts.begin(), parts.end())->second;
}

// Fetches run ahead of the work across items, so that no item waits for its own.
void Model::time_wgmma(Prediction& result, Bound& bound) const {
    const HopperShares shares = work.products == 2   ? kHopperForward
                                : work.products == 5 ? kHopperTogether
                                                     : kHopperBackward;
    const double elements = static_cast<double>(shape.stationary_rows) * resident.columns;
    const double products =
        2 * work.products * elements * attention.head_dim / rates.wgmma_flop * shares.products;
    const double exponentials = elements / rates.exponentials * shares.scores;
    const double instructions = elements * kHopperScoreInstructions / kGpuIssue * shares.scores;
    const double clocks = products + exponentials + instructions;
    result.compute_seconds =
        pairs * static_cast<double>(walk.passes) * clocks / (rates.clock * target.processors);
    const std::array<std::pair<double, Bound>, 3> parts = {{{products, Bound::kProducts},
                                                            {exponentials, Bound::kExponentials},
                                                            {instructions, Bound::kInstructions}}};
    bound = std::max_element(parts.begin(), parts.end())->second;
    // The longest item has its share of a processor.
    const double longest = static_cast<double>(walk.longest_passes) * clocks * resident.blocks;
    result.latency_seconds = kHopperRampSeconds + longest / rates.clock;
}

// Likewise; a streamed row is read from shared memory once for all rows of an item. The products of
// 16 rows wait for each other as long as those of 32 take.
void Model::time_warp_items(Prediction& result, Bound& bound) const {
    const double elements = std::max(32.0, 1.0 * shape.stationary_rows) * resident.columns;
    const double products = 2 * work.products * elements * attention.head_dim / rates.tensor16_flop;
    const double left = resident.held ? 0 : work.stationary_left * shape.stationary_rows;
    const double shared =
        (work.products * resident.columns + left) * row_bytes / rates.shared_bytes;
    const double exponentials = elements / rates.exponentials;
    const double instructions = elements * kScoreInstructions / kGpuIssue;
    const double clocks = (std::max(products, shared) + exponentials + instructions) *
                          (work.products == 2   ? kWarpForward
                           : work.products == 3 ? kWarpRows
                                                : kWarpColumns);
    result.compute_seconds =
        pairs * static_cast<double>(walk.passes) * clocks / (rates.clock * target.processors);
    const std::array<std::pair<double, Bound>, 4> parts = {{{products, Bound::kProducts},
                                                            {shared, Bound::kSharedMemory},
                                                            {exponentials, Bound::kExponentials},
                                                            {instructions, Bound::kInstructions}}};
    bound = std::max_element(parts.begin(), parts.end())->second;
    const double longest = static_cast<double>(walk.longest_passes) * clocks * resident.blocks *
                           resident.items_at_once;
    result.latency_seconds = kLongestShare * longest / rates.clock;
}

void Model::time_latency(Prediction& result, const Alone& alone) const {
    // A core of the host does one thing at a time: what its work takes is in the compute term.
    double item = kHostItemSeconds, step = kHostStepSeconds, pass = 0, wait = 0;
    if (!host) {
        const double first = std::min<double>(shape.streamed_rows, mean_rows());
        const double share = rates.cache_bytes / target.processors;
        const double fill = resident.blocks / 2.0 * row_bytes *
                            (2 * first + work.loaded * shape.stationary_rows) / share;
        item = kItemSeconds + fill;
        pass = kPassSeconds + alone.pass;
        step = kBarrierSeconds * shape.warps + alone.step;
        // A step's copies have the time of the steps before it to arrive.
        const double passes_a_step = static_cast<double>(shape.streamed_rows) / resident.columns;
        const double ahead = (shape.stages - 1) * passes_a_step * alone.pass * resident.blocks;
        wait = std::max(0.0, kFetchSeconds - ahead);
    }
    const double one_head =
        static_cast<double>(walk.items) * item + static_cast<double>(walk.passes) * pass +
        static_cast<double>(walk.steps) * step + static_cast<double>(walk.later_steps) * wait;
    const double longest = item +
                           static_cast<double>(walk.longest_passes) * (host ? alone.pass : pass) +
                           static_cast<double>(walk.longest_steps) * (step + wait);
    const double slots = static_cast<double>(target.processors) * resident.blocks;
    // Work is handed out in order, longest first: the device empties while the last items finish.
    const double mean = one_head / static_cast<double>(walk.items);
    result.latency_seconds = std::max(longest, pairs * one_head / slots + mean / 2);
}

}  // namespace

std::string_view to_string(Bound bound) {
    switch (bound) {
        case Bound::kMemory:
            return "memory";
        case Bound::kCache:
            return "L2";
        case Bound::kProducts:
            return "products";
        case Bound::kSharedMemory:
            return "shared memory";
        case Bound::kExponentials:
            return "exponentials";
        case Bound::kInstructions:
            return "instructions";
        case Bound::kLatency:
            return "latency";
    }
    throw InternalError("bound {} has no name", static_cast<int>(bound));
}

Prediction predict(const Attention& attention, KernelRole role, const TileShape& shape,
                   const WalkSummary& walk, std::int64_t batch, const Target& target,
                   const Rates& rates) {
    const Residency resident = residency(attention, role, shape, target, rates);
    Work work = work_of(role);
    if (resident.gradients_apart) {
        work.products = kProductsApart;
        work.stationary_left = kStationaryLeftApart;
    }
    const Model model{
        .attention = attention,
        .shape = shape,
        .walk = resident.gradients_apart     ? twice(walk)
                : role == KernelRole::kDelta ? stationary_only(walk)
                                             : walk,
        .target = target,
        .rates = rates,
        .work = work,
        .pairs = static_cast<double>(batch) * attention.heads,
        .row_bytes = static_cast<double>(attention.head_dim) * storage_bytes(attention.dtype),
        .resident = resident,
        .host = target.back_end == BackEnd::kHost};
    if (batch < 1 || walk.items < 1 || model.resident.blocks < 1) {
        throw InternalError("no time can be predicted for batch {}, {} work items and {} blocks",
                            batch, walk.items, model.resident.blocks);
    }
    Prediction result{.residency = model.resident};
    Alone alone;
    Bound compute = Bound::kProducts;
    model.count(result);
    model.time_bytes(result);
    if (shape.wgmma) {
        model.time_wgmma(result, compute);
    } else if (shape.warp_items) {
        model.time_warp_items(result, compute);
    } else {
        model.time_compute(result, alone, compute);
        model.time_latency(result, alone);
    }
    const std::array<std::pair<double, Bound>, 4> terms = {
        {{result.memory_seconds, Bound::kMemory},
         {result.cache_seconds, Bound::kCache},
         {result.compute_seconds, compute},
         {result.latency_seconds, Bound::kLatency}}};
    double sum = 0;
    for (const auto& term : terms) {
        sum += std::pow(term.first, kOverlapPower);
    }
    const double ramp = shape.wgmma ? kHopperRampSeconds : shape.warp_items ? kWarpRampSeconds : 0;
    result.seconds = rates.launch_seconds + ramp +
                     packing_overhead(role, attention.head_dim, shape, target) *
                         std::pow(sum, 1 / kOverlapPower);
    result.bound = std::max_element(terms.begin(), terms.end())->second;
    return result;
}

Prediction predict(const TileProgram& program, std::int64_t batch, const Target& target) {
    const TileShape shape = shape_of(program);
    const Rates rates = rates_of(target);
    const Residency resident = residency(program.attention, program.role, shape, target, rates);
    return predict(program.attention, program.role, shape, summarise(program, resident.columns),
                   batch, target, rates);
}

}  // namespace spion
