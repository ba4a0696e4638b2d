#include "train/activations.h"

#include <gtest/gtest.h>

#include "ir/error.h"
#include "tests/support/fake_device.h"

namespace spion {
namespace {

// A GPU that has memory of unbounded size and nothing else.
class CountingDevice : public test::FakeDevice {
  public:
    const Target& target() const override { return target_; }
    void* allocate(std::size_t bytes) override {
        bytes_ += bytes;
        return ::operator new(1);
    }
    void release(void* data) noexcept override { ::operator delete(data); }
    std::size_t peak_bytes() const override { return bytes_; }
    void copy_in(void*, const void*, std::size_t) override {}
    void copy_out(void*, const void*, std::size_t) override { refuse(); }
    void fill(void*, unsigned char, std::size_t) override {}
    KernelBinary compile(const CompileRequest&) override { return refuse(); }
    void launch(const LoadedKernel&, const LaunchGeometry&, const void*, std::size_t) override {
        refuse();
    }
    void gemm(const Gemm&) override { refuse(); }

  private:
    static KernelBinary refuse() { throw InternalError("this device only counts memory"); }
    Target target_ = cuda_target(90);
    std::size_t bytes_ = 0;
};

// The paper's ListOps step in bf16 is to stay under 2.86 GB, 0.7 of what it took before layers were
// fused, score maps and results included.
TEST(Activations, FitThePapersStepIntoItsBudget) {
    CountingDevice device;
    const ModelShape shape;  // the paper's
    const ParameterLayout layout(shape);
    const ParameterState parameters(device, layout.initial_values(0));
    const Activations activations(device, shape, 256, DType::kBf16);
    const std::size_t score_map = 2048UL * 2048 * 4, tokens = 256UL * 2048 * 2;
    EXPECT_LT(device.peak_bytes() + score_map + tokens, 2'860'000'000UL);
    // What a fused layer cannot do without: Q, K, V, O and the stream twice, in bf16, for 4 layers.
    EXPECT_GT(device.peak_bytes(), 4UL * 256 * 2048 * 2 * (192 + 64 + 2 * 64));
}

// A width without fused kernels saves its norms' outputs and the feed-forward part's input and output too.
TEST(Activations, AreMoreWhereLayersAreNotFused) {
    CountingDevice device;
    const ModelShape shape{.feed_forward = 256};
    const Activations activations(device, shape, 256, DType::kBf16);
    EXPECT_GT(device.peak_bytes(), 4UL * 256 * 2048 * 2 * (192 + 64 + 2 * 64 + 2 * 64 + 2 * 256));
    EXPECT_TRUE(activations.layers.front().normed1);
}

}  // namespace
}  // namespace spion
