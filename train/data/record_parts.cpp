#include "train/data/record_parts.h"

#include <charconv>
#include <cmath>

#include "ir/error.h"

namespace spion {

void RecordCutter::add(std::string_view piece) {
    while (!piece.empty()) {
        // Up to the next byte that may matter; within quotes a line end does not.
        const std::size_t stop = piece.find_first_of(quoted_ ? "\n\"" : "\n");
        const std::size_t taken = std::min(stop, piece.size());
        record_.append(piece.substr(0, taken));
        offset_ += static_cast<std::int64_t>(taken);
        piece.remove_prefix(taken);
        if (record_.size() > kLongestRecord) {
            throw UserError("line {}: the record has more than {} MiB; give a file of records",
                            line_, kLongestRecord >> 20);
        }
        if (piece.empty()) return;
        const char found = piece.front();
        piece.remove_prefix(1);
        ++offset_;
        if (found == '"') inside_ = !inside_;
        if (found == '\n' && !inside_) {
            emit();
        } else {
            lines_ += found == '\n' ? 1 : 0;
            record_ += found;
        }
    }
}

void RecordCutter::finish() {
    if (!record_.empty()) emit();
}

void RecordCutter::emit() {
    std::string_view text = record_;
    if (text.ends_with('\r')) text.remove_suffix(1);
    take_(text, line_, offset_);
    line_ += lines_ + 1;
    lines_ = 0;
    record_.clear();
}

std::vector<std::string> split_tsv(std::string_view record) {
    std::vector<std::string> fields;
    while (true) {
        const std::size_t tab = record.find('\t');
        fields.emplace_back(record.substr(0, tab));
        if (tab == std::string_view::npos) return fields;
        record.remove_prefix(tab + 1);
    }
}

std::optional<std::vector<std::string>> split_csv(std::string_view record) {
    std::vector<std::string> fields(1);
    for (std::size_t i = 0; i < record.size();) {
        std::string& field = fields.back();
        if (record[i] == '"' && field.empty()) {
            for (++i;; ++i) {
                if (i >= record.size()) return std::nullopt;
                if (record[i] != '"') {
                    field += record[i];
                } else if (i + 1 < record.size() && record[i + 1] == '"') {
                    field += record[++i];
                } else {
                    break;
                }
            }
            ++i;
            if (i < record.size() && record[i] != ',') return std::nullopt;
        }
        if (i < record.size() && record[i] == ',') {
            fields.emplace_back();
            ++i;
        } else if (i < record.size()) {
            fields.back() += record[i++];
        }
    }
    return fields;
}

std::string label_of(std::string_view text) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    constexpr double kLargest = 1e9;
    if (error == std::errc() && end == text.data() + text.size() && std::abs(value) < kLargest &&
        value == std::floor(value)) {
        return fmt::format("{}", static_cast<std::int64_t>(value));
    }
    return std::string(text);
}

}  // namespace spion
