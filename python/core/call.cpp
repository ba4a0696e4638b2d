#include "python/core/call.h"

#include <array>
#include <iterator>
#include <string>

namespace spion::python {
namespace {

// Of ScoreArrays' arrays.
constexpr const char* kScoreNames[] = {"dropout_state", "alibi_slopes",  "sinks",
                                       "d_sinks",       "relative_bias", "d_relative_bias"};

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
        : tensors_(read(plan, call, arrays, beside, options)),
          alone_(options.alone == nullptr ? std::unique_lock<std::mutex>()
                                          : std::unique_lock(*options.alone)),
          scratch_(plan.plan, sizes_in(plan, tensors_, beside).batch, pass, beside.workspace(),
                   options.prepare, call.stream()) {}

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
        arguments.flags = options.known ? SPION_KNOWN : 0;
        arguments.table_head = options.head;
        arguments.query_spans = beside.query_spans();
        arguments.key_spans = beside.key_spans();
        arguments.cu_seqlens = beside.starts();
        arguments.host_cu_seqlens = beside.host_starts();
        arguments.sequences = beside.sequences();
        if (options.scores != nullptr) {
            arguments.dropout = options.scores->dropout();
            arguments.alibi_slopes = options.scores->alibi_slopes();
            arguments.sinks = options.scores->sinks();
            arguments.relative_bias = options.scores->relative_bias();
        }
        return arguments;
    }

  private:
    static CallSizes sizes_in(const LentPlan& plan, const std::array<spion_tensor, kCount>& tensors,
                              const Beside& beside) {
        if (plan.varlen > 0) {
            return {beside.sequences(), tensors[0].shape[0], plan.varlen, plan.varlen};
        }
        return sizes_of(tensors[0], tensors[1]);
    }
    static std::array<spion_tensor, kCount> read(const LentPlan& plan, const Call& call,
                                                 const Array* const (&arrays)[kCount],
                                                 const Beside& beside, const RunOptions& options) {
        std::array<spion_tensor, kCount> tensors;
        for (std::size_t i = 0; i < kCount; ++i) {
            tensors[i] = call.checked(*arrays[i]).as_tensor(plan.varlen > 0 ? 3 : 4);
        }
        const CallSizes sizes = sizes_in(plan, tensors, beside);
        if (plan.varlen > 0 && sizes.batch < 1) {
            throw UserError(SPION_INVALID,
                            "the plan was made with varlen and the call has no cu_seqlens of B + 1 "
                            "numbers: give where each sequence begins, and T");
        }
        beside.check_counts(sizes);
        if (options.scores != nullptr) {
            options.scores->check_counts(sizes.heads, plan.bias_entries);
        }
        return tensors;
    }

    std::array<spion_tensor, kCount> tensors_;
    nb::gil_scoped_release released_;
    std::unique_lock<std::mutex> alone_;
    Scratch scratch_;
};

}  // namespace

ScoreArrays::ScoreArrays(const Call& call, const ScoreHandles& given) {
    const auto lend = [&](std::size_t which, nb::handle array, Access access) {
        if (!array.is_none()) {
            arrays_[which].emplace(array, kScoreNames[which], access, call.stream());
            call.checked(*arrays_[which]);
        }
    };
    lend(0, given.state, Access::kRead);
    if (arrays_[0]) {
        arrays_[0]->check_plain(1, dlpack::kInt, 64);
        if (arrays_[0]->bytes() != sizeof(DropoutState)) {
            throw UserError(SPION_INVALID,
                            "dropout_state is not [2] int64: make it by dropout_state()");
        }
    }
    lend(1, given.slopes, Access::kRead);
    lend(2, given.sinks, Access::kRead);
    lend(3, given.d_sinks, Access::kWrite);
    lend(kBias, given.bias, Access::kRead);
    lend(kBias + 1, given.d_bias, Access::kWrite);
    for (std::size_t i = 1; i < std::size(arrays_); ++i) {
        if (arrays_[i]) {
            arrays_[i]->check_plain(i < kBias ? 1 : 2, dlpack::kFloat, 32);
        }
    }
}

void ScoreArrays::check_counts(std::int64_t heads, std::int64_t bias_entries) const {
    for (std::size_t i = 1; i < std::size(arrays_); ++i) {
        if (!arrays_[i]) {
            continue;
        }
        const std::int64_t* const shape = arrays_[i]->seen().shape;
        const std::string name = kScoreNames[i];
        if (i < kBias && shape[0] != heads) {
            throw UserError(SPION_INVALID,
                            (name + " has " + std::to_string(shape[0]) + " numbers, and q has " +
                             std::to_string(heads) + " heads: give one a head")
                                .c_str());
        }
        // What a plan has no biases for, the library refuses.
        if (i >= kBias && bias_entries > 0 && (shape[0] != heads || shape[1] != bias_entries)) {
            throw UserError(SPION_INVALID,
                            (name + " is [" + std::to_string(shape[0]) + ", " +
                             std::to_string(shape[1]) + "], and it must be [H, 2R + 1] = [" +
                             std::to_string(heads) + ", " + std::to_string(bias_entries) + "]")
                                .c_str());
        }
    }
}

void run_forward(const LentPlan& plan, const Call& call, const Array* const (&arrays)[4],
                 const Beside& beside, const RunOptions& options) {
    const Ready ready(plan, call, Pass::kForward, arrays, beside, options);
    const ForwardArguments arguments{.q = ready[0], .k = ready[1], .v = ready[2], .o = ready[3]};
    plan.plan.forward(ready.with_memory(arguments, beside, options), call.stream());
}

void run_backward(const LentPlan& plan, const Call& call, const Array* const (&arrays)[8],
                  const Beside& beside, const RunOptions& options) {
    const Ready ready(plan, call, Pass::kBackward, arrays, beside, options);
    BackwardArguments arguments{.q = ready[0],
                                .k = ready[1],
                                .v = ready[2],
                                .o = ready[3],
                                .d_o = ready[4],
                                .d_q = ready[5],
                                .d_k = ready[6],
                                .d_v = ready[7]};
    if (options.scores != nullptr) {
        arguments.d_sinks = options.scores->d_sinks();
        arguments.d_relative_bias = options.scores->d_relative_bias();
    }
    plan.plan.backward(ready.with_memory(arguments, beside, options), call.stream());
}

void forward(const LentPlan& plan, nb::handle q, nb::handle k, nb::handle v, nb::handle o,
             nb::handle lse, nb::handle tables, nb::handle lengths, nb::handle spans,
             nb::handle workspace, nb::handle head, bool prepare,
             std::optional<std::uintptr_t> stream, nb::handle state, nb::handle slopes,
             nb::handle sinks, nb::handle starts, nb::handle host_starts, nb::handle bias) {
    need_workspace(plan, workspace);
    const Call call(plan.cuda, plan.ordinal, stream, q);
    const Array arrays[4] = {call.read(q, "q", Access::kRead), call.read(k, "k", Access::kRead),
                             call.read(v, "v", Access::kRead), call.read(o, "o", Access::kWrite)};
    const Beside beside(call, lse, Access::kWrite, tables, lengths, spans, workspace, starts,
                        host_starts);
    const ScoreArrays scores(call,
                             {.state = state, .slopes = slopes, .sinks = sinks, .bias = bias});
    run_forward(plan, call, {&arrays[0], &arrays[1], &arrays[2], &arrays[3]}, beside,
                {.prepare = prepare, .head = head_of(head), .scores = &scores});
}

void backward(const LentPlan& plan, nb::handle d_o, nb::handle q, nb::handle k, nb::handle v,
              nb::handle o, nb::handle lse, nb::handle d_q, nb::handle d_k, nb::handle d_v,
              nb::handle tables, nb::handle lengths, nb::handle spans, nb::handle workspace,
              nb::handle head, bool prepare, std::optional<std::uintptr_t> stream, nb::handle state,
              nb::handle slopes, nb::handle sinks, nb::handle d_sinks, nb::handle starts,
              nb::handle host_starts, nb::handle bias, nb::handle d_bias) {
    need_workspace(plan, workspace);
    const Call call(plan.cuda, plan.ordinal, stream, q);
    const Array arrays[8] = {
        call.read(q, "q", Access::kRead),      call.read(k, "k", Access::kRead),
        call.read(v, "v", Access::kRead),      call.read(o, "o", Access::kRead),
        call.read(d_o, "d_o", Access::kRead),  call.read(d_q, "d_q", Access::kWrite),
        call.read(d_k, "d_k", Access::kWrite), call.read(d_v, "d_v", Access::kWrite)};
    const Beside beside(call, lse, Access::kRead, tables, lengths, spans, workspace, starts,
                        host_starts);
    const ScoreArrays scores(call, {.state = state,
                                    .slopes = slopes,
                                    .sinks = sinks,
                                    .d_sinks = d_sinks,
                                    .bias = bias,
                                    .d_bias = d_bias});
    run_backward(plan, call,
                 {&arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4], &arrays[5],
                  &arrays[6], &arrays[7]},
                 beside, {.prepare = prepare, .head = head_of(head), .scores = &scores});
}

}  // namespace spion::python
