#include "codegen/kernel_family.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "ir/error.h"

namespace spion {
namespace {

std::string_view name_of(const Target& target) {
    return target.back_end == BackEnd::kHost ? "the host" : std::string_view(target.arch);
}

// The unit of the most general family that the target has: the last of the table.
std::optional<MatrixUnit> general_unit(KernelRole role, DType dtype, const Target& target,
                                       KernelFamilies families) {
    std::optional<MatrixUnit> found;
    for (const KernelFamily* family : families_for(role, families)) {
        for (const MatrixUnit unit : kMatrixUnits) {
            if (family->multiplies(role, unit, dtype, target)) {
                found = unit;
            }
        }
    }
    return found;
}

std::string why_not_its_unit(const TileProgram& program, const Target& target,
                             KernelFamilies families) {
    const bool for_host = program.unit == MatrixUnit::kVector;
    if (for_host != (target.back_end == BackEnd::kHost)) {
        return fmt::format("it multiplies with unit={}, which {} has not: name {}",
                           to_string(program.unit), name_of(target),
                           for_host ? "target host" : "a GPU, such as sm_80");
    }
    const DType dtype = program.attention.dtype;
    if (const auto unit = general_unit(program.role, dtype, target, families)) {
        return fmt::format(
            "it multiplies {} with unit={}, where {} has kernels for unit={}: take that",
            to_string(dtype), to_string(program.unit), name_of(target), to_string(*unit));
    }
    return fmt::format("{} has no kernel of this role for {}: name another target", name_of(target),
                       to_string(dtype));
}

}  // namespace

KernelCase case_of(const TileProgram& program, const Target& target, const Rates& rates) {
    return {.attention = program.attention,
            .role = program.role,
            .block = program.block,
            .target = target,
            .rates = rates};
}

bool computes_split_backward(KernelRole role) {
    return role == KernelRole::kForward || role == KernelRole::kQueryGradient ||
           role == KernelRole::kKeyValueGradient;
}

int one_block_row(int /*block*/) {
    return 1;
}

std::vector<TileShape> no_packed_shapes(const KernelCase& /*launch*/, int /*packed_rows*/) {
    return {};
}

double no_packing_overhead(const KernelCase& /*launch*/, const TileShape& /*shape*/) {
    return 1;
}

std::vector<const KernelFamily*> families_for(KernelRole role, KernelFamilies families) {
    std::vector<const KernelFamily*> found;
    std::copy_if(families.begin(), families.end(), std::back_inserter(found),
                 [&](const KernelFamily* family) { return family->computes(role); });
    return found;
}

const KernelFamily* family_of(KernelRole role, MatrixUnit unit, DType dtype, const Target& target,
                              KernelFamilies families) {
    for (const KernelFamily* family : families) {
        if (family->computes(role) && family->multiplies(role, unit, dtype, target)) {
            return family;
        }
    }
    return nullptr;
}

std::string why_not_program(const TileProgram& program, const Target& target,
                            KernelFamilies families) {
    const KernelFamily* const family =
        family_of(program.role, program.unit, program.attention.dtype, target, families);
    return family == nullptr ? why_not_its_unit(program, target, families)
                             : family->why_not_program(program, target);
}

PlannedKernel plan_kernel(const TileProgram& program, const Target& target,
                          KernelFamilies families) {
    if (const std::string reason = why_not_program(program, target, families); !reason.empty()) {
        throw UserError("{} cannot run on {}: {}", to_string(program.role), name_of(target),
                        reason);
    }
    const KernelFamily* const family =
        family_of(program.role, program.unit, program.attention.dtype, target, families);
    const Rates rates = rates_of(target);
    return {.family = family,
            .plan = family->plan(case_of(program, target, rates), shape_of(program))};
}

}  // namespace spion
