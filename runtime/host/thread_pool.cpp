#include "runtime/host/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/threads.h"

namespace spion {

struct ThreadPool::State {
    std::mutex in_use;  // by the caller whose work the workers share
    std::mutex mutex;
    std::condition_variable start, done;
    std::uint64_t round = 0;  // counts calls of parallel_for; a worker joins each once
    int busy = 0;             // workers that have not finished this round
    bool stopping = false;
    std::exception_ptr error;

    // The round in progress.
    Ranges ranges = {};
    std::int64_t items = 0, chunk = 1;
    std::atomic<std::int64_t> next{0};

    std::vector<std::thread> workers;

    void take_ranges() {
        try {
            for (std::int64_t begin = next.fetch_add(chunk); begin < items;
                 begin = next.fetch_add(chunk)) {
                ranges.call(ranges.context, begin, std::min(begin + chunk, items));
            }
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (error == nullptr) {
                error = std::current_exception();
            }
            next = items;
        }
    }

    void run_worker() {
        std::uint64_t seen = 0;
        std::unique_lock lock(mutex);
        while (true) {
            start.wait(lock, [&] { return stopping || round != seen; });
            if (stopping) {
                return;
            }
            seen = round;
            lock.unlock();
            take_ranges();
            lock.lock();
            if (--busy == 0) {
                done.notify_one();
            }
        }
    }
};

ThreadPool::ThreadPool(int threads) : threads_(threads), state_(std::make_unique<State>()) {
    state_->workers.reserve(static_cast<std::size_t>(std::max(0, threads - 1)));
    for (int i = 1; i < threads; ++i) {
        std::thread worker = try_to_start_thread([state = state_.get()] { state->run_worker(); });
        if (!worker.joinable()) {
            note_fewer_threads(threads, i);
            threads_ = i;
            return;
        }
        state_->workers.push_back(std::move(worker));
    }
}

ThreadPool::~ThreadPool() {
    {
        const std::lock_guard lock(state_->mutex);
        state_->stopping = true;
    }
    state_->start.notify_all();
    for (std::thread& worker : state_->workers) {
        worker.join();
    }
}

void ThreadPool::run(std::int64_t items, std::int64_t chunk, Ranges ranges) const {
    State& state = *state_;
    const bool alone = items <= chunk || threads_ == 1;
    std::unique_lock workers(state.in_use, std::defer_lock);
    if (alone || !workers.try_lock()) {
        for (std::int64_t begin = 0; begin < items; begin += chunk) {
            ranges.call(ranges.context, begin, std::min(begin + chunk, items));
        }
        return;
    }
    {
        const std::lock_guard lock(state.mutex);
        state.ranges = ranges;
        state.items = items;
        state.chunk = chunk;
        state.next = 0;
        state.error = nullptr;
        state.busy = static_cast<int>(state.workers.size());
        ++state.round;
    }
    state.start.notify_all();
    state.take_ranges();
    std::unique_lock lock(state.mutex);
    state.done.wait(lock, [&] { return state.busy == 0; });
    if (state.error != nullptr) {
        std::rethrow_exception(state.error);
    }
}

}  // namespace spion
