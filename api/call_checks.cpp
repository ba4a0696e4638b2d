#include "api/call_checks.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "api/sequences.h"

namespace spion::api {

Where where_of(const spion_plan& plan, const CallMemory& memory) {
    return {plan.context->device(), (memory.flags & SPION_KNOWN) != 0};
}

namespace {

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
        check_within(
            {starts, attention.key_starts ? starts_at(memory.key_cu_seqlens, batch) : starts},
            attention, memory.query_spans, memory.key_spans);
    }
}

// Before spans, which are held against them.
void check_sequences(const spion_plan& plan, const CallMemory& memory, const BatchSize& size,
                     bool on_host) {
    const Attention& attention = plan.plan->request().attention;
    check_option(plan, attention.varlen, memory.cu_seqlens, "cu_seqlens", "varlen",
                 sizeof(std::int32_t));
    check_option(plan, attention.key_starts, memory.key_cu_seqlens, "key_cu_seqlens", "key_starts",
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
    for (const std::int32_t* const starts :
         {on_host ? memory.key_cu_seqlens : nullptr, memory.host_key_cu_seqlens}) {
        if (starts != nullptr) {
            check_starts(starts_at(starts, size.batch), attention.key_value_length(), size.key_rows,
                         "key_cu_seqlens");
        }
    }
}

// Of sequences with patterns of their own: whether there are as many of them as sequences.
void check_sequence_patterns(const AttentionPlan& plan, std::optional<TableHead> head,
                             std::int64_t sequences) {
    const Attention& attention = plan.request().attention;
    if (attention.sequence_patterns > 0) {
        check_patterns(attention, sequences,
                       head ? std::optional(sequences_of_tables(*head)) : std::nullopt);
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
    check_sequence_patterns(*plan.plan, TableHead(head), batch);
    if (memory.lengths != nullptr) {
        check_valid(plan.plan->request().attention,
                    read(memory.lengths, static_cast<std::size_t>(batch)));
    }
    const Attention& attention = plan.plan->request().attention;
    std::vector<std::int32_t> starts, key_starts;
    if (memory.cu_seqlens != nullptr) {
        starts = key_starts = read(memory.cu_seqlens, static_cast<std::size_t>(batch) + 1);
        check_starts(starts, attention.length, size.rows);
    }
    if (memory.key_cu_seqlens != nullptr) {
        key_starts = read(memory.key_cu_seqlens, starts.size());
        check_starts(key_starts, attention.key_value_length(), size.key_rows, "key_cu_seqlens");
    }
    if (memory.query_spans != nullptr) {
        const auto look = [&](const SpanSizes& sizes, const std::int32_t* spans, const char* name) {
            const auto count = static_cast<std::size_t>(2 * batch * sizes.length);
            std::vector<std::int32_t> numbers = read(spans, count);
            check_ordered(sizes, batch, numbers.data(), name);
            return numbers;
        };
        const auto queries = look(of_queries(attention), memory.query_spans, "query_spans");
        const auto keys = look(of_keys(attention), memory.key_spans, "key_spans");
        if (!starts.empty()) {
            check_within({starts, key_starts}, attention, queries.data(), keys.data());
        }
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

}  // namespace

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

std::optional<TableHead> check_call(const spion_plan& plan, const CallMemory& memory,
                                    const BatchSize& size, PlanPass pass, void* stream) {
    const bool on_host = plan.context->device().target().back_end == BackEnd::kHost;
    check_tables(plan, memory);
    const std::optional<TableHead> head = head_of(*plan.plan, memory, on_host);
    check_lengths(plan, memory, size.batch, on_host);
    check_sequences(plan, memory, size, on_host);
    check_sequence_patterns(*plan.plan, head, size.batch);
    check_spans(plan, memory, size.batch, on_host);
    check_score_values(plan, memory);
    check_workspace(plan, memory, size.batch, pass);
    if (!on_host && (memory.flags & SPION_CHECK) != 0) {
        check_contents(plan, memory, size, stream);
    }
    return head;
}

}  // namespace spion::api
