// A device that captures launches as a GPU does, on top of one that does not: what is replayed has the
// arguments that it had when it was captured, so that whatever should have changed since then shows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ir/error.h"
#include "runtime/device.h"

namespace spion::test {

class CapturingDevice : public Device {
  public:
    explicit CapturingDevice(std::unique_ptr<Device> inner) : inner_(std::move(inner)) {}

    int captured() const { return captured_; }
    int replayed() const { return replayed_; }

    bool captures() const override { return true; }
    std::unique_ptr<LaunchGraph> capture(const std::function<void()>& enqueue) override {
        auto graph = std::make_unique<Graph>();
        recording_ = graph.get();
        try {
            enqueue();
        } catch (...) {
            recording_ = nullptr;
            throw;
        }
        recording_ = nullptr;
        ++captured_;
        return graph;
    }
    void replay(const LaunchGraph& graph) override {
        ++replayed_;
        for (const auto& one : dynamic_cast<const Graph&>(graph).work) one();
    }

    using Device::launch;
    void launch(const LoadedKernel& kernel, const LaunchGeometry& geometry, const void* arguments,
                std::size_t argument_bytes) override {
        if (recording_ == nullptr) {
            return inner_->launch(kernel, geometry, arguments, argument_bytes);
        }
        const auto* bytes = static_cast<const std::byte*>(arguments);
        auto kept = std::make_shared<Arguments>(argument_bytes / sizeof(Line) + 1);
        std::copy_n(bytes, argument_bytes, reinterpret_cast<std::byte*>(kept->data()));
        recording_->work.emplace_back([this, &kernel, geometry, kept, argument_bytes] {
            inner_->launch(kernel, geometry, kept->data(), argument_bytes);
        });
    }
    void gemm(const Gemm& gemm) override {
        if (recording_ == nullptr) return inner_->gemm(gemm);
        recording_->work.emplace_back([this, gemm] { inner_->gemm(gemm); });
    }
    void fill(void* device, unsigned char byte, std::size_t bytes) override {
        if (recording_ == nullptr) return inner_->fill(device, byte, bytes);
        recording_->work.emplace_back([=, this] { inner_->fill(device, byte, bytes); });
    }

    const Target& target() const override { return inner_->target(); }
    std::string name() const override { return inner_->name(); }
    void* allocate(std::size_t bytes) override {
        refuse("memory is allocated");
        return inner_->allocate(bytes);
    }
    void release(void* data) noexcept override { inner_->release(data); }
    std::size_t peak_bytes() const override { return inner_->peak_bytes(); }
    void copy_in(void* device, const void* host, std::size_t bytes) override {
        refuse("something is copied to the device");
        inner_->copy_in(device, host, bytes);
    }
    void copy_out(void* host, const void* device, std::size_t bytes) override {
        refuse("something is copied from the device");
        inner_->copy_out(host, device, bytes);
    }
    void synchronize() override {
        refuse("the device is waited for");
        inner_->synchronize();
    }
    KernelBinary compile(const CompileRequest& request) override {
        return inner_->compile(request);
    }
    std::string compiler_version() override { return inner_->compiler_version(); }
    std::vector<std::string> compile_options() override { return inner_->compile_options(); }
    std::unique_ptr<LoadedKernel> load(const std::string& entry,
                                       const KernelBinary& binary) override {
        return inner_->load(entry, binary);
    }
    void mark(int slot) override {
        refuse("a mark is set");
        inner_->mark(slot);
    }
    double milliseconds_between(int first_slot, int second_slot) override {
        return inner_->milliseconds_between(first_slot, second_slot);
    }

  private:
    struct alignas(64) Line {
        std::byte bytes[64];
    };
    using Arguments = std::vector<Line>;
    struct Graph : LaunchGraph {
        std::vector<std::function<void()>> work;
    };
    void refuse(const char* what) const {
        if (recording_ != nullptr) throw InternalError("{} while launches are captured", what);
    }

    std::unique_ptr<Device> inner_;
    Graph* recording_ = nullptr;
    int captured_ = 0, replayed_ = 0;
};

}  // namespace spion::test
