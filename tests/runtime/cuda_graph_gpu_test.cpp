// Launches that a GPU has captured.
#include <thread>
#include <vector>

#include "ir/error.h"
#include "tests/runtime/gpu_fixture.h"

namespace spion {
namespace {

struct AddArguments {
    const float* x;  // [1]
    float* y;        // [count]
    int count;
};

constexpr const char* kAdd = R"(
struct Arguments { const float* x; float* y; int count; };
extern "C" __global__ void add(const __grid_constant__ Arguments args) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < args.count) args.y[i] += *args.x;
}
)";

class CudaGraphTest : public GpuTest {
  protected:
    void SetUp() override {
        GpuTest::SetUp();
        if (IsSkipped()) return;
        add_ = kernel("add", kAdd);
        x_ = Buffer(*device_, sizeof(float));
        y_ = Buffer(*device_, kCount * sizeof(float));
        product_ = Buffer(*device_, kSide * kSide * sizeof(float));
        fill(x_, 1);
        fill(y_, 0);
        enqueue();  // what is prepared at a first launch
    }
    void fill(const Buffer& buffer, float value) {
        const std::vector<float> values(buffer.bytes() / sizeof(float), value);
        device_->copy_in(buffer.data(), values.data(), buffer.bytes());
    }
    // product = the square of y's first values, y = x three times.
    void enqueue() {
        device_->gemm({.m = kSide,
                       .n = kSide,
                       .k = kSide,
                       .a = y_.data(),
                       .lda = kSide,
                       .b = y_.data(),
                       .ldb = kSide,
                       .c = product_.data(),
                       .ldc = kSide});
        device_->fill(y_.data(), 0, y_.bytes());
        for (int n = 0; n < 3; ++n) {
            device_->launch(*add_, {.work_items = kCount / 128, .threads = 128},
                            AddArguments{x_.as<float>(), y_.as<float>(), kCount});
        }
    }
    std::vector<float> read(const Buffer& buffer) {
        std::vector<float> values(buffer.bytes() / sizeof(float));
        device_->copy_out(values.data(), buffer.data(), buffer.bytes());
        return values;
    }
    void expect(float y, float product) {
        EXPECT_EQ(read(y_), std::vector<float>(kCount, y));
        EXPECT_EQ(read(product_), std::vector<float>(kSide * kSide, product));
    }

    static constexpr int kCount = 4096, kSide = 64;
    std::unique_ptr<LoadedKernel> add_;
    Buffer x_, y_, product_;
};

TEST_F(CudaGraphTest, ReadsMemoryAsItIsAtEachReplay) {
    ASSERT_TRUE(device_->captures());
    expect(3, 0);
    const auto graph = device_->capture([&] { enqueue(); });
    expect(3, 0);  // nothing has run
    fill(x_, 2);
    device_->replay(*graph);
    expect(6, 9.0F * kSide);
    fill(x_, 5);
    device_->replay(*graph);
    device_->replay(*graph);
    expect(15, 225.0F * kSide);
}

TEST_F(CudaGraphTest, WhatCannotBeCapturedIsAnErrorAndTheDeviceGoesOn) {
    EXPECT_THROW(device_->capture([&] {
        enqueue();
        throw UserError("in the middle");
    }),
                 UserError);
    EXPECT_THROW(device_->capture([&] { const Buffer buffer(*device_, 1 << 20); }), DeviceError);
    EXPECT_THROW(device_->capture([&] { device_->synchronize(); }), DeviceError);
    fill(y_, 0);
    enqueue();
    expect(3, 0);
    device_->replay(*device_->capture([&] { enqueue(); }));
    expect(3, 9.0F * kSide);
}

TEST_F(CudaGraphTest, OtherThreadsLoadMeanwhile) {
    const auto graph = device_->capture([&] {
        enqueue();
        std::thread([&] {
            const auto other = kernel("add", kAdd);
            EXPECT_EQ(other->entry(), "add");
        }).join();
        enqueue();
    });
    device_->replay(*graph);
    expect(3, 9.0F * kSide);
}

}  // namespace
}  // namespace spion
