#include "compiler/tune/autotune.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "codegen/emit.h"
#include "compiler/launch/bias_gradient.h"
#include "compiler/launch/compiled_attention.h"
#include "compiler/lower.h"
#include "compiler/plan/packing.h"
#include "ir/element_spans.h"
#include "ir/error.h"
#include "ir/sha256.h"
#include "runtime/measure.h"

namespace spion {
namespace {

constexpr double kMeasurementMs = 0.25;  // long against an event's resolution
constexpr int kMostCalls = 100;          // of one measurement
constexpr double kCacheBytes = 120e6;    // more than a GPU's L2 cache: what is read is not in it
constexpr int kMostSets = 4;
constexpr unsigned char kFilling = 0x3C;  // a small number in every dtype

// The tensors of one launch, heads first, of arbitrary values.
class Tensors {
  public:
    Tensors(const Attention& attention, std::int64_t batch, Device& device)
        : length_(std::max(attention.length, attention.key_value_length())),
          rows_(batch * attention.heads * length_),
          bytes_(
              static_cast<std::size_t>(rows_) *
              static_cast<std::size_t>(std::max(attention.head_dim, attention.value_head_dim())) *
              static_cast<std::size_t>(storage_bytes(attention.dtype))),
          batch_(batch),
          attention_(attention) {
        for (Buffer& tensor : tensors_) {
            tensor = filled(bytes_, device);
        }
        for (Buffer& statistic : statistics_) {
            statistic = filled(static_cast<std::size_t>(rows_) * sizeof(float), device);
        }
        // What a launch says about scores: slopes, sinks or biases of a head, and dropout's state.
        const std::size_t numbers = static_cast<std::size_t>(attention.heads) *
                                    static_cast<std::size_t>(std::max(1, attention.bias_entries()));
        of_scores_ = filled(numbers * sizeof(float), device);
        dropout_ = filled(sizeof(SpionDropoutState), device);
        if (attention.relative_bias > 0) {
            bias_sums_ = filled(
                static_cast<std::size_t>(bias_gradient_floats(attention, batch)) * sizeof(float),
                device);
        }
        if (attention.key_padding) {
            const std::vector<int> lengths(static_cast<std::size_t>(batch),
                                           static_cast<int>(attention.key_value_length()));
            lengths_ = Buffer(device, lengths.size() * sizeof(int));
            device.copy_in(lengths_.data(), lengths.data(), lengths_.bytes());
        }
        if (attention.varlen) {  // sequences of L
            std::vector<int> starts;
            for (std::int64_t b = 0; b <= batch; ++b) {
                starts.push_back(static_cast<int>(b * length_));
            }
            starts_ = Buffer(device, starts.size() * sizeof(int));
            device.copy_in(starts_.data(), starts.data(), starts_.bytes());
            device.synchronize();  // `starts` is read until then
        }
        if (attention.mask == ElementMask::kSpans) {  // the widest: all is kept
            const ElementSpans spans =
                element_spans({}, batch, attention.length, attention.key_value_length());
            for (auto [buffer, from] :
                 {std::pair(&query_spans_, &spans.queries), std::pair(&key_spans_, &spans.keys)}) {
                *buffer = Buffer(device, from->size() * sizeof(int));
                device.copy_in(buffer->data(), from->data(), buffer->bytes());
            }
            device.synchronize();  // `spans` is read until then
        }
    }

    SpionAttentionArguments arguments() const {
        SpionAttentionArguments args{};
        SpionTensor* const tensors[] = {&args.q,   &args.k,   &args.v,   &args.o,
                                        &args.d_o, &args.d_q, &args.d_k, &args.d_v};
        for (std::size_t i = 0; i < std::size(tensors); ++i) {
            const int width = std::max(attention_.head_dim, attention_.value_head_dim());
            const std::int64_t head = length_ * width * (attention_.varlen ? batch_ : 1);
            *tensors[i] = {.data = tensors_[i].data(),
                           .batch_stride = attention_.heads * head,
                           .head_stride = head,
                           .row_stride = width};
        }
        args.lse = statistics_[0].as<float>();
        args.delta = statistics_[1].as<float>();
        args.lengths = lengths_.as<int>();
        args.query_spans = query_spans_.as<int>();
        args.key_spans = key_spans_.as<int>();
        args.dropout = dropout_.as<SpionDropoutState>();
        args.alibi_slopes = args.sinks = of_scores_.as<float>();
        if (attention_.relative_bias > 0) {
            args.relative_bias = of_scores_.as<float>();
            args.d_relative_bias = bias_sums_.as<float>();
        }
        args.starts = starts_.as<int>();
        if (attention_.key_starts) {
            args.key_starts = args.starts;
        }
        args.rows = args.key_rows = static_cast<int>(batch_ * length_);
        args.batch = static_cast<int>(batch_);
        return args;
    }

    std::size_t bytes() const { return std::size(tensors_) * bytes_; }

  private:
    static Buffer filled(std::size_t bytes, Device& device) {
        Buffer buffer(device, bytes);
        device.fill(buffer.data(), kFilling, bytes);
        return buffer;
    }

    std::int64_t length_;  // of the longer side
    std::int64_t rows_;
    std::size_t bytes_;
    std::int64_t batch_;
    Attention attention_;
    Buffer tensors_[8];                         // q, k, v, o, d_o, d_q, d_k, d_v: [B, H, L, D]
    Buffer statistics_[2];                      // lse, delta: [B, H, L] fp32
    Buffer lengths_, query_spans_, key_spans_;  // [B] int32, with key padding
    Buffer starts_;                             // [B + 1] int32, of varlen
    Buffer of_scores_, dropout_, bias_sums_;
};

double median_milliseconds(Device& device, int repeat, const std::function<void()>& call) {
    milliseconds_a_call(device, 1, call);  // the first launch loads the code
    const int calls = calls_for(kMeasurementMs, milliseconds_a_call(device, 1, call), kMostCalls);
    std::vector<double> results;
    for (int n = 0; n < repeat; ++n) {
        results.push_back(milliseconds_a_call(device, calls, call));
    }
    return median(std::move(results));
}

std::string tuning_key(const std::vector<KernelSource>& sources, const HeadPatterns& pattern,
                       Device& device, std::int64_t batch) {
    std::string text = fmt::format("{}\n{}\n{} {}\n", device.name(), pattern.digest(), batch,
                                   device.target().sm_count);
    for (const KernelSource& source : sources) {
        text += cache_key(request_for(source, device)) + "\n";
    }
    return digest_of(text);
}

Tuning measure_best(const std::vector<PlannedProgram>& programs,
                    const std::vector<KernelSource>& sources, std::int64_t batch, int repeat,
                    Device& device, KernelCache& cache) {
    std::vector<JitKernel> kernels = compile_kernels(sources, device, cache);
    std::vector<Tensors> sets;
    std::size_t bytes = 0;
    do {
        sets.emplace_back(programs.front().program.attention, batch, device);
        bytes += sets.back().bytes();
    } while (device.target().back_end == BackEnd::kCuda && std::ssize(sets) < kMostSets &&
             static_cast<double>(bytes) < kCacheBytes);
    Tuning best;
    for (std::size_t i = 0; i < programs.size(); ++i) {
        const CompiledAttention::Part part = load_part(programs[i], std::move(kernels[i]), device);
        std::size_t next = 0;
        const double milliseconds = median_milliseconds(device, repeat, [&] {
            launch_part(part, sets[next++ % sets.size()].arguments(), device);
        });
        if (i == 0 || milliseconds < best.milliseconds) {
            best = {.shape = shape_of(programs[i].program),
                    .milliseconds = milliseconds,
                    .kernel = sources[i].name,
                    .device = device.name(),
                    .batch = batch};
        }
        device.synchronize();
    }
    return best;
}

// Indices of launch.candidates.
std::vector<std::size_t> candidates_to_measure(const LaunchPlan& launch,
                                               const AutotuneOptions& options) {
    std::vector<TileCandidate> candidates = launch.candidates;
    if (launch.asked_packed_rows) {  // the others cannot be taken
        for (TileCandidate& candidate : candidates) {
            if (candidate.shape.packed_rows != *launch.asked_packed_rows) {
                candidate.prediction = std::nullopt;
            }
        }
    }
    std::vector<std::size_t> chosen =
        rank_candidates(candidates, launch.measured, static_cast<std::size_t>(options.candidates));
    const TileCandidate* const packed = best_packed(candidates);
    if (packed == nullptr || chosen.size() < 2) {
        return chosen;
    }
    const auto place = static_cast<std::size_t>(packed - candidates.data());
    const bool missing = std::find(chosen.begin(), chosen.end(), place) == chosen.end();
    if (missing && packed->prediction->seconds <=
                       kPackedReach * candidates[chosen.front()].prediction->seconds) {
        chosen.back() = place;
    }
    return chosen;
}

}  // namespace

Tuning autotune(const Attention& attention, const HeadPatterns& pattern, const LaunchPlan& launch,
                Device& device, KernelCache& cache, const AutotuneOptions& options) {
    const Target& target = device.target();
    const HeadPatterns cut = in_blocks_of(launch, pattern);
    std::vector<PlannedProgram> programs;
    std::vector<KernelSource> sources;
    for (const std::size_t at : candidates_to_measure(launch, options)) {
        const TileCandidate& candidate = launch.candidates[at];
        programs.push_back({.program = lower(attention, cut, launch.role, target, candidate.shape),
                            .kernel = {.family = candidate.family, .plan = candidate.plan}});
        sources.push_back(emit(programs.back().program, programs.back().kernel, target));
    }
    const std::string key = tuning_key(sources, pattern, device, launch.batch);
    const auto file = cache.root() ? std::optional(tuning_file(*cache.root(), key)) : std::nullopt;
    std::vector<std::filesystem::path> folders = cache.read_only();
    if (cache.root()) {
        folders.insert(folders.begin(), *cache.root());
    }
    for (const std::filesystem::path& folder : folders) {
        if (std::optional<Tuning> kept = read_tuning(tuning_file(folder, key), key)) {
            return *kept;
        }
    }
    const Tuning best =
        measure_best(programs, sources, launch.batch, options.repeat, device, cache);
    if (file) {
        write_tuning(*file, key, best);
    }
    return best;
}

void autotune(LayerPlan& plan, const HeadPatterns& pattern, Device& device, KernelCache& cache,
              const AutotuneOptions& options) {
    for (LaunchPlan& launch : plan.launches) {
        if (!launch.given && launch.candidates.size() > 1) {
            take_shape(launch,
                       autotune(plan.attention, pattern, launch, device, cache, options).shape);
        }
    }
}

}  // namespace spion
