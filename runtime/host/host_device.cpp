#include "runtime/host/host_device.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "ir/error.h"
#include "runtime/host/gemm.h"
#include "runtime/host/host_target.h"
#include "runtime/host/jit.h"
#include "runtime/host/llvm_compiler.h"
#include "runtime/host/thread_pool.h"

namespace spion {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and an AVX-512 register

class HostDevice : public Device {
  public:
    explicit HostDevice(Target target) : target_(std::move(target)), pool_(target_.sm_count) {
        target_.sm_count = pool_.threads();  // those that could be started
    }

    const Target& target() const override { return target_; }
    std::string name() const override {
        const char* vectors = target_.vector_floats == 16  ? "AVX-512"
                              : target_.vector_floats == 8 ? "AVX2"
                                                           : "128-bit vectors";
        return fmt::format("{} ({} thread{}, {})", cpu_model(), pool_.threads(),
                           pool_.threads() == 1 ? "" : "s", vectors);
    }

    void* allocate(std::size_t bytes) override {
        void* data = nullptr;
        if (bytes <= std::numeric_limits<std::size_t>::max() - kAlignment) {
            data = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
        }
        if (data == nullptr) {
            throw DeviceError("out of memory: {} bytes on top of {} were refused", bytes, bytes_);
        }
        const std::lock_guard lock(memory_mutex_);
        sizes_[data] = bytes;
        bytes_ += bytes;
        peak_bytes_ = std::max(peak_bytes_, bytes_);
        return data;
    }
    void release(void* data) noexcept override {
        const std::lock_guard lock(memory_mutex_);
        const auto found = sizes_.find(data);
        if (found != sizes_.end()) {
            bytes_ -= found->second;
            sizes_.erase(found);
            std::free(data);
        }
    }
    std::size_t peak_bytes() const override {
        const std::lock_guard lock(memory_mutex_);
        return peak_bytes_;
    }

    void copy_in(void* device, const void* host, std::size_t bytes) override {
        copy(device, host, bytes);
    }
    void copy_out(void* host, const void* device, std::size_t bytes) override {
        copy(host, device, bytes);
    }
    void fill(void* device, unsigned char byte, std::size_t bytes) override {
        fill_on(nullptr, device, byte, bytes);
    }
    void synchronize() override {}  // launches have ended when they return

    KernelBinary compile(const CompileRequest& request) override {
        return compile_with_llvm(request);
    }
    std::string compiler_version() override { return "llvm " + llvm_version(); }
    std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                       const KernelBinary& binary) override {
        return jit_.load(entry, binary.code);
    }

    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const void* arguments,
                std::size_t argument_bytes) override {
        launch_on(nullptr, kernel, geometry, arguments, argument_bytes);
    }
    void fill_on(ForeignStream, void* device, unsigned char byte,
                 std::size_t bytes) const override {
        if (bytes != 0) {
            std::memset(device, byte, bytes);
        }
    }
    void launch_on(ForeignStream, const LoadedKernel& kernel, const LaunchGeometry& geometry,
                   const void* arguments, std::size_t) const override {
        const HostFunction function = dynamic_cast<const HostKernel&>(kernel).function();
        // Several chunks a thread even out items of unequal length.
        const std::int64_t chunk =
            std::max<std::int64_t>(1, geometry.work_items / (16 * std::int64_t{pool_.threads()}));
        pool_.parallel_for(geometry.work_items, chunk, [&](std::int64_t begin, std::int64_t end) {
            function(arguments, begin, end);
        });
    }

    void gemm(const Gemm& gemm) override { host_gemm(gemm, pool_, target_.vector_floats); }

    void mark(int slot) override { mark_at(slot) = std::chrono::steady_clock::now(); }
    double milliseconds_between(int first_slot, int second_slot) override {
        if (!mark_at(first_slot) || !mark_at(second_slot)) {
            throw InternalError("time asked between marks {} and {}, not both set", first_slot,
                                second_slot);
        }
        const std::chrono::duration<double, std::milli> spent =
            *mark_at(second_slot) - *mark_at(first_slot);
        return spent.count();
    }

  private:
    using Mark = std::optional<std::chrono::steady_clock::time_point>;

    static void copy(void* to, const void* from, std::size_t bytes) {
        if (bytes != 0) {
            std::memcpy(to, from, bytes);
        }
    }
    Mark& mark_at(int slot) {
        if (slot < 0 || slot >= static_cast<int>(marks_.size())) {
            throw InternalError("mark slot {} is not in 0..{}", slot, marks_.size() - 1);
        }
        return marks_[static_cast<std::size_t>(slot)];
    }

    Target target_;
    ThreadPool pool_;
    Jit jit_;
    mutable std::mutex memory_mutex_;
    std::unordered_map<void*, std::size_t> sizes_;
    std::size_t bytes_ = 0, peak_bytes_ = 0;
    std::array<Mark, 64> marks_;
};

}  // namespace

std::unique_ptr<Device> make_host_device(int threads) {
    if (threads < 0) {
        throw UserError(
            "{} threads were asked for, but at least 1 is needed: give 0 for all that may be used",
            threads);
    }
    return std::make_unique<HostDevice>(this_host_target(threads));
}

}  // namespace spion
