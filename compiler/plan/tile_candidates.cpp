#include "compiler/plan/tile_candidates.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "ir/error.h"

namespace spion {
namespace {

std::vector<const KernelFamily*> families_that_can(const KernelCase& launch,
                                                   KernelFamilies families) {
    std::vector<const KernelFamily*> able = families_for(launch.role, families);
    std::erase_if(able,
                  [&](const KernelFamily* family) { return !family->why_not(launch).empty(); });
    return able;
}

// visit(family, shape) for every shape within a block row.
template <typename Visit>
void on_every_shape(const KernelCase& launch, KernelFamilies families, const Visit& visit) {
    for (const KernelFamily* family : families_that_can(launch, families)) {
        for (const TileShape& shape : family->shapes(launch)) {
            visit(*family, shape);
        }
    }
}

bool fits(const Attention& attention, const KernelCase& like, KernelFamilies families) {
    const KernelCase launch{.attention = attention,
                            .role = like.role,
                            .block = like.block,
                            .target = like.target,
                            .rates = like.rates};
    bool any = false;
    on_every_shape(launch, families, [&](const KernelFamily& family, const TileShape& shape) {
        any = any || family.plan(launch, shape).blocks > 0;
    });
    return any;
}

// Other dtypes or head dimensions that could be tiled, as advice.
std::string what_would_fit(const KernelCase& launch, KernelFamilies families) {
    std::vector<std::string> advice;
    const Attention& asked = launch.attention;
    Attention attention = asked;
    while (advice.empty() && (attention.head_dim -= 8) >= 16) {
        attention.value_dim = std::min(attention.value_dim, attention.head_dim);
        if (fits(attention, launch, families)) {
            advice.push_back(
                fmt::format("D={} in {}", attention.head_dim, to_string(attention.dtype)));
        }
    }
    attention = asked;
    attention.dtype = DType::kBf16;
    if (storage_bytes(asked.dtype) == 4 && fits(attention, launch, families)) {
        advice.push_back(fmt::format("bf16 at D={}", attention.head_dim));
    }
    return advice.empty() ? "use a GPU that offers more"
                          : fmt::format("use {}, which would fit", fmt::join(advice, " or "));
}

}  // namespace

TileCandidate candidate_of(const KernelCase& launch, const KernelFamily& family,
                           const TileShape& shape, const StreamedRows& rows, std::int64_t batch) {
    TileCandidate candidate{.family = &family, .shape = shape, .plan = family.plan(launch, shape)};
    if (candidate.plan.problem.empty()) {
        candidate.prediction = predict(launch, family, shape, candidate.plan,
                                       summarise(rows, shape, candidate.plan.columns), batch);
    }
    return candidate;
}

std::vector<TileCandidate> tile_candidates(const KernelCase& launch, const StreamedRows& rows,
                                           std::int64_t batch, KernelFamilies families) {
    std::vector<TileCandidate> candidates;
    on_every_shape(launch, families, [&](const KernelFamily& family, const TileShape& shape) {
        candidates.push_back(candidate_of(launch, family, shape, rows, batch));
    });
    return candidates;
}

std::vector<TileCandidate> packed_candidates(const KernelCase& launch, const StreamedRows& rows,
                                             std::int64_t batch, KernelFamilies families) {
    std::vector<TileCandidate> candidates;
    for (const KernelFamily* family : families_for(launch.role, families)) {
        for (const TileShape& shape : family->packed_shapes(launch, rows.packed_rows)) {
            candidates.push_back(candidate_of(launch, *family, shape, rows, batch));
        }
    }
    return candidates;
}

std::vector<std::size_t> rank_candidates(const std::vector<TileCandidate>& candidates,
                                         const std::optional<TileShape>& measured,
                                         std::size_t count) {
    std::vector<std::size_t> ranked;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
        if (candidates[i].prediction) {
            ranked.push_back(i);
        }
    }
    const auto seconds = [&](std::size_t i) { return candidates[i].prediction->seconds; };
    std::stable_sort(ranked.begin(), ranked.end(),
                     [&](std::size_t a, std::size_t b) { return seconds(a) < seconds(b); });
    const auto known = std::find_if(ranked.begin(), ranked.end(),
                                    [&](std::size_t i) { return candidates[i].shape == measured; });
    if (known != ranked.end() && seconds(*known) <= (1 + kMargin) * seconds(ranked.front())) {
        std::rotate(ranked.begin(), known, known + 1);
    }
    ranked.resize(std::min(ranked.size(), count));
    return ranked;
}

std::optional<TileShape> measured_among(std::vector<TileCandidate> candidates,
                                        const KernelCase& launch, KernelFamilies families) {
    std::erase_if(candidates,
                  [](const TileCandidate& candidate) { return candidate.shape.packed_rows > 1; });
    for (const KernelFamily* family : families_that_can(launch, families)) {
        const std::optional<TileShape> shape = family->measured(launch);
        if (!shape) {
            continue;
        }
        const auto ranked = rank_candidates(candidates, shape, 1);
        const bool wins = !ranked.empty() && candidates[ranked.front()].shape == shape;
        if (wins || !family->measured_on_many_items) {
            return shape;
        }
    }
    return std::nullopt;
}

// The most general family of the role that multiplies on the target, or of all where none does: its
// reason is the one that counts.
const KernelFamily& general_family(const KernelCase& launch, KernelFamilies families) {
    const auto of_role = families_for(launch.role, families);
    if (of_role.empty()) {
        throw InternalError("no kernel family computes {}", to_string(launch.role));
    }
    const auto found = std::find_if(of_role.rbegin(), of_role.rend(), [&](const auto* family) {
        return std::any_of(std::begin(kMatrixUnits), std::end(kMatrixUnits), [&](MatrixUnit unit) {
            return family->multiplies(launch.role, unit, launch.attention.dtype, launch.target);
        });
    });
    return found == of_role.rend() ? *of_role.back() : **found;
}

void throw_nothing_fits(const KernelCase& launch, KernelFamilies families) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    on_every_shape(launch, families, [&](const KernelFamily& family, const TileShape& shape) {
        least = std::min(least, family.plan(launch, shape).shared_bytes);
    });
    if (families_that_can(launch, families).empty()) {
        const KernelFamily& general = general_family(launch, families);
        throw UserError("{}: {}", general.why_not(launch), general.instead);
    }
    throw UserError(
        "no {} tile for D={} {} fits: the smallest needs {} bytes of shared memory and {} offers "
        "{} a block, so {}",
        to_string(launch.role), launch.attention.head_dim, to_string(launch.attention.dtype), least,
        launch.target.arch, launch.target.shared_bytes_per_block, what_would_fit(launch, families));
}

}  // namespace spion
