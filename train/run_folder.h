// What a training run leaves behind:
//     RUN/config.toml               every setting; `spion train listops --config` reads it
//     RUN/metrics.csv               a row a step or evaluation (train/metrics.h)
//     RUN/tensorboard/              if asked for: TensorBoard's event files
//     RUN/checkpoints/              to go on from, and the model (train/checkpoint.h)
//     RUN/patterns/layer<i>.bits    nb lines of nb characters 0 or 1; or of a layer with a pattern a
//     RUN/patterns/layer<i>.json    head, as `spion discover --per-head --format json` prints them
//     RUN/patterns/layer<i>.csv     the pooled map it was found in, if in one: nb lines of nb numbers;
//                                   of a head layer<i>.head<h>.csv
//     RUN/maps/layer<i>-step<n>.csv the pooled map of step n, as the transition rule looked at it:
//                                   means over neighbours where it has more than 64 rows
//     RUN/kernels/<name>/           kernel.ir, kernel.cu or .ll, its includes, the binary, the log,
//                                   rebuild.sh (makes the binary again, without spion)
//     RUN/kernels/<name>/report.json   name, entry, binary_bytes, compile_ms (of the compiler, when
//                                   it ran), origin (compiled, disk, memory), lookup_ms (what the
//                                   run waited); CUDA: registers, static_shared_bytes, spill_bytes
//     RUN/device.json               what it ran on (train/report.h), from the start
//     RUN/summary.json              how it ended (train/report.h)
//     RUN/ranks/                    if several processes train: who they are (runtime/ranks/meeting.h)
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/launch/jit_kernel.h"
#include "ir/head_patterns.h"
#include "runtime/atomic_file.h"

namespace spion {

// Throws UserError when `path` exists and is not an empty folder (what a killed process left
// unfinished does not count, nor do the ranks/ of processes that are about to begin, or never have),
// or cannot be created or written. Leaves nothing behind.
void check_run_folder(const std::filesystem::path& path);

class RunFolder {
  public:
    // Creates the folder. Throws what check_run_folder throws.
    explicit RunFolder(const std::filesystem::path& path);
    // One that a run has left. Throws UserError when it is none (it has no config.toml).
    static RunFolder of_run(const std::filesystem::path& path);
    // As a process sees it that trains together with the one that writes it: writes nothing.
    static RunFolder of_another(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    bool is_written() const { return written_; }
    // Where the rows go: into nothing for `of_another`.
    std::filesystem::path metrics_file() const {
        return written_ ? path_ / "metrics.csv" : std::filesystem::path("/dev/null");
    }

    // All throw UserError when the file cannot be written.
    void write_config(std::string_view toml);
    void write_device(std::string_view json);
    // pooled: of each pattern the map [nb, nb] that it was found in; others are left out.
    void write_patterns(int layer, const HeadPatterns& patterns,
                        std::span<const std::vector<double>> pooled);
    // The pooled map [nb, nb] of a layer after `step` steps.
    void write_map(int layer, std::int64_t step, std::span<const double> pooled);
    // Once a kernel, however often it is given.
    void write_kernel(const JitKernel& kernel, BackEnd back_end);
    void write_summary(std::string_view json);

  private:
    struct Existing {};
    RunFolder(const std::filesystem::path& path, Existing) : path_(path) {}
    void write(std::span<const NamedBytes> files) const;
    void write(const std::filesystem::path& relative, std::string_view bytes) const;
    std::filesystem::path path_;
    bool written_ = true;
    std::map<std::string, std::string> kernels_;  // folder name -> the kernel's text
};

}  // namespace spion
