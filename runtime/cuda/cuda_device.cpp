#include "runtime/cuda/cuda_device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ir/error.h"
#include "runtime/cuda/context_scope.h"
#include "runtime/cuda/copy_ahead.h"
#include "runtime/cuda/cublas.h"
#include "runtime/cuda/cuda_graph.h"
#include "runtime/cuda/cuda_kernel.h"
#include "runtime/cuda/cuda_target.h"
#include "runtime/cuda/driver.h"
#include "runtime/cuda/foreign.h"
#include "runtime/cuda/launched_names.h"
#include "runtime/cuda/nvrtc.h"
#include "runtime/cuda/staging.h"
#include "runtime/cuda/tensor_map.h"
#include "runtime/environment.h"

namespace spion {
namespace {

using driver_abi::Functions;
using driver_abi::kSuccess;

constexpr int kMarkSlots = 64;

driver_abi::Pointer address_of(const void* data) {
    return reinterpret_cast<driver_abi::Pointer>(data);
}

double gibibytes(std::size_t bytes) {
    return static_cast<double>(bytes) / (std::size_t{1} << 30);
}

}  // namespace

struct CudaDevice::State {
    const Functions& cuda = driver();
    driver_abi::Device device = 0;
    driver_abi::Context context = nullptr;
    driver_abi::Stream stream = nullptr;
    Target target;
    std::string name;
    int max_threads = 0;
    int l2_bytes = 0;
    std::size_t memory_bytes = 0;
    bool wait_after_launch = false;

    std::unordered_map<void*, std::size_t> allocations;
    std::size_t allocated_bytes = 0, peak_bytes = 0;
    std::array<driver_abi::Event, kMarkSlots> events{};
    LaunchedNames launched;
    std::unique_ptr<Staging> staging;
    std::unique_ptr<CopyAhead> ahead;  // once there is something to copy so
    void* workspace = nullptr;         // of cublas
    std::unique_ptr<Cublas> cublas;

    // The context is current to a thread, and callers may come on any.
    ContextScope enter() const { return {cuda, context}; }

    void check(driver_abi::Result result, const char* doing) const {
        const std::vector<std::string>& names = launched.names();
        if (result != kSuccess && !names.empty()) {
            throw DeviceError("{}: {}, after launching {}{}", doing, describe_driver_error(result),
                              fmt::join(names, ", "),
                              names.size() == 1 ? ""
                                                : "; with SPION_WAIT_AFTER_LAUNCH=1 in the "
                                                  "environment the message names the one");
        }
        check_driver(result, doing);
    }

    void wait(const char* doing) {
        check(cuda.cuStreamSynchronize(stream), doing);
        launched.clear();
    }
};

CudaDevice::CudaDevice(int ordinal, Compiler compiler) {
    if (const auto problem = compiler == Compiler::kNeeded ? cuda_problem() : driver_problem()) {
        throw DeviceError("{}", *problem);
    }
    state_ = std::make_unique<State>();
    State& s = *state_;
    int count = 0;
    check_driver(s.cuda.cuDeviceGetCount(&count), "cuDeviceGetCount");
    if (ordinal < 0 || ordinal >= count) {
        throw UserError("GPU {} was asked for, and this process sees {}: give 0 to {}", ordinal,
                        count, count - 1);
    }
    check_driver(s.cuda.cuDeviceGet(&s.device, ordinal), "cuDeviceGet");
    char name[256] = "";
    check_driver(s.cuda.cuDeviceGetName(name, sizeof(name), s.device), "cuDeviceGetName");
    s.name = name;
    s.target = describe_target(s.cuda, s.device);
    s.max_threads = device_attribute(s.cuda, s.device, driver_abi::kDeviceMaxThreadsPerBlock);
    s.l2_bytes = device_attribute(s.cuda, s.device, driver_abi::kDeviceL2Bytes);
    check_driver(s.cuda.cuDeviceTotalMem_v2(&s.memory_bytes, s.device), "cuDeviceTotalMem");
    s.wait_after_launch = environment_switch("SPION_WAIT_AFTER_LAUNCH");
    if (const auto result = s.cuda.cuDevicePrimaryCtxRetain(&s.context, s.device);
        result != kSuccess) {
        throw DeviceError("{} cannot be opened: {}", s.name, describe_driver_error(result));
    }
    const ContextScope scope = s.enter();
    check_driver(s.cuda.cuStreamCreate(&s.stream, driver_abi::kStreamNonBlocking),
                 "cuStreamCreate");
    s.staging = std::make_unique<Staging>(s.cuda, s.stream);
}

CudaDevice::~CudaDevice() {
    State& s = *state_;
    std::optional<ContextScope> scope;
    try {
        scope.emplace(s.cuda, s.context);
    } catch (const DeviceError&) {
        return;  // the driver is gone, and all that was in it
    }
    s.cuda.cuStreamSynchronize(s.stream);
    s.cublas.reset();
    if (s.ahead) s.cuda.cuStreamSynchronize(s.ahead->stream());
    s.ahead.reset();
    s.staging.reset();
    for (driver_abi::Event event : s.events) {
        if (event != nullptr) {
            s.cuda.cuEventDestroy_v2(event);
        }
    }
    for (const auto& [data, bytes] : s.allocations) {
        s.cuda.cuMemFree_v2(address_of(data));
    }
    s.cuda.cuStreamDestroy_v2(s.stream);
    scope.reset();
    s.cuda.cuDevicePrimaryCtxRelease_v2(s.device);
}

const Target& CudaDevice::target() const {
    return state_->target;
}
std::string CudaDevice::name() const {
    return state_->name;
}
std::size_t CudaDevice::l2_bytes() const {
    return static_cast<std::size_t>(state_->l2_bytes);
}
std::size_t CudaDevice::memory_bytes() const {
    return state_->memory_bytes;
}
ForeignStream CudaDevice::stream() const {
    return state_->stream;
}
std::size_t CudaDevice::peak_bytes() const {
    return state_->peak_bytes;
}

void* CudaDevice::allocate(std::size_t bytes) {
    State& s = *state_;
    const ContextScope scope = s.enter();
    driver_abi::Pointer address = 0;
    const driver_abi::Result result =
        s.cuda.cuMemAlloc_v2(&address, std::max<std::size_t>(bytes, 1));
    if (result == driver_abi::kErrorOutOfMemory) {
        std::size_t free = 0, total = 0;
        s.cuda.cuMemGetInfo_v2(&free, &total);
        throw DeviceError(
            "{} is out of memory: {:.3f} GiB wanted, {:.3f} GiB free of {:.3f} GiB, {:.3f} GiB "
            "held "
            "by this process; use a smaller batch or a shorter sequence, or end what else runs "
            "there",
            s.name, gibibytes(bytes), gibibytes(free), gibibytes(total),
            gibibytes(s.allocated_bytes));
    }
    s.check(result, "allocating device memory");
    void* data = reinterpret_cast<void*>(address);
    s.allocations.emplace(data, bytes);
    s.allocated_bytes += bytes;
    s.peak_bytes = std::max(s.peak_bytes, s.allocated_bytes);
    return data;
}

void CudaDevice::release(void* data) noexcept {
    State& s = *state_;
    const auto found = s.allocations.find(data);
    if (found == s.allocations.end()) {
        return;
    }
    try {
        const ContextScope scope = s.enter();
        s.cuda.cuMemFree_v2(address_of(data));  // waits for work that may use it
    } catch (const DeviceError&) {
        // The driver is gone, and the memory with it.
    }
    s.allocated_bytes -= found->second;
    s.allocations.erase(found);
}

void CudaDevice::copy_in(void* device, const void* host, std::size_t bytes) {
    if (bytes == 0) {
        return;
    }
    State& s = *state_;
    const ContextScope scope = s.enter();
    s.check(s.staging->copy_in(address_of(device), host, bytes), "copying to the device");
}

void CudaDevice::copy_in_ahead(void* device, const void* host, std::size_t bytes) {
    if (bytes == 0) {
        return;
    }
    State& s = *state_;
    const ContextScope scope = s.enter();
    if (!s.ahead) {
        s.ahead = std::make_unique<CopyAhead>(s.cuda, s.stream);
    }
    s.check(s.ahead->copy_in(address_of(device), host, bytes), "copying to the device");
}

void CudaDevice::copy_out(void* host, const void* device, std::size_t bytes) {
    State& s = *state_;
    const ContextScope scope = s.enter();
    if (bytes != 0) {
        s.check(s.cuda.cuMemcpyDtoHAsync_v2(host, address_of(device), bytes, s.stream),
                "copying from the device");
    }
    s.wait("copying from the device");
}

void CudaDevice::fill(void* device, unsigned char byte, std::size_t bytes) {
    if (bytes == 0) {
        return;
    }
    State& s = *state_;
    const ContextScope scope = s.enter();
    s.check(s.cuda.cuMemsetD8Async(address_of(device), byte, bytes, s.stream),
            "filling device memory");
}

void CudaDevice::synchronize() {
    const ContextScope scope = state_->enter();
    state_->wait("waiting for the device");
}

KernelBinary CudaDevice::compile(const CompileRequest& request) {
    return compile_with_nvrtc(request);
}

std::string CudaDevice::compiler_version() {
    return nvrtc_version(state_->target.arch);
}

std::vector<std::string> CudaDevice::compile_options() {
    return nvrtc_options(state_->target.arch);
}

std::unique_ptr<LoadedKernel> CudaDevice::load(const std::string& entry,
                                               const KernelBinary& binary) {
    const ContextScope scope = state_->enter();
    return std::make_unique<CudaKernel>(state_->cuda, state_->context, entry, binary);
}

void CudaDevice::prepare(const LoadedKernel& kernel, const LaunchGeometry& geometry) const {
    const ContextScope scope = state_->enter();
    CudaKernel::of(kernel).allow_shared_bytes(geometry.shared_bytes);
}

void CudaDevice::launch(const LoadedKernel& kernel, const LaunchGeometry& geometry,
                        const void* arguments, std::size_t /*argument_bytes*/) {
    State& s = *state_;
    prepare(kernel, geometry);
    launch_on(s.stream, kernel, geometry, arguments, 0);
    s.launched.remember(kernel.entry());
    if (s.wait_after_launch) {
        const ContextScope scope = s.enter();
        s.wait("running a kernel");
    }
}

bool CudaDevice::captures() const {
    return !state_->wait_after_launch;
}

std::unique_ptr<LaunchGraph> CudaDevice::capture(const std::function<void()>& enqueue) {
    State& s = *state_;
    const ContextScope scope = s.enter();
    return std::make_unique<CudaGraph>(s.cuda, s.context, s.stream, s.launched, enqueue);
}

void CudaDevice::replay(const LaunchGraph& graph) {
    State& s = *state_;
    const CudaGraph& captured = CudaGraph::of(graph);
    const ContextScope scope = s.enter();
    s.check(captured.launch(), "launching a graph");
    s.launched.remember(captured.entries());
}

void CudaDevice::launch_on(ForeignStream stream, const LoadedKernel& kernel,
                           const LaunchGeometry& geometry, const void* arguments,
                           std::size_t /*argument_bytes*/) const {
    const State& s = *state_;
    if (geometry.work_items < 0 || geometry.work_items > std::numeric_limits<int>::max() ||
        geometry.threads < 1 || geometry.threads > s.max_threads || geometry.shared_bytes < 0 ||
        geometry.shared_bytes > s.target.shared_bytes_per_block) {
        throw DeviceError(
            "kernel '{}' cannot be launched as {} blocks of {} threads with {} bytes of shared "
            "memory: {} takes {} blocks, {} threads and {} bytes at most",
            kernel.entry(), geometry.work_items, geometry.threads, geometry.shared_bytes, s.name,
            std::numeric_limits<int>::max(), s.max_threads, s.target.shared_bytes_per_block);
    }
    if (geometry.work_items == 0) {
        return;
    }
    const ContextScope scope = s.enter();
    CudaKernel::of(kernel).launch(geometry, arguments, static_cast<driver_abi::Stream>(stream));
}

void CudaDevice::fill_on(ForeignStream stream, void* device, unsigned char byte,
                         std::size_t bytes) const {
    const State& s = *state_;
    const ContextScope scope = s.enter();
    auto* const on = static_cast<driver_abi::Stream>(stream);
    if (const auto result = s.cuda.cuMemsetD8Async(address_of(device), byte, bytes, on);
        result != kSuccess) {
        check_foreign_stream(s.cuda, s.context, on);
        check_driver(result, "filling device memory");
    }
}

void CudaDevice::read_on(ForeignStream stream, void* host, const void* device,
                         std::size_t bytes) const {
    const State& s = *state_;
    const ContextScope scope = s.enter();
    read_in_order(s.cuda, s.context, static_cast<driver_abi::Stream>(stream), host, device, bytes);
}

const char* CudaDevice::problem_with_address(const void* data) const {
    return problem_with_foreign_memory(state_->cuda, state_->context, state_->device, data);
}

std::array<std::uint64_t, 16> CudaDevice::tensor_map(const TensorBoxes& boxes) const {
    const ContextScope scope = state_->enter();
    return encode_tensor_map(state_->cuda, boxes);
}

void CudaDevice::gemm(const Gemm& gemm) {
    State& s = *state_;
    const ContextScope scope = s.enter();
    if (!s.cublas) {
        if (s.workspace == nullptr) {
            s.workspace = allocate(kCublasWorkspaceBytes);
        }
        s.cublas = std::make_unique<Cublas>(s.stream, s.workspace);
    }
    s.cublas->run(gemm);
    s.launched.remember("gemm");
}

void CudaDevice::mark(int slot) {
    State& s = *state_;
    if (slot < 0 || slot >= kMarkSlots) {
        throw InternalError("mark: slot {} is not in 0..{}", slot, kMarkSlots - 1);
    }
    const ContextScope scope = s.enter();
    driver_abi::Event& event = s.events[static_cast<std::size_t>(slot)];
    if (event == nullptr) {
        s.check(s.cuda.cuEventCreate(&event, driver_abi::kEventDefault), "creating an event");
    }
    s.check(s.cuda.cuEventRecord(event, s.stream), "recording an event");
}

double CudaDevice::milliseconds_between(int first_slot, int second_slot) {
    State& s = *state_;
    const ContextScope scope = s.enter();
    const auto finished = [&s](int slot) {
        if (slot < 0 || slot >= kMarkSlots || s.events[static_cast<std::size_t>(slot)] == nullptr) {
            throw InternalError("milliseconds_between: slot {} was never marked", slot);
        }
        driver_abi::Event event = s.events[static_cast<std::size_t>(slot)];
        s.check(s.cuda.cuEventSynchronize(event), "waiting for an event");
        return event;
    };
    driver_abi::Event first = finished(first_slot);
    driver_abi::Event second = finished(second_slot);
    float milliseconds = 0;
    s.check(s.cuda.cuEventElapsedTime(&milliseconds, first, second), "reading an event");
    return milliseconds;
}

}  // namespace spion
