// The border between C and C++: nothing throws across it, and what failed is a status and a
// sentence.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "include/spion/spion_c.h"
#include "ir/error.h"

struct spion_blob {
    std::string bytes;
};

namespace spion::api {

// Keeps the sentence for spion_last_error of this thread.
void remember_error(const char* sentence) noexcept;
// The status of the exception that is being handled; remembers its sentence.
std::int32_t handle_exception() noexcept;

// body() as a C function: its exceptions become a status.
template <typename Body>
std::int32_t guarded(const Body& body) noexcept {
    try {
        body();
        return SPION_OK;
    } catch (...) {
        return handle_exception();
    }
}

// `given`, or a sentence that says which argument is null.
template <typename T>
T& present(T* given, const char* name) {
    if (given == nullptr) {
        throw UserError("{} is null: pass one", name);
    }
    return *given;
}

// The caller's struct as this library knows it: fields that the caller's header does not have yet
// are 0. Throws UserError for a struct without its size, and for one of a newer header that sets
// what this library does not know.
template <typename Struct>
Struct read_struct(const Struct* given, const char* name) {
    const Struct& theirs = present(given, name);
    // Of the first release: a field, at least, behind the size.
    if (theirs.size <= sizeof(std::size_t)) {
        throw UserError("{}.size is {}: set it to sizeof({})", name, theirs.size, name);
    }
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    for (std::size_t at = sizeof(Struct); at < theirs.size; ++at) {
        if (bytes[at] != 0) {
            throw UserError(
                "{} is {} bytes and sets fields beyond the {} that this spion knows: leave them 0, "
                "or use the library of that header",
                name, theirs.size, sizeof(Struct));
        }
    }
    Struct ours = {};
    std::memcpy(&ours, given, std::min(theirs.size, sizeof(Struct)));
    return ours;
}

// Struct i of an array, whose structs are as large as the first one says. `name` of an array that
// must be there; one without a name may be null.
template <typename Struct>
const Struct* element(const Struct* first, std::size_t i, const char* name) {
    if (first == nullptr && name == nullptr) {
        return nullptr;
    }
    return reinterpret_cast<const Struct*>(reinterpret_cast<const unsigned char*>(first) +
                                           i * present(first, name).size);
}

// Fills the caller's struct as far as its header knows it, and leaves its size.
template <typename Struct>
void write_struct(Struct* given, Struct ours, const char* name) {
    Struct& theirs = present(given, name);
    if (theirs.size <= sizeof(std::size_t)) {
        throw UserError("{}.size is {}: set it to sizeof({})", name, theirs.size, name);
    }
    ours.size = theirs.size;
    std::memcpy(given, &ours, std::min(theirs.size, sizeof(Struct)));
}

inline spion_blob* make_blob(std::string bytes) {
    return new spion_blob{std::move(bytes)};
}

}  // namespace spion::api
