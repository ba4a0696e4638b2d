// The way of the PyTorch operator to the library: one call a pass, which borrows the tensors, finds the
// plan by their shape and has PyTorch make the outputs. What is out of the ordinary it leaves to the
// Python of the operator (python/spion/torch/_op.py) by returning None.
#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "python/core/array.h"
#include "python/core/bindings.h"
#include "python/core/call.h"
#include "python/core/outputs.h"
#include "python/core/plan_key.h"

namespace spion::python {
namespace {

constexpr std::int64_t kEngineBytes = 16;                 // as kernels of a GPU read rows
constexpr std::size_t kKeptBytes = std::size_t{4} << 20;  // of a workspace, at most
constexpr std::size_t kKeptWorkspaces = 16;

// As kernels read it: D contiguous and, on a GPU, rows, heads and samples at 16 bytes.
bool is_readable(const Array& array, bool cuda) {
    const dlpack::Tensor& seen = array.seen();
    if (seen.rank != 4 || seen.strides == nullptr || seen.strides[3] != 1) {
        return seen.rank == 4 && seen.strides == nullptr;
    }
    const std::int64_t bytes = seen.dtype.bits / 8;
    return !cuda || (reinterpret_cast<std::uintptr_t>(array.data()) % kEngineBytes == 0 &&
                     seen.strides[0] * bytes % kEngineBytes == 0 &&
                     seen.strides[1] * bytes % kEngineBytes == 0 &&
                     seen.strides[2] * bytes % kEngineBytes == 0);
}

// Borrows a tensor that the library can read; false of one that only PyTorch knows what to do with.
bool lend(std::optional<Array>& array, nb::handle tensor, const char* name) {
    try {
        array.emplace(tensor, name, Access::kRead, nullptr);
    } catch (const UserError&) {
        return false;
    }
    return array->data() != nullptr;
}

bool are_readable(std::initializer_list<const Array*> arrays, bool cuda) {
    return std::all_of(arrays.begin(), arrays.end(),
                       [cuda](const Array* array) { return is_readable(*array, cuda); });
}

class Operator {
  public:
    // An object with what Outputs asks for, and with is_capturing(), whether the current stream is
    // being captured in a graph, and lasting(tensor, bytes), memory on a tensor's GPU that may be kept.
    explicit Operator(nb::handle torch)
        : outputs_(torch),
          new_empty_(torch.attr("new_empty")),
          is_capturing_(torch.attr("is_capturing")),
          lasting_(torch.attr("lasting")),
          uint8_(torch.attr("uint8")) {}

    // From now on calls like this one take the plan.
    void add(const nb::object& plan, nb::handle q, nb::handle k, nb::handle v, const Given& given,
             const Words& words, const Changes* changes) {
        const Array queries(q, "q", Access::kRead, nullptr), keys(k, "k", Access::kRead, nullptr);
        const Array values(v, "v", Access::kRead, nullptr);
        const Array numbers(given.tables, "tables", Access::kRead, nullptr);
        const PlanKey key = key_of(queries.seen(), keys.seen(), values.seen(),
                                   numbers.seen().shape[0], given, words, changes);
        plans_.insert_or_assign(key, Entry{nb::cast<const LentPlan*>(plan), plan, {}, {}, {}, {}});
    }

    // (o, lse), or None.
    nb::object forward(nb::handle q, nb::handle k, nb::handle v, const Given& given,
                       const Words& words, const Changes* changes) {
        std::optional<Array> lent[3];
        if (!lend(lent[0], q, "q") || !lend(lent[1], k, "k") || !lend(lent[2], v, "v")) {
            return nb::none();
        }
        const Array &queries = *lent[0], &keys = *lent[1], &values = *lent[2];
        Entry* const entry = find(queries, keys, values, given, words, changes);
        if (entry == nullptr || !are_readable({&queries, &keys, &values}, entry->plan->cuda)) {
            return nb::none();
        }
        const LentPlan& plan = *entry->plan;
        const Call call(plan.cuda, plan.ordinal, std::nullopt, q);
        const bool near = outputs_.is_near(queries);
        const std::int64_t width = values.seen().shape[3];
        nb::object o = width == queries.seen().shape[3]
                           ? outputs_.like(q, queries, near, entry->q)
                           : outputs_.wide(q, queries, width, near, entry->q);
        nb::object lse = outputs_.lse(q, queries, near, entry->lse);
        const nb::object workspace =
            workspace_of(plan, q, queries.seen().shape[0], Pass::kForward, call);
        const Beside beside(call, lse, Access::kWrite, given.tables, given.lengths, given.spans,
                            workspace);
        std::optional<ScoreArrays> scores;
        lend_scores(scores, call, changes);
        const Array written(o, "o", Access::kWrite, nullptr);
        nb::bytes kept;
        run_forward(plan, call, {&queries, &keys, &values, &written}, beside,
                    {.head = head_of(plan, given.tables, kept),
                     .alone = alone(plan),
                     .scores = scores ? &*scores : nullptr});
        return nb::make_tuple(std::move(o), std::move(lse));
    }

    // (d_q, d_k, d_v), or None.
    nb::object backward(nb::handle d_o, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
                        nb::handle lse, const Given& given, const Words& words,
                        const Changes* changes) {
        std::optional<Array> lent[5];
        if (!lend(lent[0], q, "q") || !lend(lent[1], k, "k") || !lend(lent[2], v, "v") ||
            !lend(lent[3], o, "o") || !lend(lent[4], d_o, "d_o")) {
            return nb::none();
        }
        const Array &queries = *lent[0], &keys = *lent[1], &values = *lent[2];
        const Array &result = *lent[3], &gradient = *lent[4];
        Entry* const entry = find(queries, keys, values, given, words, changes);
        if (entry == nullptr ||
            !are_readable({&queries, &keys, &values, &result, &gradient}, entry->plan->cuda)) {
            return nb::none();
        }
        const LentPlan& plan = *entry->plan;
        const Call call(plan.cuda, plan.ordinal, std::nullopt, q);
        const bool near = outputs_.is_near(queries);
        nb::object made[] = {outputs_.like(q, queries, near, entry->q),
                             outputs_.like(k, keys, near, entry->k),
                             outputs_.like(v, values, near, entry->v)};
        const Array d_q(made[0], "d_q", Access::kWrite, nullptr);
        const Array d_k(made[1], "d_k", Access::kWrite, nullptr);
        const Array d_v(made[2], "d_v", Access::kWrite, nullptr);
        const nb::object workspace =
            workspace_of(plan, q, queries.seen().shape[0], Pass::kBackward, call);
        const Beside beside(call, lse, Access::kRead, given.tables, given.lengths, given.spans,
                            workspace);
        std::optional<ScoreArrays> scores;
        lend_scores(scores, call, changes);
        nb::bytes kept;
        run_backward(plan, call, {&queries, &keys, &values, &result, &gradient, &d_q, &d_k, &d_v},
                     beside,
                     {.head = head_of(plan, given.tables, kept),
                      .alone = alone(plan),
                      .scores = scores ? &*scores : nullptr});
        return nb::make_tuple(std::move(made[0]), std::move(made[1]), std::move(made[2]));
    }

  private:
    struct Entry {
        const LentPlan* plan;
        nb::object owner;
        KeptLayout q, k, v, lse;  // of the last call
    };
    struct Kept {
        const LentPlan* plan;
        std::int64_t batch;
        Pass pass;
        void* stream;
        nb::object memory;
    };

    Entry* find(const Array& q, const Array& k, const Array& v, const Given& given,
                const Words& words, const Changes* changes) {
        if (q.seen().rank != 4 || k.seen().rank != 4 || v.seen().rank != 4) {
            return nullptr;
        }
        const Array numbers(given.tables, "tables", Access::kRead, nullptr);
        if (numbers.seen().rank != 1) {
            return nullptr;
        }
        const auto found = plans_.find(
            key_of(q.seen(), k.seen(), v.seen(), numbers.seen().shape[0], given, words, changes));
        return found == plans_.end() ? nullptr : &found->second;
    }

    static void lend_scores(std::optional<ScoreArrays>& scores, const Call& call,
                            const Changes* changes) {
        if (changes != nullptr) {
            scores.emplace(call, ScoreHandles{changes->state, changes->slopes, changes->sinks,
                                              changes->d_sinks, changes->bias, changes->d_bias});
        }
    }

    // Of a GPU: prepared. Small ones are kept for the next call of the plan on this stream, which
    // finds the zeros that this call leaves; but a CUDA graph, which may be replayed beside other
    // calls, has its own.
    nb::object workspace_of(const LentPlan& plan, nb::handle like, std::int64_t batch, Pass pass,
                            const Call& call) {
        if (!plan.cuda) {
            return nb::none();
        }
        bool keep = !nb::cast<bool>(is_capturing_());
        if (keep) {
            for (const Kept& kept : kept_) {
                if (kept.plan == &plan && kept.batch == batch && kept.pass == pass &&
                    kept.stream == call.stream()) {
                    return kept.memory;
                }
            }
        }
        const std::size_t bytes = plan.plan.workspace(batch, pass).bytes;
        keep = keep && bytes <= kKeptBytes && kept_.size() < kKeptWorkspaces;
        nb::object memory =
            keep ? lasting_(like, bytes) : new_empty_(like, nb::make_tuple(bytes), uint8_);
        const Array array(memory, "workspace", Access::kWrite, nullptr);
        plan.plan.prepare_workspace(batch, pass, array.data(), bytes, call.stream());
        if (keep) {
            kept_.push_back({&plan, batch, pass, call.stream(), memory});
        }
        return memory;
    }

    std::mutex* alone(const LentPlan& plan) { return plan.cuda ? &mutex_ : nullptr; }

    // What tables() has left beside tables on a GPU: their first numbers, true while nobody has
    // written to the tensor since. bytes: keeps them.
    static const void* head_of(const LentPlan& plan, nb::handle tables, nb::bytes& bytes) {
        if (!plan.cuda) {
            return nullptr;  // the library reads them
        }
        const nb::object noted = nb::getattr(tables, "_spion_head", nb::none());
        if (noted.is_none() || !noted[1].equal(nb::getattr(tables, "_version", nb::none()))) {
            return nullptr;
        }
        bytes = nb::cast<nb::bytes>(nb::object(noted[0]));
        return bytes.size() == SPION_TABLE_HEAD_BYTES ? bytes.c_str() : nullptr;
    }

    Outputs outputs_;
    nb::object new_empty_, is_capturing_, lasting_, uint8_;
    std::unordered_map<PlanKey, Entry, PlanKeyHash> plans_;
    std::vector<Kept> kept_;  // guarded by Python's lock
    std::mutex mutex_;        // whoever launches with a kept workspace
};

// The arguments are those of the operators, in the order of their schemas.
using H = nb::handle;
using Text = const char*;
auto maybe() {
    return nb::arg().none();
}

void bind_plain(nb::class_<Operator>& operators) {
    operators
        .def(
            "add",
            [](Operator& self, const nb::object& plan, H q, H k, H v, H tables, H lengths, H spans,
               std::int64_t block, double scale, Text softmax, bool causal) {
                self.add(plan, q, k, v, {tables, lengths, spans}, {block, scale, softmax, causal},
                         nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(), nb::arg(),
            nb::arg(), nb::arg(), nb::arg())
        .def(
            "forward",
            [](Operator& self, H q, H k, H v, H tables, H lengths, std::int64_t block, double scale,
               Text softmax, bool causal, H spans) {
                return self.forward(q, k, v, {tables, lengths, spans},
                                    {block, scale, softmax, causal}, nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(),
            nb::arg(), maybe())
        .def(
            "backward",
            [](Operator& self, H d_o, H q, H k, H v, H o, H lse, H tables, H lengths,
               std::int64_t block, double scale, Text softmax, bool causal, H spans) {
                return self.backward(d_o, q, k, v, o, lse, {tables, lengths, spans},
                                     {block, scale, softmax, causal}, nullptr);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(),
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe());
}

void bind_general(nb::class_<Operator>& operators) {
    operators
        .def(
            "add_general",
            [](Operator& self, const nb::object& plan, H q, H k, H v, H tables, H lengths, H spans,
               std::int64_t block, double scale, Text softmax, bool causal, double softcap,
               double dropout, std::int64_t patterns, H slopes, H sinks, H bias) {
                const Changes changes{softcap, dropout, patterns, Py_None,
                                      slopes,  sinks,   Py_None,  bias};
                self.add(plan, q, k, v, {tables, lengths, spans}, {block, scale, softmax, causal},
                         &changes);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(), nb::arg(),
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(),
            maybe())
        .def(
            "forward_general",
            [](Operator& self, H q, H k, H v, H tables, H lengths, std::int64_t block, double scale,
               Text softmax, bool causal, H spans, double softcap, double dropout,
               std::int64_t patterns, H state, H slopes, H sinks, H bias) {
                const Changes changes{softcap, dropout, patterns, state,
                                      slopes,  sinks,   Py_None,  bias};
                return self.forward(q, k, v, {tables, lengths, spans},
                                    {block, scale, softmax, causal}, &changes);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(),
            nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(), maybe(), maybe(), maybe(), maybe())
        .def(
            "backward_general",
            [](Operator& self, H d_o, H q, H k, H v, H o, H lse, H tables, H lengths,
               std::int64_t block, double scale, Text softmax, bool causal, H spans, double softcap,
               double dropout, std::int64_t patterns, H state, H slopes, H sinks, H bias, H d_sinks,
               H d_bias) {
                const Changes changes{softcap, dropout, patterns, state, slopes,
                                      sinks,   d_sinks, bias,     d_bias};
                return self.backward(d_o, q, k, v, o, lse, {tables, lengths, spans},
                                     {block, scale, softmax, causal}, &changes);
            },
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(),
            nb::arg(), nb::arg(), nb::arg(), nb::arg(), maybe(), nb::arg(), nb::arg(), nb::arg(),
            maybe(), maybe(), maybe(), maybe(), maybe(), maybe());
}

}  // namespace

void bind_operator(nb::module_& module) {
    nb::class_<Operator> operators(module, "Operator");
    operators.def(nb::init<nb::handle>());
    bind_plain(operators);
    bind_general(operators);
}

}  // namespace spion::python
