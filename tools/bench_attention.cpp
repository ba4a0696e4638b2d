#include "tools/bench_attention.h"

#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "codegen/emit.h"
#include "compiler/compile_attention.h"
#include "compiler/discovery/discover.h"
#include "compiler/discovery/score_summary.h"
#include "compiler/plan/summary_tile.h"
#include "ir/error.h"
#include "runtime/measure.h"
#include "tools/oracle/attention_buffers.h"

namespace spion {
namespace {

constexpr double kCacheBytes = 60e6;  // the largest L2 of today's GPUs
constexpr int kMaxSets = 32;
constexpr double kMeasurementMs = 0.25;  // long against an event's resolution of half a microsecond
constexpr int kMostCalls = 100;          // of one measurement
constexpr double kWarmUpMs = 30;         // until a GPU's clocks have risen
constexpr double kBudgetMs = 3000;       // of one median, where single calls are slow
constexpr int kSlots = 64;               // Device::mark's

// Empty, for the time of one measurement.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "spion-bench-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw DeviceError(
                "no temporary folder can be made as {}; set TMPDIR to one that can be "
                "written",
                name);
        }
        path_ = name;
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    const std::filesystem::path& path() const { return path_; }

  private:
    std::filesystem::path path_;
};

double wall_milliseconds(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
}

// Runs calls for kWarmUpMs and returns what one of them took on average.
double warm_up(Device& device, const std::function<void(int)>& call) {
    call(0);
    device.synchronize();
    double total = 0;
    int calls = 0;
    for (int count = 1; total < kWarmUpMs; count *= 2) {
        total += count * milliseconds_a_call(device, count, [&] { call(calls++); });
    }
    return total / calls;
}

using BufferSets = std::vector<std::unique_ptr<AttentionBuffers>>;

BufferSets make_sets(const Attention& attention, std::int64_t batch, std::span<const int> lengths,
                     const MaskRules& rules, Device& device) {
    BufferSets sets;
    const bool rotate = device.target().back_end == BackEnd::kCuda;
    double bytes = 0;  // of what one forward pass over every set touches: half of the tensors
    do {
        sets.push_back(std::make_unique<AttentionBuffers>(
            attention, batch, attention.varlen ? rules.sequence_lengths : lengths,
            Layout::kHeadsFirst, device, rules.key_sequence_lengths));
        sets.back()->set_arbitrary_inputs();
        if (attention.mask == ElementMask::kSpans) {
            sets.back()->set_spans(
                element_spans(rules, batch, attention.length, attention.key_value_length()));
        }
        bytes += static_cast<double>(sets.back()->bytes()) / 2;
    } while (rotate && bytes < 2 * kCacheBytes && std::ssize(sets) < kMaxSets);
    return sets;
}

std::unique_ptr<CompiledAttention> compile_one(const Attention& attention,
                                               const HeadPatterns& pattern, Device& device,
                                               KernelCache& cache,
                                               const CompileOptions& options = {}) {
    return std::move(
        compile_attention(attention, std::span(&pattern, 1), device, cache, options).front());
}

KernelTimes measure_each(CompiledAttention& compiled, const BufferSets& sets, int repeat,
                         Device& device) {
    for (const auto& set : sets) {
        compiled.forward(set->arguments());  // the others read O and LSE, and the last one delta
        compiled.backward(set->arguments());
    }
    KernelTimes times;
    for (std::size_t i = 0; i < times.size(); ++i) {
        const auto& part = compiled.part(static_cast<KernelRole>(i));
        times[i] = {.role = part.program.role,
                    .milliseconds = median_milliseconds(
                        device, repeat,
                        [&](int n) {
                            launch_part(
                                part, sets[static_cast<std::size_t>(n) % sets.size()]->arguments(),
                                device);
                        }),
                    .packed_rows = part.program.packed_rows()};
    }
    return times;
}

}  // namespace

AttentionWork work_of(const Attention& attention, const HeadPatterns& pattern, std::int64_t batch) {
    const double heads = static_cast<double>(batch * attention.heads);
    const double length = static_cast<double>(attention.length);
    const double keys = static_cast<double>(attention.key_value_length());
    const double rows = heads * length, key_rows = heads * keys;
    const double width = (attention.head_dim + attention.value_head_dim()) / 2.0;
    const double row_bytes = width * storage_bytes(attention.dtype);
    const double forward_flop =
        4 * heads * visited_blocks(pattern, attention).density() * length * keys * width;
    return {.forward_flop = forward_flop,
            .backward_flop = 2.5 * forward_flop,
            .forward_bytes = rows * (2 * row_bytes + sizeof(float)) + key_rows * 2 * row_bytes,
            .backward_bytes = rows * (4 * row_bytes + sizeof(float)) + key_rows * 4 * row_bytes};
}

double median_milliseconds(Device& device, int repeat, const std::function<void(int)>& call) {
    const double one = warm_up(device, call);
    const int calls = calls_for(kMeasurementMs, one, kMostCalls);
    const int affordable = static_cast<int>(std::min(1e6, kBudgetMs / (one * calls)));
    const int wanted = std::clamp(affordable, std::min(3, repeat), repeat);
    std::vector<double> results;
    int index = 0;
    const auto enqueue = [&] {
        for (int n = 0; n < calls; ++n) {
            call(index++);
        }
    };
    while (std::ssize(results) < wanted) {
        // Measurements follow each other without a wait, the first after work that is not timed, so
        // that the device never idles for want of a launch.
        const int count = std::min(wanted - static_cast<int>(results.size()), kSlots / 2);
        enqueue();
        for (int n = 0; n < count; ++n) {
            device.mark(2 * n);
            enqueue();
            device.mark(2 * n + 1);
        }
        for (int n = 0; n < count; ++n) {
            results.push_back(device.milliseconds_between(2 * n, 2 * n + 1) / calls);
        }
    }
    return median(std::move(results));
}

AttentionTimes measure_attention(const Attention& attention, const HeadPatterns& pattern,
                                 std::int64_t batch, std::span<const int> lengths,
                                 const MaskRules& rules, int repeat, Device& device,
                                 CompileOptions options) {
    const TemporaryFolder temporary;
    options.batch = batch;
    const auto folder =
        options.autotune ? KernelCache::checked_root() : std::optional(temporary.path());
    AttentionTimes times;
    std::unique_ptr<CompiledAttention> compiled;
    KernelCache cold(folder), warm(folder);
    times.compile_cold_ms = wall_milliseconds(
        [&] { compiled = compile_one(attention, pattern, device, cold, options); });
    times.compile_cached_ms = wall_milliseconds(
        [&] { compiled = compile_one(attention, pattern, device, warm, options); });
    const auto sets = make_sets(attention, batch, lengths, rules, device);
    const int count = static_cast<int>(sets.size());
    times.buffer_sets = count;
    times.kernels = measure_each(*compiled, sets, repeat, device);
    times.forward_ms = times.kernels[0].milliseconds;
    times.backward_ms = median_milliseconds(
        device, repeat, [&](int n) { compiled->backward(sets[n % count]->arguments()); });
    return times;
}

KernelTimes measure_kernels(const Attention& attention, const HeadPatterns& pattern,
                            std::int64_t batch, int repeat, Device& device) {
    KernelCache cache(std::nullopt);
    const auto compiled = compile_one(attention, pattern, device, cache);
    return measure_each(*compiled, make_sets(attention, batch, {}, {}, device), repeat, device);
}

SummaryTimes measure_summary(const Attention& attention, std::int64_t batch,
                             std::span<const int> lengths, const MaskRules& rules, int block,
                             int filter, int repeat, Device& device) {
    const DiscoverySettings settings{.block = block, .filter = filter};
    const ScoreSummaryProgram program{
        .attention = attention,
        .block = block,
        .filter = filter,
        .tile = choose_summary_tile(attention, block, device.target())};
    KernelCache cache(std::nullopt);
    const auto dense =
        compile_one(attention, BlockPattern::full(attention.length, block), device, cache);
    const JitKernel summarise = compile_kernel(emit(program, device.target()), device, cache);
    const std::int64_t side = (attention.length + program.tile - 1) / program.tile;
    const Buffer summary(device, side * side * kNeighbours.size() * sizeof(float));
    AttentionBuffers buffers(attention, batch, lengths, Layout::kHeadsFirst, device);
    buffers.set_arbitrary_inputs();
    if (attention.mask == ElementMask::kSpans) {
        buffers.set_spans(element_spans(rules, batch, attention.length));
    }
    dense->forward(buffers.arguments());
    SpionAttentionArguments arguments = buffers.arguments();
    arguments.summary = summary.as<float>();
    const EmittedGeometry emitted = geometry(program, device.target());
    const LaunchGeometry launch{.work_items = side * side,
                                .threads = emitted.threads,
                                .shared_bytes = emitted.shared_bytes};
    const auto run = [&](int) { device.launch(*summarise.kernel, launch, arguments); };
    SummaryTimes times;
    times.forward_ms =
        median_milliseconds(device, repeat, [&](int) { dense->forward(buffers.arguments()); });
    times.kernel_ms = median_milliseconds(device, repeat, run);
    std::vector<float> sums(side * side * kNeighbours.size());  // [side, side, 7]
    std::vector<double> walls;
    for (int n = 0; n < std::min(repeat, 5); ++n) {
        device.synchronize();
        walls.push_back(wall_milliseconds([&] {
            run(0);
            device.copy_out(sums.data(), summary.data(), summary.bytes());
            discover(combine_summary(sums, attention.length, block, program.tile), attention.length,
                     settings);
        }));
    }
    times.discovery_ms = median(walls);
    return times;
}

}  // namespace spion
