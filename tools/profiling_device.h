// A device that times each launch and product of what runs on it, by name.
#pragma once

#include <string>
#include <vector>

#include "runtime/device.h"

namespace spion {

// Launches of one kernel, or products of one shape.
struct ProfiledWork {
    std::string name;  // the kernel's entry, or "gemm [m, k] x [k, n]"
    int launches = 0;
    double ms = 0;     // all of them; between the marks around each
    double bytes = 0;  // that products, sums, the classifier and AdamW move; 0 for the others
    double needed_bytes = 0;  // of those, as who knows the step says
    double flop = 0;          // of products
};

// Passes everything on. Between start and stop it uses all of the inner device's marks, waits now
// and then, and marks pass through no more.
class ProfilingDevice final : public Device {
  public:
    explicit ProfilingDevice(Device& inner) : inner_(inner) {}

    void start();
    std::vector<ProfiledWork> stop();  // in the order of first launch

    const Target& target() const override { return inner_.target(); }
    std::string name() const override { return inner_.name(); }
    void* allocate(std::size_t bytes) override { return inner_.allocate(bytes); }
    void release(void* data) noexcept override { inner_.release(data); }
    std::size_t peak_bytes() const override { return inner_.peak_bytes(); }
    void copy_in(void* device, const void* host, std::size_t bytes) override {
        inner_.copy_in(device, host, bytes);
    }
    void copy_in_ahead(void* device, const void* host, std::size_t bytes) override {
        inner_.copy_in_ahead(device, host, bytes);
    }
    void copy_out(void* host, const void* device, std::size_t bytes) override {
        inner_.copy_out(host, device, bytes);
    }
    void fill(void* device, unsigned char byte, std::size_t bytes) override {
        inner_.fill(device, byte, bytes);
    }
    void synchronize() override { inner_.synchronize(); }
    KernelBinary compile(const CompileRequest& request) override { return inner_.compile(request); }
    std::string compiler_version() override { return inner_.compiler_version(); }
    std::vector<std::string> compile_options() override { return inner_.compile_options(); }
    std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                       const KernelBinary& binary) override {
        return inner_.load(entry, binary);
    }
    using Device::launch;
    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const void* arguments,
                std::size_t argument_bytes) override;
    // What is captured would be one launch to it.
    bool captures() const override { return !recording_ && inner_.captures(); }
    std::unique_ptr<LaunchGraph> capture(const std::function<void()>& enqueue) override {
        return inner_.capture(enqueue);
    }
    void replay(const LaunchGraph& graph) override { inner_.replay(graph); }
    std::array<std::uint64_t, 16> tensor_map(const TensorBoxes& boxes) const override {
        return inner_.tensor_map(boxes);
    }
    void gemm(const Gemm& gemm) override;
    void mark(int slot) override { inner_.mark(slot); }
    double milliseconds_between(int first_slot, int second_slot) override {
        return inner_.milliseconds_between(first_slot, second_slot);
    }

  private:
    void note(ProfiledWork work);
    void flush();

    Device& inner_;
    bool recording_ = false;
    std::vector<ProfiledWork> pending_;  // between marks i and i + 1
    std::vector<ProfiledWork> sums_;
};

}  // namespace spion
