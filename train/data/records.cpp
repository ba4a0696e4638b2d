#include "train/data/records.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/bytes.h"
#include "io/printable.h"
#include "ir/error.h"
#include "train/data/record_parts.h"

namespace spion {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMostLabels = 1024;  // kernels/host/train/classifier_forward_backward.cpp
constexpr std::size_t kPiece = std::size_t{1} << 20;

std::optional<std::int64_t> whole_number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

std::uint32_t fnv_1a(std::string_view bytes) {
    std::uint32_t hash = 2166136261U;
    for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 16777619U;
    return hash;
}

std::string text_name(int towers, int tower) {
    return towers == 1 ? "text" : fmt::format("text{}", tower + 1);
}

// A JSON object's fields in the order label, texts; nullopt where one is missing or no text.
std::optional<std::vector<std::string>> fields_of_json(std::string_view record, int towers,
                                                       bool labelled) {
    const json object = json::parse(record, nullptr, false);
    if (!object.is_object()) return std::nullopt;
    std::vector<std::string> fields;
    const auto label = object.find("label");
    if (label == object.end() && labelled) return std::nullopt;
    if (label == object.end()) {
        fields.emplace_back("0");
    } else {
        fields.push_back(label->is_string() ? label->get<std::string>() : label->dump());
    }
    for (int tower = 0; tower < towers; ++tower) {
        const auto text = object.find(text_name(towers, tower));
        if (text == object.end() || !text->is_string()) return std::nullopt;
        fields.push_back(text->get<std::string>());
    }
    return fields;
}

}  // namespace

void tokens_of_text(std::string_view text, std::int64_t most, const TextTokens& tokens,
                    std::vector<std::uint16_t>& out) {
    text = text.substr(0, static_cast<std::size_t>(most));
    out.resize(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const std::string_view gram = text.substr(i, static_cast<std::size_t>(tokens.ngram));
        const std::uint32_t number =
            tokens.ngram == 1 ? static_cast<unsigned char>(gram.front())
                              : fnv_1a(gram) % (static_cast<std::uint32_t>(tokens.count) - 1);
        out[i] = static_cast<std::uint16_t>(number + 1);
    }
}

std::vector<std::string> sorted_labels(std::vector<std::string> names) {
    std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
        const auto x = whole_number(a), y = whole_number(b);
        if (x && y) return *x < *y;
        return x.has_value() != y.has_value() ? x.has_value() : a < b;
    });
    return names;
}

RecordForm record_form(const fs::path& file) {
    const std::string ending = file.extension().string();
    if (ending == ".tsv") return RecordForm::kTsv;
    if (ending == ".csv") return RecordForm::kCsv;
    if (ending == ".jsonl") return RecordForm::kJsonLines;
    throw UserError("{} does not say its form: give it a name that ends in .tsv, .csv or .jsonl",
                    file.string());
}

RecordSamples::RecordSamples(const fs::path& file, RecordForm form, const RecordSettings& settings)
    : file_(file), form_(form), settings_(settings) {
    descriptor_.number = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_.number < 0 || fs::is_directory(file)) {
        const std::string reason = descriptor_.number < 0 ? std::strerror(errno) : "it is a folder";
        throw UserError("{} cannot be read ({}): name a file of labelled texts", file.string(),
                        reason);
    }
    index();
}

RecordSamples::Descriptor::~Descriptor() {
    if (number >= 0) ::close(number);
}

std::string RecordSamples::place(std::int64_t line) const {
    return fmt::format("{}:{}", file_.string(), line);
}

void RecordSamples::index() {
    offsets_.push_back(0);
    std::int64_t begin = 0;
    RecordCutter cutter(form_ == RecordForm::kCsv,
                        [&](std::string_view text, std::int64_t line, std::int64_t end) {
                            if (line == 1) text = without_bom(text);
                            offsets_.back() = begin;
                            begin = end;
                            if (!text.empty()) add_record(text, line);
                            offsets_.back() = end;
                        });
    std::vector<char> piece(kPiece);
    while (true) {
        const ssize_t got = ::read(descriptor_.number, piece.data(), piece.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            throw UserError("{}: reading stopped: {}", file_.string(), std::strerror(errno));
        if (got == 0) break;
        try {
            cutter.add({piece.data(), static_cast<std::size_t>(got)});
        } catch (const UserError& error) {
            throw UserError("{}", std::string(error.what()).starts_with(file_.string())
                                      ? error.what()
                                      : fmt::format("{}: {}", file_.string(), error.what()));
        }
    }
    cutter.finish();
    if (samples() == 0) {
        throw UserError("{} holds no samples: give a label and {} a line", file_.string(),
                        settings_.towers == 1 ? "a text" : "two texts");
    }
    for (std::size_t i = 0; i < names_.size(); ++i) numbers_.push_back(static_cast<int>(i));
}

// A record of fields; UserError for what cannot be one.
std::vector<std::string> RecordSamples::fields_of(std::string_view record,
                                                  std::int64_t line) const {
    if (form_ == RecordForm::kTsv) return split_tsv(record);
    if (form_ == RecordForm::kCsv) {
        auto fields = split_csv(record);
        if (!fields) throw UserError("{}: a quote is not closed, or text follows it", place(line));
        return *std::move(fields);
    }
    auto fields = fields_of_json(record, settings_.towers, settings_.labelled);
    if (!fields) {
        throw UserError("{}: expected an object with label and {}", place(line),
                        settings_.towers == 1 ? "text" : "text1 and text2");
    }
    return *std::move(fields);
}

// From the first record: where labels and texts are. True when it is a line of names, and no record.
bool RecordSamples::learn_columns(const std::vector<std::string>& fields, std::int64_t line) {
    const auto towers = static_cast<std::size_t>(settings_.towers);
    columns_ = fields.size();
    const auto named = [&](const std::string& name) {
        return static_cast<std::size_t>(std::find(fields.begin(), fields.end(), name) -
                                        fields.begin());
    };
    bool header = form_ != RecordForm::kJsonLines;
    for (int tower = 0; tower < settings_.towers; ++tower) {
        text_columns_.push_back(named(text_name(settings_.towers, tower)));
        header = header && text_columns_.back() < columns_;
    }
    label_column_ = named("label");
    header = header && (label_column_ < columns_ || !settings_.labelled);
    has_label_ = header ? label_column_ < columns_ : columns_ > towers;
    if (columns_ < towers + (settings_.labelled ? 1U : 0U)) {
        throw UserError("{}: expected a label and {}, but found {} field(s)", place(line),
                        towers == 1 ? "a text" : "two texts", columns_);
    }
    if (header) return true;
    label_column_ = 0;
    for (std::size_t tower = 0; tower < towers; ++tower) {
        text_columns_[tower] = columns_ - towers + tower;
    }
    return false;
}

void RecordSamples::check_texts(const std::vector<std::string>& fields, std::int64_t line) const {
    for (const std::size_t column : text_columns_) {
        const auto bytes = static_cast<std::int64_t>(fields[column].size());
        if (bytes == 0) throw UserError("{}: the text is empty", place(line));
        if (settings_.cut == 0 && bytes > settings_.length) {
            throw UserError(
                "{}: the text has {} bytes, but length allows {}: raise --length, or cut texts "
                "with --cut",
                place(line), bytes, settings_.length);
        }
    }
}

// The place of a label among names_, where it is put when it is new.
std::uint16_t RecordSamples::known_label(const std::string& label, std::int64_t line) {
    const auto known = std::find(names_.begin(), names_.end(), label);
    if (known == names_.end()) {
        if (names_.size() == kMostLabels) {
            throw UserError("{}: '{}' is label {}, but at most {} are allowed: is it a label?",
                            place(line), printable(label), kMostLabels + 1, kMostLabels);
        }
        names_.push_back(label);
        return static_cast<std::uint16_t>(names_.size() - 1);
    }
    return static_cast<std::uint16_t>(known - names_.begin());
}

void RecordSamples::add_record(std::string_view record, std::int64_t line) {
    const std::vector<std::string> fields = fields_of(record, line);
    if (text_columns_.empty() && learn_columns(fields, line)) return;
    if (fields.size() != columns_) {
        throw UserError("{}: {} fields, but the first line has {}", place(line), fields.size(),
                        columns_);
    }
    check_texts(fields, line);
    labels_.push_back(known_label(has_label_ ? label_of(fields[label_column_]) : "0", line));
    offsets_.push_back(0);  // set to the end by index()
}

int RecordSamples::label(std::int64_t index) const {
    return numbers_[labels_[static_cast<std::size_t>(index)]];
}

void RecordSamples::number_labels(const std::vector<std::string>& names) {
    for (std::size_t i = 0; i < names_.size(); ++i) {
        const auto found = std::find(names.begin(), names.end(), names_[i]);
        if (found == names.end()) {
            throw UserError("{} has the label '{}', which no training sample has", file_.string(),
                            printable(names_[i]));
        }
        numbers_[i] = static_cast<int>(found - names.begin());
    }
}

std::string RecordSamples::record(std::int64_t index) const {
    const auto at = static_cast<std::size_t>(index);
    std::string text(static_cast<std::size_t>(offsets_[at + 1] - offsets_[at]), '\0');
    std::size_t got = 0;
    while (got < text.size()) {
        const ssize_t more = ::pread(descriptor_.number, text.data() + got, text.size() - got,
                                     offsets_[at] + static_cast<std::int64_t>(got));
        if (more < 0 && errno == EINTR) continue;
        if (more <= 0) {
            throw UserError("{} cannot be read any more ({}): it must not change while training",
                            file_.string(), more < 0 ? std::strerror(errno) : "it is shorter now");
        }
        got += static_cast<std::size_t>(more);
    }
    // Blank lines may follow before the next record. What is cut off is what RecordCutter cuts off.
    std::size_t end = 0;
    for (bool inside = false; end < text.size() && (inside || text[end] != '\n'); ++end) {
        if (form_ == RecordForm::kCsv && text[end] == '"') inside = !inside;
    }
    text.resize(end);
    if (text.ends_with('\r')) text.pop_back();
    return std::string(offsets_[at] == 0 ? without_bom(text) : std::string_view(text));
}

void RecordSamples::read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const {
    const std::string text = record(index);
    std::optional<std::vector<std::string>> fields;
    std::size_t column = text_columns_[static_cast<std::size_t>(tower)];
    if (form_ == RecordForm::kTsv) {
        fields = split_tsv(text);
    } else if (form_ == RecordForm::kCsv) {
        fields = split_csv(text);
    } else {
        fields = fields_of_json(text, settings_.towers, settings_.labelled);
    }
    if (!fields || fields->size() != columns_) {
        throw UserError("{} has changed while training: begin anew", file_.string());
    }
    const std::int64_t most =
        settings_.cut == 0 ? settings_.length : std::min(settings_.cut, settings_.length);
    tokens_of_text((*fields)[column], most, settings_.tokens, out);
}

}  // namespace spion
