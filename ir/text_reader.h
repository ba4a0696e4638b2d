// A text of lines, read word by word, that can say where it stands. For hand-written parsers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spion {

// `text` without the mark EF BB BF that some editors write before UTF-8.
inline std::string_view without_byte_order_mark(std::string_view text) {
    constexpr std::string_view kMark = "\xEF\xBB\xBF";
    return text.starts_with(kMark) ? text.substr(kMark.size()) : text;
}

// A byte-order mark, blank lines, lines that begin with '#', carriage returns before a line's end and spaces around
// words are skipped. Every failure is a UserError "origin:line:column: message", then the line and
// a caret below the column.
class TextReader {
  public:
    // `text` and `origin` must outlive the reader, which starts on the first line.
    TextReader(std::string_view text, std::string_view origin);

    bool has_line() const { return has_line_; }
    // To the next line; what is left of this one must be blank.
    void next_line();
    int line() const { return line_; }  // from 1

    // Whether the rest of the line begins with `word`, as a whole word.
    bool at_word(std::string_view word);
    // Whether nothing is left of the line.
    bool at_line_end();

    // Consume what they name, or fail with "expected ...". A literal may end inside a word.
    void literal(std::string_view expected);
    bool accept(std::string_view expected);
    std::string_view word(std::string_view expected);  // up to a space, ':', '/', '~' or the end
    std::string_view text(std::string_view expected);  // up to a space or the end
    std::string_view name(std::string_view expected);  // letters, digits and underscores
    std::int64_t integer(std::string_view expected, std::int64_t low, std::int64_t high);
    float number(std::string_view expected);

    // Fails at the place where the last word, integer or number began.
    [[noreturn]] void fail_at_last(std::string_view message) const;
    // Fails at the reader's place.
    [[noreturn]] void fail_here(std::string_view message) const;
    // Fails at the start of line `line`.
    [[noreturn]] void fail_at_line(int line, std::string_view message) const;

  private:
    void skip_spaces();
    std::string_view stretch(std::string_view expected, bool (*belongs)(char));
    void load_line();
    std::string found() const;  // what stands at the reader's place, for messages
    [[noreturn]] void fail(int line, std::size_t column, std::string_view message) const;

    std::string_view text_, origin_;
    std::size_t begin_ = 0;  // of the current line in text_
    std::string_view content_;
    std::size_t at_ = 0, last_ = 0;  // in content_
    int line_ = 1;
    bool has_line_ = false;
};

}  // namespace spion
