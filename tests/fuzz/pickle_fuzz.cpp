// libFuzzer target: any bytes are refused as a pickle with a sentence, or read as data whose every
// value is what it says or is refused with a sentence.
#include <set>

#include "ir/error.h"
#include "tests/fuzz/refusal.h"
#include "train/data/pickle.h"

namespace {

using namespace spion;

template <typename Read>
void try_to(Read read) {
    try {
        read();
    } catch (const UserError& error) {
        const bool named = std::string_view(error.what()).starts_with("given");
        require_whole(named ? refused_well(error) : "refused without the origin");
    }
}

// A pickle may hold one value many times, and a list itself.
void look_at(const PickleValue& value, std::set<const PickleValue*>& seen) {
    if (!seen.insert(&value).second) return;
    const std::string origin = "given";
    try_to([&] { value.integers(origin); });
    try_to([&] { value.member("data", origin); });
    for (const std::size_t element : {1U, 4U}) {
        try_to([&] {
            const std::string_view bytes = value.array_bytes(element, origin);
            require_whole(bytes.size() % element == 0 ? "" : "an element is cut");
        });
    }
    for (const PicklePointer& item : value.items) look_at(*item, seen);
    for (const auto& [key, field] : value.fields) {
        look_at(*key, seen);
        look_at(*field, seen);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try_to([&] {
        const PickleValue value = read_pickle(text_of(data, size), "given");
        std::set<const PickleValue*> seen;
        look_at(value, seen);
    });
    return 0;
}
