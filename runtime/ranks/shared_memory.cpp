#include "runtime/ranks/shared_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <thread>

#include "ir/error.h"
#include "runtime/ranks/rank_file.h"

namespace spion {
namespace {

constexpr std::size_t kSlotBytes = std::size_t{1} << 18;  // of a rank, what it gives at once
constexpr const char* kNamePrefix = "/spion-";
constexpr std::size_t kLine = 64;  // bytes; a counter has one of its own

// Meetings that this rank has come to. On pages that processes share a lock-free one works.
using Counter = std::atomic<std::uint64_t>;
static_assert(Counter::is_always_lock_free && sizeof(Counter) <= kLine);

std::size_t bytes_for(int ranks) {
    return static_cast<std::size_t>(ranks) * (kLine + kSlotBytes);
}

[[noreturn]] void fail(const std::string& doing, int error) {
    throw DeviceError(
        "memory shared by the processes cannot be {}: {}; without GPUs all of them must be on one "
        "machine whose /dev/shm has room",
        doing, std::generic_category().message(error));
}

}  // namespace

struct SharedMemory::Memory {
    unsigned char* data = nullptr;
    std::size_t bytes = 0;
    int ranks = 0;
    std::uint64_t meetings = 0;

    ~Memory() { ::munmap(data, bytes); }
    Counter& counter(int rank) const {
        return *reinterpret_cast<Counter*>(data + static_cast<std::size_t>(rank) * kLine);
    }
    unsigned char* slot(int rank) const {
        return data + static_cast<std::size_t>(ranks) * kLine +
               static_cast<std::size_t>(rank) * kSlotBytes;
    }
};

// Zeros, as fresh memory is.
std::string SharedMemory::invitation(const Rank& rank) {
    std::string name = kNamePrefix + fresh_token();
    const int file = ::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) fail("made", errno);
    const auto bytes = static_cast<off_t>(bytes_for(rank.count));
    // Reserved now, since a page that cannot be had later would end the process by SIGBUS.
    const int error = ::posix_fallocate(file, 0, bytes);
    ::close(file);
    if (error != 0) {
        ::shm_unlink(name.c_str());
        fail("made", error);
    }
    return name;
}

void SharedMemory::withdraw(const std::string& invitation) noexcept {
    if (invitation.starts_with(kNamePrefix)) ::shm_unlink(invitation.c_str());
}

SharedMemory::SharedMemory(Device& device, Meeting& meeting)
    : Communicator(meeting.rank()), device_(&device), meeting_(&meeting) {
    const std::string& name = meeting.invitation();
    const int file = ::shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) fail("opened", errno);
    const std::size_t bytes = bytes_for(rank().count);
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    const int error = errno;
    ::close(file);
    if (data == MAP_FAILED) fail("opened", error);
    memory_ = std::make_unique<Memory>();
    memory_->data = static_cast<unsigned char*>(data);
    memory_->bytes = bytes;
    memory_->ranks = rank().count;
    wait_for_all();
    if (rank().leads()) ::shm_unlink(name.c_str());  // all have opened it
}

SharedMemory::~SharedMemory() = default;

// Returns when every rank has called it as often.
void SharedMemory::wait_for_all() {
    const std::uint64_t meeting = ++memory_->meetings;
    memory_->counter(rank().index).store(meeting, std::memory_order_release);
    for (int other = 0; other < rank().count; ++other) {
        for (int looks = 0; memory_->counter(other).load(std::memory_order_acquire) < meeting;
             ++looks) {
            constexpr int kQuickLooks = 200;
            if (looks < kQuickLooks) {
                std::this_thread::yield();
                continue;
            }
            meeting_->check();
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
    }
}

// `mine` into the slot of this rank; every slot may be read afterwards, until the next meeting.
void SharedMemory::exchange(const void* mine, std::size_t bytes) {
    if (bytes > 0) {  // `mine` may be null then
        std::memcpy(memory_->slot(rank().index), mine, bytes);
    }
    wait_for_all();
}

void SharedMemory::begin_sum(float* values, std::int64_t count) {
    device_->synchronize();
    constexpr std::int64_t kValues = kSlotBytes / sizeof(float);
    for (std::int64_t first = 0; first < count; first += kValues) {
        const auto part = static_cast<std::size_t>(std::min(kValues, count - first));
        float* const sums = values + first;
        exchange(sums, part * sizeof(float));
        std::memcpy(sums, memory_->slot(0), part * sizeof(float));
        for (int other = 1; other < rank().count; ++other) {
            const auto* its = reinterpret_cast<const float*>(memory_->slot(other));
            for (std::size_t i = 0; i < part; ++i) sums[i] += its[i];
        }
        wait_for_all();
    }
}

std::string SharedMemory::gather_equal(std::string_view mine) {
    const auto ranks = static_cast<std::size_t>(rank().count);
    std::string all(ranks * mine.size(), '\0');
    std::size_t first = 0;
    do {
        const std::size_t part = std::min(kSlotBytes, mine.size() - first);
        exchange(mine.data() + first, part);
        for (std::size_t other = 0; other < ranks; ++other) {
            std::memcpy(all.data() + other * mine.size() + first,
                        memory_->slot(static_cast<int>(other)), part);
        }
        wait_for_all();
        first += part;
    } while (first < mine.size());
    return all;
}

}  // namespace spion
