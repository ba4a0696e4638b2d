// The way of the PyTorch operator to the library: one call a pass, which borrows the tensors, finds the
// plan by their shape and has PyTorch make the outputs. What is out of the ordinary it leaves to the
// Python of the operator (python/spion/torch/_op.py) by returning None.
#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "python/core/array.h"
#include "python/core/bindings.h"
#include "python/core/call.h"

namespace spion::python {
namespace {

constexpr std::int64_t kEngineBytes = 16;                 // as kernels of a GPU read rows
constexpr std::size_t kKeptBytes = std::size_t{4} << 20;  // of a workspace, at most
constexpr std::size_t kKeptWorkspaces = 16;

// What decides about the plan, apart from the words of the call.
struct Key {
    std::int64_t device, dtype, heads, key_value_heads, length, width, block, scale, numbers;
    std::int64_t flags;  // softmax, key padding, causal, spans: a bit each

    friend bool operator==(const Key&, const Key&) = default;
};

struct KeyHash {
    std::size_t operator()(const Key& key) const {
        const auto words = std::bit_cast<std::array<std::uint64_t, sizeof(Key) / 8>>(key);
        std::uint64_t hash = 0;
        for (const std::uint64_t word : words) {
            hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
            hash ^= hash >> 32;
        }
        return static_cast<std::size_t>(hash);
    }
};

// How a call is to be computed.
struct Words {
    std::int64_t block;
    double scale;
    const char* softmax;
    bool causal;
};

Key key_of(const dlpack::Tensor& q, const dlpack::Tensor& k, std::int64_t numbers, bool padded,
           bool spans, const Words& words) {
    const bool pruned = std::strcmp(words.softmax, "pruned_zero") == 0;
    const std::int64_t softmax = pruned ? 1 : std::strcmp(words.softmax, "masked") == 0 ? 0 : 16;
    return {.device = std::int64_t{q.device.type} << 32 | q.device.ordinal,
            .dtype = q.dtype.code << 8 | q.dtype.bits,
            .heads = q.shape[1],
            .key_value_heads = k.shape[1],
            .length = q.shape[2],
            .width = q.shape[3],
            .block = words.block,
            .scale = std::bit_cast<std::int64_t>(words.scale),
            .numbers = numbers,
            .flags = softmax | (padded ? 2 : 0) | (words.causal ? 4 : 0) | (spans ? 8 : 0)};
}

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

class Operator {
  public:
    // Functions of PyTorch: empty_like, whether the current stream is being captured in a graph, and
    // memory on a tensor's GPU that may be kept, from (tensor, bytes); and two of its types.
    Operator(nb::object empty_like, nb::object is_capturing, nb::object lasting, nb::object float32,
             nb::object uint8)
        : empty_like_(std::move(empty_like)),
          is_capturing_(std::move(is_capturing)),
          lasting_(std::move(lasting)),
          float32_(std::move(float32)),
          uint8_(std::move(uint8)) {}

    // From now on calls like this one take the plan.
    void add(const nb::object& plan, nb::handle q, nb::handle k, nb::handle tables, bool padded,
             bool spans, std::int64_t block, double scale, const char* softmax, bool causal) {
        const Array queries(q, "q", Access::kRead, nullptr), keys(k, "k", Access::kRead, nullptr);
        const Array numbers(tables, "tables", Access::kRead, nullptr);
        const Key key = key_of(queries.seen(), keys.seen(), numbers.seen().shape[0], padded, spans,
                               {block, scale, softmax, causal});
        plans_.insert_or_assign(key, Entry{nb::cast<const LentPlan*>(plan), plan});
    }

    // (o, lse), or None.
    nb::object forward(nb::handle q, nb::handle k, nb::handle v, nb::handle tables,
                       nb::handle lengths, std::int64_t block, double scale, const char* softmax,
                       bool causal, nb::handle spans) {
        const Array queries(q, "q", Access::kRead, nullptr), keys(k, "k", Access::kRead, nullptr);
        const Array values(v, "v", Access::kRead, nullptr);
        const LentPlan* const plan =
            find(queries, keys, tables, lengths, spans, {block, scale, softmax, causal});
        if (plan == nullptr || !is_readable(queries, plan->cuda) ||
            !is_readable(keys, plan->cuda) || !is_readable(values, plan->cuda)) {
            return nb::none();
        }
        const Call call(plan->cuda, plan->ordinal, std::nullopt, q);
        nb::object o = empty_like_(q);
        const std::int64_t* const shape = queries.seen().shape;
        nb::object lse = q.attr("new_empty")(nb::make_tuple(shape[0], shape[1], shape[2]),
                                             nb::arg("dtype") = float32_);
        const nb::object workspace = workspace_of(*plan, q, shape[0], Pass::kForward, call);
        const Beside beside(call, lse, Access::kWrite, tables, lengths, spans, workspace);
        const Array written(o, "o", Access::kWrite, nullptr);
        nb::bytes kept;
        run_forward(*plan, call, {&queries, &keys, &values, &written}, beside,
                    {.head = head_of(*plan, tables, kept), .alone = alone(*plan)});
        return nb::make_tuple(std::move(o), std::move(lse));
    }

    // (d_q, d_k, d_v), or None.
    nb::object backward(nb::handle d_o, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
                        nb::handle lse, nb::handle tables, nb::handle lengths, std::int64_t block,
                        double scale, const char* softmax, bool causal, nb::handle spans) {
        const Array queries(q, "q", Access::kRead, nullptr), keys(k, "k", Access::kRead, nullptr);
        const Array values(v, "v", Access::kRead, nullptr), result(o, "o", Access::kRead, nullptr);
        const Array gradient(d_o, "d_o", Access::kRead, nullptr);
        const LentPlan* const plan =
            find(queries, keys, tables, lengths, spans, {block, scale, softmax, causal});
        if (plan == nullptr) {
            return nb::none();
        }
        for (const Array* const array : {&queries, &keys, &values, &result, &gradient}) {
            if (!is_readable(*array, plan->cuda)) {
                return nb::none();
            }
        }
        const Call call(plan->cuda, plan->ordinal, std::nullopt, q);
        nb::object made[] = {empty_like_(q), empty_like_(k), empty_like_(v)};
        const Array d_q(made[0], "d_q", Access::kWrite, nullptr);
        const Array d_k(made[1], "d_k", Access::kWrite, nullptr);
        const Array d_v(made[2], "d_v", Access::kWrite, nullptr);
        const nb::object workspace =
            workspace_of(*plan, q, queries.seen().shape[0], Pass::kBackward, call);
        const Beside beside(call, lse, Access::kRead, tables, lengths, spans, workspace);
        nb::bytes kept;
        run_backward(*plan, call, {&queries, &keys, &values, &result, &gradient, &d_q, &d_k, &d_v},
                     beside, {.head = head_of(*plan, tables, kept), .alone = alone(*plan)});
        return nb::make_tuple(std::move(made[0]), std::move(made[1]), std::move(made[2]));
    }

  private:
    struct Entry {
        const LentPlan* plan;
        nb::object owner;
    };
    struct Kept {
        const LentPlan* plan;
        std::int64_t batch;
        Pass pass;
        void* stream;
        nb::object memory;
    };

    const LentPlan* find(const Array& q, const Array& k, nb::handle tables, nb::handle lengths,
                         nb::handle spans, const Words& words) const {
        if (q.seen().rank != 4 || k.seen().rank != 4) {
            return nullptr;
        }
        const Array numbers(tables, "tables", Access::kRead, nullptr);
        if (numbers.seen().rank != 1) {
            return nullptr;
        }
        const auto found = plans_.find(key_of(q.seen(), k.seen(), numbers.seen().shape[0],
                                              !lengths.is_none(), !spans.is_none(), words));
        return found == plans_.end() ? nullptr : found->second.plan;
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
            keep ? lasting_(like, bytes)
                 : nb::object(like.attr("new_empty")(bytes, nb::arg("dtype") = uint8_));
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

    nb::object empty_like_, is_capturing_, lasting_, float32_, uint8_;
    std::unordered_map<Key, Entry, KeyHash> plans_;
    std::vector<Kept> kept_;  // guarded by Python's lock
    std::mutex mutex_;        // whoever launches with a kept workspace
};

}  // namespace

void bind_operator(nb::module_& module) {
    nb::class_<Operator>(module, "Operator")
        .def(nb::init<nb::object, nb::object, nb::object, nb::object, nb::object>())
        .def("add", &Operator::add)
        .def("forward", &Operator::forward, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("backward", &Operator::backward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg().none());
}

}  // namespace spion::python
