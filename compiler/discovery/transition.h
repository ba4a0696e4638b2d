// When training turns sparse (SPION, section 1.2), or a fixed step.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace spion {

struct TransitionSettings {
    // Steps after which training turns sparse whatever the maps; 0: the rule decides.
    std::int64_t fixed_step = 0;
    // The rule: change_t, truncated to whole per cent, is below this for all layers.
    int percent = 15;
};
// Throws UserError on a setting out of range.
void check(const TransitionSettings& settings);

// The rule sees distances, not maps, so that the maps may stay on a device. At evaluation t every
// layer has dist_t = ||A^s_t - A^s_(t-1)||_F and change_t = |dist_t - dist_(t-1)| / dist_(t-1) *
// 100, so the third evaluation is the first that can decide. A map that did not move twice running
// (both distances 0) has change 0; one that moves after standing still has an infinite change.
class Transition {
  public:
    // Throws UserError when `settings` fails check().
    Transition(int layers, TransitionSettings settings);

    // False with a fixed step: no evaluation is needed.
    bool needs_maps() const { return settings_.fixed_step == 0; }
    // True when the fixed step is reached; always false under the rule.
    bool reached(std::int64_t steps_done) const;
    // One evaluation from the second on; distances: [layers]. True when the rule holds now; always
    // false with a fixed step. Throws UserError when a distance is not a finite number >= 0.
    bool observe(std::span<const double> distances);
    // change_t of the last evaluation in per cent, [layers]; empty before the third evaluation.
    std::span<const double> changes() const { return changes_; }

    // Distances of the last evaluation, [layers]; empty before the second. With them another goes on
    // where this one is.
    std::span<const double> previous() const { return previous_; }
    void go_on_from(std::vector<double> previous) { previous_ = std::move(previous); }

  private:
    int layers_;
    TransitionSettings settings_;
    std::vector<double> previous_;  // [layers], empty before the second evaluation
    std::vector<double> changes_;   // [layers], empty before the third
};

// ||a - b||_F of two maps of equal size, in fp64.
double frobenius_distance(std::span<const float> a, std::span<const float> b);

// Distances between successive maps kept on the host: one map a layer.
class MapHistory {
  public:
    explicit MapHistory(int layers);
    // Takes layer's A^s of this evaluation, [L, L]; returns its distance from the last one, or
    // nothing at the first.
    std::optional<double> advance(int layer, std::span<const float> map);
    // [layers] of [L, L], empty before the first evaluation.
    const std::vector<std::vector<float>>& last() const { return last_; }

  private:
    std::vector<std::vector<float>> last_;  // [layers] of [L, L], empty before the first
};

}  // namespace spion
