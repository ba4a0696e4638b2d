// What fails, as exceptions. Part of spion.h.
#ifndef SPION_ERROR_H
#define SPION_ERROR_H

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "spion/spion_c.h"

namespace spion {
inline namespace abi0 {  // as SPION_ABI_MAJOR

class Error : public std::runtime_error {
  public:
    Error(std::int32_t status, const char* sentence)
        : std::runtime_error(sentence), status_(static_cast<spion_status>(status)) {}
    spion_status status() const { return status_; }

  private:
    spion_status status_;
};
// What was asked for is not allowed.
class UserError : public Error {
    using Error::Error;
};
// The machine lacks something, or its device failed.
class DeviceError : public Error {
    using Error::Error;
};
// A fault of spion.
class InternalError : public Error {
    using Error::Error;
};
// A kernel would have to be compiled in a frozen context.
class Frozen : public Error {
    using Error::Error;
};

namespace detail {

[[noreturn]] inline void raise(std::int32_t status) {
    const char* const sentence = spion_last_error();
    switch (status) {
        case SPION_INVALID:
            throw UserError(status, sentence);
        case SPION_DEVICE:
            throw DeviceError(status, sentence);
        case SPION_FROZEN:
            throw Frozen(status, sentence);
        default:
            throw InternalError(status, sentence);
    }
}

inline void check(std::int32_t status) {
    if (status != SPION_OK) {
        raise(status);
    }
}

// Calls the release function that it names.
template <auto kRelease>
struct Release {
    template <typename Handle>
    void operator()(Handle* handle) const noexcept {
        kRelease(handle);
    }
};
template <typename Handle, auto kRelease>
using Owned = std::unique_ptr<Handle, Release<kRelease>>;

inline std::string take(spion_blob* blob) {
    const Owned<spion_blob, spion_blob_release> owned(blob);
    return {static_cast<const char*>(spion_blob_data(blob)), spion_blob_size(blob)};
}

}  // namespace detail

}  // namespace abi0
}  // namespace spion

#endif
