// metrics.csv: one row a training step or evaluation, on disk as soon as it is known, so that the
// file is whole at any moment the process may end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/atomic_file.h"

namespace spion {

enum class Phase { kDense, kSparse };
std::string_view to_string(Phase phase);  // "dense", "sparse"

struct MetricsRow {
    std::int64_t step = 0;  // steps done, from 1
    Phase phase = Phase::kDense;
    std::string_view split;  // "train", "validation", "test"
    double loss = 0;         // mean cross entropy, nats
    double accuracy = 0;     // in [0, 1]
    std::optional<double> learning_rate;
    std::optional<double> step_ms;  // device time of the step
    std::optional<double> density;  // of attention, mean over layers
    double seconds = 0;             // since training began
};

class MetricsFile {
  public:
    // Writes the header; with from_step > 0 goes on with a file, of which rows beyond that step and
    // those of the test are dropped. Throws UserError when the file cannot be written.
    explicit MetricsFile(const std::filesystem::path& file, std::int64_t from_step = 0);
    // Throws UserError when the row cannot be written (a full disk); the rows before it are whole.
    void write(const MetricsRow& row);
    // Of the training steps of a phase that were kept.
    std::vector<double> step_ms(Phase phase) const;

  private:
    void append(std::string_view text);
    std::vector<std::pair<Phase, double>> kept_ms_;  // first: set while the file is opened
    OutputFile output_;
    std::int64_t bytes_ = 0;  // of whole rows
};

}  // namespace spion
