#include "train/metrics.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <fstream>
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

OutputFile open_metrics(const std::filesystem::path& file, int how) {
    try {
        return {file, O_WRONLY | O_CREAT | how | O_CLOEXEC, 0666};
    } catch (const std::system_error& error) {
        fail(file, error);
    }
}

}  // namespace

std::string_view to_string(Phase phase) {
    return phase == Phase::kDense ? "dense" : "sparse";
}

namespace {

std::vector<std::string_view> cells_of(std::string_view row) {
    std::vector<std::string_view> cells;
    while (true) {
        const std::size_t comma = row.find(',');
        cells.push_back(row.substr(0, comma));
        if (comma == std::string_view::npos) return cells;
        row.remove_prefix(comma + 1);
    }
}

template <typename T>
T number_of(std::string_view cell) {
    T value{};
    std::from_chars(cell.data(), cell.data() + cell.size(), value);
    return value;
}

// The whole rows of a run's file up to `step`, without those of the test, which comes at the end.
std::string rows_up_to(const std::filesystem::path& file, std::int64_t step,
                       std::vector<std::pair<Phase, double>>& step_ms) {
    std::ifstream input(file, std::ios::binary);
    std::string kept(kHeader), row;
    for (std::getline(input, row); std::getline(input, row) && !input.eof();) {
        const auto cells = cells_of(row);
        constexpr std::size_t kSplit = 2, kStepMs = 6;
        if (cells.size() <= kStepMs || number_of<std::int64_t>(cells[0]) > step ||
            cells[kSplit] == "test") {
            continue;
        }
        kept += row + '\n';
        if (cells[kSplit] == "train") {
            step_ms.emplace_back(cells[1] == "dense" ? Phase::kDense : Phase::kSparse,
                                 number_of<double>(cells[kStepMs]));
        }
    }
    return kept;
}

// Cuts the file, unless a run begins; what is opened then is appended to.
OutputFile open_from(const std::filesystem::path& file, std::int64_t step,
                     std::vector<std::pair<Phase, double>>& step_ms) {
    if (step == 0) return open_metrics(file, O_TRUNC);
    write_file(file, rows_up_to(file, step, step_ms), "free some space");
    return open_metrics(file, O_APPEND);
}

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& file, std::int64_t from_step)
    : output_(open_from(file, from_step, kept_ms_)) {
    if (from_step == 0) {
        append(kHeader);
    } else {
        bytes_ = static_cast<std::int64_t>(std::filesystem::file_size(file));
    }
}

std::vector<double> MetricsFile::step_ms(Phase phase) const {
    std::vector<double> times;
    for (const auto& [its_phase, milliseconds] : kept_ms_) {
        if (its_phase == phase) times.push_back(milliseconds);
    }
    return times;
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
