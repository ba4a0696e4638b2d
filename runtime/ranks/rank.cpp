#include "runtime/ranks/rank.h"

#include <fmt/format.h>

#include <charconv>

#include "ir/error.h"
#include "runtime/environment.h"

namespace spion {
namespace {

struct Launcher {
    const char *rank, *count, *local;
};

constexpr Launcher kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"},
};

int number(const char* name, const std::string& text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0) {
        throw UserError(
            "{} is '{}', but must be a whole number from 0: start spion with torchrun, mpirun or "
            "srun, or unset it",
            name, text);
    }
    return value;
}

}  // namespace

Rank rank_of(const VariableLookup& variable) {
    for (const Launcher& launcher : kLaunchers) {
        const auto index = variable(launcher.rank), count = variable(launcher.count);
        if (!index || !count) {
            continue;
        }
        Rank rank{.index = number(launcher.rank, *index),
                  .count = number(launcher.count, *count),
                  .local = 0,
                  .variables = fmt::format("{} and {}", launcher.rank, launcher.count)};
        if (rank.index >= rank.count) {
            throw UserError("{} is {}, but must be below {}, which is {}: unset both, or correct",
                            launcher.rank, rank.index, launcher.count, rank.count);
        }
        const auto local = variable(launcher.local);
        rank.local = local ? number(launcher.local, *local) : rank.index;
        if (rank.local > rank.index) {
            throw UserError("{} is {}, but must not be above {}, which is {}: unset it, or correct",
                            launcher.local, rank.local, launcher.rank, rank.index);
        }
        return rank;
    }
    return {};
}

Rank rank_of_process() {
    return rank_of(environment_value);
}

}  // namespace spion
