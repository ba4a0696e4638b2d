#include "train/metrics.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "ir/error.h"

namespace spion {
namespace {

constexpr std::string_view kHeader =
    "step,phase,split,loss,accuracy,learning_rate,step_ms,steps_per_second,density,seconds\n";

std::string cell(const std::optional<double>& value) {
    return value ? fmt::format("{:.9g}", *value) : std::string();
}

}  // namespace

std::string_view to_string(Phase phase) {
    return phase == Phase::kDense ? "dense" : "sparse";
}

MetricsFile::MetricsFile(const std::filesystem::path& file) : path_(file), output_(file) {
    output_ << kHeader << std::flush;
    if (!output_) {
        throw UserError("cannot write {}: {}; give --out a folder that can be written",
                        file.string(), std::strerror(errno));
    }
}

void MetricsFile::write(const MetricsRow& row) {
    std::optional<double> rate;
    if (row.step_ms && *row.step_ms > 0) rate = 1000.0 / *row.step_ms;
    // One write a row: an interrupted process leaves whole rows.
    const std::string line =
        fmt::format("{},{},{},{:.9g},{:.9g},{},{},{},{},{:.3f}\n", row.step, to_string(row.phase),
                    row.split, row.loss, row.accuracy, cell(row.learning_rate), cell(row.step_ms),
                    cell(rate), cell(row.density), row.seconds);
    output_ << line << std::flush;
    if (!output_) {
        throw UserError("cannot write {}: {}; free some space", path_.string(),
                        std::strerror(errno));
    }
}

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace spion
