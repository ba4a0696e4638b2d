// What the runs of a sweep have come to, read from their folders, and what that means for each arm.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/sweep/plan.h"

namespace spion::sweep {

struct RunResult {
    std::string state = "not begun";  // "done", "begun", "diverged", or why it failed
    std::int64_t steps = 0;           // done so far
    std::optional<double> best_test;  // accuracy in [0, 1] of the best checkpoint by validation
    std::optional<double> last_test;  // of the last step
    std::optional<double> best_validation;
    std::vector<double> densities;  // [layers]; empty while dense
    double dense_step_ms = 0, sparse_step_ms = 0;
    double peak_bytes = 0;
    double seconds = 0;          // of training, evaluations included
    double seconds_to_best = 0;  // to the validation with the best accuracy
    std::string device;
    std::vector<std::pair<double, double>> curve;  // step, validation accuracy in per cent

    bool is_over() const { return state != "not begun" && state != "begun"; }
    bool is_done() const { return state == "done"; }
    double density() const;  // mean over layers, 1 while dense
    double step_ms() const { return sparse_step_ms > 0 ? sparse_step_ms : dense_step_ms; }
};

// From SWEEP/runs/NAME/.
RunResult read_result(const std::filesystem::path& sweep, const Run& run);

// Mean and standard error of the mean, s / sqrt(n) with s over n - 1.
struct Spread {
    double mean = 0;
    std::optional<double> error;  // of at least two values
    int count = 0;
};
Spread spread_of(const std::vector<double>& values);

// Runs that differ by their seed alone. Values are of those that are done.
struct Row {
    std::string task, arm, rate;
    int runs = 0, done = 0;
    Spread best_test, last_test;  // in per cent
    Spread step_ms, density, minutes, minutes_to_best, peak_gib;
    std::vector<const RunResult*> results;  // all of them
};

// In the order of the plan's first run of each. results: [runs].
std::vector<Row> rows_of(const Plan& plan, const std::vector<RunResult>& results);

// SWEEP/runs.csv: a line a run. SWEEP/table.csv and table.md: a line a row.
std::string runs_csv(const Plan& plan, const std::vector<RunResult>& results);
std::string table_csv(const std::vector<Row>& rows);
std::string table_markdown(const std::vector<Row>& rows);

// "37.40 ± 0.31", or without error where there is one value; "" for none.
std::string spread_text(const Spread& spread, int decimals);

}  // namespace spion::sweep
