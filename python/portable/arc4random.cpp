// LLVM's archives of Debian 12 call arc4random, which the C library has since 2.36. Defined here,
// hidden, the wheel's library runs with 2.34 as well. LLVM names temporary files by it.
#include <sys/random.h>

#include <cstdint>
#include <cstdlib>

extern "C" __attribute__((visibility("hidden"))) std::uint32_t arc4random() {
    std::uint32_t number = 0;
    if (getrandom(&number, sizeof(number), 0) != static_cast<ssize_t>(sizeof(number))) {
        std::abort();
    }
    return number;
}
