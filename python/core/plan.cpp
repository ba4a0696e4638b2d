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

namespace spion::python {
namespace {

using Released = nb::call_guard<nb::gil_scoped_release>;

struct LentContext {
    Context context;
    bool cuda;
    int ordinal;
};

struct LentPlan {
    Plan plan;
    bool cuda;
    int ordinal;
    std::size_t table_bytes;
};

Attention make_attention(int heads, int head_dim, std::int64_t length, int block, int dtype,
                         float scale, int softmax, bool key_padding) {
    return {.heads = heads,
            .head_dim = head_dim,
            .length = length,
            .block = block,
            .dtype = static_cast<DType>(dtype),
            .scale = scale,
            .softmax = static_cast<Softmax>(softmax),
            .key_padding = key_padding};
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
    return {std::move(plan), context.cuda, context.ordinal, table_bytes};
}

// Arrays of one call: each checked for its device when it is read.
class Call {
  public:
    Call(bool cuda, int ordinal, std::optional<std::uintptr_t> stream, nb::handle first)
        : cuda_(cuda),
          ordinal_(ordinal),
          stream_(!cuda    ? nullptr
                  : stream ? reinterpret_cast<void*>(*stream)
                           : current_stream(first, ordinal)) {}

    void* stream() const { return stream_; }
    Array read(nb::handle object, const char* name, Access access) const {
        return Array(object, name, access, stream_);
    }
    const Array& checked(const Array& array) const {
        array.check_device(cuda_, ordinal_);
        return array;
    }

  private:
    bool cuda_;
    int ordinal_;
    void* stream_;
};

// Tables, lengths, LSE and workspace of a call.
struct Beside {
    Beside(const Call& call, nb::handle lse, Access lse_access, nb::handle tables,
           nb::handle lengths, nb::handle workspace) {
        if (!lse.is_none()) {
            lse_.emplace(lse, "lse", lse_access, call.stream());
            call.checked(*lse_).check_plain(3, dlpack::kFloat, 32);
        }
        if (!tables.is_none()) {
            tables_.emplace(tables, "tables", Access::kRead, call.stream());
            call.checked(*tables_).check_plain(1, dlpack::kInt, 32);
        }
        if (!lengths.is_none()) {
            lengths_.emplace(lengths, "lengths", Access::kRead, call.stream());
            call.checked(*lengths_).check_plain(1, dlpack::kInt, 32);
        }
        if (!workspace.is_none()) {
            workspace_.emplace(workspace, "workspace", Access::kWrite, call.stream());
            call.checked(*workspace_).check_plain(1, dlpack::kUInt, 8);
        }
    }

    // The library reads [B] numbers, and [B, H, L]: their number is checked here.
    void check_counts(const spion_tensor& q) const {
        if (lengths_ && lengths_->seen().shape[0] != q.shape[0]) {
            refuse("lengths has ", lengths_->seen().shape[0], "batch", q.shape[0]);
        }
        const std::int64_t rows = q.shape[0] * q.shape[1] * q.shape[2];
        if (lse_ && static_cast<std::int64_t>(lse_->bytes() / sizeof(float)) != rows) {
            refuse("lse has ", static_cast<std::int64_t>(lse_->bytes() / sizeof(float)),
                   "B * H * L", rows);
        }
    }

    float* lse() const { return lse_ ? static_cast<float*>(lse_->data()) : nullptr; }
    const std::int32_t* lengths() const {
        return lengths_ ? static_cast<const std::int32_t*>(lengths_->data()) : nullptr;
    }
    const Array& tables() const { return *tables_; }
    const std::optional<Array>& workspace() const { return workspace_; }

  private:
    [[noreturn]] static void refuse(const char* what, std::int64_t given, const char* wanted,
                                    std::int64_t number) {
        throw UserError(SPION_INVALID, (what + std::to_string(given) + " numbers, and " + wanted +
                                        " is " + std::to_string(number))
                                           .c_str());
    }

    std::optional<Array> lse_, tables_, lengths_, workspace_;
};

// The caller's workspace or, on the host, memory for the time of a call; made ready where asked.
class Scratch {
  public:
    Scratch(const Plan& plan, std::int64_t batch, Pass pass, const std::optional<Array>& given,
            bool prepare, void* stream) {
        if (given) {
            data_ = given->data();
            bytes_ = given->bytes();
        } else {
            bytes_ = plan.workspace(batch, pass).bytes;
            own_ = std::make_unique_for_overwrite<std::max_align_t[]>(
                bytes_ / sizeof(std::max_align_t) + 1);
            data_ = own_.get();
        }
        if (prepare || !given) {
            plan.prepare_workspace(batch, pass, data_, bytes_, stream);
        }
    }
    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

  private:
    std::unique_ptr<std::max_align_t[]> own_;
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};

void need_workspace(const LentPlan& plan, nb::handle workspace) {
    if (plan.cuda && workspace.is_none()) {
        throw UserError(SPION_INVALID,
                        "a call on a GPU needs a workspace there: ask workspace(batch, pass)");
    }
}

void forward(const LentPlan& plan, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
             nb::handle lse, nb::handle tables, nb::handle lengths, nb::handle workspace,
             bool prepare, std::optional<std::uintptr_t> stream) {
    need_workspace(plan, workspace);
    const Call call(plan.cuda, plan.ordinal, stream, q);
    const Array arrays[] = {call.read(q, "q", Access::kRead), call.read(k, "k", Access::kRead),
                            call.read(v, "v", Access::kRead), call.read(o, "o", Access::kWrite)};
    const Beside beside(call, lse, Access::kWrite, tables, lengths, workspace);
    spion_tensor tensors[4];
    for (int i = 0; i < 4; ++i) {
        tensors[i] = call.checked(arrays[i]).as_tensor();
    }
    beside.check_counts(tensors[0]);
    const nb::gil_scoped_release released;
    const Scratch scratch(plan.plan, tensors[0].shape[0], Pass::kForward, beside.workspace(),
                          prepare, call.stream());
    plan.plan.forward({.q = tensors[0],
                       .k = tensors[1],
                       .v = tensors[2],
                       .o = tensors[3],
                       .lse = beside.lse(),
                       .tables = beside.tables().data(),
                       .table_bytes = beside.tables().bytes(),
                       .lengths = beside.lengths(),
                       .workspace = scratch.data(),
                       .workspace_bytes = scratch.bytes()},
                      call.stream());
}

void backward(const LentPlan& plan, nb::handle d_o, nb::handle q, nb::handle k, nb::handle v,
              nb::handle o, nb::handle lse, nb::handle d_q, nb::handle d_k, nb::handle d_v,
              nb::handle tables, nb::handle lengths, nb::handle workspace, bool prepare,
              std::optional<std::uintptr_t> stream) {
    need_workspace(plan, workspace);
    const Call call(plan.cuda, plan.ordinal, stream, q);
    const Array arrays[] = {
        call.read(q, "q", Access::kRead),      call.read(k, "k", Access::kRead),
        call.read(v, "v", Access::kRead),      call.read(o, "o", Access::kRead),
        call.read(d_o, "d_o", Access::kRead),  call.read(d_q, "d_q", Access::kWrite),
        call.read(d_k, "d_k", Access::kWrite), call.read(d_v, "d_v", Access::kWrite)};
    const Beside beside(call, lse, Access::kRead, tables, lengths, workspace);
    spion_tensor tensors[8];
    for (int i = 0; i < 8; ++i) {
        tensors[i] = call.checked(arrays[i]).as_tensor();
    }
    beside.check_counts(tensors[0]);
    const nb::gil_scoped_release released;
    const Scratch scratch(plan.plan, tensors[0].shape[0], Pass::kBackward, beside.workspace(),
                          prepare, call.stream());
    plan.plan.backward({.q = tensors[0],
                        .k = tensors[1],
                        .v = tensors[2],
                        .o = tensors[3],
                        .d_o = tensors[4],
                        .d_q = tensors[5],
                        .d_k = tensors[6],
                        .d_v = tensors[7],
                        .lse = beside.lse(),
                        .tables = beside.tables().data(),
                        .table_bytes = beside.tables().bytes(),
                        .lengths = beside.lengths(),
                        .workspace = scratch.data(),
                        .workspace_bytes = scratch.bytes()},
                       call.stream());
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
                    nb::handle lengths, nb::handle sums, std::optional<std::uintptr_t> stream) {
    const Call call(self.cuda, self.ordinal, stream, q);
    const Array queries = call.read(q, "q", Access::kRead), keys = call.read(k, "k", Access::kRead);
    const Array room = call.read(sums, "sums", Access::kWrite);
    call.checked(room).check_plain(1, dlpack::kFloat, 32);
    const Beside beside(call, lse, Access::kRead, nb::none(), lengths, nb::none());
    const spion_tensor tensor = call.checked(queries).as_tensor();
    const spion_tensor other = call.checked(keys).as_tensor();
    beside.check_counts(tensor);
    const nb::gil_scoped_release released;
    self.discoverer.run({.q = tensor,
                         .k = other,
                         .lse = beside.lse(),
                         .lengths = beside.lengths(),
                         .sums = static_cast<float*>(room.data()),
                         .sum_bytes = room.bytes()},
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

nb::tuple counters(const LentContext& context) {
    const spion_counters seen = context.context.counters();
    return nb::make_tuple(seen.compiled, seen.from_disk, seen.from_bundle, seen.from_memory);
}

nb::tuple workspace(const LentPlan& plan, std::int64_t batch, int pass) {
    const Workspace needed = plan.plan.workspace(batch, static_cast<Pass>(pass));
    return nb::make_tuple(needed.bytes, needed.alignment);
}

}  // namespace

void bind_plan(nb::module_& module) {
    nb::class_<Attention>(module, "Attention")
        .def("__init__", [](Attention* self, int heads, int head_dim, std::int64_t length,
                            int block, int dtype, float scale, int softmax, bool key_padding) {
            new (self) Attention(
                make_attention(heads, head_dim, length, block, dtype, scale, softmax, key_padding));
        });
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
    module.def("current_stream", [](nb::handle array, int ordinal) {
        return reinterpret_cast<std::uintptr_t>(current_stream(array, ordinal));
    });
    nb::class_<LentDiscoverer>(module, "Discoverer")
        .def_prop_ro("sum_bytes",
                     [](const LentDiscoverer& self) { return self.discoverer.sum_bytes(); })
        .def("run", &run_discoverer, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(),
             nb::arg().none())
        .def("finish", &finish_discoverer);
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
             nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none())
        .def("backward", &backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
             nb::arg().none(), nb::arg(), nb::arg().none());
}

}  // namespace spion::python
