#include "api/border.h"

#include <exception>
#include <new>

namespace spion::api {
namespace {

// The text is kept in place where there is no memory for a copy.
struct LastError {
    std::string sentence;
    const char* shown = "";
};

LastError& last_error() {
    thread_local LastError error;
    return error;
}

}  // namespace

void remember_error(const char* sentence) noexcept {
    LastError& error = last_error();
    try {
        error.sentence = sentence;
        error.shown = error.sentence.c_str();
    } catch (...) {
        error.shown = "there is no memory for the sentence that says what failed";
    }
}

std::int32_t handle_exception() noexcept {
    try {
        throw;
    } catch (const FrozenError& error) {
        remember_error(error.what());
        return SPION_FROZEN;
    } catch (const UserError& error) {
        remember_error(error.what());
        return SPION_INVALID;
    } catch (const DeviceError& error) {
        remember_error(error.what());
        return SPION_DEVICE;
    } catch (const std::bad_alloc&) {
        remember_error("the host is out of memory: free some, or ask for a smaller problem");
        return SPION_DEVICE;
    } catch (const std::exception& error) {
        remember_error(error.what());
        return SPION_INTERNAL;
    } catch (...) {
        remember_error("something that is no error was thrown (internal error: please report it)");
        return SPION_INTERNAL;
    }
}

}  // namespace spion::api

extern "C" {

uint32_t spion_abi_version(void) noexcept {
    return SPION_ABI_VERSION;
}

const char* spion_version(void) noexcept {
    return SPION_VERSION;
}

const char* spion_last_error(void) noexcept {
    return spion::api::last_error().shown;
}

const void* spion_blob_data(const spion_blob* blob) noexcept {
    return blob == nullptr ? "" : blob->bytes.c_str();
}

size_t spion_blob_size(const spion_blob* blob) noexcept {
    return blob == nullptr ? 0 : blob->bytes.size();
}

void spion_blob_release(spion_blob* blob) noexcept {
    delete blob;
}

}  // extern "C"
