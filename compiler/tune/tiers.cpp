#include "compiler/tune/tiers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>

#include "codegen/emit.h"
#include "ir/error.h"
#include "runtime/measure.h"

namespace spion {
namespace {

using Clock = std::chrono::steady_clock;

struct Ready {
    std::size_t layer;
    LayerPrograms programs;
    std::vector<JitKernel> kernels;  // of the programs
    std::exception_ptr failure;
    double compile_ms;
};

LayerPrograms baked(const CompiledAttention& layer) {
    LayerPrograms programs;
    for (std::size_t i = 0; i < programs.size(); ++i) {
        const CompiledAttention::Part& part = layer.part(static_cast<KernelRole>(i));
        programs[i] = {.program = part.program, .kernel = part.planned};
        programs[i].program.tables = Tables::kBaked;
    }
    return programs;
}

// Outputs that measurements may write, of one layer.
class Scratch {
  public:
    Scratch(const Attention& attention, const SpionAttentionArguments& given, Device& device)
        : attention_(attention) {
        const auto rows =
            static_cast<std::size_t>(given.batch * attention.heads) *
            static_cast<std::size_t>(std::max(attention.length, attention.key_value_length()));
        const auto row_bytes =
            static_cast<std::size_t>(std::max(attention.head_dim, attention.value_head_dim()) *
                                     storage_bytes(attention.dtype));
        for (Buffer* buffer : {&o_, &d_q_, &d_k_, &d_v_}) {
            *buffer = Buffer(device, rows * row_bytes);
        }
        for (Buffer* buffer : {&lse_, &delta_}) {
            *buffer = Buffer(device, rows * sizeof(float));
        }
    }

    // O, once computed, stands in for dO.
    SpionAttentionArguments redirect(SpionAttentionArguments given) const {
        given.o = given.d_o = view(o_);
        given.d_q = view(d_q_);
        given.d_k = view(d_k_);
        given.d_v = view(d_v_);
        given.lse = lse_.as<float>();
        given.delta = delta_.as<float>();
        return given;
    }

  private:
    SpionTensor view(const Buffer& buffer) const {
        const long long d = std::max(attention_.head_dim, attention_.value_head_dim()),
                        h = attention_.heads;
        const long long l = std::max(attention_.length, attention_.key_value_length());
        return {.data = buffer.data(),
                .batch_stride = h * l * d,
                .head_stride = l * d,
                .row_stride = d};
    }

    Attention attention_;
    Buffer o_, d_q_, d_k_, d_v_;  // [B, H, L, D]
    Buffer lse_, delta_;          // fp32 [B, H, L]
};

// Medians of one forward and backward pass, the two in turns so that both meet the same clocks.
std::pair<double, double> measure(CompiledAttention& first, CompiledAttention& second,
                                  const SpionAttentionArguments& arguments, Device& device) {
    constexpr int kRounds = 7, kCalls = 4, kSlot = 40;
    const std::array<CompiledAttention*, 2> both = {&first, &second};
    std::array<std::vector<double>, 2> times;
    for (int round = -1; round < kRounds; ++round) {  // the first warms up
        device.mark(kSlot);
        for (int i = 0; i < 2; ++i) {
            for (int call = 0; call < kCalls; ++call) {
                both[static_cast<std::size_t>(i)]->forward(arguments);
                both[static_cast<std::size_t>(i)]->backward(arguments);
            }
            device.mark(kSlot + 1 + i);
        }
        for (int i = 0; i < 2; ++i) {
            const double spent = device.milliseconds_between(kSlot + i, kSlot + i + 1);
            if (round >= 0) {
                times[static_cast<std::size_t>(i)].push_back(spent / kCalls);
            }
        }
    }
    return {median(times[0]), median(times[1])};
}

}  // namespace

std::string why_not_tier1(const LayerPrograms& programs) {
    double items = 0, steps = 0;
    for (const auto& [program, kernel] : programs) {
        if (const std::string reason = why_not_baked(program); !reason.empty()) {
            return fmt::format("{}: {}", to_string(program.role), reason);
        }
        const int a_step = program.streamed_rows / program.gather_rows;
        for (std::size_t i = 0; i + 1 < program.offsets.size(); ++i) {
            steps += (program.offsets[i + 1] - program.offsets[i] + a_step - 1) / a_step;
        }
        items += program.tiles();
    }
    if (steps == 0) {
        return "the pattern is empty";
    }
    if (steps > kMostStepsWorthBaking * items) {
        return fmt::format(
            "work items take {:.0f} steps on average, and above {} reading tables "
            "costs nothing",
            steps / items, kMostStepsWorthBaking);
    }
    return "";
}

struct BackgroundTiers::State {
    std::span<const std::unique_ptr<CompiledAttention>> layers;
    Device& device;
    KernelCache& cache;
    std::size_t decided = 0;
    std::mutex mutex;
    std::condition_variable arrived;
    std::deque<Ready> ready;
    std::jthread compiler;  // last: it ends before what it uses

    // On the background thread: everything but uploads and launches, which are the stream's.
    void compile(std::size_t layer, LayerPrograms programs) {
        const auto begin = Clock::now();
        Ready result{.layer = layer,
                     .programs = std::move(programs),
                     .kernels = {},
                     .failure = nullptr,
                     .compile_ms = 0};
        try {
            std::vector<KernelSource> sources;
            for (const auto& [program, kernel] : result.programs) {
                sources.push_back(emit(program, kernel, device.target()));
            }
            result.kernels = compile_kernels(sources, device, cache);
        } catch (...) {
            result.failure = std::current_exception();
        }
        result.compile_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
        const std::lock_guard lock(mutex);
        ready.push_back(std::move(result));
        arrived.notify_one();
    }
};

BackgroundTiers::BackgroundTiers(std::span<const std::unique_ptr<CompiledAttention>> layers,
                                 Device& device, KernelCache& cache)
    : state_(new State{.layers = layers,
                       .device = device,
                       .cache = cache,
                       .decided = 0,
                       .mutex = {},
                       .arrived = {},
                       .ready = {},
                       .compiler = {}}) {
    // Copied before the thread starts: a hand-over changes a layer's programs.
    std::vector<LayerPrograms> programs;
    for (const auto& layer : layers) {
        programs.push_back(baked(*layer));
    }
    state_->compiler = std::jthread([state = state_.get(), programs = std::move(programs)](
                                        const std::stop_token& stop) mutable {
        for (std::size_t i = 0; i < programs.size() && !stop.stop_requested(); ++i) {
            if (why_not_tier1(programs[i]).empty()) {
                state->compile(i, std::move(programs[i]));
            } else {
                const std::lock_guard lock(state->mutex);
                state->ready.push_back({.layer = i,
                                        .programs = std::move(programs[i]),
                                        .kernels = {},
                                        .failure = nullptr,
                                        .compile_ms = 0});
                state->arrived.notify_one();
            }
        }
    });
}

BackgroundTiers::~BackgroundTiers() = default;

bool BackgroundTiers::pending() const {
    return state_->decided < state_->layers.size();
}

bool BackgroundTiers::ready() const {
    const std::lock_guard lock(state_->mutex);
    return !state_->ready.empty();
}

TierVerdict BackgroundTiers::decide(
    const std::function<SpionAttentionArguments(int layer)>& arguments) {
    if (!pending()) {
        throw InternalError("every layer has its tier: there is nothing to wait for");
    }
    std::unique_lock lock(state_->mutex);
    state_->arrived.wait(lock, [&] { return !state_->ready.empty(); });
    Ready result = std::move(state_->ready.front());
    state_->ready.pop_front();
    lock.unlock();
    ++state_->decided;

    TierVerdict verdict;
    verdict.layer = static_cast<int>(result.layer);
    verdict.compile_ms = result.compile_ms;
    if (result.failure) {
        std::rethrow_exception(result.failure);
    }
    if (result.kernels.empty()) {
        verdict.why_not = why_not_tier1(result.programs);
        return verdict;
    }
    CompiledAttention& tier0 = *state_->layers[result.layer];
    CompiledAttention tier1(tier0.attention(), tier0.patterns(), std::move(result.programs),
                            result.kernels, state_->device);
    const auto begin = Clock::now();
    const SpionAttentionArguments given = arguments(verdict.layer);
    const Scratch scratch(tier0.attention(), given, state_->device);
    std::tie(verdict.tier0_ms, verdict.tier1_ms) =
        measure(tier0, tier1, scratch.redirect(given), state_->device);
    verdict.taken = verdict.tier1_ms < verdict.tier0_ms;
    if (verdict.taken) {
        tier0.hand_over_to(std::move(tier1));
    }
    state_->device.synchronize();  // before the scratch goes
    verdict.measurement_ms =
        std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    return verdict;
}

}  // namespace spion
