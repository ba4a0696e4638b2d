// An NVIDIA GPU: memory, kernels and products in order on one stream of its primary context.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device.h"

namespace spion {

// Why no GPU can be used (driver, device or NVRTC) and how to mend it; nullopt when one can.
std::optional<std::string> cuda_problem();

// Work is in order on one stream, so a fault shows at the next wait; its message names the kernels
// that were launched since the wait before. With SPION_WAIT_AFTER_LAUNCH=1 in the environment every
// launch is waited for, and the message names the one.
class CudaDevice : public Device {
  public:
    // Whether a device without NVRTC is of use: where every kernel comes from a bundle or a cache.
    enum class Compiler { kNeeded, kOptional };
    // GPU `ordinal` of those that CUDA_VISIBLE_DEVICES leaves, by its primary context, which is the
    // one of CUDA's runtime. Throws DeviceError with cuda_problem()'s sentence, UserError for an
    // ordinal that is not there.
    explicit CudaDevice(int ordinal = 0, Compiler compiler = Compiler::kNeeded);
    ~CudaDevice() override;
    CudaDevice(const CudaDevice&) = delete;
    CudaDevice& operator=(const CudaDevice&) = delete;

    const Target& target() const override;
    std::string name() const override;
    std::size_t l2_bytes() const;
    std::size_t memory_bytes() const;
    // The stream that work is in order on.
    ForeignStream stream() const;

    void* allocate(std::size_t bytes) override;
    void release(void* data) noexcept override;
    std::size_t peak_bytes() const override;

    void copy_in(void* device, const void* host, std::size_t bytes) override;
    void copy_in_ahead(void* device, const void* host, std::size_t bytes) override;
    void copy_out(void* host, const void* device, std::size_t bytes) override;
    void fill(void* device, unsigned char byte, std::size_t bytes) override;
    void synchronize() override;

    KernelBinary compile(const CompileRequest& request) override;
    std::string compiler_version() override;
    std::vector<std::string> compile_options() override;
    std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                       const KernelBinary& binary) override;
    using Device::launch;
    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const void* arguments,
                std::size_t argument_bytes) override;

    // Not where every launch is waited for.
    bool captures() const override;
    std::unique_ptr<LaunchGraph> capture(const std::function<void()>& enqueue) override;
    void replay(const LaunchGraph& graph) override;

    void prepare(const LoadedKernel& kernel, const LaunchGeometry& geometry) const override;
    // Throw UserError when the stream is of another context, DeviceError when it cannot be captured.
    void launch_on(ForeignStream stream, const LoadedKernel& kernel, const LaunchGeometry& geometry,
                   const void* arguments, std::size_t argument_bytes) const override;
    void fill_on(ForeignStream stream, void* device, unsigned char byte,
                 std::size_t bytes) const override;
    void read_on(ForeignStream stream, void* host, const void* device,
                 std::size_t bytes) const override;
    const char* problem_with_address(const void* data) const override;

    std::array<std::uint64_t, 16> tensor_map(const TensorBoxes& boxes) const override;
    void gemm(const Gemm& gemm) override;

    void mark(int slot) override;
    double milliseconds_between(int first_slot, int second_slot) override;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace spion
