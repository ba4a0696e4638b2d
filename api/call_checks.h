// What a call has besides its tensors, and what can be wrong with it: all of it is looked at before
// anything is launched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "api/plan.h"
#include "api/tensors.h"

namespace spion::api {

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
    const std::int32_t *key_cu_seqlens, *host_key_cu_seqlens;
};

// Throws UserError when something is missing, not asked for, or cannot be what the plan takes. Of the
// contents it looks at those that are on the host, and with SPION_CHECK at those on a GPU, for which it
// waits for the stream. The tables' head, where it is known.
std::optional<TableHead> check_call(const spion_plan& plan, const CallMemory& memory,
                                    const BatchSize& size, PlanPass pass, void* stream);

// Where a call's memory is, and whether its addresses are known to be there.
Where where_of(const spion_plan& plan, const CallMemory& memory);

// Throws UserError unless `given` is there as a plan wants it that was made with `option` or without.
void check_option(const spion_plan& plan, bool wanted, const void* given, const char* argument,
                  const char* option, std::size_t alignment);

}  // namespace spion::api
