// Jobs on thread_count() threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <vector>

#include "runtime/threads.h"

namespace spion {

// Runs job(0) .. job(count - 1), and throws the first failure in the order of the jobs.
template <typename Job>
void in_parallel(std::size_t count, const Job& job) {
    std::vector<std::exception_ptr> failures(count);
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t i = next++; i < count; i = next++) {
            try {
                job(i);
            } catch (...) {
                failures[i] = std::current_exception();
            }
        }
    };
    run_on_threads(
        static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(thread_count()), count)),
        work);
    for (const std::exception_ptr& failure : failures) {
        if (failure) {
            std::rethrow_exception(failure);
        }
    }
}

}  // namespace spion
