// Preloaded into a command by tests: the first $SPION_TEST_THREADS threads start, further ones are
// refused as under a limit on processes. (A real limit would not hold the superuser back.)
#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                              void* (*start)(void*), void* argument) {
    static std::atomic<int> started = 0;
    const char* most = std::getenv("SPION_TEST_THREADS");
    if (most != nullptr && started++ >= std::atoi(most)) return EAGAIN;
    static auto* real =
        reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
    return real(thread, attributes, start, argument);
}
