// Persistent worker threads that share out ranges of work items.
#pragma once

#include <cstdint>
#include <functional>
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
    // all threads, and returns when all are done. Which thread takes which range is not fixed.
    // One call at a time; the first exception of `work` is rethrown here.
    using Work = std::function<void(std::int64_t begin, std::int64_t end)>;
    void parallel_for(std::int64_t items, std::int64_t chunk, const Work& work);

  private:
    struct State;
    int threads_;
    std::unique_ptr<State> state_;
};

}  // namespace spion
