#include "compiler/discovery/transition.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "ir/error.h"

namespace spion {
namespace {

double change_in_percent(double distance, double previous) {
    if (previous == 0.0) {
        return distance == 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
    }
    return std::abs(distance - previous) / previous * 100.0;
}

}  // namespace

void check(const TransitionSettings& settings) {
    if (settings.fixed_step < 0) {
        throw UserError(
            "transition step {} is not allowed: use 0 for the rule or a number of steps above 0",
            settings.fixed_step);
    }
    if (settings.percent < 1) {
        throw UserError("transition threshold {} per cent is not allowed: use 1 or more",
                        settings.percent);
    }
}

Transition::Transition(int layers, TransitionSettings settings)
    : layers_(layers), settings_(settings) {
    if (layers < 1) {
        throw InternalError("transition: {} layers", layers);
    }
    check(settings);
}

bool Transition::reached(std::int64_t steps_done) const {
    return settings_.fixed_step > 0 && steps_done >= settings_.fixed_step;
}

bool Transition::observe(std::span<const double> distances) {
    if (distances.size() != static_cast<std::size_t>(layers_)) {
        throw InternalError("transition: {} distances for {} layers", distances.size(), layers_);
    }
    for (std::size_t layer = 0; layer < distances.size(); ++layer) {
        if (!std::isfinite(distances[layer]) || distances[layer] < 0.0) {
            throw UserError(
                "the attention map of layer {} moved by {}: training has diverged, so lower the "
                "learning rate",
                layer, distances[layer]);
        }
    }
    bool settled = needs_maps() && !previous_.empty();
    if (!previous_.empty()) {
        changes_.resize(distances.size());
        for (std::size_t layer = 0; layer < distances.size(); ++layer) {
            changes_[layer] = change_in_percent(distances[layer], previous_[layer]);
            settled = settled && std::trunc(changes_[layer]) < settings_.percent;
        }
    }
    previous_.assign(distances.begin(), distances.end());
    return settled;
}

double frobenius_distance(std::span<const float> a, std::span<const float> b) {
    if (a.size() != b.size()) {
        throw InternalError("distance of maps of {} and {} elements", a.size(), b.size());
    }
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        sum += difference * difference;
    }
    return std::sqrt(sum);
}

MapHistory::MapHistory(int layers) : last_(static_cast<std::size_t>(layers)) {}

std::optional<double> MapHistory::advance(int layer, std::span<const float> map) {
    std::vector<float>& last = last_.at(static_cast<std::size_t>(layer));
    std::optional<double> distance;
    if (!last.empty()) {
        distance = frobenius_distance(map, last);
    }
    last.assign(map.begin(), map.end());
    return distance;
}

}  // namespace spion
