#include "ir/text_reader.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "ir/error.h"

namespace spion {
namespace {

constexpr std::size_t kExcerpt = 120;  // columns of a line that a message shows

bool is_space(char c) {
    return c == ' ' || c == '\t';
}

bool ends_word(char c) {
    return is_space(c) || c == ':' || c == '/' || c == '~';
}

bool in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// The line that starts at `begin`, without its end.
std::string_view line_at(std::string_view text, std::size_t begin) {
    std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
    if (!line.empty() && line.back() == '\r') {
        line.remove_suffix(1);
    }
    return line;
}

bool is_blank(std::string_view line) {
    return std::all_of(line.begin(), line.end(), is_space);
}

// One column a byte, whatever the bytes are.
std::string printable(std::string_view bytes) {
    std::string text(bytes);
    std::replace_if(
        text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return text;
}

}  // namespace

TextReader::TextReader(std::string_view text, std::string_view origin)
    : text_(without_byte_order_mark(text)), origin_(origin) {
    load_line();
}

void TextReader::load_line() {
    has_line_ = false;
    while (begin_ < text_.size()) {
        content_ = line_at(text_, begin_);
        at_ = last_ = 0;
        if (!is_blank(content_) && content_.front() != '#') {
            has_line_ = true;
            return;
        }
        begin_ = std::min(text_.find('\n', begin_), text_.size() - 1) + 1;
        ++line_;
    }
    content_ = {};
    at_ = last_ = 0;
}

void TextReader::next_line() {
    if (!at_line_end()) {
        fail_here(fmt::format("expected the end of the line, found {}", found()));
    }
    if (!has_line_) {
        return;
    }
    begin_ = std::min(text_.find('\n', begin_), text_.size() - 1) + 1;
    ++line_;
    load_line();
}

void TextReader::skip_spaces() {
    while (at_ < content_.size() && is_space(content_[at_])) {
        ++at_;
    }
}

bool TextReader::at_line_end() {
    skip_spaces();
    return at_ == content_.size();
}

bool TextReader::at_word(std::string_view word) {
    skip_spaces();
    const std::string_view rest = content_.substr(at_);
    return rest.substr(0, word.size()) == word &&
           (rest.size() == word.size() || ends_word(rest[word.size()]));
}

bool TextReader::accept(std::string_view expected) {
    skip_spaces();
    if (content_.substr(at_, expected.size()) != expected) {
        return false;
    }
    last_ = at_;
    at_ += expected.size();
    return true;
}

void TextReader::literal(std::string_view expected) {
    if (!accept(expected)) {
        fail_here(fmt::format("expected '{}', found {}", expected, found()));
    }
}

std::string_view TextReader::word(std::string_view expected) {
    return stretch(expected, [](char c) { return !ends_word(c); });
}

std::string_view TextReader::text(std::string_view expected) {
    return stretch(expected, [](char c) { return !is_space(c); });
}

std::string_view TextReader::name(std::string_view expected) {
    return stretch(expected, in_name);
}

std::string_view TextReader::stretch(std::string_view expected, bool (*belongs)(char)) {
    skip_spaces();
    std::size_t end = at_;
    while (end < content_.size() && belongs(content_[end])) {
        ++end;
    }
    if (end == at_) {
        fail_here(fmt::format("expected {}, found {}", expected, found()));
    }
    last_ = at_;
    at_ = end;
    return content_.substr(last_, end - last_);
}

std::int64_t TextReader::integer(std::string_view expected, std::int64_t low, std::int64_t high) {
    skip_spaces();
    std::int64_t value = 0;
    const char* end = content_.data() + content_.size();
    const auto [stop, error] = std::from_chars(content_.data() + at_, end, value);
    if (error == std::errc::invalid_argument) {
        fail_here(fmt::format("expected {}, found {}", expected, found()));
    }
    last_ = at_;
    at_ = static_cast<std::size_t>(stop - content_.data());
    if (error != std::errc{} || value < low || value > high) {
        fail_at_last(fmt::format("{} is {}, expected {} to {}", expected,
                                 printable(content_.substr(last_, at_ - last_)), low, high));
    }
    return value;
}

float TextReader::number(std::string_view expected) {
    skip_spaces();
    float value = 0.0F;
    const char* end = content_.data() + content_.size();
    const auto [stop, error] = std::from_chars(content_.data() + at_, end, value);
    if (error != std::errc{}) {
        fail_here(fmt::format("expected {}, found {}", expected, found()));
    }
    last_ = at_;
    at_ = static_cast<std::size_t>(stop - content_.data());
    return value;
}

std::string TextReader::found() const {
    if (!has_line_) {
        return "the end of the text";
    }
    std::size_t begin = at_;
    while (begin < content_.size() && is_space(content_[begin])) {
        ++begin;
    }
    if (begin == content_.size()) {
        return "the end of the line";
    }
    std::size_t end = begin + 1;
    while (end < content_.size() && !is_space(content_[end]) && end - begin < 32) {
        ++end;
    }
    return fmt::format("'{}'", printable(content_.substr(begin, end - begin)));
}

void TextReader::fail_at_last(std::string_view message) const {
    fail(line_, last_, message);
}

void TextReader::fail_here(std::string_view message) const {
    fail(line_, at_, message);
}

void TextReader::fail_at_line(int line, std::string_view message) const {
    fail(line, 0, message);
}

void TextReader::fail(int line, std::size_t column, std::string_view message) const {
    std::size_t begin = 0;
    for (int i = 1; i < line && begin < text_.size(); ++i) {
        begin = std::min(text_.find('\n', begin), text_.size() - 1) + 1;
    }
    const std::string_view content = begin < text_.size() ? line_at(text_, begin) : "";
    const std::size_t first = column + 8 > kExcerpt ? column - kExcerpt / 2 : 0;
    const std::string excerpt =
        printable(content.substr(std::min(first, content.size()), kExcerpt));
    throw UserError("{}:{}:{}: {}\n  {}\n  {:>{}}", origin_, line, column + 1, message, excerpt,
                    "^", column - first + 1);
}

}  // namespace spion
