#include "runtime/cuda/nccl.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>

#include "ir/error.h"
#include "runtime/cuda/context_scope.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/library_search.h"
#include "runtime/cuda/nccl_abi.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using driver_abi::kSuccess;

constexpr std::size_t kGatherBytes = std::size_t{1} << 18;  // of a rank, at once

struct Library {
    SharedLibrary library{library_candidates(nccl_names(), environment_value, "/")};
    nccl_abi::Functions functions;
    std::string problem;  // empty: usable
    int version = 0;      // 10000 * major + 100 * minor + patch

    Library() {
        constexpr const char* kRemedy =
            "install NCCL 2.14 or later (Python's package nvidia-nccl-cu13, Debian's libnccl2) or "
            "set SPION_NCCL_LIBRARY to the path of libnccl.so.2";
        if (!library.is_open()) {
            problem = fmt::format(
                "NCCL, which adds up gradients of several GPUs, cannot be opened: {}; tried: {}",
                kRemedy, library.failures());
        } else if (const std::string missing = functions.load(library); !missing.empty()) {
            problem = fmt::format("{} has no function {}: {}", library.path(), missing, kRemedy);
        } else if (functions.ncclGetVersion(&version) != nccl_abi::kSuccess) {
            problem = fmt::format("{} does not tell its version: {}", library.path(), kRemedy);
        }
    }
};

const Library& opened_library() {
    static const Library library;
    return library;
}

const nccl_abi::Functions& nccl() {
    const Library& library = opened_library();
    if (!library.problem.empty()) throw DeviceError("{}", library.problem);
    return library.functions;
}

void require(nccl_abi::Result result, const char* call, nccl_abi::Comm comm = nullptr) {
    if (result == nccl_abi::kSuccess || result == nccl_abi::kInProgress) return;
    const char* last = nccl().ncclGetLastError(comm);
    throw DeviceError("{} failed: {}{}{}; NCCL_DEBUG=WARN in the environment tells more", call,
                      nccl().ncclGetErrorString(result), last != nullptr && *last ? ": " : "",
                      last != nullptr ? last : "");
}

std::string to_hex(const nccl_abi::UniqueId& id) {
    std::string text;
    for (const char byte : id.bytes)
        text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    return text;
}

nccl_abi::UniqueId from_hex(const std::string& text) {
    nccl_abi::UniqueId id{};
    if (text.size() != 2 * sizeof(id.bytes)) {
        throw DeviceError(
            "process 0 does not use a GPU, but this one does: give all processes the same "
            "--device");
    }
    for (std::size_t i = 0; i < sizeof(id.bytes); ++i) {
        id.bytes[i] = static_cast<char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
    }
    return id;
}

nccl_abi::UniqueId unique_id() {
    nccl_abi::UniqueId id{};
    require(nccl().ncclGetUniqueId(&id), "ncclGetUniqueId");
    return id;
}

}  // namespace

std::string nccl_version() {
    nccl();
    const int version = opened_library().version;
    return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::string nccl_path() {
    nccl();
    return opened_library().library.path();
}

std::string Nccl::invitation() {
    return to_hex(unique_id());
}

struct Nccl::State {
    State(CudaDevice& its_device, Meeting& its_meeting)
        : device(its_device),
          meeting(its_meeting),
          compute(static_cast<driver_abi::Stream>(its_device.stream())) {
        check_driver(cuda.cuStreamGetCtx(compute, &context), "cuStreamGetCtx");
    }

    ContextScope enter() const { return {cuda, context}; }

    // `later` waits for what `earlier` holds now.
    void order(driver_abi::Stream earlier, driver_abi::Stream later) const {
        check_driver(cuda.cuEventRecord(event, earlier), "cuEventRecord");
        check_driver(cuda.cuStreamWaitEvent(later, event, 0), "cuStreamWaitEvent");
    }

    // The communicator, for as long as the lock is held.
    nccl_abi::Comm usable() const {
        meeting.check();
        if (comm == nullptr) throw InternalError("NCCL's communicator is gone");
        return comm;
    }

    // By the meeting's threads.
    std::string problem() {
        const std::unique_lock lock(mutex, std::try_to_lock);
        if (!lock || comm == nullptr) return {};
        nccl_abi::Result result = nccl_abi::kSuccess;
        if (functions.ncclCommGetAsyncError(comm, &result) != nccl_abi::kSuccess ||
            result == nccl_abi::kSuccess || result == nccl_abi::kInProgress) {
            return {};
        }
        return fmt::format("the connection between GPUs has failed: {} ({}), so all end",
                           functions.ncclGetErrorString(result), functions.ncclGetLastError(comm));
    }
    void abort() {
        const std::unique_lock lock(mutex, std::chrono::seconds(3));
        if (!lock || comm == nullptr) return;
        const ContextScope scope = enter();
        functions.ncclCommAbort(std::exchange(comm, nullptr));
    }

    const driver_abi::Functions& cuda = driver();
    const nccl_abi::Functions& functions = nccl();
    CudaDevice& device;
    Meeting& meeting;
    driver_abi::Context context = nullptr;
    driver_abi::Stream compute, sums = nullptr;
    driver_abi::Event event = nullptr;
    Buffer gathered;         // uint8 [1 + ranks, kGatherBytes]
    std::timed_mutex mutex;  // of comm, which the meeting's threads may end
    nccl_abi::Comm comm = nullptr;
    const int exceptions = std::uncaught_exceptions();
};

Nccl::Nccl(CudaDevice& device, Meeting& meeting)
    : Communicator(meeting.rank()), state_(std::make_unique<State>(device, meeting)) {
    State& s = *state_;
    // One way of adding up, whatever a later NCCL would choose for a size; without multicast, which
    // that way does not use.
    set_environment_default("NCCL_ALGO", "Ring");
    set_environment_default("NCCL_NVLS_ENABLE", "0");
    const ContextScope scope = s.enter();
    check_driver(s.cuda.cuStreamCreate(&s.sums, driver_abi::kStreamNonBlocking), "cuStreamCreate");
    check_driver(s.cuda.cuEventCreate(&s.event, driver_abi::kEventNoTiming), "cuEventCreate");
    s.gathered = Buffer(device, (1 + static_cast<std::size_t>(rank().count)) * kGatherBytes);
    const bool by_address = environment_value("NCCL_COMM_ID").has_value();
    const nccl_abi::UniqueId id = by_address ? unique_id() : from_hex(meeting.invitation());
    nccl_abi::Comm comm = nullptr;
    require(s.functions.ncclCommInitRank(&comm, rank().count, id, rank().index),
            "ncclCommInitRank");
    s.comm = comm;
    meeting.guard([&s] { return s.problem(); }, [&s] { s.abort(); });
}

Nccl::~Nccl() {
    State& s = *state_;
    const bool failed = std::uncaught_exceptions() > s.exceptions;
    try {
        const ContextScope scope = s.enter();
        {
            const std::lock_guard lock(s.mutex);
            if (s.comm != nullptr) {
                if (!failed) s.cuda.cuStreamSynchronize(s.sums);
                failed ? s.functions.ncclCommAbort(s.comm) : s.functions.ncclCommDestroy(s.comm);
                s.comm = nullptr;
            }
        }
        s.meeting.guard(nullptr, nullptr);
        s.cuda.cuEventDestroy_v2(s.event);
        s.cuda.cuStreamDestroy_v2(s.sums);
    } catch (const DeviceError&) {
        s.meeting.guard(nullptr, nullptr);  // the driver is gone, and all that was in it
    }
}

void Nccl::begin_sum(float* values, std::int64_t count) {
    State& s = *state_;
    const ContextScope scope = s.enter();
    const std::lock_guard lock(s.mutex);
    const nccl_abi::Comm comm = s.usable();
    s.order(s.compute, s.sums);
    require(s.functions.ncclAllReduce(values, values, static_cast<std::size_t>(count),
                                      nccl_abi::kFloat32, nccl_abi::kSum, comm, s.sums),
            "ncclAllReduce", comm);
}

void Nccl::finish_sums() {
    const ContextScope scope = state_->enter();
    state_->order(state_->sums, state_->compute);
}

std::string Nccl::gather_equal(std::string_view mine) {
    State& s = *state_;
    const auto ranks = static_cast<std::size_t>(rank().count);
    const std::string given(mine.empty() ? std::string_view("-") : mine);  // there is no empty one
    std::string all(ranks * given.size(), '\0'), part;
    auto* const to = s.gathered.as<char>() + kGatherBytes;
    for (std::size_t first = 0; first < given.size(); first += kGatherBytes) {
        const std::size_t bytes = std::min(kGatherBytes, given.size() - first);
        s.device.copy_in(s.gathered.data(), given.data() + first, bytes);
        {
            const ContextScope scope = s.enter();
            const std::lock_guard lock(s.mutex);
            const nccl_abi::Comm comm = s.usable();
            s.order(s.compute, s.sums);
            require(s.functions.ncclAllGather(s.gathered.data(), to, bytes, nccl_abi::kUint8, comm,
                                              s.sums),
                    "ncclAllGather", comm);
            s.order(s.sums, s.compute);
        }
        part.resize(ranks * bytes);
        s.device.copy_out(part.data(), to, part.size());
        s.meeting.check();  // a wait that was ended has copied anything
        for (std::size_t other = 0; other < ranks; ++other) {
            std::memcpy(all.data() + other * given.size() + first, part.data() + other * bytes,
                        bytes);
        }
    }
    return mine.empty() ? std::string() : all;
}

}  // namespace spion
