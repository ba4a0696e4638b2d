// Measures the tile shapes that the cost model ranks best on the device at hand. What it finds is
// kept in the cache folder (compiler/tune/tuning.h); the key is made of the candidates' compile
// requests, the pattern, the batch and the device's name, so that a change of any of them, or of a
// kernel's body, measures afresh.
#pragma once

#include "compiler/plan/layer_plan.h"
#include "compiler/tune/tuning.h"
#include "runtime/cache.h"
#include "runtime/device.h"

namespace spion {

struct AutotuneOptions {
    int candidates = 4;  // that are compiled and measured
    int repeat = 7;      // measurements that a median is taken of
};

// The best packed tile is one of those measured, where it is predicted to take at most kPackedReach
// times as long as the best of all: the model tells unions less well than it tells shapes.
constexpr double kPackedReach = 1.3;

// Of one launch, whose plan has weighed the pattern: measured for the plan's batch. Throws
// DeviceError when the device has no room for the tensors.
Tuning autotune(const Attention& attention, const HeadPatterns& pattern, const LaunchPlan& launch,
                Device& device, KernelCache& cache, const AutotuneOptions& options = {});

// Gives each launch whose shape was not asked for, and which has several, the one that is fastest
// when measured: the plan with other shapes.
void autotune(LayerPlan& plan, const HeadPatterns& pattern, Device& device, KernelCache& cache,
              const AutotuneOptions& options = {});

}  // namespace spion
