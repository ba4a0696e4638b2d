#include "python/core/plan_key.h"

#include <spion/spion.h>

#include <array>
#include <bit>
#include <optional>

#include "python/core/array.h"

namespace spion::python {

namespace {

// Of both expressions; neither has a line's end in it.
std::string text_of(const Changes& changes) {
    return std::string(changes.score) + '\n' + changes.score_derivative;
}

}  // namespace

std::size_t PlanKeyHash::operator()(const PlanKey& key) const {
    const auto words = std::bit_cast<std::array<std::uint64_t, sizeof(PlanKey) / 8>>(key);
    std::uint64_t hash = 0;
    for (const std::uint64_t word : words) {
        hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
        hash ^= hash >> 32;
    }
    return static_cast<std::size_t>(hash);
}

std::int64_t ScoreNumbers::find(const Changes* changes) const {
    if (changes == nullptr || (*changes->score == '\0' && *changes->score_derivative == '\0')) {
        return 0;
    }
    const auto found = numbers_.find(text_of(*changes));
    return found == numbers_.end() ? -1 : found->second;
}

std::int64_t ScoreNumbers::add(const Changes* changes) {
    const std::int64_t found = find(changes);
    if (found >= 0) {
        return found;
    }
    const auto number = static_cast<std::int64_t>(numbers_.size()) + 1;
    numbers_.emplace(text_of(*changes), number);
    return number;
}

namespace {

// Of a head's biases; 0 of what no plan takes.
std::int64_t entries_of(nb::handle bias) {
    if (bias.is_none()) {
        return 0;
    }
    const Array array(bias, "relative_bias", Access::kRead, nullptr);
    return array.seen().rank == 2 ? array.seen().shape[1] : -1;
}

}  // namespace

PlanKey key_of(const dlpack::Tensor& q, const dlpack::Tensor& k, const dlpack::Tensor& v,
               std::int64_t numbers, const Given& given, const Words& words, const Changes* changes,
               std::int64_t score) {
    const std::optional<Softmax> softmax = softmax_named(words.softmax);
    PlanKey key = {.device = std::int64_t{q.device.type} << 32 | q.device.ordinal,
                   .dtype = q.dtype.code << 8 | q.dtype.bits,
                   .heads = q.shape[1],
                   .key_value_heads = k.shape[1],
                   .length = q.shape[2],
                   .key_length = k.shape[2],
                   .width = q.shape[3],
                   .value_width = v.shape[3],
                   .numbers = numbers,
                   .block = words.block,
                   .scale = std::bit_cast<std::int64_t>(words.scale),
                   .softcap = 0,
                   .dropout = 0,
                   .patterns = 1,
                   .bias_entries = 0,
                   .score = score,
                   // There is never a plan for a name that nothing has.
                   .softmax = softmax.has_value() ? static_cast<std::int64_t>(*softmax) : -1,
                   .flags = (given.lengths.is_none() ? 0 : 2) | (words.causal ? 4 : 0) |
                            (given.spans.is_none() ? 0 : 8)};
    if (changes != nullptr) {
        key.softcap = std::bit_cast<std::int64_t>(changes->softcap);
        key.dropout = std::bit_cast<std::int64_t>(changes->dropout);
        key.patterns = changes->patterns;
        key.flags |=
            32 | (changes->slopes.is_none() ? 0 : 64) | (changes->sinks.is_none() ? 0 : 128);
        key.bias_entries = entries_of(changes->bias);
    }
    return key;
}

}  // namespace spion::python
