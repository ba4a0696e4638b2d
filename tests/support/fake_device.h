// A device that runs nothing, for tests of what is asked of one.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "runtime/device.h"

namespace spion::test {

// What FakeDevice makes of a binary.
struct FakeKernel : LoadedKernel {
    explicit FakeKernel(std::string entry_name, std::string binary_code = "")
        : name(std::move(entry_name)), code(std::move(binary_code)) {}
    const std::string& entry() const override { return name; }
    std::string name, code;
};

// A target of whatever back end this build has.
inline Target any_target() {
#ifdef SPION_HOST_BACKEND
    return {.back_end = BackEnd::kHost, .arch = "znver4", .features = "+avx2"};
#else
    return cuda_target(90);
#endif
}

// Its memory is the host's; it compiles a source to its text, and a launch does nothing. Its clock
// stands still unless `now` is moved. A test overrides what it looks at.
class FakeDevice : public Device {
  public:
    explicit FakeDevice(Target given = cuda_target(90)) : fake_target(std::move(given)) {}

    const Target& target() const override { return fake_target; }
    std::string name() const override { return fake_name; }
    void* allocate(std::size_t bytes) override { return std::malloc(bytes); }
    void release(void* data) noexcept override { std::free(data); }
    std::size_t peak_bytes() const override { return 0; }
    void copy_in(void* device, const void* host, std::size_t bytes) override {
        copy(device, host, bytes);
    }
    void copy_out(void* host, const void* device, std::size_t bytes) override {
        copy(host, device, bytes);
    }
    void fill(void* device, unsigned char byte, std::size_t bytes) override {
        std::fill_n(static_cast<unsigned char*>(device), bytes, byte);
    }
    void synchronize() override {}
    KernelBinary compile(const CompileRequest& request) override {
        return {.code = request.text, .log = "", .registers = 1, .compile_ms = 1};
    }
    std::string compiler_version() override { return "fake 1"; }
    std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                       const KernelBinary& binary) override {
        return std::make_unique<FakeKernel>(entry, binary.code);
    }
    using Device::launch;
    void launch(const LoadedKernel& /*kernel*/, const LaunchGeometry& /*geometry*/,
                const void* /*arguments*/, std::size_t /*argument_bytes*/) override {}
    void gemm(const Gemm& /*gemm*/) override {}
    void mark(int slot) override { marks_[slot] = now; }
    double milliseconds_between(int first, int second) override {
        return marks_[second] - marks_[first];
    }

    Target fake_target;
    std::string fake_name = "fake";
    double now = 0;  // milliseconds

  private:
    // Of no bytes at all, too: then addresses may be null, which memcpy forbids.
    static void copy(void* to, const void* from, std::size_t bytes) {
        std::copy_n(static_cast<const unsigned char*>(from), bytes,
                    static_cast<unsigned char*>(to));
    }
    std::map<int, double> marks_;
};

}  // namespace spion::test
