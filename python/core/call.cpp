#include "python/core/call.h"

#include <array>

namespace spion::python {
namespace {

void need_workspace(const LentPlan& plan, nb::handle workspace) {
    if (plan.cuda && workspace.is_none()) {
        throw UserError(SPION_INVALID,
                        "a call on a GPU needs a workspace there: ask workspace(batch, pass)");
    }
}

// The first numbers of tables, as bytes of Python's.
const void* head_of(nb::handle head) {
    if (head.is_none()) {
        return nullptr;
    }
    const auto bytes = nb::cast<nb::bytes>(head);
    if (bytes.size() != SPION_TABLE_HEAD_BYTES) {
        throw UserError(SPION_INVALID, "the head of the tables is not their first 64 bytes");
    }
    return bytes.c_str();  // lives as long as the argument
}

// A pass that may be launched: its tensors checked, its workspace there and, while this lives, Python's
// lock given back and that of a shared workspace held.
template <std::size_t kCount>
class Ready {
  public:
    Ready(const LentPlan& plan, const Call& call, Pass pass, const Array* const (&arrays)[kCount],
          const Beside& beside, const RunOptions& options)
        : tensors_(read(call, arrays, beside)),
          alone_(options.alone == nullptr ? std::unique_lock<std::mutex>()
                                          : std::unique_lock(*options.alone)),
          scratch_(plan.plan, tensors_[0].shape[0], pass, beside.workspace(), options.prepare,
                   call.stream()) {}

    const spion_tensor& operator[](std::size_t index) const { return tensors_[index]; }

    // What both passes take beside their tensors.
    template <typename Arguments>
    Arguments with_memory(Arguments arguments, const Beside& beside,
                          const RunOptions& options) const {
        arguments.lse = beside.lse();
        arguments.tables = beside.tables().data();
        arguments.table_bytes = beside.tables().bytes();
        arguments.lengths = beside.lengths();
        arguments.workspace = scratch_.data();
        arguments.workspace_bytes = scratch_.bytes();
        arguments.table_head = options.head;
        arguments.query_spans = beside.query_spans();
        arguments.key_spans = beside.key_spans();
        return arguments;
    }

  private:
    static std::array<spion_tensor, kCount> read(const Call& call,
                                                 const Array* const (&arrays)[kCount],
                                                 const Beside& beside) {
        std::array<spion_tensor, kCount> tensors;
        for (std::size_t i = 0; i < kCount; ++i) {
            tensors[i] = call.checked(*arrays[i]).as_tensor();
        }
        beside.check_counts(tensors[0]);
        return tensors;
    }

    std::array<spion_tensor, kCount> tensors_;
    nb::gil_scoped_release released_;
    std::unique_lock<std::mutex> alone_;
    Scratch scratch_;
};

}  // namespace

void run_forward(const LentPlan& plan, const Call& call, const Array* const (&arrays)[4],
                 const Beside& beside, const RunOptions& options) {
    const Ready ready(plan, call, Pass::kForward, arrays, beside, options);
    const ForwardArguments arguments{.q = ready[0], .k = ready[1], .v = ready[2], .o = ready[3]};
    plan.plan.forward(ready.with_memory(arguments, beside, options), call.stream());
}

void run_backward(const LentPlan& plan, const Call& call, const Array* const (&arrays)[8],
                  const Beside& beside, const RunOptions& options) {
    const Ready ready(plan, call, Pass::kBackward, arrays, beside, options);
    const BackwardArguments arguments{.q = ready[0],
                                      .k = ready[1],
                                      .v = ready[2],
                                      .o = ready[3],
                                      .d_o = ready[4],
                                      .d_q = ready[5],
                                      .d_k = ready[6],
                                      .d_v = ready[7]};
    plan.plan.backward(ready.with_memory(arguments, beside, options), call.stream());
}

void forward(const LentPlan& plan, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
             nb::handle lse, nb::handle tables, nb::handle lengths, nb::handle spans,
             nb::handle workspace, nb::handle head, bool prepare,
             std::optional<std::uintptr_t> stream) {
    need_workspace(plan, workspace);
    const Call call(plan.cuda, plan.ordinal, stream, q);
    const Array arrays[4] = {call.read(q, "q", Access::kRead), call.read(k, "k", Access::kRead),
                             call.read(v, "v", Access::kRead), call.read(o, "o", Access::kWrite)};
    const Beside beside(call, lse, Access::kWrite, tables, lengths, spans, workspace);
    run_forward(plan, call, {&arrays[0], &arrays[1], &arrays[2], &arrays[3]}, beside,
                {.prepare = prepare, .head = head_of(head)});
}

void backward(const LentPlan& plan, nb::handle d_o, nb::handle q, nb::handle k, nb::handle v,
              nb::handle o, nb::handle lse, nb::handle d_q, nb::handle d_k, nb::handle d_v,
              nb::handle tables, nb::handle lengths, nb::handle spans, nb::handle workspace,
              nb::handle head, bool prepare, std::optional<std::uintptr_t> stream) {
    need_workspace(plan, workspace);
    const Call call(plan.cuda, plan.ordinal, stream, q);
    const Array arrays[8] = {
        call.read(q, "q", Access::kRead),      call.read(k, "k", Access::kRead),
        call.read(v, "v", Access::kRead),      call.read(o, "o", Access::kRead),
        call.read(d_o, "d_o", Access::kRead),  call.read(d_q, "d_q", Access::kWrite),
        call.read(d_k, "d_k", Access::kWrite), call.read(d_v, "d_v", Access::kWrite)};
    const Beside beside(call, lse, Access::kRead, tables, lengths, spans, workspace);
    run_backward(plan, call,
                 {&arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4], &arrays[5],
                  &arrays[6], &arrays[7]},
                 beside, {.prepare = prepare, .head = head_of(head)});
}

}  // namespace spion::python
