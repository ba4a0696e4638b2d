#include "train/metrics.h"

#include <fcntl.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "ir/error.h"

namespace spion {
namespace {

constexpr std::string_view kHeader =
    "step,phase,split,loss,accuracy,learning_rate,step_ms,steps_per_second,density,seconds\n";

std::string cell(const std::optional<double>& value) {
    return value ? fmt::format("{:.9g}", *value) : std::string();
}

[[noreturn]] void fail(const std::filesystem::path& file, const std::system_error& error) {
    throw UserError(
        "cannot write {}: {}; give --out a folder that can be written and has room (training has "
        "ended, its rows so far are kept)",
        file.string(), error.code().message());
}

OutputFile open_metrics(const std::filesystem::path& file) {
    try {
        return {file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666};
    } catch (const std::system_error& error) {
        fail(file, error);
    }
}

}  // namespace

std::string_view to_string(Phase phase) {
    return phase == Phase::kDense ? "dense" : "sparse";
}

MetricsFile::MetricsFile(const std::filesystem::path& file) : output_(open_metrics(file)) {
    append(kHeader);
}

// One write a row, which is taken back unless it is whole: so the file is at any moment.
void MetricsFile::append(std::string_view text) {
    try {
        output_.append(text);
    } catch (const std::system_error& error) {
        output_.cut_to(bytes_);
        fail(output_.path(), error);
    }
    bytes_ += static_cast<std::int64_t>(text.size());
}

void MetricsFile::write(const MetricsRow& row) {
    std::optional<double> rate;
    if (row.step_ms && *row.step_ms > 0) rate = 1000.0 / *row.step_ms;
    append(fmt::format("{},{},{},{:.9g},{:.9g},{},{},{},{},{:.3f}\n", row.step,
                       to_string(row.phase), row.split, row.loss, row.accuracy,
                       cell(row.learning_rate), cell(row.step_ms), cell(rate), cell(row.density),
                       row.seconds));
}

}  // namespace spion
