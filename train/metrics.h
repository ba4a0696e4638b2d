// metrics.csv: one row a training step or evaluation, on disk as soon as it is known, so that the
// file is whole at any moment the process may end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <vector>

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
    // Writes the header. Throws UserError when the file cannot be written.
    explicit MetricsFile(const std::filesystem::path& file);
    // Throws UserError when the row cannot be written (a full disk).
    void write(const MetricsRow& row);

  private:
    std::filesystem::path path_;
    std::ofstream output_;
};

// 0 for no values. The mean of the middle two for an even number.
double median(std::vector<double> values);

}  // namespace spion
