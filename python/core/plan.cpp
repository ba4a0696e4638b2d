// Contexts, plans and their calls. Whatever takes long gives Python's lock back meanwhile.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <spion/spion.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "python/core/array.h"
#include "python/core/bindings.h"
#include "python/core/call.h"

namespace spion::python {
namespace {

using Released = nb::call_guard<nb::gil_scoped_release>;

// Fields of Attention that most have at their defaults.
struct Changes {
    float dropout;
    std::int64_t key_length;
    float softcap;
    bool alibi, sinks;
    int patterns, value_dim;
    bool varlen;
    int relative_bias;
    std::string score, score_derivative;
    bool key_starts;
    int sequence_patterns;
};

Attention make_attention(int heads, int head_dim, std::int64_t length, int block, int dtype,
                         float scale, int softmax, bool key_padding, int key_value_heads,
                         bool causal, bool spans, const Changes& changes) {
    return {.heads = heads,
            .head_dim = head_dim,
            .length = length,
            .block = block,
            .dtype = static_cast<DType>(dtype),
            .scale = scale,
            .softmax = static_cast<Softmax>(softmax),
            .key_padding = key_padding,
            .causal = causal,
            .key_value_heads = key_value_heads,
            .spans = spans,
            .dropout = changes.dropout,
            .key_length = changes.key_length,
            .softcap = changes.softcap,
            .alibi = changes.alibi,
            .sinks = changes.sinks,
            .patterns = changes.patterns,
            .value_dim = changes.value_dim,
            .varlen = changes.varlen,
            .relative_bias = changes.relative_bias,
            .score = changes.score,
            .score_derivative = changes.score_derivative,
            .key_starts = changes.key_starts,
            .sequence_patterns = changes.sequence_patterns};
}

LentContext open_context(bool cuda, int ordinal, int threads, bool frozen, bool memory_only,
                         std::optional<std::string> cache, std::optional<std::string> bundle) {
    const ContextOptions options{.threads = threads,
                                 .frozen = frozen,
                                 .memory_only = memory_only,
                                 .cache = std::move(cache),
                                 .bundle = std::move(bundle)};
    return {cuda ? Context::cuda(ordinal, options) : Context::host(options), cuda, ordinal};
}

LentPlan make_plan(const LentContext& context, const Attention& attention,
                   std::optional<Pattern> typical, std::int64_t max_blocks, std::int64_t batch) {
    Plan plan = context.context.plan(
        attention, {.typical = std::move(typical), .max_blocks = max_blocks, .batch = batch});
    const std::size_t table_bytes = plan.table_bytes();
    return {std::move(plan),
            context.cuda,
            context.ordinal,
            table_bytes,
            attention.varlen ? attention.length : 0,
            attention.key_length == 0 ? attention.length : attention.key_length,
            attention.relative_bias > 0 ? 2 * std::int64_t{attention.relative_bias} + 1 : 0};
}

struct LentDiscoverer {
    Discoverer discoverer;
    bool cuda;
    int ordinal;
    std::int64_t length;
    int block;
};

LentDiscoverer make_discoverer(const LentContext& context, const Attention& attention,
                               const Discovery& discovery) {
    return {context.context.discoverer(attention, discovery), context.cuda, context.ordinal,
            attention.length, discovery.block};
}

void run_discoverer(const LentDiscoverer& self, nb::handle q, nb::handle k, nb::handle lse,
                    nb::handle lengths, nb::handle sums, std::optional<std::uintptr_t> stream,
                    nb::handle slopes) {
    const Call call(self.cuda, self.ordinal, stream, q);
    const Array queries = call.read(q, "q", Access::kRead), keys = call.read(k, "k", Access::kRead);
    const Array room = call.read(sums, "sums", Access::kWrite);
    call.checked(room).check_plain(1, dlpack::kFloat, 32);
    const Beside beside(call, lse, Access::kRead, nb::none(), lengths, nb::none(), nb::none());
    const ScoreArrays scores(call, {.slopes = slopes});
    const spion_tensor tensor = call.checked(queries).as_tensor();
    const spion_tensor other = call.checked(keys).as_tensor();
    beside.check_counts(sizes_of(tensor, other));
    scores.check_counts(tensor.shape[1], 0);
    const nb::gil_scoped_release released;
    self.discoverer.run({.q = tensor,
                         .k = other,
                         .lse = beside.lse(),
                         .lengths = beside.lengths(),
                         .sums = static_cast<float*>(room.data()),
                         .sum_bytes = room.bytes(),
                         .alibi_slopes = scores.alibi_slopes()},
                        call.stream());
}

// sums on the host; the pooled map [nb, nb] is written to pooled.
Pattern finish_discoverer(const LentDiscoverer& self, nb::handle sums, nb::handle pooled) {
    const Array given(sums, "sums", Access::kRead, nullptr);
    const Array map(pooled, "pooled", Access::kWrite, nullptr);
    given.check_device(false, 0);
    given.check_plain(1, dlpack::kFloat, 32);
    map.check_device(false, 0);
    map.check_plain(2, dlpack::kFloat, 64);
    const std::int64_t rows = (self.length + self.block - 1) / self.block;
    if (map.seen().shape[0] != rows || map.seen().shape[1] != rows) {
        throw UserError(SPION_INVALID, "pooled is not [nb, nb] with nb = ceil(length / block)");
    }
    spion_pattern* pattern = nullptr;
    detail::check(spion_discoverer_finish(self.discoverer.c(), static_cast<float*>(given.data()),
                                          given.bytes(), static_cast<double*>(map.data()),
                                          &pattern));
    return Pattern::adopt(pattern);
}

void write_tables(const LentPlan& plan, const Pattern& pattern, nb::handle out) {
    const Array array(out, "out", Access::kWrite, nullptr);
    array.check_device(false, 0);
    array.check_plain(1, dlpack::kInt, 32);
    detail::check(spion_plan_write_tables(plan.plan.c(), pattern.c(), array.data(), array.bytes()));
}

void write_mask_spans(bool causal, std::optional<std::int32_t> left,
                      std::optional<std::int32_t> right, nb::handle documents, nb::handle prefixes,
                      nb::handle query_lengths, nb::handle key_documents, nb::handle of_queries,
                      nb::handle of_keys, nb::handle starts, nb::handle key_starts) {
    const Array queries(of_queries, "query_spans", Access::kWrite, nullptr);
    const Array keys(of_keys, "key_spans", Access::kWrite, nullptr);
    for (const Array* const spans : {&queries, &keys}) {
        spans->check_device(false, 0);
        spans->check_plain(3, dlpack::kInt, 32);
    }
    const std::int64_t batch = queries.seen().shape[0], length = queries.seen().shape[1];
    const std::int64_t key_length = keys.seen().shape[1];
    spion_mask_rules rules = SPION_MASK_RULES_INIT;
    rules.causal = causal ? 1 : 0;
    rules.window = (left ? SPION_WINDOW_LEFT : 0) | (right ? SPION_WINDOW_RIGHT : 0);
    rules.left = left.value_or(0);
    rules.right = right.value_or(0);
    std::optional<Array> lent[4];
    const auto numbers = [&](int which, nb::handle given, const char* name, int rank,
                             std::int64_t positions) -> const std::int32_t* {
        if (given.is_none()) {
            return nullptr;
        }
        const Array& array = lent[which].emplace(given, name, Access::kRead, nullptr);
        array.check_device(false, 0);
        array.check_plain(rank, dlpack::kInt, 32);
        if (array.seen().shape[0] != batch || (rank == 2 && array.seen().shape[1] != positions)) {
            throw UserError(SPION_INVALID, (std::string(name) + " has not one number for each " +
                                            (rank == 2 ? "position" : "sample") + " of the batch")
                                               .c_str());
        }
        return static_cast<const std::int32_t*>(array.data());
    };
    rules.documents = numbers(0, documents, "documents", 2, length);
    rules.prefixes = numbers(1, prefixes, "prefixes", 1, 0);
    rules.query_lengths = numbers(2, query_lengths, "query_lengths", 1, 0);
    rules.key_documents = numbers(3, key_documents, "key_documents", 2, key_length);
    std::optional<Array> begins[2];
    const auto starts_of = [&](int which, nb::handle given,
                               const char* name) -> const std::int32_t* {
        if (given.is_none()) {
            return nullptr;
        }
        const Array& array = begins[which].emplace(given, name, Access::kRead, nullptr);
        array.check_device(false, 0);
        array.check_plain(1, dlpack::kInt, 32);
        if (array.seen().shape[0] != batch + 1) {
            throw UserError(SPION_INVALID, (std::string(name) + " has not batch + 1 numbers: give "
                                                                "where each sequence begins, and T")
                                               .c_str());
        }
        return static_cast<const std::int32_t*>(array.data());
    };
    rules.cu_seqlens = starts_of(0, starts, "cu_seqlens");
    rules.key_cu_seqlens = starts_of(1, key_starts, "key_cu_seqlens");
    rules.key_length = key_length;
    detail::check(spion_write_spans(
        &rules, batch, length, static_cast<std::int32_t*>(queries.data()),
        static_cast<std::int32_t*>(keys.data()), static_cast<std::size_t>(2 * batch * length)));
}

nb::tuple counters(const LentContext& context) {
    const spion_counters seen = context.context.counters();
    return nb::make_tuple(seen.compiled, seen.from_disk, seen.from_bundle, seen.from_memory);
}

nb::tuple workspace(const LentPlan& plan, std::int64_t batch, int pass) {
    const Workspace needed = plan.plan.workspace(batch, static_cast<Pass>(pass));
    return nb::make_tuple(needed.bytes, needed.alignment);
}

// The fields of spion.Attention, in their order there.
void construct(Attention* self, int heads, int head_dim, std::int64_t length, int block, int dtype,
               float scale, int softmax, bool key_padding, int key_value_heads, bool causal,
               bool spans, float dropout, std::int64_t key_length, float softcap, bool alibi,
               bool sinks, int patterns, int value_dim, bool varlen, int relative_bias,
               std::string score, std::string score_derivative, bool key_starts,
               int sequence_patterns) {
    new (self) Attention(make_attention(
        heads, head_dim, length, block, dtype, scale, softmax, key_padding, key_value_heads, causal,
        spans,
        {dropout, key_length, softcap, alibi, sinks, patterns, value_dim, varlen, relative_bias,
         std::move(score), std::move(score_derivative), key_starts, sequence_patterns}));
}

void bind_plans(nb::module_& module) {
    nb::class_<LentPlan>(module, "Plan")
        .def_prop_ro("table_bytes", [](const LentPlan& self) { return self.table_bytes; })
        .def_prop_ro("max_blocks", [](const LentPlan& self) { return self.plan.info().max_blocks; })
        .def_prop_ro("origin", [](const LentPlan& self) { return self.plan.info().origin; })
        .def_prop_ro("milliseconds",
                     [](const LentPlan& self) { return self.plan.info().milliseconds; })
        .def("explain", [](const LentPlan& self) { return self.plan.explain(); })
        .def("write_tables", &write_tables)
        .def("workspace", &workspace)
        .def("forward", &forward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
             nb::arg(), nb::arg().none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none())
        .def("backward", &backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none(),
             nb::arg().none() = nb::none(), nb::arg().none() = nb::none());
}

}  // namespace

void bind_plan(nb::module_& module) {
    nb::class_<Attention>(module, "Attention").def("__init__", &construct);
    nb::class_<LentContext>(module, "Context")
        .def_static("open", &open_context, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
                    nb::arg().none(), nb::arg().none(), Released())
        .def_prop_ro("device", [](const LentContext& self) { return self.context.device(); })
        .def_prop_ro("target", [](const LentContext& self) { return self.context.target(); })
        .def("freeze", [](const LentContext& self, bool frozen) { self.context.freeze(frozen); })
        .def("counters", &counters)
        .def("plan", &make_plan, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), Released())
        .def("discoverer", &make_discoverer, Released())
        .def(
            "warm_up",
            [](const LentContext& self, const std::vector<Attention>& attentions) {
                self.context.warm_up(attentions);
            },
            Released());
    module.def("write_spans", &write_mask_spans, nb::arg(), nb::arg().none(), nb::arg().none(),
               nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(),
               nb::arg(), nb::arg().none() = nb::none(), nb::arg().none() = nb::none());
    module.def("current_stream", [](nb::handle array, int ordinal) {
        return reinterpret_cast<std::uintptr_t>(current_stream(array, ordinal));
    });
    nb::class_<LentDiscoverer>(module, "Discoverer")
        .def_prop_ro("sum_bytes",
                     [](const LentDiscoverer& self) { return self.discoverer.sum_bytes(); })
        .def("run", &run_discoverer, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
             nb::arg().none(), nb::arg().none() = nb::none())
        .def("finish", &finish_discoverer);
    bind_plans(module);
}

}  // namespace spion::python
