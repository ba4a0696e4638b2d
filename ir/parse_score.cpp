#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <system_error>
#include <utility>

#include "ir/error.h"
#include "ir/score_graph.h"

namespace spion {
namespace {

constexpr int kMostDepth = 50;  // of parentheses, functions, signs and conditions

struct Word {
    std::string_view name;
    ScoreOp op;
};

constexpr Word kVariables[] = {{"score", ScoreOp::kScore},
                               {"q", ScoreOp::kQuery},
                               {"k", ScoreOp::kKey},
                               {"head", ScoreOp::kHead},
                               {"batch", ScoreOp::kBatch}};
constexpr Word kFunctions[] = {{"exp", ScoreOp::kExp},   {"fabs", ScoreOp::kAbs},
                               {"log", ScoreOp::kLog},   {"max", ScoreOp::kMax},
                               {"min", ScoreOp::kMin},   {"sigmoid", ScoreOp::kSigmoid},
                               {"sqrt", ScoreOp::kSqrt}, {"tanh", ScoreOp::kTanh}};
constexpr std::string_view kAllowed =
    "use numbers, score, q, k, head, batch, + - * /, parentheses, a < b ? x : y, and exp, fabs, "
    "log, max, min, sigmoid, sqrt, tanh";

bool starts_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

template <std::size_t kCount>
std::optional<ScoreOp> find(const Word (&words)[kCount], std::string_view name) {
    for (const Word& word : words) {
        if (word.name == name) {
            return word.op;
        }
    }
    return std::nullopt;
}

// By recursive descent: condition, sum, product, sign, primary.
class Reader {
  public:
    Reader(ScoreGraphBuilder& builder, std::string_view text, std::string_view what)
        : builder_(builder), text_(text), what_(what) {}

    int whole() {
        const int root = condition();
        if (at_ < text_.size()) {
            fail(fmt::format("{} is not expected", found()));
        }
        return root;
    }

  private:
    // Counts how deep the text is nested, which is how deep calls are.
    struct Level {
        explicit Level(Reader& entered) : reader(entered) {
            if (++reader.depth_ > kMostDepth) {
                reader.fail(fmt::format("more than {} levels are nested", kMostDepth));
            }
        }
        ~Level() { --reader.depth_; }
        Level(const Level&) = delete;
        Level& operator=(const Level&) = delete;
        Reader& reader;
    };

    int condition() {
        const Level level(*this);
        const int left = sum();
        const std::optional<std::string_view> compares = comparison();
        if (!compares) {
            return left;
        }
        const int right = sum();
        expect("?");
        const int then = condition();
        expect(":");
        const int otherwise = condition();
        const bool swapped = compares->front() == '>', negated = compares->front() == '!';
        const ScoreOp op = *compares == "<" || *compares == ">" ? ScoreOp::kLess
                           : *compares == "==" || negated       ? ScoreOp::kEqual
                                                                : ScoreOp::kLessEqual;
        const int holds = builder_.binary(op, swapped ? right : left, swapped ? left : right);
        return builder_.select(holds, negated ? otherwise : then, negated ? then : otherwise);
    }

    int sum() {
        int left = product();
        for (;;) {
            if (accept("+")) {
                left = builder_.binary(ScoreOp::kAdd, left, product());
            } else if (accept("-")) {
                left = builder_.binary(ScoreOp::kSubtract, left, product());
            } else {
                return left;
            }
        }
    }

    int product() {
        int left = sign();
        for (;;) {
            if (accept("*")) {
                left = builder_.binary(ScoreOp::kMultiply, left, sign());
            } else if (accept("/")) {
                left = builder_.binary(ScoreOp::kDivide, left, sign());
            } else {
                return left;
            }
        }
    }

    int sign() {
        const Level level(*this);
        return accept("-") ? builder_.unary(ScoreOp::kNegate, sign()) : primary();
    }

    int primary() {
        if (accept("(")) {
            const int inside = condition();
            expect(")");
            return inside;
        }
        skip_spaces();
        const char next = at_ < text_.size() ? text_[at_] : '\0';
        if (is_digit(next) || next == '.') {
            return number();
        }
        if (!starts_name(next)) {
            fail(fmt::format("{} stands where a value is expected", found()));
        }
        return named();
    }

    int number() {
        float value = 0.0F;
        const char* const end = text_.data() + text_.size();
        const auto [stop, error] = std::from_chars(text_.data() + at_, end, value);
        if (error != std::errc{}) {
            fail(fmt::format("{} is no fp32 number", found()));
        }
        at_ = static_cast<std::size_t>(stop - text_.data());
        if (at_ < text_.size() && (text_[at_] == 'f' || text_[at_] == 'F')) {
            ++at_;  // as C has it
        }
        return builder_.number(value);
    }

    int named() {
        const std::size_t begin = at_;
        std::size_t end = at_;
        while (end < text_.size() && (starts_name(text_[end]) || is_digit(text_[end]))) {
            ++end;
        }
        const std::string_view name = text_.substr(begin, end - begin);
        if (const auto variable = find(kVariables, name)) {
            at_ = end;
            return builder_.node({.op = *variable});
        }
        const auto function = find(kFunctions, name);
        if (!function) {
            fail(fmt::format("'{}' is not known", name));
        }
        at_ = end;
        expect("(");
        const int first = condition();
        int second = -1;
        if (operand_count(*function) == 2) {
            expect(",");
            second = condition();
        }
        expect(")");
        return builder_.binary(*function, first, second);
    }

    std::optional<std::string_view> comparison() {
        for (const std::string_view word : {"<=", ">=", "==", "!=", "<", ">"}) {
            if (accept(word)) {
                return word;
            }
        }
        return std::nullopt;
    }

    void skip_spaces() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) {
            ++at_;
        }
    }

    bool accept(std::string_view word) {
        skip_spaces();
        if (text_.substr(at_, word.size()) != word) {
            return false;
        }
        at_ += word.size();
        skip_spaces();
        return true;
    }

    void expect(std::string_view word) {
        if (!accept(word)) {
            fail(fmt::format("{} stands where '{}' is expected", found(), word));
        }
    }

    // One character a column, whatever the bytes are.
    std::string found() const {
        if (at_ >= text_.size()) {
            return "the end";
        }
        const char c = text_[at_];
        return c > ' ' && c <= '~' ? fmt::format("'{}'", c)
                                   : fmt::format("byte {}", static_cast<unsigned char>(c));
    }

    [[noreturn]] void fail(std::string_view problem) const {
        std::string shown(text_);
        for (char& c : shown) {
            c = c >= ' ' && c <= '~' ? c : '?';
        }
        throw UserError("{} '{}': at column {}, {}: {}", what_, shown, at_ + 1, problem, kAllowed);
    }

    ScoreGraphBuilder& builder_;
    std::string_view text_, what_;
    std::size_t at_ = 0;
    int depth_ = 0;
};

// How tightly an operation binds its operands.
enum Binding { kLoose, kOfSum, kOfProduct, kOfSign, kTight };

class Printer {
  public:
    explicit Printer(const std::vector<ScoreNode>& nodes) : nodes_(nodes) {}

    // In parentheses where it binds less than `least`.
    std::string print(int index, Binding least) const {
        const ScoreNode& node = nodes_[static_cast<std::size_t>(index)];
        const auto [binding, text] = bare(node);
        return binding < least ? fmt::format("({})", text) : text;
    }

  private:
    std::pair<Binding, std::string> bare(const ScoreNode& node) const {
        const auto [a, b, c] = node.operands;
        switch (node.op) {
            case ScoreOp::kNumber:
                return {kTight, fmt::format("{}", node.number)};
            case ScoreOp::kNegate:
                return {kOfSign, fmt::format("-{}", print(a, kOfSign))};
            case ScoreOp::kAdd:
                return {kOfSum, joined(a, "+", b, kOfSum, kOfProduct)};
            case ScoreOp::kSubtract:
                return {kOfSum, joined(a, "-", b, kOfSum, kOfProduct)};
            case ScoreOp::kMultiply:
                return {kOfProduct, joined(a, "*", b, kOfProduct, kOfSign)};
            case ScoreOp::kDivide:
                return {kOfProduct, joined(a, "/", b, kOfProduct, kOfSign)};
            case ScoreOp::kLess:
                return {kLoose, joined(a, "<", b, kOfSum, kOfSum)};
            case ScoreOp::kLessEqual:
                return {kLoose, joined(a, "<=", b, kOfSum, kOfSum)};
            case ScoreOp::kEqual:
                return {kLoose, joined(a, "==", b, kOfSum, kOfSum)};
            case ScoreOp::kSelect:
                return {kLoose, fmt::format("{}?{}:{}", print(a, kLoose), print(b, kLoose),
                                            print(c, kLoose))};
            default:
                return {kTight, named(node)};
        }
    }

    std::string joined(int a, std::string_view sign, int b, Binding of_a, Binding of_b) const {
        return fmt::format("{}{}{}", print(a, of_a), sign, print(b, of_b));
    }

    // A variable, or a function of its operands.
    std::string named(const ScoreNode& node) const {
        for (const Word& variable : kVariables) {
            if (variable.op == node.op) {
                return std::string(variable.name);
            }
        }
        for (const Word& function : kFunctions) {
            if (function.op == node.op) {
                const std::string first = print(node.operands[0], kLoose);
                return operand_count(node.op) == 1 ? fmt::format("{}({})", function.name, first)
                                                   : fmt::format("{}({},{})", function.name, first,
                                                                 print(node.operands[1], kLoose));
            }
        }
        throw InternalError("score operation {} has no name", static_cast<int>(node.op));
    }

    const std::vector<ScoreNode>& nodes_;
};

}  // namespace

int read_score(ScoreGraphBuilder& builder, std::string_view text, std::string_view what) {
    if (std::ssize(text) > kMostScoreCharacters) {
        throw UserError("{} has {} characters: give an expression of at most {}", what, text.size(),
                        kMostScoreCharacters);
    }
    return Reader(builder, text, what).whole();
}

std::string print_score(const std::vector<ScoreNode>& nodes, int index) {
    return Printer(nodes).print(index, kLoose);
}

}  // namespace spion
