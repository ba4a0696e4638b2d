#include "compiler/autotune.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "codegen/emit.h"
#include "compiler/compile.h"
#include "compiler/lower.h"
#include "ir/error.h"
#include "ir/sha256.h"

namespace spion {
namespace {

constexpr double kMeasurementMs = 0.25;  // long against an event's resolution
constexpr double kCacheBytes = 120e6;    // more than a GPU's L2 cache: what is read is not in it
constexpr int kMostSets = 4;
constexpr unsigned char kFilling = 0x3C;  // a small number in every dtype

// The tensors of one launch, heads first, of arbitrary values.
class Tensors {
  public:
    Tensors(const Attention& attention, std::int64_t batch, Device& device)
        : rows_(batch * attention.heads * attention.length),
          bytes_(static_cast<std::size_t>(rows_) * static_cast<std::size_t>(attention.head_dim) *
                 static_cast<std::size_t>(storage_bytes(attention.dtype))),
          batch_(batch),
          attention_(attention) {
        for (Buffer& tensor : tensors_) {
            tensor = filled(bytes_, device);
        }
        for (Buffer& statistic : statistics_) {
            statistic = filled(static_cast<std::size_t>(rows_) * sizeof(float), device);
        }
        if (attention.key_padding) {
            const std::vector<int> lengths(static_cast<std::size_t>(batch),
                                           static_cast<int>(attention.length));
            lengths_ = Buffer(device, lengths.size() * sizeof(int));
            device.copy_in(lengths_.data(), lengths.data(), lengths_.bytes());
        }
    }

    SpionAttentionArguments arguments() const {
        SpionAttentionArguments args{};
        SpionTensor* const tensors[] = {&args.q,   &args.k,   &args.v,   &args.o,
                                        &args.d_o, &args.d_q, &args.d_k, &args.d_v};
        for (std::size_t i = 0; i < std::size(tensors); ++i) {
            const std::int64_t head = attention_.length * attention_.head_dim;
            *tensors[i] = {.data = tensors_[i].data(),
                           .batch_stride = attention_.heads * head,
                           .head_stride = head,
                           .row_stride = attention_.head_dim};
        }
        args.lse = statistics_[0].as<float>();
        args.delta = statistics_[1].as<float>();
        args.lengths = lengths_.as<int>();
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

    std::int64_t rows_;
    std::size_t bytes_;
    std::int64_t batch_;
    Attention attention_;
    Buffer tensors_[8];     // q, k, v, o, d_o, d_q, d_k, d_v: [B, H, L, D]
    Buffer statistics_[2];  // lse, delta: [B, H, L] fp32
    Buffer lengths_;        // [B] int32, with key padding
};

double median_milliseconds(Device& device, int repeat, const std::function<void()>& call) {
    const auto measure = [&](int calls) {
        device.mark(0);
        for (int n = 0; n < calls; ++n) {
            call();
        }
        device.mark(1);
        return device.milliseconds_between(0, 1) / calls;
    };
    measure(1);  // the first launch loads the code
    const double one = measure(1);
    const double wanted = one > 0 ? std::ceil(kMeasurementMs / one) : 1;
    const int calls = static_cast<int>(std::clamp(wanted, 1.0, 100.0));
    std::vector<double> results;
    for (int n = 0; n < repeat; ++n) {
        results.push_back(measure(calls));
    }
    const auto middle = results.begin() + std::ssize(results) / 2;
    std::nth_element(results.begin(), middle, results.end());
    return *middle;
}

std::string tuning_key(const std::vector<KernelSource>& sources, const BlockPattern& pattern,
                       Device& device, const AutotuneOptions& options) {
    std::string text = fmt::format("{}\n{}\n{} {}\n", device.name(), pattern.digest(),
                                   options.batch, device.target().processors);
    for (const KernelSource& source : sources) {
        text += cache_key(request_for(source, device)) + "\n";
    }
    return digest_of(text);
}

Tuning measure_best(const std::vector<TileProgram>& programs,
                    const std::vector<KernelSource>& sources, std::int64_t batch, int repeat,
                    Device& device, KernelCache& cache) {
    std::vector<JitKernel> kernels = compile_kernels(sources, device, cache);
    std::vector<Tensors> sets;
    std::size_t bytes = 0;
    do {
        sets.emplace_back(programs.front().attention, batch, device);
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
            best = {.shape = shape_of(programs[i]),
                    .milliseconds = milliseconds,
                    .kernel = sources[i].name,
                    .device = device.name(),
                    .batch = batch};
        }
        device.synchronize();
    }
    return best;
}

std::vector<TileShape> shapes_to_measure(const Attention& attention, const BlockPattern& pattern,
                                         KernelRole role, const Target& target,
                                         const AutotuneOptions& options) {
    const std::optional<int> wanted = options.packed_rows;
    choose_tiles_for(attention, pattern, role, target, wanted,
                     options.batch);  // throws when there is none
    auto candidates = tile_candidates(attention, pattern, role, target, options.batch, wanted);
    if (wanted) {
        std::erase_if(candidates, [&](const TileCandidate& candidate) {
            return candidate.shape.packed_rows != *wanted;
        });
    }
    std::vector<TileShape> shapes;
    const auto ranked = rank_candidates(
        candidates, measured_among(candidates, attention, pattern.block(), role, target),
        static_cast<std::size_t>(options.candidates));
    for (const std::size_t i : ranked) {
        shapes.push_back(candidates[i].shape);
    }
    const TileCandidate* const packed = best_packed(candidates);
    const bool missing = packed != nullptr && std::ssize(shapes) > 1 &&
                         std::find(shapes.begin(), shapes.end(), packed->shape) == shapes.end();
    if (missing && packed->prediction->seconds <=
                       kPackedReach * candidates[ranked.front()].prediction->seconds) {
        shapes.back() = packed->shape;
    }
    return shapes;
}

}  // namespace

Tuning autotune(const Attention& attention, const BlockPattern& pattern, KernelRole role,
                Device& device, KernelCache& cache, const AutotuneOptions& options) {
    const Target& target = device.target();
    std::vector<TileProgram> programs;
    std::vector<KernelSource> sources;
    for (const TileShape& shape : shapes_to_measure(attention, pattern, role, target, options)) {
        programs.push_back(lower(attention, pattern, role, target, shape));
        sources.push_back(emit(programs.back(), target));
    }
    const std::string key = tuning_key(sources, pattern, device, options);
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
        measure_best(programs, sources, options.batch, options.repeat, device, cache);
    if (file) {
        write_tuning(*file, key, best);
    }
    return best;
}

}  // namespace spion
