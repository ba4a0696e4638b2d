// How a file of records (train/data/records.h) is cut into records, and a record into fields.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spion {

// Cuts a stream that arrives in pieces at its line ends; in CSV those outside quotes.
class RecordCutter {
  public:
    // record(text, line, end): without its line end, with the line it begins on, and the offset of
    // the byte behind it.
    using Take = std::function<void(std::string_view, std::int64_t, std::int64_t)>;
    RecordCutter(bool quoted, Take take) : quoted_(quoted), take_(std::move(take)) {}

    // Throws UserError when a record grows beyond kLongestRecord.
    void add(std::string_view piece);
    // What is left behind the last line end.
    void finish();

    static constexpr std::size_t kLongestRecord = std::size_t{64} << 20;  // bytes

  private:
    void emit();
    bool quoted_;
    Take take_;
    std::string record_;
    bool inside_ = false;     // of quotes
    std::int64_t line_ = 1;   // of the record at hand
    std::int64_t lines_ = 0;  // inside the record
    std::int64_t offset_ = 0;
};

std::vector<std::string> split_tsv(std::string_view record);
// nullopt for a quote that is never closed, or text behind a closing quote.
std::optional<std::vector<std::string>> split_csv(std::string_view record);

// "1" of "1.0": a whole number as one, another label as it stands.
std::string label_of(std::string_view text);

}  // namespace spion
