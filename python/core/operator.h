// The way of the PyTorch operators to the library: one call a pass, which borrows the tensors, finds the
// plan by their shape and has PyTorch make the outputs. What is out of the ordinary it leaves to the
// Python of the operators (python/spion/torch/_op.py) by returning None.
#pragma once

#include <nanobind/nanobind.h>
#include <spion/spion.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "python/core/array.h"
#include "python/core/call.h"
#include "python/core/outputs.h"
#include "python/core/plan_key.h"

namespace spion::python {

class Operator {
  public:
    // An object with what Outputs asks for, and with is_capturing(), whether the current stream is
    // being captured in a graph, and lasting(tensor, bytes), memory on a tensor's GPU that may be kept.
    explicit Operator(nb::handle torch);

    // From now on calls like this one take the plan.
    void add(const nb::object& plan, nb::handle q, nb::handle k, nb::handle v, const Given& given,
             const Words& words, const Changes* changes);

    // (o, lse), or None.
    nb::object forward(nb::handle q, nb::handle k, nb::handle v, const Given& given,
                       const Words& words, const Changes* changes);
    // (d_q, d_k, d_v), or None.
    nb::object backward(nb::handle d_o, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
                        nb::handle lse, const Given& given, const Words& words,
                        const Changes* changes);

    // The same of heads that lie side by side, [B, L, H + 2 Hkv, D]: (o [B, L, H, D], lse), or None.
    nb::object forward_packed(nb::handle qkv, std::int64_t heads, const Given& given,
                              const Words& words, const Changes* changes);
    // d_qkv, or None. d_o and o: [B, L, H, D].
    nb::object backward_packed(nb::handle d_o, nb::handle qkv, nb::handle o, nb::handle lse,
                               std::int64_t heads, const Given& given, const Words& words,
                               const Changes* changes);

  private:
    struct Entry {
        const LentPlan* plan;
        nb::object owner;
        KeptLayout q, k, v, lse, packed, d_packed;  // of the last call
    };
    struct Kept {
        const LentPlan* plan;
        std::int64_t batch;
        Pass pass;
        void* stream;
        nb::object memory;
    };

    Entry* find(const Array& q, const Array& k, const Array& v, const Given& given,
                const Words& words, const Changes* changes);
    // What a pass does when its operands are found and its outputs there: 4 arrays of the forward pass,
    // 8 of the backward (call.h).
    template <std::size_t N>
    void run_into(const Entry& entry, nb::handle like, const Array* const (&arrays)[N],
                  nb::handle lse, const Given& given, const Changes* changes);
    // The forward pass, which makes LSE.
    nb::object run_into(Entry& entry, nb::handle like, const Array* const (&arrays)[4], bool near,
                        const Given& given, const Changes* changes);
    // Of a GPU: prepared. Small ones are kept for the next call of the plan on this stream, which
    // finds the zeros that this call leaves; but a CUDA graph, which may be replayed beside other
    // calls, has its own.
    nb::object workspace_of(const LentPlan& plan, nb::handle like, std::int64_t batch, Pass pass,
                            const Call& call);
    // What tables() has left beside tables on a GPU: their first numbers, true while nobody has written
    // to the tensor since. bytes: keeps them.
    const void* head_of(const LentPlan& plan, nb::handle tables, nb::bytes& bytes) const;
    std::mutex* alone(const LentPlan& plan) { return plan.cuda ? &mutex_ : nullptr; }

    Outputs outputs_;
    nb::object new_empty_, is_capturing_, lasting_, uint8_;
    nb::object head_name_, version_name_;  // of attributes
    ScoreNumbers scores_;
    std::unordered_map<PlanKey, Entry, PlanKeyHash> plans_;
    std::vector<Kept> kept_;  // guarded by Python's lock
    std::mutex mutex_;        // whoever launches with a kept workspace
};

}  // namespace spion::python
