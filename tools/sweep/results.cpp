#include "tools/sweep/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>

#include "ir/error.h"
#include "runtime/whole_file.h"
#include "tools/inspect/read_metrics.h"

namespace spion::sweep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kLargestMetrics = std::size_t{1} << 30;

std::optional<double> accuracy_in(const json& summary, const char* split) {
    const auto found = summary.find(split);
    if (found == summary.end() || !found->is_object()) return std::nullopt;
    return found->at("accuracy").get<double>();
}

// The line of `spion evaluate`: "step 500: test loss 2.1, accuracy 37.25 % of 2000 samples".
std::optional<double> best_test(const fs::path& file) {
    static const std::regex line(R"(^step \d+: test loss \S+, accuracy ([0-9.]+) % of \d+)");
    const std::string text = read_whole_file(file, kLargestKeptText).value_or("");
    std::smatch found;
    if (!std::regex_search(text, found, line)) return std::nullopt;
    return std::stod(found[1].str()) / 100;
}

void read_metrics(const fs::path& file, RunResult& result) {
    const auto text = read_whole_file(file, kLargestMetrics);
    if (!text) return;
    for (const inspect::Measurement& row : inspect::parse_metrics(*text, file.string())) {
        result.steps = std::max(result.steps, row.step);
        result.seconds = std::max(result.seconds, row.seconds);
        if (row.split != "validation") continue;
        result.curve.emplace_back(static_cast<double>(row.step), 100 * row.accuracy);
        if (!result.best_validation || row.accuracy > *result.best_validation) {
            result.best_validation = row.accuracy;
            result.seconds_to_best = row.seconds;
        }
    }
}

void read_summary(const json& summary, const TrainSettings& settings, RunResult& result) {
    result.last_test = accuracy_in(summary, "test");
    result.densities = summary.at("densities").get<std::vector<double>>();
    result.dense_step_ms = summary.at("dense_step_ms");
    result.sparse_step_ms = summary.at("sparse_step_ms");
    result.peak_bytes = summary.at("peak_device_bytes");
    result.device = summary.at("device");
    const json& diverged = summary.at("diverged");
    if (diverged.is_object() && diverged.at("ended_training").get<bool>()) {
        result.state = "diverged";
    } else if (summary.at("steps").get<std::int64_t>() == settings.steps) {
        result.state = "done";
    }
}

std::vector<double> values_of(const Row& row, double (*value)(const RunResult&)) {
    std::vector<double> values;
    for (const RunResult* result : row.results) {
        if (result->is_done()) values.push_back(value(*result));
    }
    return values;
}

std::vector<double> known_values(const Row& row, std::optional<double> RunResult::*value) {
    std::vector<double> values;
    for (const RunResult* result : row.results) {
        if (result->is_done() && result->*value) values.push_back(100 * *(result->*value));
    }
    return values;
}

void fill(Row& row) {
    for (const RunResult* result : row.results) row.done += result->is_done() ? 1 : 0;
    row.best_test = spread_of(known_values(row, &RunResult::best_test));
    row.last_test = spread_of(known_values(row, &RunResult::last_test));
    const auto spread = [&](double (*value)(const RunResult&)) {
        return spread_of(values_of(row, value));
    };
    row.step_ms = spread([](const RunResult& r) { return r.step_ms(); });
    row.density = spread([](const RunResult& r) { return r.density(); });
    row.minutes = spread([](const RunResult& r) { return r.seconds / 60; });
    row.minutes_to_best = spread([](const RunResult& r) { return r.seconds_to_best / 60; });
    row.peak_gib = spread([](const RunResult& r) { return r.peak_bytes / (1 << 30); });
}

// As RFC 4180 has it.
std::string cell(const std::string& text) {
    if (text.find_first_of(",\"\n") == std::string::npos) return text;
    std::string quoted = "\"";
    for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
    return quoted + '"';
}

std::string number(const std::optional<double>& value) {
    return value ? fmt::format("{:.6g}", *value) : std::string();
}

std::string numbers(const Spread& spread) {
    return spread.count == 0 ? "," : fmt::format("{:.6g},{}", spread.mean, number(spread.error));
}

}  // namespace

double RunResult::density() const {
    if (densities.empty()) return 1;
    return std::accumulate(densities.begin(), densities.end(), 0.0) /
           static_cast<double>(densities.size());
}

RunResult read_result(const fs::path& sweep, const Run& run) {
    const fs::path folder = sweep / "runs" / run.name;
    RunResult result;
    std::error_code ignored;
    if (fs::exists(folder / "config.toml", ignored)) result.state = "begun";
    read_metrics(folder / "metrics.csv", result);
    const auto text = read_whole_file(folder / "summary.json", kLargestKeptText);
    const json summary = text ? json::parse(*text, nullptr, false) : json();
    try {
        if (summary.is_object()) read_summary(summary, run.settings, result);
    } catch (const json::exception&) {
        throw UserError(
            "{} is not as `spion train` writes it: remove the folder {} to run it again",
            (folder / "summary.json").string(), folder.string());
    }
    if (result.is_done()) result.best_test = best_test(folder / "best_test.txt");
    return result;
}

Spread spread_of(const std::vector<double>& values) {
    Spread spread{.mean = 0, .error = {}, .count = static_cast<int>(values.size())};
    if (values.empty()) return spread;
    const auto count = static_cast<double>(values.size());
    spread.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    if (values.size() < 2) return spread;
    double squares = 0;
    for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
    spread.error = std::sqrt(squares / (count - 1) / count);
    return spread;
}

std::vector<Row> rows_of(const Plan& plan, const std::vector<RunResult>& results) {
    std::vector<Row> rows;
    for (std::size_t i = 0; i < plan.runs.size(); ++i) {
        const Run& run = plan.runs[i];
        auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& one) {
            return one.task == run.task && one.arm == run.arm && one.rate == run.rate;
        });
        if (row == rows.end()) {
            rows.emplace_back();
            row = rows.end() - 1;
            row->task = run.task;
            row->arm = run.arm;
            row->rate = run.rate;
        }
        ++row->runs;
        row->results.push_back(&results[i]);
    }
    std::stable_sort(rows.begin(), rows.end(),
                     [](const Row& a, const Row& b) { return a.task < b.task; });
    for (Row& row : rows) fill(row);
    return rows;
}

std::string spread_text(const Spread& spread, int decimals) {
    if (spread.count == 0) return "";
    std::string text = fmt::format("{:.{}f}", spread.mean, decimals);
    if (spread.error) text += fmt::format(" \xC2\xB1 {:.{}f}", *spread.error, decimals);
    return text;
}

std::string runs_csv(const Plan& plan, const std::vector<RunResult>& results) {
    std::string csv =
        "run,task,arm,lr,seed,state,steps,best_test_accuracy,last_test_accuracy,"
        "best_validation_accuracy,density,dense_step_ms,sparse_step_ms,peak_device_bytes,seconds,"
        "seconds_to_best,device\n";
    for (std::size_t i = 0; i < results.size(); ++i) {
        const Run& run = plan.runs[i];
        const RunResult& r = results[i];
        csv += fmt::format(
            "{},{},{},{},{},{},{},{},{},{},{:.6g},{:.6g},{:.6g},{:.0f},{:.3f},{:.3f},{}\n",
            run.name, run.task, run.arm, run.rate, run.seed, cell(r.state), r.steps,
            number(r.best_test), number(r.last_test), number(r.best_validation), r.density(),
            r.dense_step_ms, r.sparse_step_ms, r.peak_bytes, r.seconds, r.seconds_to_best,
            cell(r.device));
    }
    return csv;
}

std::string table_csv(const std::vector<Row>& rows) {
    std::string csv = "task,arm,lr,runs,done";
    for (const char* name : {"best_test_percent", "last_test_percent", "step_ms", "density",
                             "peak_gib", "minutes", "minutes_to_best"}) {
        csv += fmt::format(",{0},{0}_error", name);
    }
    csv += '\n';
    for (const Row& row : rows) {
        csv += fmt::format("{},{},{},{},{}", row.task, row.arm, row.rate, row.runs, row.done);
        for (const Spread* spread : {&row.best_test, &row.last_test, &row.step_ms, &row.density,
                                     &row.peak_gib, &row.minutes, &row.minutes_to_best}) {
            csv += fmt::format(",{}", numbers(*spread));
        }
        csv += '\n';
    }
    return csv;
}

std::string table_markdown(const std::vector<Row>& rows) {
    std::string text =
        "Test accuracy in per cent, mean \xC2\xB1 standard error over seeds.\n\n"
        "| task | arm | lr | seeds | best checkpoint | last step | ms a step | density | GiB | "
        "minutes | to the best |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
    for (const Row& row : rows) {
        text += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", row.task,
                            row.arm, row.rate,
                            row.done == row.runs ? std::to_string(row.runs)
                                                 : fmt::format("{} of {}", row.done, row.runs),
                            spread_text(row.best_test, 2), spread_text(row.last_test, 2),
                            spread_text(row.step_ms, 2), spread_text(row.density, 3),
                            spread_text(row.peak_gib, 2), spread_text(row.minutes, 1),
                            spread_text(row.minutes_to_best, 1));
    }
    return text;
}

}  // namespace spion::sweep
