#include "python/core/operator.h"

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <utility>

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

constexpr const char* kNames[] = {"q", "k", "v"};
constexpr const char* kGradientNames[] = {"d_q", "d_k", "d_v"};

// Of [B, L, H + 2 Hkv, D], as [B, heads, L, D] each.
struct Heads {
    Heads(const Array& whole, std::int64_t heads, const char* const (&names)[3])
        : shared((whole.seen().shape[2] - heads) / 2),
          q(whole, names[0], 0, heads),
          k(whole, names[1], heads, shared),
          v(whole, names[2], heads + shared, shared) {}
    std::int64_t shared;  // Hkv
    Array q, k, v;
};

bool lend_packed(std::optional<Array>& array, nb::handle qkv, std::int64_t heads) {
    if (!lend(array, qkv, "qkv") || array->seen().rank != 4) {
        return false;
    }
    const std::int64_t beside = array->seen().shape[2] - heads;
    return heads > 0 && beside > 0 && beside % 2 == 0;
}

void lend_scores(std::optional<ScoreArrays>& scores, const Call& call, const Changes* changes) {
    if (changes != nullptr) {
        scores.emplace(call, ScoreHandles{changes->state, changes->slopes, changes->sinks,
                                          changes->d_sinks, changes->bias, changes->d_bias});
    }
}

}  // namespace

Operator::Operator(nb::handle torch)
    : outputs_(torch),
      new_empty_(torch.attr("new_empty")),
      is_capturing_(torch.attr("is_capturing")),
      lasting_(torch.attr("lasting")),
      uint8_(torch.attr("uint8")),
      head_name_(nb::steal(PyUnicode_InternFromString("_spion_head"))),
      version_name_(nb::steal(PyUnicode_InternFromString("_version"))) {}

void Operator::add(const nb::object& plan, nb::handle q, nb::handle k, nb::handle v,
                   const Given& given, const Words& words, const Changes* changes) {
    const Array queries(q, "q", Access::kRead, nullptr), keys(k, "k", Access::kRead, nullptr);
    const Array values(v, "v", Access::kRead, nullptr);
    const Array numbers(given.tables, "tables", Access::kRead, nullptr);
    const PlanKey key = key_of(queries.seen(), keys.seen(), values.seen(), numbers.seen().shape[0],
                               given, words, changes, scores_.add(changes));
    plans_.insert_or_assign(key,
                            Entry{nb::cast<const LentPlan*>(plan), plan, {}, {}, {}, {}, {}, {}});
}

nb::object Operator::forward(nb::handle q, nb::handle k, nb::handle v, const Given& given,
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
    const bool near = outputs_.is_near(queries);
    const std::int64_t* const sizes = queries.seen().shape;
    const std::int64_t width = values.seen().shape[3];
    nb::object o = width == sizes[3]
                       ? outputs_.like(q, queries, near, entry->q)
                       : outputs_.contiguous(q, queries, {sizes[0], sizes[1], sizes[2], width},
                                             near, entry->q);
    const Array written(o, "o", Access::kWrite, nullptr);
    nb::object lse =
        run_into(*entry, q, {&queries, &keys, &values, &written}, near, given, changes);
    return nb::make_tuple(std::move(o), std::move(lse));
}

nb::object Operator::backward(nb::handle d_o, nb::handle q, nb::handle k, nb::handle v,
                              nb::handle o, nb::handle lse, const Given& given, const Words& words,
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
    const bool near = outputs_.is_near(queries);
    nb::object made[] = {outputs_.like(q, queries, near, entry->q),
                         outputs_.like(k, keys, near, entry->k),
                         outputs_.like(v, values, near, entry->v)};
    const Array d_q(made[0], "d_q", Access::kWrite, nullptr);
    const Array d_k(made[1], "d_k", Access::kWrite, nullptr);
    const Array d_v(made[2], "d_v", Access::kWrite, nullptr);
    run_into(*entry, q, {&queries, &keys, &values, &result, &gradient, &d_q, &d_k, &d_v}, lse,
             given, changes);
    return nb::make_tuple(std::move(made[0]), std::move(made[1]), std::move(made[2]));
}

nb::object Operator::forward_packed(nb::handle qkv, std::int64_t heads, const Given& given,
                                    const Words& words, const Changes* changes) {
    std::optional<Array> whole;
    if (!lend_packed(whole, qkv, heads)) {
        return nb::none();
    }
    const Heads of(*whole, heads, kNames);
    Entry* const entry = find(of.q, of.k, of.v, given, words, changes);
    if (entry == nullptr || !are_readable({&of.q, &of.k, &of.v}, entry->plan->cuda)) {
        return nb::none();
    }
    const bool near = outputs_.is_near(*whole);
    const std::int64_t* const sizes = whole->seen().shape;
    nb::object o = outputs_.contiguous(qkv, *whole, {sizes[0], sizes[1], heads, sizes[3]}, near,
                                       entry->packed);
    const Array made(o, "o", Access::kWrite, nullptr);
    const Array written(made, "o", 0, heads);
    nb::object lse = run_into(*entry, qkv, {&of.q, &of.k, &of.v, &written}, near, given, changes);
    return nb::make_tuple(std::move(o), std::move(lse));
}

nb::object Operator::backward_packed(nb::handle d_o, nb::handle qkv, nb::handle o, nb::handle lse,
                                     std::int64_t heads, const Given& given, const Words& words,
                                     const Changes* changes) {
    std::optional<Array> whole, lent_o, lent_d_o;
    if (!lend_packed(whole, qkv, heads) || !lend(lent_o, o, "o") || !lend(lent_d_o, d_o, "d_o") ||
        lent_o->seen().rank != 4 || lent_d_o->seen().rank != 4) {
        return nb::none();
    }
    const Heads of(*whole, heads, kNames);
    const Array result(*lent_o, "o", 0, lent_o->seen().shape[2]);
    const Array gradient(*lent_d_o, "d_o", 0, lent_d_o->seen().shape[2]);
    Entry* const entry = find(of.q, of.k, of.v, given, words, changes);
    if (entry == nullptr ||
        !are_readable({&of.q, &of.k, &of.v, &result, &gradient}, entry->plan->cuda)) {
        return nb::none();
    }
    const std::int64_t* const sizes = whole->seen().shape;
    nb::object made = outputs_.contiguous(qkv, *whole, {sizes[0], sizes[1], sizes[2], sizes[3]},
                                          outputs_.is_near(*whole), entry->d_packed);
    const Array d_qkv(made, "d_qkv", Access::kWrite, nullptr);
    const Heads to(d_qkv, heads, kGradientNames);
    run_into(*entry, qkv, {&of.q, &of.k, &of.v, &result, &gradient, &to.q, &to.k, &to.v}, lse,
             given, changes);
    return made;
}

Operator::Entry* Operator::find(const Array& q, const Array& k, const Array& v, const Given& given,
                                const Words& words, const Changes* changes) {
    if (q.seen().rank != 4 || k.seen().rank != 4 || v.seen().rank != 4) {
        return nullptr;
    }
    const Array numbers(given.tables, "tables", Access::kRead, nullptr);
    if (numbers.seen().rank != 1) {
        return nullptr;
    }
    const auto found = plans_.find(key_of(q.seen(), k.seen(), v.seen(), numbers.seen().shape[0],
                                          given, words, changes, scores_.find(changes)));
    return found == plans_.end() ? nullptr : &found->second;
}

nb::object Operator::run_into(Entry& entry, nb::handle like, const Array* const (&arrays)[4],
                              bool near, const Given& given, const Changes* changes) {
    nb::object lse = outputs_.lse(like, *arrays[0], near, entry.lse);
    run_into(entry, like, arrays, lse, given, changes);
    return lse;
}

template <std::size_t N>
void Operator::run_into(const Entry& entry, nb::handle like, const Array* const (&arrays)[N],
                        nb::handle lse, const Given& given, const Changes* changes) {
    constexpr bool kForward = N == 4;
    const LentPlan& plan = *entry.plan;
    const Call call(plan.cuda, plan.ordinal, std::nullopt, like);
    const nb::object workspace = workspace_of(plan, like, arrays[0]->seen().shape[0],
                                              kForward ? Pass::kForward : Pass::kBackward, call);
    const Beside beside(call, lse, kForward ? Access::kWrite : Access::kRead, given.tables,
                        given.lengths, given.spans, workspace);
    std::optional<ScoreArrays> scores;
    lend_scores(scores, call, changes);
    nb::bytes kept;
    const RunOptions options{.known = true,
                             .head = head_of(plan, given.tables, kept),
                             .alone = alone(plan),
                             .scores = scores ? &*scores : nullptr};
    if constexpr (kForward) {
        run_forward(plan, call, arrays, beside, options);
    } else {
        run_backward(plan, call, arrays, beside, options);
    }
}

nb::object Operator::workspace_of(const LentPlan& plan, nb::handle like, std::int64_t batch,
                                  Pass pass, const Call& call) {
    if (!plan.cuda) {
        return nb::none();
    }
    // CUDA captures no legacy default stream, which null is.
    bool keep = call.stream() == nullptr || !nb::cast<bool>(is_capturing_());
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

const void* Operator::head_of(const LentPlan& plan, nb::handle tables, nb::bytes& bytes) const {
    if (!plan.cuda) {
        return nullptr;  // the library reads them
    }
    const nb::object noted = nb::getattr(tables, head_name_, nb::none());
    if (noted.is_none() || !noted[1].equal(nb::getattr(tables, version_name_, nb::none()))) {
        return nullptr;
    }
    bytes = nb::cast<nb::bytes>(nb::object(noted[0]));
    return bytes.size() == SPION_TABLE_HEAD_BYTES ? bytes.c_str() : nullptr;
}

}  // namespace spion::python
