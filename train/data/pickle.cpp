#include "train/data/pickle.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <map>

#include "io/printable.h"
#include "ir/error.h"

namespace spion {
namespace {

using Kind = PickleValue::Kind;

PicklePointer make(Kind kind) {
    auto value = std::make_shared<PickleValue>();
    value->kind = kind;
    return value;
}
PicklePointer make_integer(std::int64_t integer) {
    auto value = make(Kind::kInteger);
    value->integer = integer;
    return value;
}
PicklePointer make_text(std::string_view text) {
    auto value = make(Kind::kText);
    value->text = text;
    return value;
}

// "numpy.core.multiarray _reconstruct" and the like: which part of NumPy it is has changed its name.
bool is_numpy(const std::string& global, std::string_view name) {
    return global.starts_with("numpy") && global.ends_with(fmt::format(" {}", name));
}

// The machine that a pickle is a program of, as far as it makes data.
class Reader {
  public:
    Reader(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

    PickleValue read() {
        while (true) {
            const unsigned char code = byte();
            if (code == '.') return *pop();
            if (!constant(code) && !container(code) && !memory(code) && !object(code)) {
                fail(fmt::format("it has the operation 0x{:02x}, which makes no data", code));
            }
        }
    }

  private:
    [[noreturn]] void fail(std::string_view what) const {
        throw UserError("{}: the pickle cannot be read as data ({}): save it again", origin_, what);
    }
    std::string_view take(std::uint64_t count) {
        if (count > bytes_.size() - at_) fail("it is cut short");
        const std::string_view taken = bytes_.substr(at_, static_cast<std::size_t>(count));
        at_ += taken.size();
        return taken;
    }
    unsigned char byte() { return static_cast<unsigned char>(take(1).front()); }
    std::uint64_t little(int count) {
        std::uint64_t value = 0;
        const std::string_view taken = take(static_cast<std::uint64_t>(count));
        std::memcpy(&value, taken.data(), taken.size());
        return value;
    }
    std::string_view line() {
        const std::size_t end = bytes_.find('\n', at_);
        if (end == std::string_view::npos) fail("it is cut short");
        const std::string_view found = bytes_.substr(at_, end - at_);
        at_ = end + 1;
        return found;
    }
    std::int64_t number(std::string_view text) const {
        if (text.ends_with('L')) text.remove_suffix(1);
        std::int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size()) fail("a number is none");
        return value;
    }

    void push(PicklePointer value) { stack_.push_back(std::move(value)); }
    PicklePointer pop() {
        if (stack_.empty() || (!marks_.empty() && stack_.size() == marks_.back())) {
            fail("it takes what it has not made");
        }
        PicklePointer value = std::move(stack_.back());
        stack_.pop_back();
        return value;
    }
    std::vector<PicklePointer> pop_to_mark() {
        if (marks_.empty()) fail("it takes what it has not made");
        const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
        std::vector<PicklePointer> items(first, stack_.end());
        stack_.erase(first, stack_.end());
        marks_.pop_back();
        return items;
    }
    PickleValue& top(Kind kind) {
        if (stack_.empty() || stack_.back()->kind != kind) fail("it fills what is no container");
        return *stack_.back();
    }
    void push_list(std::vector<PicklePointer> items) {
        push(make(Kind::kList));
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
                push(make(Kind::kNone));
                return true;
            case 0x88:
                push(make_integer(1));
                return true;
            case 0x89:
                push(make_integer(0));
                return true;
            case 'J':
                push(make_integer(static_cast<std::int32_t>(little(4))));
                return true;
            case 'K':
                push(make_integer(byte()));
                return true;
            case 'M':
                push(make_integer(static_cast<std::int64_t>(little(2))));
                return true;
            case 'I':
            case 'L':
                push(make_integer(number(line())));
                return true;
            case 0x8a:
                push(make_integer(long_integer(byte())));
                return true;
            case 'G':
                push_float(take(8));
                return true;
            case 'U':
            case 'C':
            case 0x8c:
                push(make_text(take(byte())));
                return true;
            case 'T':
            case 'B':
            case 'X':
                push_view(little(4));
                return true;
            case 0x8d:
            case 0x8e:
            case 0x96:
                push_view(little(8));
                return true;
            case 'S':
                push(make_text(quoted(line())));
                return true;
            case 'V':
                push(make_text(line()));
                return true;
            default:
                return false;
        }
    }
    // Long strings may be an array's elements: their place is kept beside the text.
    void push_view(std::uint64_t count) {
        const std::string_view taken = take(count);
        auto value = make(Kind::kText);
        value->data = taken;
        constexpr std::size_t kName = 4096;  // longer ones are elements
        if (taken.size() <= kName) value->text = taken;
        push(std::move(value));
    }
    std::int64_t long_integer(unsigned char count) {
        if (count > 8) fail("a number has more than 64 bits");
        if (count == 0) return 0;
        const std::uint64_t value = little(count);
        const int unused = 64 - 8 * count;
        return static_cast<std::int64_t>(value << unused) >> unused;
    }
    void push_float(std::string_view big_endian) {
        std::uint64_t bits = 0;
        for (const char c : big_endian) bits = bits << 8 | static_cast<unsigned char>(c);
        push(make(Kind::kFloat));
        stack_.back()->number = std::bit_cast<double>(bits);
    }
    std::string_view quoted(std::string_view text) const {
        if (text.size() < 2 || text.front() != text.back()) fail("a string is not quoted");
        text = text.substr(1, text.size() - 2);
        if (text.find('\\') != std::string_view::npos) fail("a string of protocol 0 has escapes");
        return text;
    }

    bool container(unsigned char code) {
        switch (code) {
            case '(':
                marks_.push_back(stack_.size());
                return true;
            case ']':
            case ')':
                push(make(Kind::kList));
                return true;
            case '}':
                push(make(Kind::kDict));
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
                if (code == 'd') push(make(Kind::kDict));
                if (items.size() % 2 != 0) fail("a key has no value");
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
                byte();
                return true;  // protocol
            case 0x95:
                little(8);
                return true;  // the length of a frame
            case 'q':
                remember(byte());
                return true;
            case 'r':
                remember(little(4));
                return true;
            case 'p':
                remember(static_cast<std::uint64_t>(number(line())));
                return true;
            case 0x94:
                remember(memo_.size());
                return true;
            case 'h':
                recall(byte());
                return true;
            case 'j':
                recall(little(4));
                return true;
            case 'g':
                recall(static_cast<std::uint64_t>(number(line())));
                return true;
            case '0':
                pop();
                return true;
            default:
                return false;
        }
    }
    void remember(std::uint64_t place) {
        if (stack_.empty()) fail("it remembers nothing");
        memo_[place] = stack_.back();
    }
    void recall(std::uint64_t place) {
        const auto found = memo_.find(place);
        if (found == memo_.end()) fail("it recalls what it has not made");
        push(found->second);
    }

    bool object(unsigned char code) {
        switch (code) {
            case 'c': {
                const std::string module(line()), name(line());
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
                call(*callee, *arguments);
                return true;
            }
            case 'b': {
                const PicklePointer state = pop();
                if (stack_.empty()) fail("it builds nothing");
                build(*stack_.back(), *state);
                return true;
            }
            default:
                return false;
        }
    }
    void push_global(std::string name) {
        push(make(Kind::kGlobal));
        stack_.back()->text = std::move(name);
    }
    const PickleValue& item(const PickleValue& list, std::size_t index) const {
        if (list.kind != Kind::kList || index >= list.items.size()) fail("an array is incomplete");
        return *list.items[index];
    }
    void call(const PickleValue& callee, const PickleValue& arguments) {
        if (callee.kind == Kind::kGlobal && is_numpy(callee.text, "_reconstruct")) {
            push(make(Kind::kArray));
        } else if (callee.kind == Kind::kGlobal && is_numpy(callee.text, "dtype")) {
            push(make(Kind::kType));
            stack_.back()->text = item(arguments, 0).text;
        } else if (callee.kind == Kind::kGlobal && is_numpy(callee.text, "scalar")) {
            auto array = make(Kind::kArray);
            array->text = item(arguments, 0).text;
            array->shape = {1};
            array->data = bytes_of(item(arguments, 1));
            push(make_integer(array->integers(origin_).at(0)));
        } else if (callee.kind == Kind::kGlobal && is_numpy(callee.text, "_frombuffer")) {
            push(make(Kind::kArray));  // protocol 5: elements, type, shape, order
            item(arguments, 3);        // all four are there
            fill(*stack_.back(), arguments.items[0], item(arguments, 1), item(arguments, 2));
            if (item(arguments, 3).text != "C") fail("an array is in Fortran's order");
        } else if (callee.kind == Kind::kGlobal && callee.text == "_codecs encode") {
            push_latin1(item(arguments, 0));  // how protocol 2 writes bytes
        } else {
            fail(fmt::format("it calls {}, which is not run", printable(callee.text)));
        }
    }
    void push_latin1(const PickleValue& text) {
        const std::string_view utf8 = bytes_of(text);
        auto bytes = std::make_shared<PickleValue>();
        bytes->kind = Kind::kText;
        for (std::size_t i = 0; i < utf8.size(); ++i) {
            const auto first = static_cast<unsigned char>(utf8[i]);
            if (first < 0x80) {
                bytes->text += utf8[i];
            } else if ((first == 0xC2 || first == 0xC3) && i + 1 < utf8.size()) {
                bytes->text += static_cast<char>((first & 3U) << 6 |
                                                 (static_cast<unsigned char>(utf8[++i]) & 0x3FU));
            } else {
                fail("a byte string has characters beyond a byte");
            }
        }
        push(std::move(bytes));
    }
    // The bytes of a string, which live as long as it does.
    static std::string_view bytes_of(const PickleValue& text) {
        return text.data.empty() ? std::string_view(text.text) : text.data;
    }
    void fill(PickleValue& array, const PicklePointer& elements, const PickleValue& type,
              const PickleValue& shape) const {
        if (elements->kind != Kind::kText) fail("an array's elements are no bytes");
        for (const PicklePointer& size : shape.items) array.shape.push_back(size->integer);
        array.text = type.text;
        array.data = bytes_of(*elements);
        array.items.push_back(elements);  // keeps short ones alive
    }
    void build(PickleValue& value, const PickleValue& state) {
        if (value.kind == Kind::kType) {
            if (item(state, 1).text == ">") fail("an array is big-endian");
        } else if (value.kind == Kind::kArray) {
            if (item(state, 3).integer != 0 && item(state, 1).items.size() > 1) {
                fail("an array is in Fortran's order");
            }
            item(state, 4);  // is there
            fill(value, state.items[4], item(state, 2), item(state, 1));
        } else {
            fail("it gives state to what is no array");
        }
    }

    std::string_view bytes_;
    const std::string& origin_;
    std::size_t at_ = 0;
    std::vector<PicklePointer> stack_;
    std::vector<std::size_t> marks_;
    std::map<std::uint64_t, PicklePointer> memo_;
};

}  // namespace

PickleValue read_pickle(std::string_view bytes, const std::string& origin) {
    return Reader(bytes, origin).read();
}

}  // namespace spion
