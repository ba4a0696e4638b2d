// Patterns, and discovery from scores.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <spion/spion.h>

#include <cstdint>
#include <string>
#include <vector>

#include "python/core/array.h"
#include "python/core/bindings.h"

namespace spion::python {
namespace {

// A contiguous array of the host.
class Plain {
  public:
    Plain(nb::handle object, const char* name, int rank, dlpack::TypeCode code, int bits,
          Access access = Access::kRead)
        : array_(object, name, access, nullptr) {
        array_.check_device(false, 0);
        array_.check_plain(rank, code, bits);
    }
    template <typename Element>
    Element* data() const {
        return static_cast<Element*>(array_.data());
    }
    std::int64_t size(int dimension) const { return array_.seen().shape[dimension]; }

  private:
    Array array_;
};

Pattern from_bits(std::int64_t length, int block, nb::handle bits) {
    const Plain plain(bits, "bits", 2, dlpack::kUInt, 8);
    return Pattern::from_bits(
        length, block,
        {plain.data<std::uint8_t>(), static_cast<std::size_t>(plain.size(0) * plain.size(1))});
}

// bits: [rows, columns].
Pattern from_cross_bits(std::int64_t length, std::int64_t key_length, int block, nb::handle bits) {
    const Plain plain(bits, "bits", 2, dlpack::kUInt, 8);
    return Pattern::from_bits(
        length, key_length, block,
        {plain.data<std::uint8_t>(), static_cast<std::size_t>(plain.size(0) * plain.size(1))});
}

Pattern from_heads(const std::vector<Pattern>& heads) {
    return Pattern::from_heads(heads);
}

Pattern from_csr(std::int64_t length, int block, nb::handle offsets, nb::handle columns) {
    const Plain rows(offsets, "offsets", 1, dlpack::kInt, 32);
    const Plain entries(columns, "columns", 1, dlpack::kInt, 32);
    return Pattern::from_csr(
        length, block, {rows.data<std::int32_t>(), static_cast<std::size_t>(rows.size(0))},
        {entries.data<std::int32_t>(), static_cast<std::size_t>(entries.size(0))});
}

// counts [rows], indices [rows, pitch] of partial blocks, then of full ones or None.
Pattern from_block_mask(std::int64_t length, int block, nb::handle counts, nb::handle indices,
                        nb::handle full_counts, nb::handle full_indices) {
    const Plain partial_counts(counts, "kv_num_blocks", 1, dlpack::kInt, 32);
    const Plain partial(indices, "kv_indices", 2, dlpack::kInt, 32);
    spion_block_mask mask = SPION_BLOCK_MASK_INIT;
    mask.rows = partial_counts.size(0);
    mask.row_pitch = partial.size(1);
    mask.kv_num_blocks = partial_counts.data<std::int32_t>();
    mask.kv_indices = partial.data<std::int32_t>();
    if (full_counts.is_none()) {
        return Pattern::from_block_mask(length, block, mask);
    }
    const Plain whole_counts(full_counts, "full_kv_num_blocks", 1, dlpack::kInt, 32);
    const Plain whole(full_indices, "full_kv_indices", 2, dlpack::kInt, 32);
    mask.full_kv_num_blocks = whole_counts.data<std::int32_t>();
    mask.full_kv_indices = whole.data<std::int32_t>();
    return Pattern::from_block_mask(length, block, mask);
}

Pattern from_layout(std::int64_t length, int block, nb::handle layout) {
    const Plain plain(layout, "layout", 3, dlpack::kUInt, 8);
    const std::size_t count =
        static_cast<std::size_t>(plain.size(0) * plain.size(1) * plain.size(2));
    return Pattern::from_layout<std::uint8_t>(length, block, {plain.data<std::uint8_t>(), count},
                                              plain.size(0), plain.size(1), plain.size(2));
}

void write_bits(const Pattern& pattern, nb::handle out) {
    const Plain plain(out, "out", 3, dlpack::kUInt, 8, Access::kWrite);
    detail::check(spion_pattern_bits(
        pattern.c(), plain.data<std::uint8_t>(),
        static_cast<std::size_t>(plain.size(0) * plain.size(1) * plain.size(2))));
}

Pattern discover_map(const Discovery& discovery, nb::handle scores) {
    const Plain plain(scores, "scores", 2, dlpack::kFloat, 32);
    if (plain.size(0) != plain.size(1)) {
        throw UserError(SPION_INVALID, "the scores are no square: give [L, L]");
    }
    return discover_scores(
        discovery, plain.size(0),
        {plain.data<float>(), static_cast<std::size_t>(plain.size(0) * plain.size(1))});
}

Pattern discover_pooled(const Discovery& discovery, std::int64_t length, nb::handle pooled) {
    const Plain plain(pooled, "pooled", 2, dlpack::kFloat, 64);
    const std::int64_t rows = (length + discovery.block - 1) / discovery.block;
    if (plain.size(0) != rows || plain.size(1) != rows) {
        throw UserError(SPION_INVALID,
                        "the pooled map is not [nb, nb] with nb = ceil(length / block): give one "
                        "number a block");
    }
    const spion_discovery settings = discovery.c();
    spion_pattern* pattern = nullptr;
    detail::check(spion_discover_pooled(&settings, length, plain.data<double>(), &pattern));
    return Pattern::adopt(pattern);
}

Discovery make_discovery(int block, int variant, int filter, double quantile, double density) {
    return {.block = block,
            .variant = static_cast<Variant>(variant),
            .filter = filter,
            .quantile = quantile,
            .density = density};
}

}  // namespace

void bind_pattern(nb::module_& module) {
    nb::class_<Pattern>(module, "Pattern")
        .def_static("from_bits", &from_bits)
        .def_static("from_cross_bits", &from_cross_bits)
        .def_static("from_heads", &from_heads)
        .def_static("from_text", &Pattern::from_text)
        .def_static("full", &Pattern::full)
        .def_static("from_csr", &from_csr)
        .def_static("from_block_mask", &from_block_mask, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
                    nb::arg().none(), nb::arg().none())
        .def_static("from_layout", &from_layout)
        .def("transpose", &Pattern::transpose)
        .def_prop_ro("length", &Pattern::length)
        .def_prop_ro("block", &Pattern::block)
        .def("head", &Pattern::head)
        .def_prop_ro("key_length", &Pattern::key_length)
        .def_prop_ro("patterns", &Pattern::patterns)
        .def_prop_ro("imbalance", &Pattern::imbalance)
        .def_prop_ro("rows", &Pattern::rows)
        .def_prop_ro("columns", &Pattern::columns)
        .def_prop_ro("block_count", &Pattern::block_count)
        .def_prop_ro("density", &Pattern::density)
        .def_prop_ro("digest", &Pattern::digest)
        .def("write_bits", &write_bits)
        .def("text", &Pattern::text)
        .def("picture", &Pattern::picture);
    nb::class_<Discovery>(module, "Discovery")
        .def("__init__", [](Discovery* self, int block, int variant, int filter, double quantile,
                            double density) {
            new (self) Discovery(make_discovery(block, variant, filter, quantile, density));
        });
    module.def("discover_scores", &discover_map);
    module.def("discover_pooled", &discover_pooled);
}

}  // namespace spion::python
