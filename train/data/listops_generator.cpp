#include "train/data/listops_generator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <mutex>

#include "ir/error.h"
#include "runtime/threads.h"
#include "train/data/listops.h"
#include "train/random.h"

namespace spion {
namespace {

constexpr int kMaxArguments = 64;
constexpr int kAttempts = 1'000'000;

// One attempt at an expression; abandoned as soon as it is too long.
class Expression {
  public:
    Expression(const ListOpsSettings& settings, SplitMix& random,
               std::vector<std::uint16_t>& tokens)
        : settings_(settings), random_(random), tokens_(tokens) {}

    // Writes a node at `depth` (1 = root) and returns its value, or -1 once abandoned.
    int node(int depth) {
        const bool is_operator =
            depth < settings_.max_depth && random_.uniform() < settings_.operator_probability;
        if (!is_operator) {
            const int digit = static_cast<int>(random_.below(10));
            return push(static_cast<std::uint16_t>(kListOpsFirstDigit + digit)) ? digit : -1;
        }
        const auto op = static_cast<ListOp>(random_.below(kListOpCount));
        const int count = 2 + static_cast<int>(random_.below(
                                  static_cast<std::uint32_t>(settings_.max_arguments) - 1));
        if (!push(list_op_token(op))) return -1;
        std::array<int, kMaxArguments> values{};
        for (int i = 0; i < count; ++i) {
            values[static_cast<std::size_t>(i)] = node(depth + 1);
            if (values[static_cast<std::size_t>(i)] < 0) return -1;
        }
        if (!push(kListOpsClose)) return -1;
        return apply_list_op(op, std::span(values.data(), static_cast<std::size_t>(count)));
    }

  private:
    bool push(std::uint16_t token) {
        tokens_.push_back(token);
        return static_cast<std::int64_t>(tokens_.size()) <= settings_.max_length;
    }

    const ListOpsSettings& settings_;
    SplitMix& random_;
    std::vector<std::uint16_t>& tokens_;
};

// Calls body(i) for i in [0, count) on `threads` threads; rethrows the first exception.
template <typename Body>
void parallel_for(std::int64_t count, int threads, const Body& body) {
    constexpr std::int64_t kChunk = 64;
    std::atomic<std::int64_t> next = 0;
    std::exception_ptr error;
    std::mutex error_mutex;
    const auto work = [&] {
        try {
            for (std::int64_t begin; (begin = next.fetch_add(kChunk)) < count;) {
                for (std::int64_t i = begin; i < std::min(begin + kChunk, count); ++i) body(i);
            }
        } catch (...) {
            const std::lock_guard lock(error_mutex);
            if (!error) error = std::current_exception();
            next = count;
        }
    };
    run_on_threads(threads, work);
    if (error) std::rethrow_exception(error);
}

Split generate_split(const ListOpsSettings& settings, int split, std::int64_t samples,
                     int threads) {
    std::vector<ListOpsSample> parts(static_cast<std::size_t>(samples));
    parallel_for(samples, threads, [&](std::int64_t i) {
        parts[static_cast<std::size_t>(i)] = generate_list_ops_sample(settings, split, i);
    });
    Split result;
    std::size_t tokens = 0;
    for (const ListOpsSample& part : parts) tokens += part.tokens.size();
    result.tokens.reserve(tokens);
    for (const ListOpsSample& part : parts) result.append(part.tokens, part.label);
    return result;
}

}  // namespace

void check(const ListOpsSettings& s) {
    if (s.train_samples < 1 || s.validation_samples < 1 || s.test_samples < 1) {
        throw UserError(
            "train-samples, validation-samples and test-samples are {}, {} and {}, but each split "
            "needs at least 1",
            s.train_samples, s.validation_samples, s.test_samples);
    }
    if (!(s.operator_probability > 0.0 && s.operator_probability < 1.0)) {
        throw UserError("operator-probability is {}, but it must lie between 0 and 1 (exclusive)",
                        s.operator_probability);
    }
    if (s.max_depth < 2) {
        throw UserError("max-depth is {}, but an expression needs a depth of at least 2",
                        s.max_depth);
    }
    if (s.max_arguments < 2 || s.max_arguments > kMaxArguments) {
        throw UserError("max-arguments is {}, but it must lie in 2..{}", s.max_arguments,
                        kMaxArguments);
    }
    if (s.min_length < 1 || s.min_length > s.max_length) {
        throw UserError(
            "min-length {} and max-length {} allow no expression: use 1 <= min-length <= "
            "max-length",
            s.min_length, s.max_length);
    }
}

ListOpsSample generate_list_ops_sample(const ListOpsSettings& settings, int split,
                                       std::int64_t index) {
    SplitMix random(settings.seed, static_cast<std::uint64_t>(split),
                    static_cast<std::uint64_t>(index));
    ListOpsSample sample;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        sample.tokens.clear();
        sample.label = Expression(settings, random, sample.tokens).node(1);
        if (sample.label >= 0 &&
            static_cast<std::int64_t>(sample.tokens.size()) >= settings.min_length) {
            return sample;
        }
    }
    throw UserError(
        "no ListOps expression of {} to {} tokens appeared in {} attempts with max-depth {}, "
        "max-arguments {} and operator-probability {}: widen the lengths or deepen the trees",
        settings.min_length, settings.max_length, kAttempts, settings.max_depth,
        settings.max_arguments, settings.operator_probability);
}

Dataset generate_list_ops(const ListOpsSettings& settings, int threads) {
    check(settings);
    return {.train = generate_split(settings, 0, settings.train_samples, threads),
            .validation = generate_split(settings, 1, settings.validation_samples, threads),
            .test = generate_split(settings, 2, settings.test_samples, threads)};
}

}  // namespace spion
