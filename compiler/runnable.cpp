#include "compiler/runnable.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "codegen/emit.h"
#include "compiler/lower.h"
#include "ir/error.h"

namespace spion {
namespace {

std::string_view name_of(const Target& target) {
    return target.back_end == BackEnd::kHost ? "the host" : std::string_view(target.arch);
}

std::string why_not_its_unit(const TileProgram& program, const Target& target) {
    const MatrixUnit unit = matrix_unit(program.attention.dtype, target);
    if (program.unit == unit || (fetches_by_tma(program.unit) && has_wgmma(target))) {
        return "";  // emission says what those units take
    }
    const bool for_host = program.unit == MatrixUnit::kVector;
    if (for_host != (target.back_end == BackEnd::kHost)) {
        return fmt::format("it multiplies with unit={}, which {} has not: name {}",
                           to_string(program.unit), name_of(target),
                           for_host ? "target host" : "a GPU, such as sm_80");
    }
    return fmt::format("it multiplies {} with unit={}, where {} has kernels for unit={}: take that",
                       to_string(program.attention.dtype), to_string(program.unit), name_of(target),
                       to_string(unit));
}

// kernels/host/tile.h keeps a tile's scores on the stack.
std::string why_not_on_host(const TileProgram& program) {
    constexpr int kMostStationary = 64, kMostStreamed = 128;
    const int lanes = program.stationary_rows / program.packed_rows();
    if (lanes % 16 != 0 || lanes > kMostStationary) {
        return fmt::format("it has stationary_rows={}: take 16, 32 or {} {}on the host",
                           program.stationary_rows, kMostStationary,
                           program.packed_rows() > 1 ? "a block row " : "");
    }
    if (program.streamed_rows > kMostStreamed) {
        return fmt::format("it has streamed_rows={}: take {} at most on the host",
                           program.streamed_rows, kMostStreamed);
    }
    if (program.warps != 1 || program.stages != 1) {
        return fmt::format("it has warps={} stages={}: take 1 and 1 on the host", program.warps,
                           program.stages);
    }
    return "";
}

std::string why_not_in_shared_memory(const TileProgram& program, const Target& target) {
    const int limit = target.shared_bytes_per_block;
    const std::int64_t row =
        std::int64_t{program.attention.head_dim} * storage_bytes(program.attention.dtype);
    // Geometry's sums are ints: only what comes near the limit is given to it.
    const bool far = std::int64_t{2} * program.stages * program.streamed_rows > limit / row;
    const int needed = far ? limit : geometry(program, target).shared_bytes;
    if (!far && needed <= limit) {
        return "";
    }
    return fmt::format(
        "it needs {}{} bytes of shared memory, and {} has {} for a thread block: give it fewer "
        "stages or streamed_rows",
        far ? "more than " : "", needed, target.arch, limit);
}

std::string why_not_on_gpu(const TileProgram& program, const Target& target) {
    constexpr int kRowsOfWarp = 16, kMostWarps = 8, kMostPieces = 32;
    if (program.unit != MatrixUnit::kMmaWarp &&
        (program.warps > kMostWarps ||
         program.stationary_rows != std::int64_t{kRowsOfWarp} * program.warps)) {
        return fmt::format(
            "it has stationary_rows={} warps={}: take {} rows a warp and at most {} warps",
            program.stationary_rows, program.warps, kRowsOfWarp, kMostWarps);
    }
    const int pieces = program.streamed_rows / program.granule;
    const auto power_of_2 = [](int value) {
        return std::has_single_bit(static_cast<unsigned>(value));
    };
    if (program.granule < kRowsOfWarp || !power_of_2(program.granule) || pieces > kMostPieces ||
        !power_of_2(pieces)) {
        return fmt::format(
            "it has streamed_rows={} granule={}: take granules of {} rows or twice, four times .. "
            "as many, and 1, 2, 4, 8, 16 or {} of them",
            program.streamed_rows, program.granule, kRowsOfWarp, kMostPieces);
    }
    return fetches_by_tma(program.unit) ? "" : why_not_in_shared_memory(program, target);
}

}  // namespace

std::string why_not_runnable(const TileProgram& program, const Target& target) {
    std::string reason = why_not_its_unit(program, target);
    if (!reason.empty()) {
        return reason;
    }
    reason = target.back_end == BackEnd::kHost ? why_not_on_host(program)
                                               : why_not_on_gpu(program, target);
    if (!reason.empty()) {
        return reason;
    }
    try {
        emit(program, target);
    } catch (const UserError& error) {
        return error.what();
    }
    return "";
}

}  // namespace spion
