// The texts of a training run: what was learnt, what was compiled, how it ended.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compiler/launch/compiled_attention.h"
#include "train/phases.h"
#include "train/progress.h"
#include "train/settings.h"

namespace spion {

// "compiled 17 kernels, 0 came from the cache", "compiled nothing: all 17 kernels came from the
// cache".
std::string compiled_text(const KernelCache::Counters& counters);

// "layer 0: 61 of 1024 blocks, density 6.0 %" and the pattern as a picture of at most so many
// columns; or "layer 0: " with density_text of its heads, and these likewise.
std::string pattern_text(int layer, const HeadPatterns& patterns, int columns);

// "score maps moved by 3.1, 20.2 % a layer; ..."
std::string changes_text(std::span<const double> changes, const TrainSettings& settings);

// Each layer's kernels with where they came from and in how many ms, and the stall.
std::string transition_text(const std::vector<std::unique_ptr<CompiledAttention>>& layers,
                            const KernelCache::Counters& before, const KernelCache::Counters& after,
                            const StallTimes& stall);

// The closing lines for a person.
std::string report_text(const TrainReport& report, const TrainSettings& settings,
                        const KernelCache::Counters& counters, const RunFolder& folder);
// RUN/device.json: {"device": name, "compiler", "back_end": "cuda" or "host", and the fields of
// Target under their names, sm_count as "processors"}.
std::string device_json(Device& device);
// RUN/summary.json:
//   device, arch          name and Target::arch
//   seed, steps           steps done; interrupted: by Ctrl-C; out_of_time: by --minutes
//   processes             that trained together, with `batch` samples each
//   diverged              {step, layer or null, tensor, reason, ended_training}: the first step whose
//                         values were not finite, or null
//   transition_step       dense steps before training turned sparse, or null
//   densities             [layers], empty when it stayed dense: of several heads' patterns the mean
//   balances              [layers], likewise: the fullest head's blocks over the mean, 1 where all
//                         heads share a pattern
//   dense_step_ms, sparse_step_ms   medians, 0 for no such steps
//   validation, test      {loss, accuracy} or null
//   not_finite_gradients, peak_device_bytes
//   kernels               {compiled, from_disk}: how the cache was used
//   attention_ms          {batch, layers: [{forward, backward}], dense}: one launch of each layer's
//                         attention for `batch` samples of L tokens; layers empty without a step;
//                         dense: {forward, backward} of one dense layer, or null when the layers
//                         are dense themselves
std::string report_json(const TrainReport& report, const TrainSettings& settings,
                        const KernelCache::Counters& counters, const Device& device);

// 0 for no values.
double mean_of(std::span<const double> values);

// Moves the state's loss, accuracy and step time towards a step's (exponential mean of about 20
// steps); a loss or step time of 0 is none yet.
void smooth(ProgressState& state, double loss, double accuracy, double step_ms);

}  // namespace spion
