// As much of the CUDA driver as a program that uses the library brings along: memory, streams,
// contexts, graphs and events, through the driver's own names. Opened at run time, so that tests
// build without a toolkit.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace spion::test::cuda {

using Pointer = unsigned long long;

struct Driver {
    int (*cuInit)(unsigned);
    int (*cuDeviceGet)(int*, int);
    int (*cuDeviceGetCount)(int*);
    int (*cuDevicePrimaryCtxRetain)(void**, int);
    int (*cuDevicePrimaryCtxRelease_v2)(int);
    int (*cuCtxCreate_v2)(void**, unsigned, int);
    int (*cuCtxDestroy_v2)(void*);
    int (*cuCtxGetCurrent)(void**);
    int (*cuCtxSetCurrent)(void*);
    int (*cuMemAlloc_v2)(Pointer*, std::size_t);
    int (*cuMemFree_v2)(Pointer);
    int (*cuMemcpyHtoD_v2)(Pointer, const void*, std::size_t);
    int (*cuMemcpyDtoH_v2)(void*, Pointer, std::size_t);
    int (*cuMemsetD8_v2)(Pointer, unsigned char, std::size_t);
    int (*cuModuleLoadData)(void**, const void*);
    int (*cuModuleUnload)(void*);
    int (*cuModuleGetFunction)(void**, void*, const char*);
    int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                          unsigned, void*, void**, void**);
    int (*cuStreamCreate)(void**, unsigned);
    int (*cuStreamDestroy_v2)(void*);
    int (*cuStreamSynchronize)(void*);
    int (*cuCtxSynchronize)();
    int (*cuStreamBeginCapture_v2)(void*, int);
    int (*cuStreamEndCapture)(void*, void**);
    int (*cuGraphInstantiateWithFlags)(void**, void*, unsigned long long);
    int (*cuGraphLaunch)(void*, void*);
    int (*cuGraphExecDestroy)(void*);
    int (*cuGraphDestroy)(void*);
    int (*cuEventCreate)(void**, unsigned);
    int (*cuEventDestroy_v2)(void*);
    int (*cuEventRecord)(void*, void*);
    int (*cuStreamWaitEvent)(void*, void*, unsigned);
    int (*cuEventSynchronize)(void*);
    int (*cuEventElapsedTime)(float*, void*, void*);
};

inline void check(int result, const char* doing) {
    if (result != 0) {
        throw std::runtime_error(std::string(doing) + ": CUDA error " + std::to_string(result));
    }
}
#define SPION_TEST_CUDA(name, ...) \
    ::spion::test::cuda::check(::spion::test::cuda::driver().name(__VA_ARGS__), #name)

// Null functions where there is no driver.
inline const Driver& driver() {
    static const Driver opened = [] {
        Driver d = {};
        void* const library = dlopen("libcuda.so.1", RTLD_NOW);
        if (library == nullptr) return d;
#define SPION_TEST_LOAD(name) d.name = reinterpret_cast<decltype(d.name)>(dlsym(library, #name))
        SPION_TEST_LOAD(cuInit);
        SPION_TEST_LOAD(cuDeviceGet);
        SPION_TEST_LOAD(cuDeviceGetCount);
        SPION_TEST_LOAD(cuDevicePrimaryCtxRetain);
        SPION_TEST_LOAD(cuDevicePrimaryCtxRelease_v2);
        SPION_TEST_LOAD(cuCtxCreate_v2);
        SPION_TEST_LOAD(cuCtxDestroy_v2);
        SPION_TEST_LOAD(cuCtxGetCurrent);
        SPION_TEST_LOAD(cuCtxSetCurrent);
        SPION_TEST_LOAD(cuMemAlloc_v2);
        SPION_TEST_LOAD(cuMemFree_v2);
        SPION_TEST_LOAD(cuMemcpyHtoD_v2);
        SPION_TEST_LOAD(cuMemcpyDtoH_v2);
        SPION_TEST_LOAD(cuMemsetD8_v2);
        SPION_TEST_LOAD(cuModuleLoadData);
        SPION_TEST_LOAD(cuModuleUnload);
        SPION_TEST_LOAD(cuModuleGetFunction);
        SPION_TEST_LOAD(cuLaunchKernel);
        SPION_TEST_LOAD(cuStreamCreate);
        SPION_TEST_LOAD(cuStreamDestroy_v2);
        SPION_TEST_LOAD(cuStreamSynchronize);
        SPION_TEST_LOAD(cuCtxSynchronize);
        SPION_TEST_LOAD(cuStreamBeginCapture_v2);
        SPION_TEST_LOAD(cuStreamEndCapture);
        SPION_TEST_LOAD(cuGraphInstantiateWithFlags);
        SPION_TEST_LOAD(cuGraphLaunch);
        SPION_TEST_LOAD(cuGraphExecDestroy);
        SPION_TEST_LOAD(cuGraphDestroy);
        SPION_TEST_LOAD(cuEventCreate);
        SPION_TEST_LOAD(cuEventDestroy_v2);
        SPION_TEST_LOAD(cuEventRecord);
        SPION_TEST_LOAD(cuStreamWaitEvent);
        SPION_TEST_LOAD(cuEventSynchronize);
        SPION_TEST_LOAD(cuEventElapsedTime);
#undef SPION_TEST_LOAD
        if (d.cuInit == nullptr || d.cuInit(0) != 0) d.cuInit = nullptr;
        return d;
    }();
    return opened;
}

inline bool available() {
    int device = 0;
    return driver().cuInit != nullptr && driver().cuDeviceGet(&device, 0) == 0;
}

// The primary context of a GPU, retained and current: what CUDA's runtime would use.
class Primary {
  public:
    explicit Primary(int ordinal = 0) : ordinal_(ordinal) {
        SPION_TEST_CUDA(cuDevicePrimaryCtxRetain, &context_, ordinal);
        SPION_TEST_CUDA(cuCtxSetCurrent, context_);
    }
    ~Primary() {
        driver().cuCtxSetCurrent(nullptr);
        driver().cuDevicePrimaryCtxRelease_v2(ordinal_);
    }
    Primary(const Primary&) = delete;
    Primary& operator=(const Primary&) = delete;
    void* get() const { return context_; }

  private:
    int ordinal_;
    void* context_ = nullptr;
};

// Device memory. The context must be current.
class Memory {
  public:
    explicit Memory(std::size_t bytes) : bytes_(bytes) {
        SPION_TEST_CUDA(cuMemAlloc_v2, &address_, bytes == 0 ? 1 : bytes);
        SPION_TEST_CUDA(cuMemsetD8_v2, address_, 0xFF, bytes);  // NaN in every dtype
        SPION_TEST_CUDA(cuCtxSynchronize);  // streams of others do not wait for it
    }
    template <typename T>
    explicit Memory(const std::vector<T>& values) : Memory(values.size() * sizeof(T)) {
        write(values);
    }
    ~Memory() { driver().cuMemFree_v2(address_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    void* data() const { return reinterpret_cast<void*>(address_); }
    std::size_t bytes() const { return bytes_; }
    template <typename T>
    void write(const std::vector<T>& values) {
        SPION_TEST_CUDA(cuMemcpyHtoD_v2, address_, values.data(), values.size() * sizeof(T));
        SPION_TEST_CUDA(cuCtxSynchronize);  // pageable memory may still be on its way
    }
    template <typename T>
    std::vector<T> read() const {
        std::vector<T> values(bytes_ / sizeof(T));
        SPION_TEST_CUDA(cuMemcpyDtoH_v2, values.data(), address_, bytes_);
        return values;
    }

  private:
    Pointer address_ = 0;
    std::size_t bytes_;
};

// A kernel of the caller's. The context must be current.
class Kernel {
  public:
    Kernel(const std::string& ptx, const char* entry) {
        SPION_TEST_CUDA(cuModuleLoadData, &module_, ptx.c_str());
        SPION_TEST_CUDA(cuModuleGetFunction, &function_, module_, entry);
    }
    ~Kernel() { driver().cuModuleUnload(module_); }
    Kernel(const Kernel&) = delete;
    Kernel& operator=(const Kernel&) = delete;
    void launch(unsigned blocks, unsigned threads, void* stream, void** parameters) const {
        SPION_TEST_CUDA(cuLaunchKernel, function_, blocks, 1U, 1U, threads, 1U, 1U, 0U, stream,
                        parameters, nullptr);
    }

  private:
    void* module_ = nullptr;
    void* function_ = nullptr;
};

class Stream {
  public:
    Stream() { SPION_TEST_CUDA(cuStreamCreate, &stream_, 1U); }  // not blocked by the default one
    ~Stream() { driver().cuStreamDestroy_v2(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    void* get() const { return stream_; }
    void wait() const { SPION_TEST_CUDA(cuStreamSynchronize, stream_); }
    // What is enqueued here from now on comes after what `other` has so far.
    void wait_for(const Stream& other) const {
        void* event = nullptr;
        SPION_TEST_CUDA(cuEventCreate, &event, 2U);  // without a time
        SPION_TEST_CUDA(cuEventRecord, event, other.get());
        SPION_TEST_CUDA(cuStreamWaitEvent, stream_, event, 0U);
        SPION_TEST_CUDA(cuEventDestroy_v2, event);
    }

  private:
    void* stream_ = nullptr;
};

// What `enqueue` puts into a stream, to be launched again and again.
class Graph {
  public:
    template <typename Enqueue>
    Graph(const Stream& stream, const Enqueue& enqueue) {
        constexpr int kThreadLocal = 1;
        SPION_TEST_CUDA(cuStreamBeginCapture_v2, stream.get(), kThreadLocal);
        enqueue();
        SPION_TEST_CUDA(cuStreamEndCapture, stream.get(), &graph_);
        SPION_TEST_CUDA(cuGraphInstantiateWithFlags, &executable_, graph_, 0ULL);
    }
    ~Graph() {
        driver().cuGraphExecDestroy(executable_);
        driver().cuGraphDestroy(graph_);
    }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    void launch(const Stream& stream) const {
        SPION_TEST_CUDA(cuGraphLaunch, executable_, stream.get());
    }

  private:
    void* graph_ = nullptr;
    void* executable_ = nullptr;
};

}  // namespace spion::test::cuda
