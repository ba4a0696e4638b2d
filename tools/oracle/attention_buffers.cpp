#include "tools/oracle/attention_buffers.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <tuple>

#include "compiler/launch/bias_gradient.h"
#include "tools/storage.h"

namespace spion {
namespace {

constexpr std::size_t kGuardBytes = 256;  // keeps the payload as aligned as the allocation
constexpr unsigned char kPoison = 0xFF;   // NaN in every dtype

}  // namespace

AttentionBuffers::AttentionBuffers(const Attention& attention, std::int64_t batch,
                                   std::span<const int> lengths, Layout layout, Device& device,
                                   std::span<const int> key_lengths)
    : attention_(attention), batch_(batch), layout_(layout), device_(&device) {
    const auto add_starts = [](std::vector<int>& starts, std::span<const int> of) {
        starts.push_back(0);
        for (const int length : of) {
            starts.push_back(starts.back() + length);
        }
    };
    if (attention.varlen) {
        add_starts(row_starts_, lengths);
        add_starts(key_row_starts_, key_lengths);
    }
    const int heads = attention.heads, key_heads = attention.key_value_heads();
    const std::size_t rows = static_cast<std::size_t>(batch) * attention.length * heads;
    const auto alone = [&](bool keys, bool values, bool output) {
        const int width = values ? attention.value_head_dim() : attention.head_dim;
        const int all = (keys ? key_heads : heads) * width;
        return place(add_region(all * column_bytes(keys), output),
                     {.keys = keys, .values = values, .first = 0, .all = all});
    };
    if (layout == Layout::kPacked) {
        place_packed(q_, k_, v_, false);
        place_packed(d_q_, d_k_, d_v_, true);
    } else {
        q_ = alone(false, false, false);
        k_ = alone(true, false, false);
        v_ = alone(true, true, false);
        d_q_ = alone(false, false, true);
        d_k_ = alone(true, false, true);
        d_v_ = alone(true, true, true);
    }
    o_ = alone(false, true, true);
    d_o_ = alone(false, true, false);
    lse_ = add_region(rows * sizeof(float), true);
    delta_ = add_region(rows * sizeof(float), true);
    if (attention.sink) {
        d_sinks_ = add_region(attention.heads * sizeof(float), true);
    }
    if (attention.relative_bias > 0) {
        d_relative_bias_ = add_region(
            static_cast<std::size_t>(bias_gradient_floats(attention, batch)) * sizeof(float), true);
    }
    if (attention.key_padding) {
        lengths_ = Buffer(device, lengths.size_bytes());
        device.copy_in(lengths_.data(), lengths.data(), lengths.size_bytes());
    }
    for (auto [wanted, buffer, from] :
         {std::tuple(attention.varlen, &starts_, &row_starts_),
          std::tuple(attention.key_starts, &key_starts_, &key_row_starts_)}) {
        if (wanted) {
            *buffer = Buffer(device, from->size() * sizeof(int));
            device.copy_in(buffer->data(), from->data(), buffer->bytes());
        }
    }
    set_score_values(random_score_values(attention, 1));
    poison_outputs();
    device.synchronize();  // `lengths` is read until then
}

std::int64_t AttentionBuffers::all_rows(bool keys) const {
    return attention_.varlen ? row_starts(keys).back()
                             : batch_ * (keys ? attention_.key_value_length() : attention_.length);
}

std::size_t AttentionBuffers::column_bytes(bool keys) const {
    return static_cast<std::size_t>(all_rows(keys)) * storage_bytes(attention_.dtype);
}

void AttentionBuffers::place_packed(Place& q, Place& k, Place& v, bool output) {
    const int of_q = attention_.heads * attention_.head_dim;
    const int of_k = attention_.key_value_heads() * attention_.head_dim;
    const int of_v = attention_.key_value_heads() * attention_.value_head_dim();
    const bool together = attention_.diagonal() == 0 && !attention_.key_starts;
    const int before = together ? of_q : 0, all = before + of_k + of_v;
    const int keys = add_region(all * column_bytes(true), output);
    const int queries = together ? keys : add_region(of_q * column_bytes(false), output);
    q = place(queries, {.keys = false, .values = false, .first = 0, .all = together ? all : of_q});
    k = place(keys, {.keys = true, .values = false, .first = before, .all = all});
    v = place(keys, {.keys = true, .values = true, .first = before + of_k, .all = all});
}

void AttentionBuffers::set_score_values(const ScoreValues& values) {
    const auto upload = [&](Buffer& buffer, bool wanted, const void* data, std::size_t bytes) {
        if (wanted) {
            buffer = Buffer(*device_, bytes);
            device_->copy_in(buffer.data(), data, bytes);
        }
    };
    const SpionDropoutState state{
        .seed = values.seed, .offset = values.offset, .enabled = values.dropout_enabled ? 1 : 0};
    upload(dropout_, attention_.dropout > 0.0F, &state, sizeof(state));
    const std::size_t a_head = attention_.heads * sizeof(float);
    upload(alibi_slopes_, attention_.alibi, values.alibi_slopes.data(), a_head);
    upload(sinks_, attention_.sink, values.sinks.data(), a_head);
    upload(relative_bias_, attention_.relative_bias > 0, values.relative_bias.data(),
           a_head * attention_.bias_entries());
    device_->synchronize();  // all of them are read until then
}

void AttentionBuffers::set_spans(const ElementSpans& spans) {
    query_spans_ = Buffer(*device_, spans.queries.size() * sizeof(int));
    key_spans_ = Buffer(*device_, spans.keys.size() * sizeof(int));
    device_->copy_in(query_spans_.data(), spans.queries.data(), query_spans_.bytes());
    device_->copy_in(key_spans_.data(), spans.keys.data(), key_spans_.bytes());
    device_->synchronize();  // `spans` is read until then
}

int AttentionBuffers::add_region(std::size_t payload_bytes, bool output) {
    regions_.push_back({.buffer = Buffer(*device_, payload_bytes + 2 * kGuardBytes),
                        .payload_bytes = payload_bytes,
                        .output = output});
    return static_cast<int>(regions_.size()) - 1;
}

AttentionBuffers::Place AttentionBuffers::place(int region, const HeadsOf& of) const {
    const int heads = of.keys ? attention_.key_value_heads() : attention_.heads;
    const std::int64_t length = of.keys ? attention_.key_value_length() : attention_.length;
    const int width = of.values ? attention_.value_head_dim() : attention_.head_dim;
    if (layout_ == Layout::kHeadsFirst) {
        return {.region = region,
                .offset = 0,
                .batch_stride = heads * length * width,
                .head_stride = (attention_.varlen ? all_rows(of.keys) : length) * width,
                .row_stride = width,
                .heads = heads,
                .length = length,
                .width = width,
                .keys = of.keys};
    }
    return {.region = region,
            .offset = of.first,
            .batch_stride = length * of.all,
            .head_stride = width,
            .row_stride = of.all,
            .heads = heads,
            .length = length,
            .width = width,
            .keys = of.keys};
}

void* AttentionBuffers::payload(int region) const {
    return regions_[region].buffer.as<std::byte>() + kGuardBytes;
}

SpionTensor AttentionBuffers::tensor(const Place& place) const {
    const std::size_t skipped = place.offset * storage_bytes(attention_.dtype);
    return {.data = static_cast<std::byte*>(payload(place.region)) + skipped,
            .batch_stride = place.batch_stride,
            .head_stride = place.head_stride,
            .row_stride = place.row_stride};
}

template <typename Visit>
void AttentionBuffers::for_each_element(const Place& place, const Visit& visit) const {
    std::size_t index = 0;
    const std::vector<int>& starts = row_starts(place.keys);
    for (std::int64_t b = 0; b < batch_; ++b) {
        for (std::int64_t h = 0; h < place.heads; ++h) {
            const std::int64_t length =
                attention_.varlen ? starts[b + 1] - starts[b] : place.length;
            const std::int64_t first =
                place.offset + h * place.head_stride +
                (attention_.varlen ? starts[b] * place.row_stride : b * place.batch_stride);
            for (std::int64_t l = 0; l < length; ++l) {
                for (int d = 0; d < place.width; ++d) {
                    visit(index++, first + l * place.row_stride + d);
                }
            }
            index += static_cast<std::size_t>((place.length - length) * place.width);
        }
    }
}

// Several tensors may share the region, so the others' bytes are kept.
void AttentionBuffers::write(const Place& place, std::span<const float> values) {
    const Region& region = regions_[place.region];
    std::string bytes(region.payload_bytes, '\0');
    device_->copy_out(bytes.data(), payload(place.region), bytes.size());
    const int element = storage_bytes(attention_.dtype);
    for_each_element(place, [&](std::size_t index, std::int64_t at) {
        store(attention_.dtype, values[index], &bytes[at * element]);
    });
    device_->copy_in(payload(place.region), bytes.data(), bytes.size());
    device_->synchronize();  // `bytes` is read until then
}

std::vector<float> AttentionBuffers::read(const Place& place) const {
    const Region& region = regions_[place.region];
    std::string bytes(region.payload_bytes, '\0');
    device_->copy_out(bytes.data(), payload(place.region), bytes.size());
    std::vector<float> values(static_cast<std::size_t>(batch_) * place.heads * place.length *
                              place.width);
    const int element = storage_bytes(attention_.dtype);
    for_each_element(place, [&](std::size_t index, std::int64_t at) {
        values[index] = load(attention_.dtype, &bytes[at * element]);
    });
    return values;
}

void AttentionBuffers::set_inputs(const AttentionInputs& inputs) {
    write(q_, inputs.q);
    write(k_, inputs.k);
    write(v_, inputs.v);
    write(d_o_, inputs.d_o);
}

void AttentionBuffers::set_arbitrary_inputs() {
    constexpr std::size_t kDistinct = 1000003;  // prime: rows of any width differ from each other
    const std::size_t element = storage_bytes(attention_.dtype);
    std::string pool(kDistinct * element, '\0');
    std::mt19937_64 generator(1);
    std::normal_distribution<float> normal;
    for (std::size_t n = 0; n < kDistinct; ++n) {
        store(attention_.dtype, normal(generator), &pool[n * element]);
    }
    std::size_t start = 0;  // another part of the pool for each region
    for (std::size_t index = 0; index < regions_.size(); ++index) {
        if (regions_[index].output) {
            continue;
        }
        auto* data = static_cast<std::byte*>(payload(static_cast<int>(index)));
        for (std::size_t done = 0; done < regions_[index].payload_bytes;) {
            const std::size_t count =
                std::min(regions_[index].payload_bytes - done, pool.size() - start);
            device_->copy_in(data + done, pool.data() + start, count);
            done += count;
            start = (start + count) % pool.size();
        }
    }
    device_->synchronize();
}

void AttentionBuffers::poison_outputs() {
    for (const Region& region : regions_) {
        if (region.output) {
            device_->fill(region.buffer.data(), kPoison, region.buffer.bytes());
        }
    }
}

std::string AttentionBuffers::region_bytes(const Region& region) const {
    std::string bytes(region.buffer.bytes(), '\0');
    device_->copy_out(bytes.data(), region.buffer.data(), bytes.size());
    return bytes;
}

AttentionOutputs AttentionBuffers::outputs() const {
    AttentionOutputs outputs{
        .o = read(o_), .d_q = read(d_q_), .d_k = read(d_k_), .d_v = read(d_v_), .lse = {}};
    outputs.lse.resize(regions_[lse_].payload_bytes / sizeof(float));
    device_->copy_out(outputs.lse.data(), payload(lse_), regions_[lse_].payload_bytes);
    if (attention_.sink) {
        outputs.d_sinks.resize(attention_.heads);
        device_->copy_out(outputs.d_sinks.data(), payload(d_sinks_),
                          regions_[d_sinks_].payload_bytes);
    }
    if (attention_.relative_bias > 0) {
        outputs.d_relative_bias.resize(attention_.heads * attention_.bias_entries());
        device_->copy_out(outputs.d_relative_bias.data(), payload(d_relative_bias_),
                          outputs.d_relative_bias.size() * sizeof(float));
    }
    return outputs;
}

std::string AttentionBuffers::output_bytes() const {
    std::string bytes;
    for (const Region& region : regions_) {
        if (region.output) {
            bytes += region_bytes(region);
        }
    }
    return bytes;
}

bool AttentionBuffers::guards_intact() const {
    const auto poisoned = [](std::string_view zone) {
        return std::all_of(zone.begin(), zone.end(),
                           [](char byte) { return static_cast<unsigned char>(byte) == kPoison; });
    };
    return std::all_of(regions_.begin(), regions_.end(), [&](const Region& region) {
        if (!region.output) {
            return true;
        }
        const std::string bytes = region_bytes(region);
        const std::string_view all = bytes;
        return poisoned(all.substr(0, kGuardBytes)) &&
               poisoned(all.substr(kGuardBytes + region.payload_bytes));
    });
}

SpionAttentionArguments AttentionBuffers::arguments() const {
    SpionAttentionArguments arguments{};
    arguments.q = tensor(q_);
    arguments.k = tensor(k_);
    arguments.v = tensor(v_);
    arguments.o = tensor(o_);
    arguments.d_o = tensor(d_o_);
    arguments.d_q = tensor(d_q_);
    arguments.d_k = tensor(d_k_);
    arguments.d_v = tensor(d_v_);
    arguments.lse = static_cast<float*>(payload(lse_));
    arguments.delta = static_cast<float*>(payload(delta_));
    arguments.lengths = lengths_ ? lengths_.as<int>() : nullptr;
    if (attention_.key_starts) {
        arguments.key_starts = key_starts_.as<int>();
    }
    arguments.query_spans = query_spans_ ? query_spans_.as<int>() : nullptr;
    arguments.key_spans = key_spans_ ? key_spans_.as<int>() : nullptr;
    arguments.dropout = dropout_ ? dropout_.as<SpionDropoutState>() : nullptr;
    arguments.alibi_slopes = alibi_slopes_ ? alibi_slopes_.as<float>() : nullptr;
    arguments.sinks = sinks_ ? sinks_.as<float>() : nullptr;
    arguments.d_sinks = attention_.sink ? static_cast<float*>(payload(d_sinks_)) : nullptr;
    if (attention_.relative_bias > 0) {
        arguments.relative_bias = relative_bias_.as<float>();
        arguments.d_relative_bias = static_cast<float*>(payload(d_relative_bias_));
    }
    arguments.starts = starts_ ? starts_.as<int>() : nullptr;
    arguments.rows = attention_.varlen ? row_starts_.back() : 0;
    arguments.key_rows = attention_.key_starts ? key_row_starts_.back() : 0;
    arguments.batch = static_cast<int>(batch_);
    return arguments;
}

std::size_t AttentionBuffers::bytes() const {
    std::size_t total = 0;
    for (const Region& region : regions_) {
        total += region.buffer.bytes();
    }
    return total;
}

}  // namespace spion
