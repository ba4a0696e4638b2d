#include "tests/kernels/train_fixture.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "ir/error.h"
#include "runtime/cache.h"
#include "tests/support/seed.h"

namespace spion {
namespace {

#ifdef SPION_TEST_ON_GPU
constexpr DeviceChoice kChoice = DeviceChoice::kCuda;
#else
constexpr DeviceChoice kChoice = DeviceChoice::kCpu;
#endif

// To nearest, ties to even; finite values only.
std::uint16_t to_bf16(double value) {
    const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(value));
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

double from_bf16(std::uint16_t bits) {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

template <typename T, typename Convert>
Buffer upload(Device& device, std::size_t count, Convert convert) {
    std::vector<T> host(count);
    for (std::size_t i = 0; i < count; ++i) host[i] = convert(i);
    Buffer buffer(device, std::max<std::size_t>(1, count) * sizeof(T));
    device.copy_in(buffer.data(), host.data(), count * sizeof(T));
    return buffer;
}

template <typename T>
std::vector<T> download(Device& device, const Buffer& buffer, std::size_t count) {
    std::vector<T> host(count);
    device.copy_out(host.data(), buffer.data(), count * sizeof(T));
    return host;
}

struct Compiled {
    StepShape shape;
    std::unique_ptr<StepKernels> kernels;
};

// What the tests of a process share, since it costs a second to make: device, shapes and kernels.
class Shared : public ::testing::Environment {
  public:
    std::unique_ptr<Device> device;
    std::string problem;  // why there is no device
    std::unique_ptr<KernelCache> cache;
    std::vector<StepShape> shapes;
    std::vector<Compiled> compiled;

    void SetUp() override {
        try {
            device = open_device(kChoice);
        } catch (const UserError& error) {
            problem = error.what();
            return;
        }
        cache = std::make_unique<KernelCache>(std::nullopt);
        std::mt19937_64 random(test::fresh_seed());
        const auto uniform = [&](int low, int high) {
            return std::uniform_int_distribution<int>(low, high)(random);
        };
        shapes = {
            {.channels = 64, .feed_forward = 128, .vocabulary = 32, .dropout = 0.1F},
            {.channels = 8 * uniform(1, 32),
             .feed_forward = 8 * uniform(1, 160),
             .vocabulary = uniform(1, 512),
             .dropout = 0.05F * static_cast<float>(uniform(1, 18))},
            {.channels = 8 * uniform(1, 32),
             .feed_forward = 8 * uniform(1, 32),
             .vocabulary = uniform(1, 64),
             .dropout = 0.0F,
             .epsilon = 1e-3F},
        };
    }
    void TearDown() override {
        compiled.clear();
        cache.reset();
        device.reset();
    }
};

// GoogleTest owns it.
Shared* const environment = [] {
    auto* shared = new Shared;
    ::testing::AddGlobalTestEnvironment(shared);
    return shared;
}();

}  // namespace

void StepKernelTest::SetUp() {
    device_ = environment->device.get();
    if (device_ == nullptr) GTEST_SKIP() << environment->problem;
    random_.seed(test::fresh_seed());
}

const std::vector<StepShape>& StepKernelTest::shapes() const {
    return environment->shapes;
}

StepKernels& StepKernelTest::kernels(const StepShape& shape) {
    for (const Compiled& compiled : environment->compiled) {
        if (compiled.shape == shape) return *compiled.kernels;
    }
    environment->compiled.push_back(
        {shape, std::make_unique<StepKernels>(*device_, *environment->cache, shape)});
    return *environment->compiled.back().kernels;
}

SpionDropout StepKernelTest::random_dropout(bool enabled) {
    return {.seed = random_(),
            .step = static_cast<unsigned>(random_()),
            .stream = static_cast<unsigned>(random_()),
            .enabled = enabled ? 1 : 0};
}

SpionDropout StepKernelTest::as_given(SpionDropout dropout) {
    if (uniform(0, 1) == 0) return dropout;
    states_.push_back(upload_state({.pass = dropout.step}));
    dropout.now = states_.back().as<SpionPassState>();
    dropout.step ^= 1;
    return dropout;
}

Buffer StepKernelTest::upload_state(const SpionPassState& now) {
    Buffer buffer(*device_, sizeof now);
    device_->copy_in(buffer.data(), &now, sizeof now);
    return buffer;
}

Values StepKernelTest::as_held(Values values) const {
    for (double& value : values) {
        value = on_gpu() ? from_bf16(to_bf16(value)) : static_cast<float>(value);
    }
    return values;
}

Values StepKernelTest::random_activations(std::size_t count) {
    return as_held(random_floats(count));
}

Values StepKernelTest::random_floats(std::size_t count, double scale) {
    std::normal_distribution<double> normal(0.0, scale);
    Values values(count);
    for (double& value : values) value = static_cast<float>(normal(random_));
    return values;
}

Buffer StepKernelTest::upload_activations(const Values& values) {
    if (!on_gpu()) return upload_floats(values);
    return upload<std::uint16_t>(*device_, values.size(),
                                 [&](std::size_t i) { return to_bf16(values[i]); });
}

Buffer StepKernelTest::upload_floats(const Values& values) {
    return upload<float>(*device_, values.size(),
                         [&](std::size_t i) { return static_cast<float>(values[i]); });
}

Buffer StepKernelTest::upload_ints(const std::vector<int>& values) {
    return upload<int>(*device_, values.size(), [&](std::size_t i) { return values[i]; });
}

Buffer StepKernelTest::poisoned(std::size_t bytes) {
    Buffer buffer(*device_, bytes);
    device_->fill(buffer.data(), 0xFF, bytes);
    return buffer;
}

Values StepKernelTest::activations(const Buffer& buffer, std::size_t count) {
    if (!on_gpu()) return floats(buffer, count);
    const auto held = download<std::uint16_t>(*device_, buffer, count);
    Values values;
    for (const std::uint16_t bits : held) values.push_back(from_bf16(bits));
    return values;
}

Values StepKernelTest::floats(const Buffer& buffer, std::size_t count) {
    const auto held = download<float>(*device_, buffer, count);
    return {held.begin(), held.end()};
}

std::vector<int> StepKernelTest::ints(const Buffer& buffer, std::size_t count) {
    return download<int>(*device_, buffer, count);
}

Values StepKernelTest::sum_rows(const Values& partials, std::size_t columns) {
    Values sums(columns, 0.0);
    for (std::size_t i = 0; i < partials.size(); ++i) sums[i % columns] += partials[i];
    return sums;
}

void StepKernelTest::expect_near(const std::string& name, const Values& actual,
                                 const Values& expected, double tolerance) {
    ASSERT_EQ(actual.size(), expected.size()) << name;
    double squares = 0.0;
    for (const double value : expected) squares += value * value;
    const double scale =
        std::sqrt(squares / static_cast<double>(std::max<std::size_t>(1, expected.size())));
    for (std::size_t i = 0; i < actual.size(); ++i) {
        const double error = std::abs(actual[i] - expected[i]);
        // Written so that a NaN fails.
        ASSERT_TRUE(error <= tolerance * (std::abs(expected[i]) + scale))
            << name << "[" << i << "] is " << actual[i] << " instead of " << expected[i];
    }
}

}  // namespace spion
