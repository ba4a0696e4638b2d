#include "runtime/environment.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "ir/error.h"

namespace spion {
namespace {

// A new variable is a line here and a row in docs/environment.md (a test compares the two).
constexpr std::array kVariables = {
    EnvironmentVariable{"SPION_CACHE_DIR", "folders, with : between",
                        "the first keeps compiled kernels and tunings, the others are only read; "
                        "else $XDG_CACHE_HOME/spion, else $HOME/.cache/spion"},
    EnvironmentVariable{
        "SPION_CACHE_LIMIT", "bytes, or such as 2G",
        "above it the kernels that were unused for longest are removed; else never"},
    EnvironmentVariable{"SPION_CACHE_TRUST", "0 or 1",
                        "1: takes cache folders of other users or that others may write"},
    EnvironmentVariable{"SPION_THREADS", "1 to 4096",
                        "threads of the CPU back end, of compilation and of data; else the "
                        "processors that affinity and CPU quota allow"},
    EnvironmentVariable{"SPION_VERBOSE", "0 or 1",
                        "1: a line on stderr for each kernel that is looked up in the cache"},
    EnvironmentVariable{"SPION_HOST_FEATURES", "best, avx2 or sse",
                        "widest vector instructions that the CPU's kernels may use; else best"},
    EnvironmentVariable{"SPION_WGMMA", "0 or 1",
                        "0: on sm_90a without wgmma and TMA, to compare; else with them"},
    EnvironmentVariable{"SPION_WAIT_AFTER_LAUNCH", "0 or 1",
                        "1: wait after each launch on the GPU, so that an error names its kernel"},
    EnvironmentVariable{"SPION_LINEINFO", "0 or 1",
                        "1: kernels of the GPU know their source lines, for profilers"},
    EnvironmentVariable{"SPION_NVRTC_LIBRARY", "path of libnvrtc.so",
                        "is opened instead of those that are found"},
    EnvironmentVariable{"SPION_CUBLASLT_LIBRARY", "path of libcublasLt.so",
                        "is opened instead of those that are found"},
    EnvironmentVariable{"SPION_NCCL_LIBRARY", "path of libnccl.so.2",
                        "is opened instead of those that are found"},
    EnvironmentVariable{"SPION_DISASSEMBLER", "path of nvdisasm or cuobjdump",
                        "writes SASS; else the first on PATH or in /usr/local/cuda/bin"},
    EnvironmentVariable{"CUDA_HOME", "a folder",
                        "its lib64 is searched for NVRTC, cuBLASLt and NCCL"},
    EnvironmentVariable{"CUDA_PATH", "a folder",
                        "its lib64 is searched for NVRTC, cuBLASLt and NCCL"},
    EnvironmentVariable{"VIRTUAL_ENV", "a folder",
                        "its Python packages are searched for NVRTC, cuBLASLt and NCCL"},
    EnvironmentVariable{
        "CONDA_PREFIX", "a folder",
        "its libraries and Python packages are searched for NVRTC, cuBLASLt and NCCL"},
    EnvironmentVariable{"RANK", "0 to WORLD_SIZE - 1",
                        "which process of a data-parallel training this is, as torchrun sets it; "
                        "with WORLD_SIZE, else alone"},
    EnvironmentVariable{"WORLD_SIZE", "1 or more", "how many processes train together"},
    EnvironmentVariable{"LOCAL_RANK", "0 to RANK", "which GPU of this machine; else RANK"},
    EnvironmentVariable{"OMPI_COMM_WORLD_RANK", "a whole number",
                        "as RANK, set by Open MPI's mpirun"},
    EnvironmentVariable{"OMPI_COMM_WORLD_SIZE", "a whole number", "as WORLD_SIZE"},
    EnvironmentVariable{"OMPI_COMM_WORLD_LOCAL_RANK", "a whole number", "as LOCAL_RANK"},
    EnvironmentVariable{"PMI_RANK", "a whole number",
                        "as RANK, set by the mpirun of MPICH and Intel MPI"},
    EnvironmentVariable{"PMI_SIZE", "a whole number", "as WORLD_SIZE"},
    EnvironmentVariable{"MPI_LOCALRANKID", "a whole number", "as LOCAL_RANK"},
    EnvironmentVariable{"SLURM_PROCID", "a whole number", "as RANK, set by srun"},
    EnvironmentVariable{"SLURM_STEP_NUM_TASKS", "a whole number",
                        "as WORLD_SIZE; a batch script without srun has none"},
    EnvironmentVariable{"SLURM_LOCALID", "a whole number", "as LOCAL_RANK"},
    EnvironmentVariable{"NCCL_COMM_ID", "host:port",
                        "where NCCL's processes find each other, listened at by process 0; else "
                        "they do by a file in the run's folder"},
    EnvironmentVariable{"NCCL_ALGO", "NCCL's names of algorithms",
                        "how NCCL adds up; Ring is set where it is not set, so that a run repeats"},
    EnvironmentVariable{"NCCL_NVLS_ENABLE", "0 to 2",
                        "NCCL's sums in the switch; 0 is set where it is not set"},
    EnvironmentVariable{"CUDA_VISIBLE_DEVICES", "numbers, with , between",
                        "the GPUs that there are for this process; `sweep` gives one to each run"},
    EnvironmentVariable{"XDG_CACHE_HOME", "a folder", "see SPION_CACHE_DIR"},
    EnvironmentVariable{
        "HOME", "a folder",
        "see SPION_CACHE_DIR; its Python packages are searched for NVRTC, cuBLASLt and NCCL"},
    EnvironmentVariable{"PATH", "folders", "are searched for a disassembler"},
    EnvironmentVariable{"TERM", "a terminal's name",
                        "dumb or unset: lines of progress are not redrawn"},
    EnvironmentVariable{"COLUMNS", "a whole number",
                        "width of a terminal that does not tell it; else 80"},
};

bool in_table(std::string_view name) {
    return std::any_of(kVariables.begin(), kVariables.end(),
                       [&](const EnvironmentVariable& known) { return known.name == name; });
}

}  // namespace

std::span<const EnvironmentVariable> environment_variables() {
    return kVariables;
}

std::optional<std::string> environment_value(std::string_view name) {
    if (!in_table(name)) {
        throw InternalError("the environment variable {} is not in the table", name);
    }
    const char* value = std::getenv(std::string(name).c_str());
    return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

void set_environment_default(std::string_view name, std::string_view value) {
    if (!environment_value(name)) {
        ::setenv(std::string(name).c_str(), std::string(value).c_str(), 1);
    }
}

bool environment_switch(std::string_view name, bool otherwise) {
    const std::optional<std::string> value = environment_value(name);
    if (!value) {
        return otherwise;
    }
    if (*value != "0" && *value != "1") {
        throw UserError("{} is '{}', but must be 0 or 1: unset it for {}", name, *value,
                        otherwise ? 1 : 0);
    }
    return *value == "1";
}

std::vector<std::string> unknown_environment_variables() {
    std::vector<std::string> names;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        const std::string_view name = text.substr(0, text.find('='));
        if (name.starts_with("SPION_") && !name.starts_with("SPION_TEST_") && !in_table(name)) {
            names.emplace_back(name);
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace spion
