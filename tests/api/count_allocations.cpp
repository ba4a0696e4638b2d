#include "tests/api/count_allocations.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

extern char** environ;

namespace {

std::atomic<long> count = 0, looks = 0;

}  // namespace

namespace spion::test {

long allocations() {
    return count;
}
long looks_at_the_environment() {
    return looks;
}

}  // namespace spion::test

void* operator new(std::size_t bytes) {
    ++count;
    void* const data = std::malloc(bytes == 0 ? 1 : bytes);
    if (data == nullptr) throw std::bad_alloc();
    return data;
}
// The library's calls the one above; AddressSanitizer's does not.
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
    ++count;
    return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* data) noexcept {
    std::free(data);
}
void operator delete(void* data, std::size_t) noexcept {
    std::free(data);
}

// Instead of the C library's, for libspion.so too.
extern "C" char* getenv(const char* name) noexcept {
    ++looks;
    const std::size_t length = std::strlen(name);
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        if (std::strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') {
            return *entry + length + 1;
        }
    }
    return nullptr;
}
