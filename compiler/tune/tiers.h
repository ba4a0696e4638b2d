// Tier 1 of a layer: the same kernels with the pattern in their source (Tables::kBaked), compiled
// in the background while tier 0 works, and taken at a step boundary if they measure faster. Tile
// shapes and the order of accumulation are those of tier 0, and so are the results, bit for bit.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compiler/launch/compiled_attention.h"

namespace spion {

// Why tier 1 is not worth compiling for a layer, as a clause; "" when it is. Baking saves a work
// item the reads of its tables, once; what is left is the same. So it is not tried
//   - where the tables are too large to bake (codegen/emit.h, why_not_baked);
//   - where nothing is streamed at all;
//   - where work items take more than kMostStepsWorthBaking steps on average: measured on an
//     H200, tier 1 gains 1 to 3 % up to 13 steps and nothing from 25 on (docs/journal.md).
constexpr double kMostStepsWorthBaking = 20;
std::string why_not_tier1(const LayerPrograms& programs);

// What became of a layer's tier 1.
struct TierVerdict {
    int layer = 0;
    bool taken = false;
    std::string why_not;  // when it was not even measured
    double compile_ms = 0;
    double tier0_ms = 0, tier1_ms = 0;  // forward and backward, medians
    double measurement_ms = 0;          // that training stood still for

    // "layer 2: tier 1 taken: 0.1100 ms a pass, tier 0 0.1130 ms (compiled in 480 ms in the
    // background, measured in 21 ms)".
    std::string text() const;
};

class BackgroundTiers {
  public:
    // Starts compiling tier 1 of the layers where it is worth trying. All arguments must outlive
    // this object.
    BackgroundTiers(std::span<const std::unique_ptr<CompiledAttention>> layers, Device& device,
                    KernelCache& cache);
    // Waits for the kernel that is being compiled and drops the rest.
    ~BackgroundTiers();

    // Layers without a verdict yet.
    bool pending() const;

    // Whether decide() would not wait.
    bool ready() const;

    // At a step boundary, with marks 40 to 42 free, while pending(): a verdict on the layer that
    // was compiled next. Its kernels are measured beside those of tier 0, and handed over if they
    // are faster. arguments(layer): the layer's tensors. They are read; what the kernels write goes
    // to buffers of their own, so training does not notice. Throws what compilation has thrown.
    TierVerdict decide(const std::function<SpionAttentionArguments(int layer)>& arguments);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace spion
