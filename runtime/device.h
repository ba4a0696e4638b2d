// The back end's memory, kernels and order of execution behind one interface: a GPU with one stream
// (runtime/cuda) or the host with its threads (runtime/host). Everything above (compiler, train,
// tools) speaks to this alone.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ir/dtype.h"
#include "ir/error.h"
#include "ir/kernel_source.h"
#include "ir/target.h"

namespace spion {

class Device;

// Owned device memory. Movable; freed with its device still alive.
class Buffer {
  public:
    Buffer() = default;
    Buffer(Device& device,
           std::size_t bytes);  // uninitialised; throws DeviceError when out of memory
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    void* data() const { return data_; }
    template <typename T>
    T* as() const {
        return static_cast<T*>(data_);
    }
    std::size_t bytes() const { return bytes_; }
    explicit operator bool() const { return data_ != nullptr; }

  private:
    Device* device_ = nullptr;
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

// A loaded kernel. Created by Device::load; must not outlive its device.
class LoadedKernel {
  public:
    virtual ~LoadedKernel() = default;
    virtual const std::string& entry() const = 0;
};

// What a device was asked to do in order, kept to be done again as one. Created by Device::capture;
// must not outlive its device, nor the kernels and the memory that it uses.
class LaunchGraph {
  public:
    virtual ~LaunchGraph() = default;
};

struct LaunchGeometry {
    std::int64_t work_items = 0;  // CUDA: thread blocks (1-D grid); host: items split over threads
    int threads = 1;              // CUDA: threads of a block; host: ignored
    int shared_bytes = 0;         // CUDA: dynamic shared memory of a block; host: ignored
    // CUDA: its blocks may start where those of the kernel before have left; the kernel itself
    // waits for the other's results (griddepcontrol.wait).
    bool overlaps_previous = false;
    // CUDA: its blocks wait for each other, so all must be resident at once (a cooperative launch):
    // throws DeviceError when they cannot be.
    bool all_at_once = false;
};

// Boxes of a [B, H, L, D] tensor of 2-byte elements, for the tensor memory accelerator.
struct TensorBoxes {
    const void* data = nullptr;
    std::int64_t extent[4] = {};  // D, L, H, B
    std::int64_t stride[3] = {};  // of L, H, B, in bytes, multiples of 16; D is contiguous
    int columns = 0;              // of a box: 16, 32 or 64, which is also the swizzle's span
    int rows = 0;                 // of a box, at most 256
};

// c = alpha * op(a) * op(b) + beta * c, row-major: op(a) is [m, k], op(b) is [k, n], c is [m, n];
// `lda` is the row pitch of a as stored, in elements. Products accumulate in fp32; a 16-bit output
// may be rounded before beta * c and the bias are added.
struct Gemm {
    bool transpose_a = false;
    bool transpose_b = false;
    std::int64_t m = 0, n = 0, k = 0;
    const void* a = nullptr;
    std::int64_t lda = 0;
    const void* b = nullptr;
    std::int64_t ldb = 0;
    void* c = nullptr;
    std::int64_t ldc = 0;
    DType input = DType::kFp32;   // of a and b: kFp32 (both), kBf16 or kFp16 (CUDA)
    DType output = DType::kFp32;  // of c: kFp32, or the same as input
    float alpha = 1.0F;
    float beta = 0.0F;
    const void* bias = nullptr;  // [n] of type `output`, added to every row of c; null for none
};

// A cudaStream_t or CUstream of the device, as one sees it from outside; null is CUDA's legacy
// default stream. The host has none and does not look at it.
using ForeignStream = void*;

// Work is asynchronous and in order on one stream of the device's own; copies to the host and
// `synchronize` wait for it. Not thread-safe, except `load` and the const functions, which keep no
// state: launches on streams of others, by as many threads as there are.
class Device {
  public:
    virtual ~Device() = default;

    virtual const Target& target() const = 0;
    virtual std::string name() const = 0;  // "NVIDIA H200", "AMD EPYC ... (2 threads, AVX-512)"

    virtual void* allocate(std::size_t bytes) = 0;
    virtual void release(void* data) noexcept = 0;
    virtual std::size_t peak_bytes() const = 0;  // most bytes allocated at once so far

    // `host` has been read when this returns; the copy itself takes place in order.
    virtual void copy_in(void* device, const void* host, std::size_t bytes) = 0;
    // The same, but in order only with the work before the call of this before it: of two buffers that take
    // turns, one is filled beside the work that reads the other. The work after it sees it.
    virtual void copy_in_ahead(void* device, const void* host, std::size_t bytes) {
        copy_in(device, host, bytes);
    }
    virtual void copy_out(void* host, const void* device, std::size_t bytes) = 0;  // waits
    virtual void fill(void* device, unsigned char byte, std::size_t bytes) = 0;
    virtual void synchronize() = 0;

    // Compiles for this device; pure in the request (no cache). Thread-safe. NVRTC or ORC's
    // compiler; throws InternalError with the log when a source is rejected.
    virtual KernelBinary compile(const CompileRequest& request) = 0;
    // Version string that goes into CompileRequest::compiler.
    virtual std::string compiler_version() = 0;
    // What goes into CompileRequest::options, in order.
    virtual std::vector<std::string> compile_options() { return {}; }
    virtual std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                               const KernelBinary& binary) = 0;
    // `arguments` is copied: the kernel's single by-value struct parameter (CUDA) or what its
    // pointer parameter points to (host).
    virtual void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry,
                        const void* arguments, std::size_t argument_bytes) = 0;

    // Whether `capture` is of use here: a host, whose launches cost nothing, captures nothing.
    virtual bool captures() const { return false; }
    // What `enqueue` launches, multiplies and fills, by the addresses and numbers that it gives now. None
    // of it is done yet. It may not allocate, copy, mark or wait, and what the first call of a kernel or
    // a product prepares must be there: call it once before. Passes on what it throws.
    virtual std::unique_ptr<LaunchGraph> capture(const std::function<void()>& /*enqueue*/) {
        throw InternalError("{} captures no launches", name());
    }
    // All of it in order, as one launch; asynchronous like the others.
    virtual void replay(const LaunchGraph& /*graph*/) {
        throw InternalError("{} captures no launches", name());
    }
    // Whatever the driver would do at the kernel's first launch with this geometry, so that later
    // ones allocate nothing and can be captured in a graph.
    virtual void prepare(const LoadedKernel& /*kernel*/, const LaunchGeometry& /*geometry*/) const {
    }
    // The same launch on a stream of the caller's: allocates nothing, waits for nothing, takes no
    // lock. The host returns when it is done.
    virtual void launch_on(ForeignStream /*stream*/, const LoadedKernel& kernel,
                           const LaunchGeometry& /*geometry*/, const void* /*arguments*/,
                           std::size_t /*argument_bytes*/) const {
        throw InternalError("{} cannot launch '{}' on a stream of others", name(), kernel.entry());
    }
    virtual void fill_on(ForeignStream /*stream*/, void* /*device*/, unsigned char /*byte*/,
                         std::size_t /*bytes*/) const {
        throw InternalError("{} cannot fill memory on a stream of others", name());
    }
    // Waits for a stream of the caller's and copies what lies in the device's memory then.
    virtual void read_on(ForeignStream /*stream*/, void* /*host*/, const void* /*device*/,
                         std::size_t /*bytes*/) const {
        throw InternalError("{} cannot read memory in the order of a stream of others", name());
    }
    // What is wrong with `data` as an address of this device's memory, as a clause ("is memory of
    // the host"); "" when nothing is known to be.
    virtual const char* problem_with_address(const void* /*data*/) const { return ""; }
    template <typename T>
    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const T& arguments) {
        launch(kernel, geometry, &arguments, sizeof(T));
    }

    // The CUtensorMap of `boxes`: reads beyond L give zeros. Throws InternalError on a device
    // without the accelerator, DeviceError when the driver refuses.
    virtual std::array<std::uint64_t, 16> tensor_map(const TensorBoxes& /*boxes*/) const {
        throw InternalError("{} has no tensor memory accelerator", name());
    }

    // Memory for what lives no longer than one launch; every caller gets the same. It grows, and
    // then waits for the work before; freed with the device.
    void* workspace(std::size_t bytes);
    // How often it has grown: what was captured before it did uses memory that is gone.
    int workspace_growths() const { return workspace_growths_; }

    virtual void gemm(const Gemm& gemm) = 0;

    // Marks a point in the stream; `milliseconds_between` waits for both marks. Slots 0..63.
    virtual void mark(int slot) = 0;
    virtual double milliseconds_between(int first_slot, int second_slot) = 0;

  private:
    void* workspace_ = nullptr;
    std::size_t workspace_bytes_ = 0;
    int workspace_growths_ = 0;
};

enum class DeviceChoice { kAuto, kCpu, kCuda };
// "auto", "cpu", "cuda"; throws UserError that lists them.
DeviceChoice parse_device_choice(std::string_view name);

// kAuto takes a usable GPU, else the host, and says which on stderr. kCuda without a usable GPU
// throws UserError saying why and how to mend it; so does kCpu in a build without the host back
// end. gpu: which of those that CUDA_VISIBLE_DEVICES leaves.
std::unique_ptr<Device> open_device(DeviceChoice choice, int gpu = 0);

// GPUs that this process sees; 0 where none can be used.
int visible_gpus();

}  // namespace spion
