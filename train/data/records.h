// Labelled texts in a file, a record each: TSV, CSV or JSON Lines. They stay in the file: an index of
// ten bytes a record is made in one pass, and a record is read when a batch needs it, so that files
// of many gigabytes train in little memory.
//
//   TSV    fields between tabs, nothing quoted, a record a line
//   CSV    fields between commas, quoted by " where they hold commas, quotes (doubled) or line ends
//   JSONL  an object a line: {"label": 1, "text": "..."}, or text1 and text2
//
// TSV and CSV may begin with a line of names (label, text or text1, text2). Without, the label is the
// first field and the texts are the last; in between are ids that nobody reads.
//
// A text is its bytes: token = byte + 1, so that 0 is padding alone; or each token stands for several
// bytes (TextTokens).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/dataset.h"

namespace spion {

constexpr int kByteTokens = 257;

// What the tokens of a text are. There is one for each byte. With an n-gram of 1 it is byte + 1, else
// 1 + h mod (count - 1), h the 32-bit FNV-1a hash of the bytes from there on: n of them, or as many as
// are left. Hashed n-grams of bytes are what CANINE (Clark et al., 2022) embeds in place of a
// vocabulary.
struct TextTokens {
    int ngram = 1;
    int count = kByteTokens;  // tokens are 1 .. count - 1; of bytes, kByteTokens
};

// The tokens of a text's first `most` bytes, which are all that they are made of.
void tokens_of_text(std::string_view text, std::int64_t most, const TextTokens& tokens,
                    std::vector<std::uint16_t>& out);

enum class RecordForm { kTsv, kCsv, kJsonLines };

struct RecordSettings {
    int towers = 1;           // texts of a record
    std::int64_t length = 0;  // L
    std::int64_t cut = 0;     // longer texts are cut to so many bytes; 0: they are refused above L
    bool labelled = true;     // false: a record may be its texts alone, with label 0
    TextTokens tokens = {};
};

// The form that a file's name ends in (.tsv, .csv, .jsonl), or UserError.
RecordForm record_form(const std::filesystem::path& file);

class RecordSamples final : public Samples {
  public:
    // Reads the file once. Throws UserError with file and line for a record of other fields, an empty
    // text, one that is too long, and more than 1024 labels.
    RecordSamples(const std::filesystem::path& file, RecordForm form,
                  const RecordSettings& settings);
    RecordSamples(const RecordSamples&) = delete;
    RecordSamples& operator=(const RecordSamples&) = delete;

    std::int64_t samples() const override { return static_cast<std::int64_t>(offsets_.size()) - 1; }
    int towers() const override { return settings_.towers; }
    int label(std::int64_t index) const override;
    void read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const override;

    // The labels as they are written, whole numbers without ".0".
    const std::vector<std::string>& label_names() const { return names_; }
    // Gives every label the number of its name in `names`. Throws UserError for one that is not there.
    void number_labels(const std::vector<std::string>& names);

  private:
    void index();
    void add_record(std::string_view record, std::int64_t line);
    std::vector<std::string> fields_of(std::string_view record, std::int64_t line) const;
    bool learn_columns(const std::vector<std::string>& fields, std::int64_t line);
    void check_texts(const std::vector<std::string>& fields, std::int64_t line) const;
    std::uint16_t known_label(const std::string& label, std::int64_t line);
    std::string record(std::int64_t index) const;
    std::string place(std::int64_t line) const;

    // An open file, closed with the samples or where reading it fails.
    struct Descriptor {
        int number = -1;
        ~Descriptor();
    };

    std::filesystem::path file_;
    RecordForm form_;
    RecordSettings settings_;
    Descriptor descriptor_;
    std::size_t label_column_ = 0;
    std::vector<std::size_t> text_columns_;  // [towers]; empty until the first record is seen
    std::size_t columns_ = 0;                // fields of every record; 0: not counted (JSONL)
    bool has_label_ = true;
    std::vector<std::int64_t> offsets_;  // [samples + 1], of records in the file
    std::vector<std::uint16_t> labels_;  // [samples], into names_
    std::vector<std::string> names_;
    std::vector<int> numbers_;  // of names_
};

// Names in the order in which labels are numbered: whole numbers by value, then others by their bytes.
std::vector<std::string> sorted_labels(std::vector<std::string> names);

}  // namespace spion
