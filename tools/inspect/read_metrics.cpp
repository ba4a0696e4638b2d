#include "tools/inspect/read_metrics.h"

#include <charconv>
#include <cmath>
#include <map>
#include <string>

#include "ir/error.h"

namespace spion::inspect {
namespace {

using Cells = std::vector<std::string_view>;

Cells split_cells(std::string_view line) {
    Cells cells;
    for (std::size_t begin = 0;;) {
        const std::size_t end = line.find(',', begin);
        cells.push_back(line.substr(begin, end - begin));
        if (end == std::string_view::npos) {
            return cells;
        }
        begin = end + 1;
    }
}

// Reads one row; knows where it is for errors.
class RowReader {
  public:
    RowReader(const std::map<std::string_view, std::size_t>& columns, const Cells& cells,
              std::string where)
        : columns_(columns), cells_(cells), where_(std::move(where)) {}

    std::string_view text(std::string_view column) const {
        const auto found = columns_.find(column);
        return found == columns_.end() ? std::string_view() : cells_[found->second];
    }
    std::optional<double> number(std::string_view column) const {
        const std::string_view cell = text(column);
        if (cell.empty()) {
            return std::nullopt;
        }
        double value = 0;
        const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
        if (error != std::errc() || end != cell.data() + cell.size()) {
            throw UserError("{}: {} is '{}', not a number: mend or remove the line", where_, column,
                            cell);
        }
        return value;
    }
    double needed(std::string_view column) const {
        const std::optional<double> value = number(column);
        if (!value) {
            throw UserError("{}: {} is empty: mend or remove the line", where_, column);
        }
        return *value;
    }
    template <typename Choice>
    Choice choice(std::string_view column,
                  std::initializer_list<std::pair<std::string_view, Choice>> known) const {
        for (const auto& [name, value] : known) {
            if (name == text(column)) {
                return value;
            }
        }
        throw UserError("{}: {} is '{}', which training never writes: mend or remove the line",
                        where_, column, text(column));
    }

  private:
    const std::map<std::string_view, std::size_t>& columns_;
    const Cells& cells_;
    std::string where_;
};

Measurement read_row(const RowReader& row, const std::string& where) {
    const double step = row.needed("step");
    if (!(step >= 0) || step != std::floor(step) || step > 1e15) {
        throw UserError("{}: step is '{}', not a whole number: mend or remove the line", where,
                        row.text("step"));
    }
    return {
        .step = static_cast<std::int64_t>(step),
        .phase = row.choice<Phase>("phase", {{"dense", Phase::kDense}, {"sparse", Phase::kSparse}}),
        .split = row.choice<std::string>(
            "split", {{"train", "train"}, {"validation", "validation"}, {"test", "test"}}),
        .loss = row.needed("loss"),
        .accuracy = row.needed("accuracy"),
        .learning_rate = row.number("learning_rate"),
        .step_ms = row.number("step_ms"),
        .seconds = row.number("seconds").value_or(0)};
}

}  // namespace

std::vector<Measurement> parse_metrics(std::string_view text, std::string_view origin) {
    std::vector<Measurement> rows;
    std::map<std::string_view, std::size_t> columns;
    for (int line_number = 1; !text.empty(); ++line_number) {
        const std::size_t end = text.find('\n');
        if (end == std::string_view::npos && line_number > 1) {
            break;
        }
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        const Cells cells = split_cells(line);
        const std::string where = fmt::format("{}:{}", origin, line_number);
        if (line_number == 1) {
            for (std::size_t i = 0; i < cells.size(); ++i) {
                columns.emplace(cells[i], i);
            }
            for (const char* name : {"step", "phase", "split", "loss", "accuracy"}) {
                if (!columns.contains(name)) {
                    throw UserError("{}: no column '{}': this is not the metrics.csv of a run",
                                    where, name);
                }
            }
            continue;
        }
        if (cells.size() != columns.size()) {
            throw UserError("{}: {} cells where the first line names {}: mend or remove the line",
                            where, cells.size(), columns.size());
        }
        rows.push_back(read_row(RowReader(columns, cells, where), where));
    }
    if (columns.empty()) {
        throw UserError("{}:1: the file is empty: this is not the metrics.csv of a run", origin);
    }
    return rows;
}

}  // namespace spion::inspect
