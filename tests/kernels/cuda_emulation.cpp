#include "tests/kernels/cuda_emulation.h"

#include <fmt/format.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

namespace spion::emulation {
namespace {

constexpr int kLanes = 32;
constexpr std::size_t kStackBytes = 256 * 1024;

struct PendingCopy {
    unsigned target;
    unsigned bytes;
    std::uint8_t data[16];
};

// A rendezvous: `arrived` of `members` are waiting for generation `generation` to end.
struct Barrier {
    int members = 0, arrived = 0;
    std::uint64_t generation = 0;
};

struct Warp {
    Barrier barrier;
    Words words[2][kLanes];
};

struct Fiber {
    ucontext_t context{};
    std::unique_ptr<std::uint8_t[]> stack =
        std::make_unique_for_overwrite<std::uint8_t[]>(kStackBytes);
    int index = 0;
    bool finished = false;
    const Barrier* waits_for = nullptr;
    std::uint64_t waits_generation = 0;
    const std::function<bool()>* waits_until = nullptr;
    int exchanges = 0;
    std::vector<std::vector<PendingCopy>> groups;  // closed groups, oldest first
    std::vector<PendingCopy> open_group;
};

struct Block {
    unsigned index = 0, blocks = 0;
    std::vector<std::uint8_t> shared;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Barrier barrier;
    std::array<Barrier, 16> named;
    // Warps [asleep, asleep + sleepers) have no turn for so many turns.
    int asleep = 0, sleepers = 0, turns_asleep = 0;
    Fiber* running = nullptr;
    ucontext_t scheduler{};
    const std::function<void()>* kernel = nullptr;
    std::exception_ptr error;
};

struct Range {
    const std::uint8_t* begin;
    std::size_t bytes;
};

thread_local Block* current = nullptr;
thread_local std::vector<Range> readable;

void wait_at(Barrier& barrier) {
    const std::uint64_t generation = barrier.generation;
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    Fiber& fiber = *current->running;
    fiber.waits_for = &barrier;
    fiber.waits_generation = generation;
    swapcontext(&fiber.context, &current->scheduler);
    fiber.waits_for = nullptr;
}

Barrier& named_barrier(int id, int threads) {
    Barrier& barrier = current->named.at(static_cast<std::size_t>(id));
    if (barrier.arrived > 0 && barrier.members != threads) {
        fail(fmt::format("barrier {} counts {} threads and {}", id, barrier.members, threads));
    }
    barrier.members = threads;
    return barrier;
}

Warp& my_warp() {
    return current->warps[static_cast<std::size_t>(current->running->index / kLanes)];
}

void check_shared(unsigned address, unsigned bytes) {
    if (address % bytes != 0 || address + std::size_t{bytes} > current->shared.size()) {
        fail(fmt::format("{} bytes at shared address {} of {}", bytes, address,
                         current->shared.size()));
    }
}

void run_fiber() {
    try {
        (*current->kernel)();
    } catch (...) {
        if (!current->error) current->error = std::current_exception();
    }
    current->running->finished = true;
    swapcontext(&current->running->context, &current->scheduler);
}

void start_fibers(Block& block, int threads) {
    block.fibers = std::vector<Fiber>(static_cast<std::size_t>(threads));
    block.warps = std::vector<Warp>(static_cast<std::size_t>(threads / kLanes));
    block.barrier = Barrier{.members = threads};
    block.named = {};
    for (Warp& warp : block.warps) warp.barrier.members = kLanes;
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = block.fibers[static_cast<std::size_t>(i)];
        fiber.index = i;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        makecontext(&fiber.context, run_fiber, 0);
    }
}

bool is_blocked(const Fiber& fiber) {
    if (fiber.waits_until != nullptr) return !(*fiber.waits_until)();
    return fiber.waits_for != nullptr && fiber.waits_for->generation == fiber.waits_generation;
}

struct Turn {
    bool ran = false, waits = false;
};

// Every fiber that can go on has a turn, in a shuffled order.
Turn run_ready(Block& block, std::mt19937& random) {
    current = &block;
    Turn turn;
    std::vector<Fiber*> ready;
    for (Fiber& fiber : block.fibers) {
        if (fiber.finished) continue;
        const int warp = fiber.index / kLanes - block.asleep;
        if (is_blocked(fiber)) {
            turn.waits = true;
        } else if (warp >= 0 && warp < block.sleepers) {
            turn.ran = true;
        } else {
            ready.push_back(&fiber);
        }
    }
    turn.ran = turn.ran || !ready.empty();
    std::shuffle(ready.begin(), ready.end(), random);
    for (Fiber* fiber : ready) {
        block.running = fiber;
        swapcontext(&block.scheduler, &fiber->context);
    }
    if (block.error) std::rethrow_exception(block.error);
    return turn;
}

void start_block(Block& block, int threads, int shared_bytes) {
    block.shared.assign(static_cast<std::size_t>(shared_bytes), 0xFF);
    start_fibers(block, threads);
}

}  // namespace

void fail(const std::string& message) {
    throw std::runtime_error(
        fmt::format("block {} thread {}: {}", current->index, current->running->index, message));
}

Index thread_index() {
    return {static_cast<unsigned>(current->running->index)};
}
Index block_index() {
    return {current->index};
}
Index grid_dimension() {
    return {current->blocks};
}

void launch(std::int64_t blocks, int threads, int shared_bytes, unsigned seed,
            const std::function<void()>& kernel) {
    std::mt19937 random(seed);
    Block block;
    block.kernel = &kernel;
    block.blocks = static_cast<unsigned>(blocks);
    for (std::int64_t index = 0; index < blocks; ++index) {
        block.index = static_cast<unsigned>(index);
        start_block(block, threads, shared_bytes);
        Turn turn{.ran = true};
        while (turn.ran) turn = run_ready(block, random);
        if (turn.waits) {
            throw std::runtime_error(
                fmt::format("block {}: its threads wait for different things", block.index));
        }
    }
    current = nullptr;
}

void launch_together(std::int64_t blocks, int threads, int shared_bytes, unsigned seed,
                     const std::function<void()>& kernel, const std::function<bool()>& beside) {
    std::mt19937 random(seed);
    std::vector<Block> all(static_cast<std::size_t>(blocks));
    for (std::size_t index = 0; index < all.size(); ++index) {
        all[index].index = static_cast<unsigned>(index);
        all[index].blocks = static_cast<unsigned>(blocks);
        all[index].kernel = &kernel;
        start_block(all[index], threads, shared_bytes);
    }
    Turn turn{.ran = true};
    while (turn.ran) {
        turn = {};
        for (Block& block : all) {
            if (--block.turns_asleep < 0) {  // a warp, a warpgroup, or the whole block
                block.sleepers = random() % 3 == 0 ? 1 : random() % 2 == 0 ? 4 : threads / kLanes;
                block.asleep = static_cast<int>(random() % (threads / kLanes)) / block.sleepers *
                               block.sleepers;
                block.turns_asleep = static_cast<int>(random() % 60);
            }
            const Turn of_block = run_ready(block, random);
            turn = {turn.ran || of_block.ran, turn.waits || of_block.waits};
        }
        turn.ran = beside() || turn.ran;
    }
    if (turn.waits) throw std::runtime_error("the blocks wait for each other");
    current = nullptr;
}

void wait_until(const std::function<bool()>& ready) {
    if (ready()) return;
    Fiber& fiber = *current->running;
    fiber.waits_until = &ready;
    swapcontext(&fiber.context, &current->scheduler);
    fiber.waits_until = nullptr;
}

std::uint8_t* shared_memory(unsigned address, unsigned bytes) {
    if (address + std::size_t{bytes} > current->shared.size()) {
        fail(fmt::format("{} bytes at shared address {} of {}", bytes, address,
                         current->shared.size()));
    }
    return &current->shared[address];
}

void allow_reads(const void* data, std::size_t bytes) {
    readable.push_back({static_cast<const std::uint8_t*>(data), bytes});
}
void forget_reads() {
    readable.clear();
}

void wait_for_block() {
    wait_at(current->barrier);
}
void wait_at_named(int id, int threads) {
    wait_at(named_barrier(id, threads));
}
void arrive_at_named(int id, int threads) {
    Barrier& barrier = named_barrier(id, threads);
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        ++barrier.generation;
    }
}
void wait_for_warp() {
    wait_at(my_warp().barrier);
}

const Words* exchange(const Words& mine) {
    Fiber& fiber = *current->running;
    // Two sets in turn: a lane can be at most one exchange ahead of the slowest.
    Words* words = my_warp().words[fiber.exchanges++ % 2];
    words[fiber.index % kLanes] = mine;
    wait_at(my_warp().barrier);
    return words;
}

void read_shared(unsigned address, void* data, unsigned bytes) {
    check_shared(address, bytes);
    std::memcpy(data, &current->shared[address], bytes);
}
void write_shared(unsigned address, const void* data, unsigned bytes) {
    check_shared(address, bytes);
    std::memcpy(&current->shared[address], data, bytes);
}

void copy_async(unsigned target, const void* source, unsigned bytes, bool present) {
    check_shared(target, bytes);
    PendingCopy copy{.target = target, .bytes = bytes, .data = {}};
    if (present) {
        const auto* begin = static_cast<const std::uint8_t*>(source);
        const bool allowed = std::any_of(readable.begin(), readable.end(), [&](const Range& range) {
            return begin >= range.begin && begin + bytes <= range.begin + range.bytes;
        });
        if (!allowed || reinterpret_cast<std::uintptr_t>(source) % bytes != 0) {
            fail("an asynchronous copy reads outside the tensors or misaligned");
        }
        std::memcpy(copy.data, source, bytes);
    }
    current->running->open_group.push_back(copy);
}

void cp_async_commit_group() {
    Fiber& fiber = *current->running;
    fiber.groups.push_back(std::move(fiber.open_group));
    fiber.open_group.clear();
}

void cp_async_wait_group(int pending) {
    auto& groups = current->running->groups;
    while (groups.size() > static_cast<std::size_t>(pending)) {
        for (const PendingCopy& copy : groups.front()) {
            std::memcpy(&current->shared[copy.target], copy.data, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

void ldmatrix_x4(unsigned (&out)[4], unsigned address, bool transposed) {
    Words mine{};
    check_shared(address, 16);
    read_shared(address, mine.word, 16);
    const Words* rows = exchange(mine);
    const unsigned lane = thread_index().x % kLanes;
    const auto element = [&](unsigned matrix, unsigned row, unsigned column) {
        return (rows[8 * matrix + row].word[column / 2] >> (16 * (column % 2))) & 0xFFFFU;
    };
    for (unsigned m = 0; m < 4; ++m) {
        const unsigned first = lane / 4, second = lane % 4 * 2;
        out[m] = transposed ? element(m, second, first) | element(m, second + 1, first) << 16
                            : element(m, first, second) | element(m, first, second + 1) << 16;
    }
}

void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int k,
         float (*decode)(unsigned word, int half)) {
    const Words* lanes = exchange({{a[0], a[1], a[2], a[3], b0, b1, 0, 0}});
    const int lane = static_cast<int>(thread_index().x % kLanes);
    // Element `index` along k is word `index / per` of the quad: two a lane when k is 16.
    const int per = k / 8;
    const auto a_value = [&](int row, int index) {
        const int word = row / 8 + 2 * (index / (4 * per));
        const int inner = index % (4 * per);
        return decode(lanes[row % 8 * 4 + inner / per].word[word], inner % per);
    };
    const auto b_value = [&](int index, int column) {
        const int inner = index % (4 * per);
        return decode(lanes[column * 4 + inner / per].word[4 + index / (4 * per)], inner % per);
    };
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
        double sum = d[i];
        for (int index = 0; index < k; ++index) {
            sum += double{a_value(row, index)} * b_value(index, column);
        }
        d[i] = static_cast<float>(sum);
    }
}

}  // namespace spion::emulation
