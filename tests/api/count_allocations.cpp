#include "tests/api/count_allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> count = 0;

}  // namespace

namespace spion::test {

long allocations() {
    return count;
}

}  // namespace spion::test

void* operator new(std::size_t bytes) {
    ++count;
    void* const data = std::malloc(bytes == 0 ? 1 : bytes);
    if (data == nullptr) throw std::bad_alloc();
    return data;
}
void operator delete(void* data) noexcept {
    std::free(data);
}
void operator delete(void* data, std::size_t) noexcept {
    std::free(data);
}
