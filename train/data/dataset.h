// Samples and the batches made of them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

namespace spion {

// One split of a task's data, wherever its samples lie. A sample is a label and, for each tower of
// the model, a sequence of tokens. All functions may be called by several threads at once.
class Samples {
  public:
    virtual ~Samples() = default;
    virtual std::int64_t samples() const = 0;
    virtual int towers() const { return 1; }
    virtual int label(std::int64_t index) const = 0;
    // Replaces `out` by a sample's sequence for one tower. Throws UserError when a file that it is
    // read from has changed or can no longer be read.
    virtual void read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const = 0;
    // It has no members of its own that could differ.
    friend bool operator==(const Samples& /*a*/, const Samples& /*b*/) { return true; }
};

// Samples of one tower in memory, of different lengths, end to end.
struct Split final : Samples {
    std::vector<std::uint16_t> tokens;        // [offsets.back()]
    std::vector<std::int64_t> offsets = {0};  // [samples + 1]
    std::vector<std::uint16_t> labels;        // [samples]

    std::int64_t samples() const override { return static_cast<std::int64_t>(labels.size()); }
    int label(std::int64_t index) const override { return labels[static_cast<std::size_t>(index)]; }
    void read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const override;
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

// Some samples of another split, in an order of their own.
class ChosenSamples final : public Samples {
  public:
    ChosenSamples(std::shared_ptr<const Samples> all, std::vector<std::int64_t> chosen)
        : all_(std::move(all)), chosen_(std::move(chosen)) {}
    std::int64_t samples() const override { return static_cast<std::int64_t>(chosen_.size()); }
    int towers() const override { return all_->towers(); }
    int label(std::int64_t index) const override { return all_->label(at(index)); }
    void read(std::int64_t index, int tower, std::vector<std::uint16_t>& out) const override {
        all_->read(at(index), tower, out);
    }

  private:
    std::int64_t at(std::int64_t index) const { return chosen_[static_cast<std::size_t>(index)]; }
    std::shared_ptr<const Samples> all_;
    std::vector<std::int64_t> chosen_;
};

constexpr std::uint16_t kPaddingToken = 0;

// B samples padded to L tokens, the sequences of the first tower before those of the second.
struct Batch {
    int size = 0;                       // B
    int towers = 1;                     // T
    std::int64_t length = 0;            // L
    std::vector<std::uint16_t> tokens;  // [T, B, L], kPaddingToken beyond each sequence's length
    std::vector<std::int32_t> lengths;  // [T, B]
    std::vector<std::int32_t> labels;   // [B]
};

// With a class token, that before every sequence. Throws InternalError when a sequence is longer than
// `length`, and what Samples::read throws.
Batch make_batch(const Samples& split, std::span<const std::int64_t> samples, std::int64_t length,
                 std::optional<std::uint16_t> class_token = {});

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
    // The batches of the steps first_step, first_step + stride and so on, from 0: of one process of
    // several, whose batches are those of a step one after the other.
    BatchStream(const Samples& split, std::uint64_t seed, int batch, std::int64_t length,
                std::int64_t first_step = 0, std::int64_t stride = 1,
                std::optional<std::uint16_t> class_token = {});
    ~BatchStream();
    BatchStream(const BatchStream&) = delete;
    BatchStream& operator=(const BatchStream&) = delete;

    // Throws what make_batch has thrown.
    Batch next();

  private:
    void produce();

    const Samples& split_;
    ShuffledOrder order_;
    int batch_;
    std::int64_t length_;
    std::int64_t first_step_, stride_;
    std::optional<std::uint16_t> class_token_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Batch> ready_;
    std::exception_ptr failure_;  // of the batch after those in ready_
    bool stop_ = false;
    std::thread worker_;  // last: starts when everything above exists
};

}  // namespace spion
