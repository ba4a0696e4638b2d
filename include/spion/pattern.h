// Which blocks are computed, and how they are found in scores. Part of spion.h.
#ifndef SPION_PATTERN_H
#define SPION_PATTERN_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "spion/error.h"
#include "spion/spion_c.h"

namespace spion {
inline namespace abi0 {  // as SPION_ABI_MAJOR

// Immutable; copies share it.
class Pattern {
  public:
    // bits: nb * nb bytes row-major, nb = ceil(length / block), not 0 = computed.
    static Pattern from_bits(std::int64_t length, int block, std::span<const std::uint8_t> bits) {
        return make([&](spion_pattern** out) {
            return spion_pattern_from_bits(length, block, bits.data(), bits.size(), out);
        });
    }
    // The same of `key_length` keys: rows * columns bytes.
    static Pattern from_bits(std::int64_t length, std::int64_t key_length, int block,
                             std::span<const std::uint8_t> bits) {
        return make([&](spion_pattern** out) {
            return spion_pattern_from_cross_bits(length, key_length, block, bits.data(),
                                                 bits.size(), out);
        });
    }
    // One a head of K and V, or one a head.
    static Pattern from_heads(std::span<const Pattern> heads) {
        std::vector<const spion_pattern*> handles;
        for (const Pattern& head : heads) {
            handles.push_back(head.c());
        }
        return make([&](spion_pattern** out) {
            return spion_pattern_from_heads(handles.data(), handles.size(), out);
        });
    }
    static Pattern from_text(std::int64_t length, int block, const std::string& text) {
        return make([&](spion_pattern** out) {
            return spion_pattern_from_text(length, block, text.c_str(), out);
        });
    }
    static Pattern full(std::int64_t length, int block) {
        return make([&](spion_pattern** out) { return spion_pattern_full(length, block, out); });
    }
    static Pattern from_csr(std::int64_t length, int block, std::span<const std::int32_t> offsets,
                            std::span<const std::int32_t> columns) {
        return make([&](spion_pattern** out) {
            return spion_pattern_from_csr(length, block, offsets.data(), offsets.size(),
                                          columns.data(), columns.size(), out);
        });
    }
    static Pattern from_block_mask(std::int64_t length, int block, const spion_block_mask& mask) {
        return make([&](spion_pattern** out) {
            return spion_pattern_from_block_mask(length, block, &mask, out);
        });
    }
    // layout: [heads, rows, columns], integers or bool.
    template <typename Element>
    static Pattern from_layout(std::int64_t length, int block, std::span<const Element> layout,
                               std::int64_t heads, std::int64_t rows, std::int64_t columns) {
        static_assert(std::is_integral_v<Element>);
        if (static_cast<std::int64_t>(layout.size()) != heads * rows * columns) {
            throw UserError(SPION_INVALID,
                            "the layout has not heads * rows * columns elements: pass them all");
        }
        return make([&](spion_pattern** out) {
            return spion_pattern_from_layout(length, block, layout.data(), sizeof(Element), heads,
                                             rows, columns, out);
        });
    }
    // base_blockmask: [batch, heads, rows, columns].
    template <typename Element>
    static Pattern from_base_blockmask(std::int64_t length, std::span<const Element> mask,
                                       std::int64_t batch, std::int64_t heads, std::int64_t rows,
                                       std::int64_t columns) {
        static_assert(std::is_integral_v<Element>);
        if (static_cast<std::int64_t>(mask.size()) != batch * heads * rows * columns) {
            throw UserError(SPION_INVALID,
                            "the base_blockmask has not batch * heads * rows * columns elements: "
                            "pass them all");
        }
        return make([&](spion_pattern** out) {
            return spion_pattern_from_base_blockmask(length, mask.data(), sizeof(Element), batch,
                                                     heads, rows, columns, out);
        });
    }
    // Takes over a pattern of the C interface.
    static Pattern adopt(spion_pattern* pattern) { return Pattern(pattern); }

    Pattern transpose() const {
        return make([&](spion_pattern** out) { return spion_pattern_transpose(c(), out); });
    }
    Pattern head(int index) const {
        return make([&](spion_pattern** out) { return spion_pattern_of_head(c(), index, out); });
    }
    std::int64_t length() const { return info().length; }
    std::int64_t key_length() const { return info().key_length; }
    int patterns() const { return info().patterns; }  // 1, or one a head
    double imbalance() const {
        return info().imbalance;
    }  // the fullest head's blocks over the mean
    std::int64_t columns() const { return info().columns; }
    int block() const { return info().block; }
    std::int64_t rows() const { return info().rows; }  // nb
    std::int64_t block_count() const { return info().block_count; }
    double density() const { return info().density; }
    std::string digest() const { return info().digest; }
    std::vector<std::uint8_t> bits() const {  // [patterns, rows, columns]
        const spion_pattern_info seen = info();
        std::vector<std::uint8_t> bits(
            static_cast<std::size_t>(seen.patterns * seen.rows * seen.columns));
        detail::check(spion_pattern_bits(c(), bits.data(), bits.size()));
        return bits;
    }
    std::string text() const {
        spion_blob* blob = nullptr;
        detail::check(spion_pattern_text(c(), &blob));
        return detail::take(blob);
    }
    std::string picture(int columns = 64) const {
        spion_blob* blob = nullptr;
        detail::check(spion_pattern_picture(c(), columns, &blob));
        return detail::take(blob);
    }
    spion_pattern_info info() const {
        spion_pattern_info info = SPION_PATTERN_INFO_INIT;
        detail::check(spion_pattern_query(c(), &info));
        return info;
    }
    const spion_pattern* c() const { return handle_.get(); }

  private:
    explicit Pattern(spion_pattern* handle) : handle_(handle, spion_pattern_release) {}
    template <typename Create>
    static Pattern make(const Create& create) {
        spion_pattern* handle = nullptr;
        detail::check(create(&handle));
        return Pattern(handle);
    }
    std::shared_ptr<spion_pattern> handle_;
};

enum class Variant : std::int32_t {
    kCF = SPION_VARIANT_CF,
    kF = SPION_VARIANT_F,
    kC = SPION_VARIANT_C
};
struct Discovery {
    int block = 64;
    Variant variant = Variant::kCF;
    int filter = 31;
    double quantile = 0.96;
    double density = 0.04;

    spion_discovery c() const {
        spion_discovery c = SPION_DISCOVERY_INIT;
        c.block = block;
        c.variant = static_cast<std::int32_t>(variant);
        c.filter = filter;
        c.quantile = quantile;
        c.density = density;
        return c;
    }
};

// scores: [L, L] mean probabilities.
inline Pattern discover_scores(const Discovery& discovery, std::int64_t length,
                               std::span<const float> scores) {
    if (static_cast<std::int64_t>(scores.size()) != length * length) {
        throw UserError(SPION_INVALID, "the scores are not length * length numbers: pass them all");
    }
    const spion_discovery c = discovery.c();
    spion_pattern* pattern = nullptr;
    detail::check(spion_discover_scores(&c, length, scores.data(), &pattern));
    return Pattern::adopt(pattern);
}

}  // namespace abi0
}  // namespace spion

#endif
