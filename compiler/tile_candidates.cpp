#include "compiler/tile_candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "codegen/cuda/hopper_plan.h"
#include "codegen/cuda/warp_plan.h"
#include "codegen/emit.h"
#include "compiler/layer_roles.h"
#include "compiler/packing.h"
#include "ir/error.h"
#include "ir/nvrtc_rules.h"

namespace spion {
namespace {

constexpr int kFewestRows = 16;    // one k-step of mma.sync on 16-bit operands
constexpr int kMostGranules = 32;  // of a step: a warp keeps the index of one in each lane

// Whether wgmma can multiply tiles of this attention with `rows` rows: a warpgroup has 64.
bool takes_wgmma(const Attention& attention, int rows, const Target& target) {
    return has_wgmma(target) && storage_bytes(attention.dtype) == 2 &&
           hopper_head_dim(attention.head_dim) && rows % 64 == 0;
}

void append_wgmma_shapes(std::vector<TileShape>& shapes, int block) {
    for (int stationary = block; stationary >= 64; stationary /= 2) {
        for (const int streamed : {128, 64}) {
            for (int stages = 4; stages >= 2; --stages) {
                shapes.push_back({.stationary_rows = stationary,
                                  .streamed_rows = streamed,
                                  .granule = std::min(block, streamed),
                                  .warps = stationary / 16,
                                  .stages = stages,
                                  .wgmma = true});
            }
        }
    }
}

// Whether a warp can have a block's rows for itself.
bool takes_warp_items(const Attention& attention, int block, KernelRole role,
                      const Target& target) {
    return has_wgmma(target) && storage_bytes(attention.dtype) == 2 &&
           has_warp_plan(role, attention.head_dim, block);
}

TileShape warp_items_shape(int block, int stages) {
    return {.stationary_rows = block,
            .streamed_rows = 32,
            .granule = block,
            .warps = 1,
            .stages = stages,
            .warp_items = true};
}

std::vector<TileShape> every_shape(const Attention& attention, int block, KernelRole role,
                                   const Target& target) {
    std::vector<TileShape> shapes;
    if (takes_wgmma(attention, block, target)) {
        append_wgmma_shapes(shapes, block);
    }
    if (takes_warp_items(attention, block, role, target)) {
        for (int stages = 4; stages >= 2; --stages) {
            shapes.push_back(warp_items_shape(block, stages));
        }
    }
    const bool host = target.back_end == BackEnd::kHost;
    const int widest = host ? std::min(block, 64) : block;  // kernels/host/tile.h holds 64
    for (int stationary = widest; stationary >= kFewestRows; stationary /= 2) {
        for (const int streamed : {128, 64, 32, 16}) {
            for (int stages = host ? 1 : 4; stages >= 1; --stages) {
                shapes.push_back({.stationary_rows = stationary,
                                  .streamed_rows = streamed,
                                  .granule = std::min(block, streamed),
                                  .warps = host ? 1 : stationary / 16,
                                  .stages = stages});
            }
        }
    }
    return shapes;
}

// Tiles of `packed_rows` block rows, two steps in flight where warps multiply on their own.
std::vector<TileShape> packed_shapes(const Attention& attention, int block, int packed_rows,
                                     KernelRole role, const Target& target) {
    std::vector<TileShape> shapes;
    constexpr int kGroupRows = 64;  // kernels/cuda/sm90/wgmma_packed_rows.cuh has one warpgroup
    if (packed_rows * block == kGroupRows && takes_wgmma(attention, kGroupRows, target)) {
        append_wgmma_shapes(shapes, kGroupRows);
        const int stages = attention.head_dim == 128 ? 2 : 3;  // as measured_shape has it
        std::erase_if(shapes, [&](const TileShape& shape) { return shape.stages != stages; });
        for (TileShape& shape : shapes) {
            shape.granule = block;
            shape.packed_rows = packed_rows;
        }
    }
    const int stages = target.back_end == BackEnd::kHost ? 1 : 2;
    for (const TileShape& shape : every_shape(attention, block, role, target)) {
        const bool warps_share = !shape.wgmma && !shape.warp_items;
        if (shape.stationary_rows == block && shape.stages == stages && warps_share) {
            shapes.push_back(packed_shape(shape, block, packed_rows, target));
        }
    }
    return shapes;
}

// Most streamed rows whose products stay in registers: a thread holds its results, a row of S and,
// going backward, of dP, and fragments of the stationary operands, twice as many of them for
// 4-byte elements.
int rows_in_registers(KernelRole role, const Attention& attention) {
    const bool wide_result = role != KernelRole::kForward && attention.head_dim >= 128;
    const bool wide_elements = storage_bytes(attention.dtype) == 4 && attention.head_dim >= 64;
    return wide_result || wide_elements ? 32 : 64;
}

// The measured shape of thread blocks that share an item, multiplied by what lower.h's matrix_unit
// says.
std::optional<TileShape> block_shape(const Attention& attention, int block, KernelRole role,
                                     const Target& target) {
    const int widest = std::min(block, 64);
    for (int rows = rows_in_registers(role, attention); rows >= kFewestRows; rows /= 2) {
        for (const int stages : {2, 1}) {
            const TileShape shape{.stationary_rows = widest,
                                  .streamed_rows = rows,
                                  .granule = std::min(block, rows),
                                  .warps = widest / 16,
                                  .stages = stages};
            if (residency(attention, role, shape, target, rates_of(target)).blocks > 0) {
                return shape;
            }
        }
    }
    return std::nullopt;
}

std::string why_infeasible(const Attention& attention, KernelRole role, const TileShape& shape,
                           const Residency& resident, const Target& target, const Rates& rates) {
    if (shape.streamed_rows / shape.granule > kMostGranules) {
        return fmt::format("{} pieces a step, at most {}", shape.streamed_rows / shape.granule,
                           kMostGranules);
    }
    if (target.back_end == BackEnd::kHost) {
        return "";
    }
    if (!resident.problem.empty()) {
        return resident.problem;
    }
    if (shape.wgmma || shape.warp_items) {
        return why_nvrtc_refuses(target.compiler,
                                 {.unit = shape.wgmma ? MatrixUnit::kWgmma : MatrixUnit::kMmaWarp,
                                  .role = role,
                                  .head_dim = attention.head_dim,
                                  .streamed_rows = shape.streamed_rows,
                                  .packed = shape.packed_rows > 1});
    }
    if (resident.shared > target.shared_bytes_per_block) {
        return fmt::format("shared memory: {} bytes of {}", resident.shared,
                           target.shared_bytes_per_block);
    }
    const int registers = 32 * shape.warps * resident.registers;
    if (registers > rates.registers) {
        return fmt::format("registers: {} of {}", registers, rates.registers);
    }
    return "";
}

TileCandidate candidate_of(const Attention& attention, const StreamedRows& rows, KernelRole role,
                           const TileShape& shape, const Target& target, std::int64_t batch,
                           const Rates& rates) {
    const Residency resident = residency(attention, role, shape, target, rates);
    TileCandidate candidate{
        .shape = shape,
        .infeasible = why_infeasible(attention, role, shape, resident, target, rates),
        .prediction = std::nullopt};
    if (candidate.infeasible.empty()) {
        candidate.prediction = predict(
            attention, role, shape, summarise(rows, shape, resident.columns), batch, target, rates);
    }
    return candidate;
}

bool fits(const Attention& attention, int block, KernelRole role, const Target& target) {
    const Rates rates = rates_of(target);
    const std::vector<TileShape> shapes = every_shape(attention, block, role, target);
    return std::any_of(shapes.begin(), shapes.end(), [&](const TileShape& shape) {
        return residency(attention, role, shape, target, rates).blocks > 0;
    });
}

// Other dtypes or head dimensions that could be tiled, as advice.
std::string what_would_fit(Attention attention, int block, KernelRole role, const Target& target) {
    std::vector<std::string> advice;
    const Attention asked = attention;
    while (advice.empty() && (attention.head_dim -= 16) >= 16) {
        if (fits(attention, block, role, target)) {
            advice.push_back(
                fmt::format("D={} in {}", attention.head_dim, to_string(attention.dtype)));
        }
    }
    attention = asked;
    attention.dtype = DType::kBf16;
    if (storage_bytes(asked.dtype) == 4 && fits(attention, block, role, target)) {
        advice.push_back(fmt::format("bf16 at D={}", attention.head_dim));
    }
    return advice.empty() ? "use a GPU that offers more"
                          : fmt::format("use {}, which would fit", fmt::join(advice, " or "));
}

[[noreturn]] void throw_nothing_fits(const Attention& attention, int block, KernelRole role,
                                     const Target& target) {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (const TileShape& shape : every_shape(attention, block, role, target)) {
        least = std::min(least, residency(attention, role, shape, target, rates_of(target)).shared);
    }
    throw UserError(
        "no {} tile for D={} {} fits: the smallest needs {} bytes of shared memory and {} offers "
        "{} a block, so {}",
        to_string(role), attention.head_dim, to_string(attention.dtype), least, target.arch,
        target.shared_bytes_per_block, what_would_fit(attention, block, role, target));
}

}  // namespace

StreamedRows planned_rows(std::int64_t length, int block) {
    const std::int64_t blocks = (length + block - 1) / block;
    const auto planned =
        static_cast<std::int64_t>(std::ceil(kPlannedDensity * static_cast<double>(blocks)));
    const std::int64_t streamed = std::min(length, std::max<std::int64_t>(2, planned) * block);
    StreamedRows rows{
        .stationary = std::vector<std::int64_t>(static_cast<std::size_t>(blocks), block),
        .streamed = std::vector<std::int64_t>(static_cast<std::size_t>(blocks), streamed),
        .distinct = length};
    rows.stationary.back() = length - (blocks - 1) * block;
    return rows;
}

std::vector<TileCandidate> tile_candidates(const Attention& attention, int block,
                                           const StreamedRows& rows, KernelRole role,
                                           const Target& target, std::int64_t batch,
                                           const Rates& rates) {
    std::vector<TileCandidate> candidates;
    if (has_one_tile(role) && !why_not_together(attention, block, target).empty()) {
        return candidates;
    }
    for (const TileShape& shape : has_one_tile(role)
                                      ? std::vector{together_shape(attention, role)}
                                      : every_shape(attention, block, role, target)) {
        candidates.push_back(candidate_of(attention, rows, role, shape, target, batch, rates));
    }
    return candidates;
}

std::vector<TileCandidate> tile_candidates(const Attention& attention, const BlockPattern& pattern,
                                           KernelRole role, const Target& target,
                                           std::int64_t batch, std::optional<int> packed_rows) {
    const Rates rates = rates_of(target);
    const int block = pattern.block();
    auto candidates =
        tile_candidates(attention, block, streamed_rows(pattern, role), role, target, batch, rates);
    std::vector<int> packed = packings(block, target);
    if (packed_rows) {
        packed.assign(*packed_rows == 1 ? 0 : 1, *packed_rows);
    }
    for (const int count : packed) {
        const std::vector<TileShape> shapes = packed_shapes(attention, block, count, role, target);
        const StreamedRows rows = streamed_rows(pattern, role, count);
        for (const TileShape& shape : shapes) {
            candidates.push_back(candidate_of(attention, rows, role, shape, target, batch, rates));
        }
    }
    return candidates;
}

std::optional<TileShape> measured_shape(const Attention& attention, int block, KernelRole role,
                                        const Target& target) {
    const int widest = std::min(block, 64);
    if (target.back_end == BackEnd::kHost) {
        return TileShape{.stationary_rows = widest,
                         .streamed_rows = widest,
                         .granule = widest,
                         .warps = 1,
                         .stages = 1};
    }
    if (takes_wgmma(attention, block, target)) {
        // A second warpgroup shares what the first has fetched where registers leave room for one
        // block only.
        const bool pair =
            attention.head_dim == 128 && block == 128 && role != KernelRole::kQueryGradient;
        const int streamed = pair && role == KernelRole::kForward ? 128 : 64;
        return TileShape{.stationary_rows = pair ? 128 : 64,
                         .streamed_rows = streamed,
                         .granule = std::min(block, streamed),
                         .warps = pair ? 8 : 4,
                         .stages = attention.head_dim == 128 ? 2 : 3,
                         .wgmma = true};
    }
    if (takes_warp_items(attention, block, role, target)) {
        return warp_items_shape(block, role == KernelRole::kForward ? 3 : 2);
    }
    return block_shape(attention, block, role, target);
}

std::optional<TileShape> measured_among(std::vector<TileCandidate> candidates,
                                        const Attention& attention, int block, KernelRole role,
                                        const Target& target) {
    const auto measured = measured_shape(attention, block, role, target);
    if (!measured || !measured->warp_items) {
        return measured;
    }
    std::erase_if(candidates,
                  [](const auto& candidate) { return candidate.shape.packed_rows > 1; });
    const auto ranked = rank_candidates(candidates, measured, 1);
    const bool wins = !ranked.empty() && candidates[ranked.front()].shape == measured;
    return wins ? measured : block_shape(attention, block, role, target);
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

TileShape choose_tiles(const Attention& attention, int block, KernelRole role,
                       const Target& target) {
    if (has_one_tile(role)) {
        if (const std::string reason = why_not_together(attention, block, target);
            !reason.empty()) {
            throw UserError("{}: sum dQ apart from dK and dV", reason);
        }
        return together_shape(attention, role);
    }
    const auto candidates = tile_candidates(attention, block, planned_rows(attention.length, block),
                                            role, target, kPlannedBatch, rates_of(target));
    const auto ranked =
        rank_candidates(candidates, measured_among(candidates, attention, block, role, target), 1);
    if (ranked.empty()) {
        throw_nothing_fits(attention, block, role, target);
    }
    return candidates[ranked.front()].shape;
}

int choose_summary_tile(const Attention& attention, int block, const Target& target) {
    int tile = std::min(block, 64);
    const auto shared = [&] {
        return geometry(ScoreSummaryProgram{.attention = attention, .block = block, .tile = tile},
                        target)
            .shared_bytes;
    };
    while (target.back_end == BackEnd::kCuda && shared() > target.shared_bytes_per_block) {
        if (tile == kFewestRows) {
            throw UserError(
                "no score summary for D={} {} fits: its smallest tile needs {} bytes of shared "
                "memory and {} offers {} a block, so use a smaller D or a GPU that offers more",
                attention.head_dim, to_string(attention.dtype), shared(), target.arch,
                target.shared_bytes_per_block);
        }
        tile /= 2;
    }
    return tile;
}

}  // namespace spion
