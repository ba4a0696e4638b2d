// Which of the processes of a data-parallel job this one is, as torchrun, mpirun or srun tells each
// through its environment.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace spion {

struct Rank {
    int index = 0;          // 0 .. count - 1
    int count = 1;          // processes of the job, one a GPU
    int local = 0;          // among those of this machine
    std::string variables;  // that said so ("RANK and WORLD_SIZE"); empty: a process of its own

    bool alone() const { return count == 1; }
    // It writes the run's folder and speaks for all.
    bool leads() const { return index == 0; }
};

// The value of an environment variable; nullopt where it is unset or empty.
using VariableLookup = std::function<std::optional<std::string>(std::string_view name)>;

// The first of these that is set counts: torchrun's RANK, WORLD_SIZE and LOCAL_RANK; Open MPI's
// OMPI_COMM_WORLD_RANK, _SIZE and _LOCAL_RANK; MPICH's and Intel MPI's PMI_RANK, PMI_SIZE and
// MPI_LOCALRANKID; srun's SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID (the number of tasks
// is the step's, since a batch script itself runs once, whatever SLURM_NTASKS says). Without a local
// one all processes are taken to share a machine. Throws UserError for values that are no numbers,
// or do not fit each other.
Rank rank_of(const VariableLookup& variable);

// The same from this process's environment.
Rank rank_of_process();

}  // namespace spion
