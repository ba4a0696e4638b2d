#include "tools/oracle/score_values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "ir/error.h"

namespace spion {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Philox 4x32: Salmon et al., SC 2011, section 3.3 and table 2. Each round multiplies words 0 and 2
// by constants; the key grows by the golden ratio's and the square root of 3's first bits.
Words philox(Words counter, std::uint64_t key, int rounds) {
    std::uint32_t low_key = static_cast<std::uint32_t>(key);
    std::uint32_t high_key = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < rounds; ++round) {
        const std::uint64_t first = std::uint64_t{0xD2511F53} * counter[0];
        const std::uint64_t second = std::uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ low_key,
                   static_cast<std::uint32_t>(second),
                   static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ high_key,
                   static_cast<std::uint32_t>(first)};
        low_key += 0x9E3779B9;
        high_key += 0xBB67AE85;
    }
    return counter;
}

void check_heads(const char* name, const std::vector<float>& values, const Attention& attention) {
    if (static_cast<int>(values.size()) != attention.heads) {
        throw UserError("{} {} were given for {} heads; give one for each", values.size(), name,
                        attention.heads);
    }
}

}  // namespace

ScoreValues random_score_values(const Attention& attention, std::uint64_t seed) {
    std::mt19937_64 generator(seed);
    ScoreValues values;
    values.seed = generator();
    values.offset = static_cast<std::uint32_t>(generator());
    std::normal_distribution<float> normal;
    for (int head = 0; head < attention.heads; ++head) {
        values.alibi_slopes.push_back(
            std::exp2(-8.0F * static_cast<float>(head + 1) / static_cast<float>(attention.heads)));
        values.sinks.push_back(normal(generator));
    }
    for (std::int64_t n = 0; n < std::int64_t{attention.heads} * attention.bias_entries(); ++n) {
        values.relative_bias.push_back(normal(generator));
    }
    return values;
}

void check(const ScoreValues& values, const Attention& attention) {
    if (attention.alibi) {
        check_heads("slopes", values.alibi_slopes, attention);
    }
    if (attention.sink) {
        check_heads("sinks", values.sinks, attention);
    }
    const std::size_t biases = static_cast<std::size_t>(attention.heads) * attention.bias_entries();
    if (biases > 0 && values.relative_bias.size() != biases) {
        throw UserError(
            "{} biases were given for {} heads of {} relative positions; give one for each",
            values.relative_bias.size(), attention.heads, attention.bias_entries());
    }
}

std::size_t bias_place(const Attention& attention, std::int64_t head, std::int64_t distance) {
    const std::int64_t reach = attention.relative_bias;
    const std::int64_t behind = std::clamp(distance, -reach, reach);
    return static_cast<std::size_t>(head * (2 * reach + 1) + reach + behind);
}

int dropout_byte(const ScoreValues& values, std::int64_t batch_head, std::int64_t i,
                 std::int64_t j) {
    const auto group = [](std::int64_t position) {
        return static_cast<std::uint32_t>(position / 16 * 4 + position % 8 / 2);
    };
    const Words words =
        philox({group(i), group(j), static_cast<std::uint32_t>(batch_head), values.offset},
               values.seed, 7);
    const std::uint32_t word = words[i % 2 * 2 + j % 2];
    return static_cast<int>(word >> (8 * (i / 8 % 2 * 2 + j / 8 % 2)) & 0xFF);
}

double dropout_factor(const Attention& attention, const ScoreValues& values,
                      std::int64_t batch_head, std::int64_t i, std::int64_t j) {
    const int dropped = dropped_of_256(attention);
    if (dropped == 0 || !values.dropout_enabled) {
        return 1;
    }
    return dropout_byte(values, batch_head, i, j) < dropped ? 0 : 256.0 / (256 - dropped);
}

}  // namespace spion
