// The tensors of a host kernel under test, in the layout of its case.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/attention_arguments.h"
#include "tests/kernels/host_case.h"

namespace spion::testing {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr int kRowPadding = 16;

struct Sizes {
    std::int64_t batch, heads, length, width;
    explicit Sizes(const HostCase& c)
        : batch(c.batch),
          heads(c.attention.heads),
          length(c.attention.length),
          width(c.attention.head_dim) {}
    std::int64_t rows() const { return batch * heads * length; }
    std::int64_t elements() const { return rows() * width; }
    std::int64_t row(std::int64_t b, std::int64_t h, std::int64_t l) const {
        return (b * heads + h) * length + l;
    }
};

// One or three [B, H, L, D] tensors in one allocation of the layout asked for.
class Storage {
  public:
    Storage(const HostCase& host_case, int members)
        : sizes_(host_case), layout_(host_case.layout), members_(members) {
        const std::int64_t row =
            layout_ == Layout::kPaddedRows ? sizes_.width + kRowPadding : sizes_.width;
        data_.assign(static_cast<std::size_t>(sizes_.rows() * row * members_), kNaN);
    }

    SpionTensor view(int member) {
        if (layout_ == Layout::kInterleaved) {
            const std::int64_t row = sizes_.heads * sizes_.width * members_;
            return {.data = data_.data() + member * sizes_.heads * sizes_.width,
                    .batch_stride = sizes_.length * row,
                    .head_stride = sizes_.width,
                    .row_stride = row};
        }
        const std::int64_t row = sizes_.width + (layout_ == Layout::kPaddedRows ? kRowPadding : 0);
        return {.data = data_.data() + member * sizes_.rows() * row,
                .batch_stride = sizes_.heads * sizes_.length * row,
                .head_stride = sizes_.length * row,
                .row_stride = row};
    }

    void set(int member, const std::vector<float>& values) {
        for_each_element(member, [&](float& element, std::int64_t i) {
            element = values[static_cast<std::size_t>(i)];
        });
    }
    std::vector<float> get(int member) {
        std::vector<float> values(static_cast<std::size_t>(sizes_.elements()));
        for_each_element(member, [&](float& element, std::int64_t i) {
            values[static_cast<std::size_t>(i)] = element;
        });
        return values;
    }

    // Elements between the rows must still hold their NaN.
    bool gaps_untouched() {
        if (layout_ != Layout::kPaddedRows) {
            return true;
        }
        for (std::int64_t row = 0; row < sizes_.rows() * members_; ++row) {
            const float* gap = data_.data() + row * (sizes_.width + kRowPadding) + sizes_.width;
            if (!std::all_of(gap, gap + kRowPadding, [](float x) { return std::isnan(x); })) {
                return false;
            }
        }
        return true;
    }

  private:
    template <typename Visit>
    void for_each_element(int member, Visit visit) {
        const SpionTensor tensor = view(member);
        auto* base = static_cast<float*>(tensor.data);
        for (std::int64_t b = 0; b < sizes_.batch; ++b) {
            for (std::int64_t h = 0; h < sizes_.heads; ++h) {
                for (std::int64_t l = 0; l < sizes_.length; ++l) {
                    for (std::int64_t d = 0; d < sizes_.width; ++d) {
                        visit(base[b * tensor.batch_stride + h * tensor.head_stride +
                                   l * tensor.row_stride + d],
                              sizes_.row(b, h, l) * sizes_.width + d);
                    }
                }
            }
        }
    }

    Sizes sizes_;
    Layout layout_;
    int members_;
    std::vector<float> data_;
};

}  // namespace spion::testing
