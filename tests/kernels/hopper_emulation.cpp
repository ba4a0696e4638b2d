#include "tests/kernels/hopper_emulation.h"

#include <fmt/format.h>

#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

namespace spion::emulation {
namespace {

struct Mbarrier {
    int arrivals = 0, missing = 0;
    std::int64_t bytes = 0;  // announced and not written
    unsigned phase = 0;

    void end_phase() {
        if (missing > 0 || bytes != 0) return;
        missing = arrivals;
        ++phase;
    }
};

// A transfer: `read` takes its source, some time later `write` its target.
struct Transfer {
    std::function<void()> read, write;
    bool has_read = false;
};

struct Thread {
    std::vector<Product> open;
    std::vector<std::vector<Product>> groups;  // closed, oldest first
    int unread = 0, unwritten = 0;             // bulk transfers
    int looks = 0;                             // for what it does not wait for
    std::map<const unsigned*, unsigned> polled;
    std::string waits_for;  // "": nothing
};

struct Launch {
    std::mt19937 random;
    std::map<std::pair<unsigned, unsigned>, Mbarrier> barriers;  // of a block, at an address
    std::map<std::pair<unsigned, unsigned>, Thread> threads;
    std::vector<Transfer> transfers;
};
thread_local Launch* launched = nullptr;

Thread& my_thread() {
    return launched->threads[{block_index().x, thread_index().x}];
}

Mbarrier& barrier_at(unsigned address) {
    const auto found = launched->barriers.find({block_index().x, address});
    if (found == launched->barriers.end()) fail(fmt::format("no mbarrier at {}", address));
    return found->second;
}

// Some of the transfers go a step further.
bool move_transfers() {
    std::vector<Transfer> left;
    const bool any = !launched->transfers.empty();
    for (Transfer& transfer : std::exchange(launched->transfers, {})) {
        if (launched->random() % 3 != 0) {
            left.push_back(std::move(transfer));
        } else if (!transfer.has_read) {
            transfer.read();
            transfer.has_read = true;
            left.push_back(std::move(transfer));
        } else {
            transfer.write();
        }
    }
    launched->transfers = std::move(left);
    return any;
}

// Where element (row, column) of a tile in shared memory lies that wgmma reads by `descriptor`: 16
// contiguous elements of each row, or, across rows, 16 rows. By the PTX ISA's canonical layouts.
unsigned element_address(unsigned long long descriptor, bool across, int index, int k) {
    const auto field = [&](int bit) { return static_cast<unsigned>(descriptor >> bit) & 0x3FFFU; };
    const unsigned start = field(0) << 4, leading = field(16) << 4, stride = field(32) << 4;
    const auto mode = static_cast<unsigned>(descriptor >> 62);
    if (mode == 0 || (descriptor >> 49 & 7U) != 0) fail("wgmma: a descriptor without swizzle");
    const unsigned span = 256U >> mode;  // 128, 64 or 32 bytes
    const auto i = static_cast<unsigned>(index), j = static_cast<unsigned>(k);
    const unsigned elements = span / 2;
    const unsigned address =
        across ? start + j / 8 * stride + j % 8 * span + i / elements * leading + i % elements * 2
               : start + i / 8 * stride + i % 8 * span + j * 2;
    return address ^ ((address >> 7 & (span / 16 - 1)) << 4);
}

float element_at(const Product& product, unsigned long long descriptor, bool across, int index,
                 int k) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, shared_memory(element_address(descriptor, across, index, k), 2), 2);
    return product.decode(bits);
}

void compute(const Product& product) {
    const auto thread = static_cast<int>(thread_index().x);
    const int lane = thread % 32, first_row = thread % 128 / 32 * 16 + lane / 4;
    float left[2][16];
    for (int half = 0; half < 2; ++half) {
        for (int k = 0; k < 16; ++k) {
            left[half][k] = product.left_in_registers
                                ? product.left[half][k]
                                : element_at(product, product.left_descriptor, product.across,
                                             first_row + 8 * half, k);
        }
    }
    for (int j = 0; j < product.columns / 8; ++j) {
        for (int i = 0; i < 2; ++i) {
            double sums[2] = {0, 0};
            for (int k = 0; k < 16; ++k) {
                const double right = element_at(product, product.right_descriptor,
                                                product.right_across, 8 * j + lane % 4 * 2 + i, k);
                for (int half = 0; half < 2; ++half) sums[half] += double{left[half][k]} * right;
            }
            for (int half = 0; half < 2; ++half) {
                float& acc = product.acc[4 * j + 2 * half + i];
                acc = static_cast<float>(product.add ? acc + sums[half] : sums[half]);
            }
        }
    }
}

void compute_all_but(Thread& thread, std::size_t pending) {
    while (thread.groups.size() > pending) {
        for (const Product& product : thread.groups.front()) compute(product);
        thread.groups.erase(thread.groups.begin());
    }
}

}  // namespace

SpionTensorMap tensor_map(const TensorBox& box) {
    static_assert(sizeof(TensorBox) <= sizeof(SpionTensorMap));
    SpionTensorMap map{};
    std::memcpy(&map, &box, sizeof(box));
    return map;
}

void launch_hopper(std::int64_t blocks, int threads, int shared_bytes, unsigned seed,
                   const std::function<void()>& kernel) {
    Launch launch{.random = std::mt19937(seed + 1), .barriers = {}, .threads = {}, .transfers = {}};
    launched = &launch;
    try {
        launch_together(blocks, threads, shared_bytes, seed, kernel, move_transfers);
    } catch (const std::exception& error) {
        std::string waiting;
        for (const auto& [at, thread] : launch.threads) {
            if (at.second % 32 == 0 && !thread.waits_for.empty()) {
                waiting += fmt::format("; block {} warp {}: {}", at.first, at.second / 32,
                                       thread.waits_for);
            }
        }
        launched = nullptr;
        throw std::runtime_error(error.what() + waiting);
    }
    launched = nullptr;
    for (const auto& [at, thread] : launch.threads) {
        if (!thread.open.empty() || !thread.groups.empty() || thread.unwritten > 0) {
            throw std::runtime_error("a thread ends before its products or transfers");
        }
    }
}

void mbarrier_init(unsigned barrier, int arrivals) {
    shared_memory(barrier, 8);
    if (barrier % 8 != 0 || arrivals < 1) fail("mbarrier.init");
    const Mbarrier fresh{.arrivals = arrivals, .missing = arrivals};
    if (!launched->barriers.emplace(std::pair(block_index().x, barrier), fresh).second) {
        fail(fmt::format("two mbarriers at {}", barrier));
    }
}

void mbarrier_arrive(unsigned barrier, int bytes) {
    Mbarrier& mine = barrier_at(barrier);
    if (--mine.missing < 0) fail(fmt::format("too many arrive at {}", barrier));
    mine.bytes += bytes;
    mine.end_phase();
}

void mbarrier_wait(unsigned barrier, unsigned parity) {
    const Mbarrier& mine = barrier_at(barrier);
    if (mine.phase % 2 != parity) return;
    Thread& thread = my_thread();
    thread.waits_for = fmt::format("parity {} of the mbarrier at {}", parity, barrier);
    wait_until([&] { return mine.phase % 2 != parity; });
    thread.waits_for.clear();
}

void arrive_after_copies(unsigned barrier) {
    // What cp.async has begun lands now; the arrival comes later.
    cp_async_commit_group();
    cp_async_wait_group(0);
    Mbarrier& mine = barrier_at(barrier);
    launched->transfers.push_back({.read = [] {},
                                   .write =
                                       [&mine] {
                                           --mine.missing;
                                           mine.end_phase();
                                       }});
}

void tma_load(unsigned target, const SpionTensorMap& map, unsigned barrier, const int (&at)[4]) {
    TensorBox box;
    std::memcpy(&box, &map, sizeof(box));
    const int column = at[0], row = at[1], head = at[2], sample = at[3];
    const auto bytes = static_cast<unsigned>(box.columns * box.rows * 2);
    const auto span = static_cast<unsigned>(box.columns * 2);
    if (target % (8 * span) != 0) fail(fmt::format("TMA to {}: the swizzle starts anew", target));
    std::uint8_t* const shared = shared_memory(target, bytes) - target;
    Mbarrier& mine = barrier_at(barrier);
    const auto data = std::make_shared<std::vector<std::uint16_t>>();
    const auto read = [=] {
        for (std::int64_t r = row; r < row + box.rows; ++r) {
            for (std::int64_t c = column; c < column + box.columns; ++c) {
                std::uint16_t element = 0;
                if (r >= 0 && r < box.length && c < box.width && head < box.heads &&
                    sample < box.batch) {
                    std::memcpy(&element,
                                static_cast<const std::uint8_t*>(box.data) +
                                    sample * box.batch_stride + head * box.head_stride +
                                    r * box.row_stride + 2 * c,
                                2);
                }
                data->push_back(element);
            }
        }
    };
    const auto write = [=, &mine] {
        for (unsigned element = 0; element < bytes / 2; ++element) {
            const unsigned address = target + 2 * element;
            std::memcpy(shared + (address ^ ((address >> 7 & (span / 16 - 1)) << 4)),
                        &(*data)[element], 2);
        }
        mine.bytes -= bytes;
        mine.end_phase();
    };
    launched->transfers.push_back({.read = read, .write = write});
}

void bulk_store(void* target, unsigned source, int bytes, bool add) {
    if (source % 16 != 0 || bytes % 16 != 0) fail("a bulk transfer is not aligned");
    const std::uint8_t* from = shared_memory(source, static_cast<unsigned>(bytes));
    Thread& thread = my_thread();
    ++thread.unread;
    ++thread.unwritten;
    const auto data =
        std::make_shared<std::vector<float>>(static_cast<std::size_t>(bytes) / sizeof(float));
    const auto read = [=, &thread] {
        std::memcpy(data->data(), from, static_cast<std::size_t>(bytes));
        --thread.unread;
    };
    const auto write = [=, &thread] {
        auto* sums = static_cast<float*>(target);
        for (const float value : *data) {
            *sums = add ? *sums + value : value;
            ++sums;
        }
        --thread.unwritten;
    };
    launched->transfers.push_back({.read = read, .write = write});
}

void wait_for_bulk(bool reads_alone) {
    const Thread& thread = my_thread();
    wait_until([&] { return (reads_alone ? thread.unread : thread.unwritten) == 0; });
}

// A value that was read before is waited out: who reads it again waits for another one.
unsigned poll(const unsigned* address) {
    Thread& thread = my_thread();
    const auto before = thread.polled.find(address);
    if (before != thread.polled.end()) {
        thread.waits_for = fmt::format("a change of {} in global memory", before->second);
        wait_until([&] { return *address != before->second; });
        thread.waits_for.clear();
    }
    return thread.polled[address] = *address;
}

void pass_turn() {
    constexpr int kMostLooks = 1'000'000;
    if (++my_thread().looks > kMostLooks) fail("a thread looks for what does not come");
    bool passed = false;
    wait_until([&] { return std::exchange(passed, true); });
}

void start_product(const Product& product) {
    my_thread().open.push_back(product);
}

void commit_products() {
    Thread& thread = my_thread();
    thread.groups.push_back(std::exchange(thread.open, {}));
    if (launched->random() % 2 == 0) compute_all_but(thread, 0);
}

void wait_for_products(int pending) {
    compute_all_but(my_thread(), static_cast<std::size_t>(pending));
}

}  // namespace spion::emulation
