// What reading a pickle takes besides its machine (train/data/pickle.cpp): its bytes one after
// another, values, and the few calls that make NumPy's arrays. Inside train/data/ only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "train/data/pickle.h"

namespace spion {

// A pickle's bytes, taken from the front. All throw UserError that begins with the origin: for a
// pickle that is cut short, and `fail` for anything else that is wrong with it.
class PickleBytes {
  public:
    PickleBytes(std::string_view bytes, const std::string& origin)
        : bytes_(bytes), origin_(origin) {}
    const std::string& origin() const { return origin_; }
    [[noreturn]] void fail(std::string_view what) const;
    std::string_view take(std::uint64_t count);
    unsigned char byte() { return static_cast<unsigned char>(take(1).front()); }
    std::uint64_t little(int count);  // little-endian, of up to 8 bytes
    std::string_view line();          // without its line end
    std::int64_t number(std::string_view text) const;

  private:
    std::string_view bytes_;
    const std::string& origin_;
    std::size_t at_ = 0;
};

PicklePointer make_pickle(PickleValue::Kind kind);
PicklePointer make_pickle_integer(std::int64_t integer);
PicklePointer make_pickle_text(std::string_view text);

// What a call makes that NumPy writes arrays with; `bytes` says what is wrong with any other.
PicklePointer called_by_pickle(const PickleValue& callee, const PickleValue& arguments,
                               const PickleBytes& bytes);
// Gives an array or a type its state.
void build_for_pickle(PickleValue& value, const PickleValue& state, const PickleBytes& bytes);

}  // namespace spion
