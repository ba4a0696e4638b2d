// Choosing a device, and memory that belongs to one. NVRTC is hidden from this program, so that no
// GPU can be used wherever it runs.
#include "runtime/device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

#include "ir/error.h"
#include "tests/support/environment.h"
#include "tests/support/fake_device.h"
#include "tests/support/scratch_folder.h"

namespace spion {
namespace {

// Counts what is allocated and given back.
class CountingDevice : public test::FakeDevice {
  public:
    void* allocate(std::size_t bytes) override {
        void* data = &blocks_[next_++];
        held[data] = bytes;
        return data;
    }
    void release(void* data) noexcept override { freed += held.erase(data); }
    void copy_in(void*, const void*, std::size_t) override {}
    void copy_out(void*, const void*, std::size_t) override {}
    void fill(void*, unsigned char, std::size_t) override {}

    std::map<void*, std::size_t> held;
    std::size_t freed = 0;

  private:
    int blocks_[16] = {};
    int next_ = 0;
};

TEST(Buffer, OwnsItsMemoryOnce) {
    CountingDevice device;
    {
        Buffer first(device, 100);
        EXPECT_TRUE(first);
        EXPECT_EQ(first.bytes(), 100U);
        EXPECT_EQ(device.held.at(first.data()), 100U);
        void* data = first.data();
        Buffer second(std::move(first));
        EXPECT_EQ(second.data(), data);
        EXPECT_EQ(second.as<float>(), data);
        EXPECT_FALSE(first);  // NOLINT: what is left after a move is specified
        EXPECT_EQ(first.bytes(), 0U);
        Buffer third(device, 7);
        third = std::move(second);
        EXPECT_EQ(third.data(), data);
        EXPECT_EQ(third.bytes(), 100U);
        EXPECT_EQ(device.held.count(data), 1U);
    }
    EXPECT_TRUE(device.held.empty());
    EXPECT_EQ(device.freed, 2U);
    EXPECT_FALSE(Buffer());
}

TEST(Buffer, AssignmentGivesTheOldMemoryBack) {
    CountingDevice device;
    Buffer kept(device, 1);
    kept = Buffer(device, 2);
    EXPECT_EQ(device.freed, 1U);
    EXPECT_EQ(device.held.size(), 1U);
    EXPECT_EQ(device.held.at(kept.data()), 2U);
    kept = Buffer();
    EXPECT_TRUE(device.held.empty());
}

TEST(DeviceChoice, NamesAreParsed) {
    EXPECT_EQ(parse_device_choice("auto"), DeviceChoice::kAuto);
    EXPECT_EQ(parse_device_choice("cpu"), DeviceChoice::kCpu);
    EXPECT_EQ(parse_device_choice("cuda"), DeviceChoice::kCuda);
    for (const char* wrong : {"", "gpu", "CPU", "cuda "}) {
        try {
            parse_device_choice(wrong);
            FAIL() << wrong;
        } catch (const UserError& error) {
            EXPECT_EQ(std::string(error.what()),
                      fmt::format("device '{}' is not known: use auto, cpu or cuda", wrong));
        }
    }
}

class WithoutAGpu : public ::testing::Test {
  protected:
    Environment hidden_{"SPION_NVRTC_LIBRARY", "/nonexistent/libnvrtc.so"};
};

TEST_F(WithoutAGpu, CudaIsRefusedWithTheReasonAndAWayOut) {
    try {
        open_device(DeviceChoice::kCuda);
        FAIL() << "opened";
    } catch (const UserError& error) {
        const std::string message = error.what();
        EXPECT_TRUE(message.starts_with("device cuda was asked for, but ")) << message;
        EXPECT_TRUE(message.ends_with("; or use --device cpu")) << message;
#ifdef SPION_CUDA_BACKEND
        EXPECT_TRUE(message.find("libcuda.so.1") != std::string::npos ||
                    message.find("/nonexistent/libnvrtc.so") != std::string::npos ||
                    message.find("nvidia-smi") != std::string::npos)
            << message;
#else
        EXPECT_NE(message.find("SPION_CUDA_BACKEND=ON"), std::string::npos) << message;
#endif
    }
}

TEST_F(WithoutAGpu, AutoSaysWhatItTakes) {
#ifdef SPION_HOST_BACKEND
    ::testing::internal::CaptureStderr();
    const auto device = open_device(DeviceChoice::kAuto);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(device->target().back_end, BackEnd::kHost);
    EXPECT_TRUE(said.starts_with("spion: running on " + device->name() + " (no GPU: ")) << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1);
    EXPECT_EQ(open_device(DeviceChoice::kCpu)->target().back_end, BackEnd::kHost);
#else
    for (const DeviceChoice choice : {DeviceChoice::kAuto, DeviceChoice::kCpu}) {
        try {
            open_device(choice);
            FAIL() << "opened";
        } catch (const UserError& error) {
            EXPECT_NE(std::string(error.what()).find("SPION_HOST_BACKEND=ON"), std::string::npos);
        }
    }
#endif
}

}  // namespace
}  // namespace spion
