// spion_forward and spion_backward: everything that can be wrong is looked at before anything is
// launched, and nothing here allocates unless it fails or is asked to check contents.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "api/call_checks.h"
#include "api/plan.h"
#include "api/sequences.h"
#include "api/tensors.h"

namespace spion::api {
namespace {

static_assert(sizeof(spion_dropout_state) == sizeof(SpionDropoutState) &&
              offsetof(spion_dropout_state, offset) == offsetof(SpionDropoutState, offset) &&
              offsetof(spion_dropout_state, enabled) == offsetof(SpionDropoutState, enabled));

static_assert(SPION_TABLE_HEAD_BYTES == kTableHead * sizeof(std::int32_t));

struct NamedTensor {
    const char* name;
    const spion_tensor& given;
    SpionTensor SpionAttentionArguments::*place;
    Access access;
};

template <std::size_t kCount>
BatchSize size_of(const Attention& attention, const std::array<NamedTensor, kCount>& tensors,
                  const CallMemory& memory) {
    const auto& [name, first, place, access] = tensors[0];
    if (attention.varlen) {
        const std::int64_t rows = rows_of(first, name);
        return {.batch = checked_count(memory.sequences),
                .rows = rows,
                .key_rows = attention.key_starts ? rows_of(tensors[1].given, "k") : rows};
    }
    return {.batch = batch_of(first, name)};
}

template <std::size_t kCount>
void run(const spion_plan& plan, PlanPass pass, const std::array<NamedTensor, kCount>& tensors,
         float* lse, const CallMemory& memory, void* stream) {
    plan.context->check_process();
    const PlanRequest& request = plan.plan->request();
    const Device& device = plan.context->device();
    const Where where = where_of(plan, memory);
    const BatchSize size = size_of(request.attention, tensors, memory);
    SpionAttentionArguments args = {};
    args.batch = static_cast<int>(size.batch);
    args.rows = static_cast<int>(size.rows);
    args.key_rows = static_cast<int>(size.key_rows);
    for (const NamedTensor& tensor : tensors) {
        args.*tensor.place =
            read_tensor(tensor.given, tensor.name, request.attention, size, tensor.access, where);
    }
    if (lse != nullptr) {
        check_address(lse, "lse", sizeof(float), where);
    } else if (pass == PlanPass::kBackward) {
        throw UserError("lse is null: pass what the forward call has written");
    }
    if ((memory.flags & ~std::uint64_t{SPION_OVERLAP | SPION_CHECK | SPION_KNOWN}) != 0) {
        throw UserError(
            "flags are {:#x}: this spion knows SPION_OVERLAP, SPION_CHECK and SPION_KNOWN",
            memory.flags);
    }
    args.lse = lse;
    args.lengths = memory.lengths;
    args.query_spans = memory.query_spans;
    args.key_spans = memory.key_spans;
    args.dropout = reinterpret_cast<const SpionDropoutState*>(memory.dropout);
    args.alibi_slopes = memory.alibi_slopes;
    args.sinks = memory.sinks;
    args.d_sinks = memory.d_sinks;
    args.relative_bias = memory.relative_bias;
    args.d_relative_bias = memory.d_relative_bias;
    args.starts = memory.cu_seqlens;
    if (request.attention.key_starts) {
        args.key_starts = memory.key_cu_seqlens;
    }
    const std::optional<TableHead> head = check_call(plan, memory, size, pass, stream);
    plan.plan->run(pass, args,
                   {.tables = static_cast<const std::int32_t*>(memory.tables),
                    .head = head,
                    .workspace = memory.workspace,
                    .tables_settled = (memory.flags & SPION_OVERLAP) != 0},
                   device, stream);
}

void advance(const spion_plan& plan, spion_dropout_state* state, std::uint32_t by, void* stream) {
    plan.context->check_process();
    check_option(plan, plan.plan->request().attention.dropout > 0.0F, state, "the state", "dropout",
                 sizeof(std::uint64_t));
    if (state == nullptr) {
        throw UserError("the plan was made without dropout: there is nothing to advance");
    }
    plan.plan->advance_dropout(reinterpret_cast<SpionDropoutState*>(state), by,
                               plan.context->device(), stream);
}

}  // namespace
}  // namespace spion::api

extern "C" {

using spion::PlanPass;
using spion::api::Access;
using spion::api::guarded;
using spion::api::present;
using spion::api::read_struct;
using Arguments = SpionAttentionArguments;

int32_t spion_forward(const spion_plan* plan, const spion_forward_args* args,
                      void* stream) noexcept {
    return guarded([&] {
        const spion_plan& made = present(plan, "plan");
        const spion_forward_args call = read_struct(args, "spion_forward_args");
        const std::array<spion::api::NamedTensor, 4> tensors = {
            {{"q", call.q, &Arguments::q, Access::kRead},
             {"k", call.k, &Arguments::k, Access::kRead},
             {"v", call.v, &Arguments::v, Access::kRead},
             {"o", call.o, &Arguments::o, Access::kWrite}}};
        spion::api::run(made, PlanPass::kForward, tensors, call.lse,
                        {call.tables,
                         call.table_bytes,
                         call.lengths,
                         call.workspace,
                         call.workspace_bytes,
                         call.flags,
                         call.table_head,
                         call.query_spans,
                         call.key_spans,
                         call.dropout,
                         call.alibi_slopes,
                         call.sinks,
                         nullptr,
                         call.cu_seqlens,
                         call.host_cu_seqlens,
                         call.sequences,
                         call.relative_bias,
                         nullptr,
                         call.key_cu_seqlens,
                         call.host_key_cu_seqlens},
                        stream);
    });
}

int32_t spion_backward(const spion_plan* plan, const spion_backward_args* args,
                       void* stream) noexcept {
    return guarded([&] {
        const spion_plan& made = present(plan, "plan");
        const spion_backward_args call = read_struct(args, "spion_backward_args");
        const std::array<spion::api::NamedTensor, 8> tensors = {
            {{"q", call.q, &Arguments::q, Access::kRead},
             {"k", call.k, &Arguments::k, Access::kRead},
             {"v", call.v, &Arguments::v, Access::kRead},
             {"o", call.o, &Arguments::o, Access::kRead},
             {"d_o", call.d_o, &Arguments::d_o, Access::kRead},
             {"d_q", call.d_q, &Arguments::d_q, Access::kWrite},
             {"d_k", call.d_k, &Arguments::d_k, Access::kWrite},
             {"d_v", call.d_v, &Arguments::d_v, Access::kWrite}}};
        // Kernels of the backward pass read it.
        spion::api::run(made, PlanPass::kBackward, tensors, const_cast<float*>(call.lse),
                        {call.tables,         call.table_bytes,        call.lengths,
                         call.workspace,      call.workspace_bytes,    call.flags,
                         call.table_head,     call.query_spans,        call.key_spans,
                         call.dropout,        call.alibi_slopes,       call.sinks,
                         call.d_sinks,        call.cu_seqlens,         call.host_cu_seqlens,
                         call.sequences,      call.relative_bias,      call.d_relative_bias,
                         call.key_cu_seqlens, call.host_key_cu_seqlens},
                        stream);
    });
}

int32_t spion_plan_advance_dropout(const spion_plan* plan, spion_dropout_state* state, uint32_t by,
                                   void* stream) noexcept {
    return guarded([&] { spion::api::advance(present(plan, "plan"), state, by, stream); });
}

}  // extern "C"
