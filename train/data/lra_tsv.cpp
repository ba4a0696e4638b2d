#include "train/data/lra_tsv.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "io/printable.h"
#include "ir/error.h"
#include "ir/text_reader.h"
#include "runtime/atomic_file.h"
#include "train/data/listops.h"

namespace spion {
namespace {

constexpr std::string_view kHeader = "Source\tTarget";
constexpr std::size_t kLongestLine = std::size_t{16} << 20;  // bytes

// Where an error is, for its message.
struct Place {
    const std::filesystem::path& file;
    std::int64_t line;
    std::string text() const { return fmt::format("{}:{}", file.string(), line); }
};

std::string_view without_carriage_return(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

std::vector<std::uint16_t> parse_source(std::string_view source, const Place& place) {
    std::vector<std::uint16_t> tokens;
    std::int64_t depth = 0;
    while (!source.empty()) {
        const std::size_t end = std::min(source.find(' '), source.size());
        const std::string_view word = source.substr(0, end);
        source.remove_prefix(std::min(end + 1, source.size()));
        if (word.empty() || word == "(" || word == ")") continue;
        const auto token = parse_list_ops_token(word);
        if (!token) {
            throw UserError(
                "{}: '{}' is no ListOps token; allowed are [MIN [MAX [MED [SM 0..9 ] ( )",
                place.text(), printable(word));
        }
        if (*token < kListOpsFirstDigit) ++depth;
        if (*token == kListOpsClose && --depth < 0) {
            throw UserError("{}: a ']' closes nothing; mend the expression", place.text());
        }
        tokens.push_back(*token);
    }
    if (depth != 0) {
        throw UserError("{}: {} bracket(s) are never closed; mend the expression", place.text(),
                        depth);
    }
    if (tokens.empty()) throw UserError("{}: the expression is empty", place.text());
    return tokens;
}

int parse_target(std::string_view target, const Place& place) {
    if (target.size() != 1 || target[0] < '0' || target[0] > '9') {
        throw UserError("{}: the target is '{}', but it must be one digit 0..9", place.text(),
                        printable(target));
    }
    return target[0] - '0';
}

void parse_line(std::string_view line, const Place& place, std::int64_t max_tokens, Split& split) {
    const std::size_t tab = line.find('\t');
    if (tab == std::string_view::npos || line.find('\t', tab + 1) != std::string_view::npos) {
        throw UserError("{}: expected an expression, one tab and its value", place.text());
    }
    const auto tokens = parse_source(line.substr(0, tab), place);
    if (static_cast<std::int64_t>(tokens.size()) > max_tokens) {
        throw UserError("{}: the expression has {} tokens, but length allows {}: raise --length",
                        place.text(), tokens.size(), max_tokens);
    }
    split.append(tokens, parse_target(line.substr(tab + 1), place));
}

void append_split(const Split& split, AtomicFile& output) {
    constexpr std::size_t kChunk = 1 << 20;  // bytes a write
    std::string text = fmt::format("{}\n", kHeader);
    for (std::int64_t i = 0; i < split.samples(); ++i) {
        text += fmt::format("{}\t{}\n", list_ops_text(split.sample(i)),
                            static_cast<int>(split.labels[static_cast<std::size_t>(i)]));
        if (text.size() >= kChunk) {
            output.write(text);
            text.clear();
        }
    }
    output.write(text);
}

struct NamedSplit {
    const Split* split;
    std::filesystem::path file;
};

// All of them or none.
void write_splits(const std::vector<NamedSplit>& splits) {
    const std::filesystem::path* current = nullptr;
    try {
        std::vector<AtomicFile> files;
        files.reserve(splits.size());
        for (const NamedSplit& split : splits) {
            current = &split.file;
            append_split(*split.split, files.emplace_back(split.file));
        }
        AtomicFile::commit(files);
    } catch (const std::system_error& error) {
        throw UserError("cannot write {}: {}; name a folder that can be written",
                        current == nullptr ? "" : current->string(), error.code().message());
    }
}

// A line without its end; false at the end of the file. Throws UserError for a line that is longer
// than any sample: a file of another kind is not read into memory whole.
bool read_line(std::istream& input, const Place& place, std::string& line) {
    line.clear();
    char piece[1 << 16];
    while (true) {
        input.getline(piece, sizeof piece);
        const auto got = static_cast<std::size_t>(input.gcount());
        if (got == 0 && line.empty()) return false;
        // Without a newline within its room, getline fills it and fails.
        const bool cut = input.fail() && !input.eof() && got == sizeof piece - 1;
        line.append(piece, !cut && !input.eof() && got > 0 ? got - 1 : got);
        if (line.size() > kLongestLine) {
            throw UserError("{}: the line has more than {} MiB; give a file of ListOps samples",
                            place.text(), kLongestLine >> 20);
        }
        if (!cut) return true;
        input.clear();
    }
}

}  // namespace

Split read_list_ops_tsv(const std::filesystem::path& file, std::int64_t max_tokens) {
    std::ifstream input(file);
    if (!input || std::filesystem::is_directory(file)) {
        throw UserError(
            "cannot read {} ({}); --data needs a folder with basic_train.tsv, basic_val.tsv and "
            "basic_test.tsv",
            file.string(), input ? "it is a folder" : std::strerror(errno));
    }
    if (input.peek() == std::ifstream::traits_type::eof() && !input.bad()) {
        throw UserError("{} is empty; give the header line 'Source<TAB>Target' and samples",
                        file.string());
    }
    std::string line;
    if (!read_line(input, {file, 1}, line) ||
        without_carriage_return(without_byte_order_mark(line)) != kHeader) {
        throw UserError("{}:1: expected the header line 'Source<TAB>Target'", file.string());
    }
    Split split;
    for (std::int64_t number = 2; read_line(input, {file, number}, line); ++number) {
        const std::string_view text = without_carriage_return(line);
        if (!text.empty()) parse_line(text, {file, number}, max_tokens, split);
    }
    if (input.bad())
        throw UserError("{}: reading stopped: {}", file.string(), std::strerror(errno));
    if (split.samples() == 0) throw UserError("{}: no samples follow the header", file.string());
    return split;
}

Dataset read_list_ops_folder(const std::filesystem::path& folder, std::int64_t max_tokens) {
    return {.train = read_list_ops_tsv(folder / "basic_train.tsv", max_tokens),
            .validation = read_list_ops_tsv(folder / "basic_val.tsv", max_tokens),
            .test = read_list_ops_tsv(folder / "basic_test.tsv", max_tokens)};
}

void write_list_ops_tsv(const Split& split, const std::filesystem::path& file) {
    write_splits({{&split, file}});
}

void write_list_ops_folder(const Dataset& data, const std::filesystem::path& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) {
        throw UserError("cannot create {}: {}; name a folder that can be written", folder.string(),
                        error.message());
    }
    write_splits({{&data.train, folder / "basic_train.tsv"},
                  {&data.validation, folder / "basic_val.tsv"},
                  {&data.test, folder / "basic_test.tsv"}});
}

}  // namespace spion
