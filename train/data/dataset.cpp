#include "train/data/dataset.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "ir/error.h"
#include "runtime/threads.h"
#include "train/random.h"

namespace spion {
namespace {

// Streams of SplitMix generators; listops_generator uses others.
constexpr std::uint64_t kShuffleStream = 1000;
// Enough to hide a slow batch, little memory (a paper-sized batch is 1 MiB).
constexpr std::size_t kBatchesAhead = 4;

}  // namespace

void Split::append(std::span<const std::uint16_t> sample_tokens, int label) {
    tokens.insert(tokens.end(), sample_tokens.begin(), sample_tokens.end());
    offsets.push_back(static_cast<std::int64_t>(tokens.size()));
    labels.push_back(static_cast<std::uint16_t>(label));
}

void Split::read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const {
    if (tower != 0) throw InternalError("samples of one tower have no tower {}", tower);
    const auto found = sample(index);
    out.assign(found.begin(), found.end());
}

Batch make_batch(const Samples& split, std::span<const std::int64_t> samples, std::int64_t length,
                 std::optional<std::uint16_t> class_token) {
    Batch batch{.size = static_cast<int>(samples.size()),
                .towers = split.towers(),
                .length = length,
                .tokens = {},
                .lengths = {},
                .labels = {}};
    const std::size_t sequences = samples.size() * static_cast<std::size_t>(batch.towers);
    batch.tokens.assign(sequences * static_cast<std::size_t>(length), kPaddingToken);
    auto to = batch.tokens.begin();
    std::vector<std::uint16_t> tokens;
    for (int tower = 0; tower < batch.towers; ++tower) {
        for (const std::int64_t sample : samples) {
            split.read(sample, tower, tokens);
            if (class_token) tokens.insert(tokens.begin(), *class_token);
            if (static_cast<std::int64_t>(tokens.size()) > length) {
                throw InternalError("sample {} has {} tokens, the batch {}", sample, tokens.size(),
                                    length);
            }
            std::copy(tokens.begin(), tokens.end(), to);
            to += length;
            batch.lengths.push_back(static_cast<std::int32_t>(tokens.size()));
        }
    }
    for (const std::int64_t sample : samples) batch.labels.push_back(split.label(sample));
    return batch;
}

ShuffledOrder::ShuffledOrder(std::int64_t samples, std::uint64_t seed)
    : samples_(samples), seed_(seed), order_(static_cast<std::size_t>(samples)) {
    if (samples < 1) throw InternalError("a split of {} samples has no batches", samples);
}

std::span<const std::int64_t> ShuffledOrder::permutation(std::int64_t epoch) {
    if (epoch != epoch_) {
        std::iota(order_.begin(), order_.end(), 0);
        SplitMix random(seed_, kShuffleStream, static_cast<std::uint64_t>(epoch));
        for (std::size_t i = order_.size() - 1; i > 0; --i) {
            std::swap(order_[i], order_[random.below_wide(i + 1)]);
        }
        epoch_ = epoch;
    }
    return order_;
}

std::vector<std::int64_t> ShuffledOrder::batch(std::int64_t step, int size) {
    std::vector<std::int64_t> result;
    result.reserve(static_cast<std::size_t>(size));
    for (std::int64_t i = step * size; i < (step + 1) * size; ++i) {
        result.push_back(permutation(i / samples_)[static_cast<std::size_t>(i % samples_)]);
    }
    return result;
}

BatchStream::BatchStream(const Samples& split, std::uint64_t seed, int batch, std::int64_t length,
                         std::int64_t first_step, std::int64_t stride,
                         std::optional<std::uint16_t> class_token)
    : split_(split),
      order_(split.samples(), seed),
      batch_(batch),
      length_(length),
      first_step_(first_step),
      stride_(stride),
      class_token_(class_token),
      worker_(start_thread([this] { produce(); }, "preparing batches beside training")) {}

BatchStream::~BatchStream() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    changed_.notify_all();
    worker_.join();
}

void BatchStream::produce() {
    for (std::int64_t step = first_step_;; step += stride_) {
        Batch batch;
        try {
            batch = make_batch(split_, order_.batch(step, batch_), length_, class_token_);
        } catch (...) {
            const std::lock_guard lock(mutex_);
            failure_ = std::current_exception();
            changed_.notify_all();
            return;
        }
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || ready_.size() < kBatchesAhead; });
        if (stop_) return;
        ready_.push_back(std::move(batch));
        changed_.notify_all();
    }
}

Batch BatchStream::next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || failure_ != nullptr; });
    if (ready_.empty()) std::rethrow_exception(failure_);
    Batch batch = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return batch;
}

}  // namespace spion
