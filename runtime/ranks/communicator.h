// Sums and messages among the processes ("ranks") of a data-parallel job. NCCL makes them between
// GPUs (runtime/cuda/nccl.h), shared memory between processes of one machine without
// (runtime/ranks/shared_memory.h); a process alone needs neither.
//
// All functions but rank() are collective: every rank calls the same ones in the same order. They
// throw DeviceError when another rank has ended.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/ranks/rank.h"

namespace spion {

class Communicator {
  public:
    explicit Communicator(Rank rank) : rank_(std::move(rank)) {}
    virtual ~Communicator() = default;
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;

    const Rank& rank() const { return rank_; }

    // Begins to add up fp32 [count] of the device's memory over all ranks, in place: of what was
    // launched so far, and beside what is launched afterwards. The sums are the same bits on every
    // rank, and in every run with as many ranks and the same calls.
    virtual void begin_sum(float* values, std::int64_t count) = 0;
    // What is launched from here on sees the sums begun so far.
    virtual void finish_sums() = 0;

    // What each rank has given, [count of ranks]. Waits for all of them.
    std::vector<std::string> gather(std::string_view mine);
    // Sums over the ranks in their order, element by element; every rank gives as many.
    std::vector<double> sum(std::span<const double> mine);
    // Returns when every rank has called it.
    void meet() { gather_equal({}); }

  protected:
    // `mine` of every rank end to end; each gives as many bytes.
    virtual std::string gather_equal(std::string_view mine) = 0;

  private:
    Rank rank_;
};

// Of a process alone: sums are what is there.
class Alone final : public Communicator {
  public:
    Alone() : Communicator(Rank{}) {}
    void begin_sum(float* /*values*/, std::int64_t /*count*/) override {}
    void finish_sums() override {}

  protected:
    std::string gather_equal(std::string_view mine) override { return std::string(mine); }
};

// While one exists, the first rank of each machine does what follows and the others wait for it:
// they then find in the kernel cache what it has compiled. Collective.
class FirstOfMachine {
  public:
    explicit FirstOfMachine(Communicator& ranks);
    ~FirstOfMachine() noexcept(false);
    FirstOfMachine(const FirstOfMachine&) = delete;
    FirstOfMachine& operator=(const FirstOfMachine&) = delete;

  private:
    Communicator* ranks_;
    int exceptions_;
};

}  // namespace spion
