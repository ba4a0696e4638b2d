// Samples in memory and the batches made of them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace spion {

// Samples of different lengths, end to end.
struct Split {
    std::vector<std::uint16_t> tokens;        // [offsets.back()]
    std::vector<std::int64_t> offsets = {0};  // [samples + 1]
    std::vector<std::uint8_t> labels;         // [samples]

    std::int64_t samples() const { return static_cast<std::int64_t>(labels.size()); }
    std::span<const std::uint16_t> sample(std::int64_t index) const {
        return std::span(tokens).subspan(static_cast<std::size_t>(offsets[index]),
                                         static_cast<std::size_t>(length(index)));
    }
    std::int64_t length(std::int64_t index) const { return offsets[index + 1] - offsets[index]; }
    void append(std::span<const std::uint16_t> sample_tokens, int label);
    friend bool operator==(const Split&, const Split&) = default;
};

struct Dataset {
    Split train, validation, test;
};

constexpr std::uint16_t kPaddingToken = 0;

// B samples padded to L tokens.
struct Batch {
    int size = 0;                       // B
    std::int64_t length = 0;            // L
    std::vector<std::uint16_t> tokens;  // [B, L], kPaddingToken beyond each sample's length
    std::vector<std::int32_t> lengths;  // [B]
    std::vector<std::int32_t> labels;   // [B]
};

// Throws InternalError when a sample is longer than `length`.
Batch make_batch(const Split& split, std::span<const std::int64_t> samples, std::int64_t length);

// The samples of the batch of step `step` (from 0): the epochs' permutations end to end, each a
// Fisher-Yates shuffle that depends on the seed and the epoch alone. A batch may straddle epochs.
class ShuffledOrder {
  public:
    ShuffledOrder(std::int64_t samples, std::uint64_t seed);
    std::vector<std::int64_t> batch(std::int64_t step, int size);

  private:
    std::span<const std::int64_t> permutation(std::int64_t epoch);
    std::int64_t samples_;
    std::uint64_t seed_;
    std::int64_t epoch_ = -1;
    std::vector<std::int64_t> order_;  // [samples], of epoch_
};

// Training batches in the order of their steps, made ahead of use on a worker thread.
class BatchStream {
  public:
    BatchStream(const Split& split, std::uint64_t seed, int batch, std::int64_t length);
    ~BatchStream();
    BatchStream(const BatchStream&) = delete;
    BatchStream& operator=(const BatchStream&) = delete;

    Batch next();

  private:
    void produce();

    const Split& split_;
    ShuffledOrder order_;
    int batch_;
    std::int64_t length_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Batch> ready_;
    bool stop_ = false;
    std::thread worker_;  // last: starts when everything above exists
};

}  // namespace spion
