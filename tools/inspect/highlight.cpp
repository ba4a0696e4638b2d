#include "tools/inspect/highlight.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "tools/inspect/svg.h"

namespace spion::inspect {
namespace {

using Words = std::set<std::string_view>;

const Words& keywords(Language language) {
    static const Words cuda = {"__device__",
                               "__forceinline__",
                               "__global__",
                               "__grid_constant__",
                               "__launch_bounds__",
                               "__restrict__",
                               "__shared__",
                               "__syncthreads",
                               "alignas",
                               "asm",
                               "auto",
                               "bool",
                               "break",
                               "char",
                               "class",
                               "const",
                               "constexpr",
                               "continue",
                               "do",
                               "double",
                               "else",
                               "enum",
                               "extern",
                               "false",
                               "float",
                               "for",
                               "if",
                               "inline",
                               "int",
                               "long",
                               "namespace",
                               "nullptr",
                               "operator",
                               "return",
                               "short",
                               "signed",
                               "sizeof",
                               "static",
                               "static_assert",
                               "static_cast",
                               "reinterpret_cast",
                               "struct",
                               "switch",
                               "case",
                               "default",
                               "template",
                               "this",
                               "true",
                               "typename",
                               "unsigned",
                               "using",
                               "void",
                               "volatile",
                               "while"};
    static const Words llvm = {
        "align",    "alloca", "add",    "and",           "attributes", "br",    "call", "constant",
        "declare",  "define", "double", "external",      "fadd",       "fast",  "fcmp", "fdiv",
        "float",    "fmul",   "fsub",   "getelementptr", "global",     "i1",    "i8",   "i16",
        "i32",      "i64",    "icmp",   "inbounds",      "label",      "load",  "mul",  "phi",
        "ptr",      "ret",    "select", "sext",          "shl",        "store", "sub",  "tail",
        "target",   "to",     "trunc",  "undef",         "void",       "zext",  "x",    "private",
        "internal", "nsw"};
    static const Words ir = {"program", "attention", "shape", "walk",  "pattern",  "tile",
                             "dense",   "band",      "runs",  "empty", "irregular"};
    static const Words none;
    switch (language) {
        case Language::kCuda:
            return cuda;
        case Language::kLlvm:
            return llvm;
        case Language::kIr:
            return ir;
        case Language::kAssembly:
            return none;
    }
    return none;
}

bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

class Highlighter {
  public:
    Highlighter(std::string_view text, Language language) : text_(text), language_(language) {}

    std::string run() {
        while (at_ < text_.size()) {
            const std::size_t begin = at_;
            const char kind = next();
            emit(text_.substr(begin, at_ - begin), kind);
        }
        return html_;
    }

  private:
    bool starts(std::string_view what) const { return text_.substr(at_).starts_with(what); }
    void to_line_end() { at_ = std::min(text_.find('\n', at_), text_.size()); }
    void past(std::string_view what, std::size_t from) {
        const std::size_t found = text_.find(what, from);
        at_ = found == std::string_view::npos ? text_.size() : found + what.size();
    }
    template <typename Predicate>
    void skip_while(const Predicate& holds) {
        while (at_ < text_.size() && holds(text_[at_])) {
            ++at_;
        }
    }
    bool at_line_start() const {
        std::size_t i = at_;
        while (i > 0 && (text_[i - 1] == ' ' || text_[i - 1] == '\t')) {
            --i;
        }
        return i == 0 || text_[i - 1] == '\n';
    }

    // Moves past one token; its class, or 0 for plain text.
    char next() {
        const char c = text_[at_];
        const bool slashes = language_ == Language::kCuda || language_ == Language::kAssembly;
        if ((slashes && starts("//")) || (language_ == Language::kLlvm && c == ';') ||
            (language_ == Language::kIr && c == '#')) {
            to_line_end();
            return 'c';
        }
        if (slashes && starts("/*")) {
            past("*/", at_ + 2);
            return 'c';
        }
        if (language_ == Language::kCuda && c == '#' && at_line_start()) {
            to_line_end();
            return 'p';
        }
        if (c == '"') {
            return string_literal();
        }
        if (language_ != Language::kCuda && (c == '@' || c == '%') && at_ + 1 < text_.size() &&
            is_word(text_[at_ + 1])) {
            ++at_;
            skip_while([](char d) { return is_word(d) || d == '.'; });
            return 'v';
        }
        if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
            skip_while([](char d) { return is_word(d) || d == '.'; });
            return 'n';
        }
        if (is_word(c)) {
            const std::size_t begin = at_;
            skip_while(is_word);
            return keywords(language_).contains(text_.substr(begin, at_ - begin)) ? 'k' : '\0';
        }
        ++at_;
        return '\0';
    }

    char string_literal() {
        for (++at_; at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\n'; ++at_) {
            at_ += text_[at_] == '\\' && at_ + 1 < text_.size() ? 1 : 0;
        }
        at_ = std::min(at_ + (at_ < text_.size() && text_[at_] == '"' ? 1 : 0), text_.size());
        return 's';
    }

    // Plain text is gathered, so that a multi-byte character is escaped whole.
    void emit(std::string_view token, char kind) {
        if (kind == 0) {
            plain_begin_ =
                plain_begin_ == std::string_view::npos ? at_ - token.size() : plain_begin_;
            if (at_ == text_.size()) {
                flush(at_);
            }
            return;
        }
        flush(at_ - token.size());
        html_.append("<span class=\"").append(1, kind).append("\">");
        html_ += escape(token) + "</span>";
    }
    void flush(std::size_t end) {
        if (plain_begin_ != std::string_view::npos) {
            html_ += escape(text_.substr(plain_begin_, end - plain_begin_));
            plain_begin_ = std::string_view::npos;
        }
    }

    std::string_view text_;
    Language language_;
    std::size_t at_ = 0;
    std::size_t plain_begin_ = std::string_view::npos;
    std::string html_;
};

}  // namespace

Language language_of(std::string_view file_name) {
    const std::string_view extension =
        file_name.substr(std::min(file_name.rfind('.'), file_name.size()));
    if (extension == ".cu" || extension == ".cuh" || extension == ".h") {
        return Language::kCuda;
    }
    return extension == ".ll"   ? Language::kLlvm
           : extension == ".ir" ? Language::kIr
                                : Language::kAssembly;
}

std::string highlight(std::string_view text, Language language) {
    return Highlighter(text, language).run();
}

}  // namespace spion::inspect
