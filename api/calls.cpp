// spion_forward and spion_backward: everything that can be wrong is looked at before anything is
// launched, and nothing here allocates unless it fails or is asked to check contents.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "api/plan.h"
#include "api/sequences.h"
#include "api/tensors.h"

namespace spion::api {
namespace {

// What both calls have besides their tensors.
struct CallMemory {
    const void* tables;
    std::size_t table_bytes;
    const std::int32_t* lengths;
    void* workspace;
    std::size_t workspace_bytes;
    std::uint64_t flags;
    const void* table_head;
    const std::int32_t *query_spans, *key_spans;
    const spion_dropout_state* dropout;
    const float *alibi_slopes, *sinks;
    float* d_sinks;
    const std::int32_t *cu_seqlens, *host_cu_seqlens;
    std::int64_t sequences;
    const float* relative_bias;
    float* d_relative_bias;
};

static_assert(sizeof(spion_dropout_state) == sizeof(SpionDropoutState) &&
              offsetof(spion_dropout_state, offset) == offsetof(SpionDropoutState, offset) &&
              offsetof(spion_dropout_state, enabled) == offsetof(SpionDropoutState, enabled));

static_assert(SPION_TABLE_HEAD_BYTES == kTableHead * sizeof(std::int32_t));

void refuse_foreign(const AttentionPlan& plan, TableHead head) {
    if (const std::string problem = plan.problem_with_tables(head); !problem.empty()) {
        throw UserError("the tables {}: pass what spion_plan_write_tables of this plan has written",
                        problem);
    }
}

// Their head on the host, where it is known; looked at.
std::optional<TableHead> head_of(const AttentionPlan& plan, const CallMemory& memory,
                                 bool on_host) {
    const void* const start = on_host ? memory.tables : memory.table_head;
    if (start == nullptr) {
        return std::nullopt;
    }
    const TableHead head(static_cast<const std::int32_t*>(start), kTableHead);
    refuse_foreign(plan, head);
    return head;
}

Where where_of(const spion_plan& plan, const CallMemory& memory) {
    return {plan.context->device(), (memory.flags & SPION_KNOWN) != 0};
}

void check_tables(const spion_plan& plan, const CallMemory& memory) {
    const AttentionPlan& made = *plan.plan;
    if (memory.tables == nullptr || memory.table_bytes != made.table_bytes()) {
        throw UserError(
            "tables of {} bytes at {}, and this plan's are {}: pass what spion_plan_write_tables "
            "of this plan has written, and table_bytes of its spion_plan_info",
            memory.table_bytes, memory.tables, made.table_bytes());
    }
    check_address(memory.tables, "tables", 16, where_of(plan, memory));
}

void check_lengths(const spion_plan& plan, const CallMemory& memory, std::int64_t batch,
                   bool on_host) {
    const Attention& attention = plan.plan->request().attention;
    if ((memory.lengths != nullptr) != attention.key_padding) {
        throw UserError("lengths are {} and the plan was made with key_padding = {}: {}",
                        memory.lengths == nullptr ? "null" : "given", attention.key_padding ? 1 : 0,
                        attention.key_padding ? "pass the number of valid keys of each sample"
                                              : "pass null, or make the plan with key_padding = 1");
    }
    if (memory.lengths == nullptr) {
        return;
    }
    check_address(memory.lengths, "lengths", sizeof(std::int32_t), plan.context->device());
    if (on_host) {
        check_valid(attention, {memory.lengths, static_cast<std::size_t>(batch)});
    }
}

// The starts of sequences, at `from`, which is on the host.
std::span<const std::int32_t> starts_at(const std::int32_t* from, std::int64_t batch) {
    return {from, static_cast<std::size_t>(batch) + 1};
}

SpanSizes of_queries(const Attention& attention) {
    return {attention.length, attention.key_value_length()};
}

SpanSizes of_keys(const Attention& attention) {
    return {attention.key_value_length(), attention.length};
}

void check_spans(const spion_plan& plan, const CallMemory& memory, std::int64_t batch,
                 bool on_host) {
    const Attention& attention = plan.plan->request().attention;
    const bool wanted = attention.mask == ElementMask::kSpans;
    if ((memory.query_spans != nullptr) != wanted || (memory.key_spans != nullptr) != wanted) {
        throw UserError(
            "query_spans are {}, key_spans {}, and the plan was made with spans = {}: {}",
            memory.query_spans == nullptr ? "null" : "given",
            memory.key_spans == nullptr ? "null" : "given", wanted ? 1 : 0,
            wanted ? "pass both, as spion_write_spans writes them"
                   : "pass null, or make the plan with spans = 1");
    }
    if (!wanted) {
        return;
    }
    // Kernels read a pair at once.
    constexpr std::size_t kPair = 2 * sizeof(std::int32_t);
    check_address(memory.query_spans, "query_spans", kPair, plan.context->device());
    check_address(memory.key_spans, "key_spans", kPair, plan.context->device());
    if (on_host) {
        check_ordered(of_queries(attention), batch, memory.query_spans, "query_spans");
        check_ordered(of_keys(attention), batch, memory.key_spans, "key_spans");
    }
    if (on_host && attention.varlen) {
        const auto starts = starts_at(memory.cu_seqlens, batch);
        check_within(starts, attention.length, memory.query_spans, "query_spans");
        check_within(starts, attention.length, memory.key_spans, "key_spans");
    }
}

// What a plan may be made with, and a call has to bring then: `wanted` by the plan.
void check_option(const spion_plan& plan, bool wanted, const void* given, const char* argument,
                  const char* option, std::size_t alignment) {
    if ((given != nullptr) != wanted) {
        throw UserError("{0} {1} and the plan was made {2} {3}: {4}", argument,
                        given == nullptr ? "is null" : "is given", wanted ? "with" : "without",
                        option, wanted ? "pass it" : "pass null, or make the plan with it");
    }
    if (given != nullptr) {
        check_address(given, argument, alignment, plan.context->device());
    }
}

// Before spans, which are held against them.
void check_sequences(const spion_plan& plan, const CallMemory& memory, const BatchSize& size,
                     bool on_host) {
    const Attention& attention = plan.plan->request().attention;
    check_option(plan, attention.varlen, memory.cu_seqlens, "cu_seqlens", "varlen",
                 sizeof(std::int32_t));
    if (!attention.varlen && (memory.sequences != 0 || memory.host_cu_seqlens != nullptr)) {
        throw UserError(
            "sequences is {} and host_cu_seqlens {}, and the plan was made without varlen: leave "
            "both 0, or make the plan with it",
            memory.sequences, memory.host_cu_seqlens == nullptr ? "null" : "given");
    }
    for (const std::int32_t* const starts :
         {on_host ? memory.cu_seqlens : nullptr, memory.host_cu_seqlens}) {
        if (starts != nullptr) {
            check_starts(starts_at(starts, size.batch), attention.length, size.rows);
        }
    }
}

void check_score_values(const spion_plan& plan, const CallMemory& memory) {
    const Attention& attention = plan.plan->request().attention;
    check_option(plan, attention.dropout > 0.0F, memory.dropout, "dropout", "dropout",
                 sizeof(std::uint64_t));
    check_option(plan, attention.alibi, memory.alibi_slopes, "alibi_slopes", "alibi",
                 sizeof(float));
    check_option(plan, attention.sink, memory.sinks, "sinks", "sinks", sizeof(float));
    if (memory.d_sinks != nullptr) {
        check_option(plan, attention.sink, memory.d_sinks, "d_sinks", "sinks", sizeof(float));
    }
    const bool biased = attention.relative_bias > 0;
    check_option(plan, biased, memory.relative_bias, "relative_bias", "relative_bias",
                 sizeof(float));
    if (memory.d_relative_bias != nullptr) {
        check_option(plan, biased, memory.d_relative_bias, "d_relative_bias", "relative_bias",
                     sizeof(float));
    }
}

void check_workspace(const spion_plan& plan, const CallMemory& memory, std::int64_t batch,
                     PlanPass pass) {
    const WorkspaceLayout layout = plan.plan->workspace(batch);
    const std::size_t wanted =
        pass == PlanPass::kForward ? layout.forward_bytes : layout.backward_bytes;
    if (memory.workspace == nullptr || memory.workspace_bytes < wanted) {
        throw UserError(
            "a workspace of {} bytes at {}, and batch {} needs {}: ask spion_plan_workspace",
            memory.workspace_bytes, memory.workspace, batch, wanted);
    }
    const Device& device = plan.context->device();
    check_address(memory.workspace, "the workspace", workspace_alignment(device),
                  where_of(plan, memory));
}

// What a call with SPION_CHECK looks at besides: waits for the stream.
void check_contents(const spion_plan& plan, const CallMemory& memory, const BatchSize& size,
                    void* stream) {
    const std::int64_t batch = size.batch;
    const Device& device = plan.context->device();
    const auto read = [&](const void* from, std::size_t count) {
        std::vector<std::int32_t> numbers(count);
        device.read_on(stream, numbers.data(), from, count * sizeof(std::int32_t));
        return numbers;
    };
    const std::vector<std::int32_t> head = read(memory.tables, kTableHead);
    refuse_foreign(*plan.plan, TableHead(head));
    if (memory.lengths != nullptr) {
        check_valid(plan.plan->request().attention,
                    read(memory.lengths, static_cast<std::size_t>(batch)));
    }
    std::vector<std::int32_t> starts;
    if (memory.cu_seqlens != nullptr) {
        starts = read(memory.cu_seqlens, static_cast<std::size_t>(batch) + 1);
        check_starts(starts, plan.plan->request().attention.length, size.rows);
    }
    if (memory.query_spans != nullptr) {
        const Attention& attention = plan.plan->request().attention;
        const auto look = [&](const SpanSizes& sizes, const std::int32_t* spans, const char* name) {
            const auto count = static_cast<std::size_t>(2 * batch * sizes.length);
            const std::vector<std::int32_t> numbers = read(spans, count);
            check_ordered(sizes, batch, numbers.data(), name);
            if (!starts.empty()) {
                check_within(starts, sizes.length, numbers.data(), name);
            }
        };
        look(of_queries(attention), memory.query_spans, "query_spans");
        look(of_keys(attention), memory.key_spans, "key_spans");
    }
    const std::size_t zeros = plan.plan->workspace(batch).zeros / sizeof(std::int32_t);
    const std::vector<std::int32_t> found = read(memory.workspace, zeros);
    if (std::any_of(found.begin(), found.end(), [](std::int32_t word) { return word != 0; })) {
        throw UserError(
            "the workspace is not prepared for batch {} of this plan, or another call uses it at "
            "the same time: call spion_plan_prepare_workspace once, and give each call that may "
            "run beside others a workspace of its own",
            batch);
    }
}

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
        return {.batch = checked_count(memory.sequences), .rows = rows_of(first, name)};
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
    const bool on_host = device.target().back_end == BackEnd::kHost;
    const BatchSize size = size_of(request.attention, tensors, memory);
    const std::int64_t batch = size.batch;
    SpionAttentionArguments args = {};
    args.batch = static_cast<int>(batch);
    args.rows = static_cast<int>(size.rows);
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
    check_tables(plan, memory);
    const std::optional<TableHead> head = head_of(*plan.plan, memory, on_host);
    check_lengths(plan, memory, batch, on_host);
    check_sequences(plan, memory, size, on_host);
    check_spans(plan, memory, batch, on_host);
    check_score_values(plan, memory);
    check_workspace(plan, memory, batch, pass);
    if (!on_host && (memory.flags & SPION_CHECK) != 0) {
        check_contents(plan, memory, size, stream);
    }
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
        spion::api::run(
            made, PlanPass::kForward, tensors, call.lse,
            {call.tables, call.table_bytes, call.lengths, call.workspace, call.workspace_bytes,
             call.flags, call.table_head, call.query_spans, call.key_spans, call.dropout,
             call.alibi_slopes, call.sinks, nullptr, call.cu_seqlens, call.host_cu_seqlens,
             call.sequences, call.relative_bias, nullptr},
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
        spion::api::run(
            made, PlanPass::kBackward, tensors, const_cast<float*>(call.lse),
            {call.tables, call.table_bytes, call.lengths, call.workspace, call.workspace_bytes,
             call.flags, call.table_head, call.query_spans, call.key_spans, call.dropout,
             call.alibi_slopes, call.sinks, call.d_sinks, call.cu_seqlens, call.host_cu_seqlens,
             call.sequences, call.relative_bias, call.d_relative_bias},
            stream);
    });
}

int32_t spion_plan_advance_dropout(const spion_plan* plan, spion_dropout_state* state, uint32_t by,
                                   void* stream) noexcept {
    return guarded([&] { spion::api::advance(present(plan, "plan"), state, by, stream); });
}

}  // extern "C"
