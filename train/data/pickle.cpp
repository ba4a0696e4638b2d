#include "train/data/pickle.h"

#include <bit>
#include <map>

#include "ir/error.h"
#include "train/data/pickle_objects.h"

namespace spion {
namespace {

using Kind = PickleValue::Kind;

// The machine that a pickle is a program of, as far as it makes data.
class Reader {
  public:
    Reader(std::string_view bytes, const std::string& origin) : bytes_(bytes, origin) {}

    PickleValue read() {
        while (true) {
            const unsigned char code = bytes_.byte();
            if (code == '.') return *pop();
            if (!constant(code) && !container(code) && !memory(code) && !object(code)) {
                bytes_.fail(
                    fmt::format("it has the operation 0x{:02x}, which makes no data", code));
            }
        }
    }

  private:
    void push(PicklePointer value) { stack_.push_back(std::move(value)); }
    PicklePointer pop() {
        if (stack_.empty() || (!marks_.empty() && stack_.size() == marks_.back())) {
            bytes_.fail("it takes what it has not made");
        }
        PicklePointer value = std::move(stack_.back());
        stack_.pop_back();
        return value;
    }
    std::vector<PicklePointer> pop_to_mark() {
        if (marks_.empty()) bytes_.fail("it takes what it has not made");
        const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
        std::vector<PicklePointer> items(first, stack_.end());
        stack_.erase(first, stack_.end());
        marks_.pop_back();
        return items;
    }
    PickleValue& top(Kind kind) {
        if (stack_.empty() || stack_.back()->kind != kind)
            bytes_.fail("it fills what is no container");
        return *stack_.back();
    }
    void push_list(std::vector<PicklePointer> items) {
        push(make_pickle(Kind::kList));
        stack_.back()->items = std::move(items);
    }
    void push_last(std::size_t count) {
        std::vector<PicklePointer> items(count);
        for (std::size_t i = count; i > 0; --i) items[i - 1] = pop();
        push_list(std::move(items));
    }

    bool constant(unsigned char code) {
        switch (code) {
            case 'N':
                push(make_pickle(Kind::kNone));
                return true;
            case 0x88:
                push(make_pickle_integer(1));
                return true;
            case 0x89:
                push(make_pickle_integer(0));
                return true;
            case 'J':
                push(make_pickle_integer(static_cast<std::int32_t>(bytes_.little(4))));
                return true;
            case 'K':
                push(make_pickle_integer(bytes_.byte()));
                return true;
            case 'M':
                push(make_pickle_integer(static_cast<std::int64_t>(bytes_.little(2))));
                return true;
            case 'I':
            case 'L':
                push(make_pickle_integer(bytes_.number(bytes_.line())));
                return true;
            case 0x8a:
                push(make_pickle_integer(long_integer(bytes_.byte())));
                return true;
            case 'G':
                push_float(bytes_.take(8));
                return true;
            case 'U':
            case 'C':
            case 0x8c:
                push(make_pickle_text(bytes_.take(bytes_.byte())));
                return true;
            case 'T':
            case 'B':
            case 'X':
                push_view(bytes_.little(4));
                return true;
            case 0x8d:
            case 0x8e:
            case 0x96:
                push_view(bytes_.little(8));
                return true;
            case 'S':
                push(make_pickle_text(quoted(bytes_.line())));
                return true;
            case 'V':
                push(make_pickle_text(bytes_.line()));
                return true;
            default:
                return false;
        }
    }
    // Long strings may be an array's elements: their place is kept beside the text.
    void push_view(std::uint64_t count) {
        const std::string_view taken = bytes_.take(count);
        auto value = make_pickle(Kind::kText);
        value->data = taken;
        constexpr std::size_t kName = 4096;  // longer ones are elements
        if (taken.size() <= kName) value->text = taken;
        push(std::move(value));
    }
    std::int64_t long_integer(unsigned char count) {
        if (count > 8) bytes_.fail("a number has more than 64 bits");
        if (count == 0) return 0;
        const std::uint64_t value = bytes_.little(count);
        const int unused = 64 - 8 * count;
        return static_cast<std::int64_t>(value << unused) >> unused;
    }
    void push_float(std::string_view big_endian) {
        std::uint64_t bits = 0;
        for (const char c : big_endian) bits = bits << 8 | static_cast<unsigned char>(c);
        push(make_pickle(Kind::kFloat));
        stack_.back()->number = std::bit_cast<double>(bits);
    }
    std::string_view quoted(std::string_view text) const {
        if (text.size() < 2 || text.front() != text.back()) bytes_.fail("a string is not quoted");
        text = text.substr(1, text.size() - 2);
        if (text.find('\\') != std::string_view::npos)
            bytes_.fail("a string of protocol 0 has escapes");
        return text;
    }

    bool container(unsigned char code) {
        switch (code) {
            case '(':
                marks_.push_back(stack_.size());
                return true;
            case ']':
            case ')':
                push(make_pickle(Kind::kList));
                return true;
            case '}':
                push(make_pickle(Kind::kDict));
                return true;
            case 't':
            case 'l':
                push_list(pop_to_mark());
                return true;
            case 0x85:
                push_last(1);
                return true;
            case 0x86:
                push_last(2);
                return true;
            case 0x87:
                push_last(3);
                return true;
            case 'a': {
                PicklePointer item = pop();
                top(Kind::kList).items.push_back(std::move(item));
                return true;
            }
            case 'e': {
                std::vector<PicklePointer> items = pop_to_mark();
                auto& list = top(Kind::kList).items;
                list.insert(list.end(), items.begin(), items.end());
                return true;
            }
            case 's': {
                PicklePointer value = pop(), key = pop();
                top(Kind::kDict).fields.emplace_back(std::move(key), std::move(value));
                return true;
            }
            case 'd':
            case 'u': {
                const std::vector<PicklePointer> items = pop_to_mark();
                if (code == 'd') push(make_pickle(Kind::kDict));
                if (items.size() % 2 != 0) bytes_.fail("a key has no value");
                auto& fields = top(Kind::kDict).fields;
                for (std::size_t i = 0; i < items.size(); i += 2) {
                    fields.emplace_back(items[i], items[i + 1]);
                }
                return true;
            }
            default:
                return false;
        }
    }

    bool memory(unsigned char code) {
        switch (code) {
            case 0x80:
                bytes_.byte();
                return true;  // protocol
            case 0x95:
                bytes_.little(8);
                return true;  // the length of a frame
            case 'q':
                remember(bytes_.byte());
                return true;
            case 'r':
                remember(bytes_.little(4));
                return true;
            case 'p':
                remember(static_cast<std::uint64_t>(bytes_.number(bytes_.line())));
                return true;
            case 0x94:
                remember(memo_.size());
                return true;
            case 'h':
                recall(bytes_.byte());
                return true;
            case 'j':
                recall(bytes_.little(4));
                return true;
            case 'g':
                recall(static_cast<std::uint64_t>(bytes_.number(bytes_.line())));
                return true;
            case '0':
                pop();
                return true;
            default:
                return false;
        }
    }
    void remember(std::uint64_t place) {
        if (stack_.empty()) bytes_.fail("it remembers nothing");
        memo_[place] = stack_.back();
    }
    void recall(std::uint64_t place) {
        const auto found = memo_.find(place);
        if (found == memo_.end()) bytes_.fail("it recalls what it has not made");
        push(found->second);
    }

    bool object(unsigned char code) {
        switch (code) {
            case 'c': {
                const std::string module(bytes_.line()), name(bytes_.line());
                push_global(fmt::format("{} {}", module, name));
                return true;
            }
            case 0x93: {
                const PicklePointer name = pop(), module = pop();
                push_global(fmt::format("{} {}", module->text, name->text));
                return true;
            }
            case 'R': {
                const PicklePointer arguments = pop(), callee = pop();
                push(called_by_pickle(*callee, *arguments, bytes_));
                return true;
            }
            case 'b': {
                const PicklePointer state = pop();
                if (stack_.empty()) bytes_.fail("it builds nothing");
                build_for_pickle(*stack_.back(), *state, bytes_);
                return true;
            }
            default:
                return false;
        }
    }
    void push_global(std::string name) {
        push(make_pickle(Kind::kGlobal));
        stack_.back()->text = std::move(name);
    }
    PickleBytes bytes_;
    std::vector<PicklePointer> stack_;
    std::vector<std::size_t> marks_;
    std::map<std::uint64_t, PicklePointer> memo_;
};

}  // namespace

PickleValue read_pickle(std::string_view bytes, const std::string& origin) {
    return Reader(bytes, origin).read();
}

}  // namespace spion
