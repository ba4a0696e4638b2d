// Persistent worker threads that share out ranges of work items.
#pragma once

#include <cstdint>
#include <memory>

namespace spion {

class ThreadPool {
  public:
    // threads >= 1, the caller's thread of parallel_for included. Where the system allows fewer, a
    // line on stderr says so and threads() is what was started.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    int threads() const { return threads_; }

    // Calls work(begin, end) on disjoint ranges of at most `chunk` items that cover [0, items), on
    // all threads, and returns when all are done. Which thread takes which range is not fixed. The
    // first exception of `work` is rethrown here. Thread-safe and without allocation: a caller that
    // finds the workers busy with the call of another computes on its own thread alone.
    template <typename Work>
    void parallel_for(std::int64_t items, std::int64_t chunk, const Work& work) const {
        const auto call = [](const void* context, std::int64_t begin, std::int64_t end) {
            (*static_cast<const Work*>(context))(begin, end);
        };
        run(items, chunk, {.call = call, .context = &work});
    }

  private:
    struct Ranges {  // a `Work` of whoever waits for it
        void (*call)(const void* context, std::int64_t begin, std::int64_t end);
        const void* context;
    };
    void run(std::int64_t items, std::int64_t chunk, Ranges ranges) const;

    struct State;
    int threads_;
    std::unique_ptr<State> state_;
};

}  // namespace spion
