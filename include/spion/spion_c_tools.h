/* Patterns found on a device, what the compiler makes, and bundles of kernels. Part of spion_c.h. */
#ifndef SPION_SPION_C_TOOLS_H
#define SPION_SPION_C_TOOLS_H

#include "spion/spion_c.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ discovery from Q and K */

/* The kernel that pools the dense map of Q and K on the device without ever holding it: L x L /
 * tile^2 sums of 7 numbers instead of L x L scores. */
typedef struct spion_discoverer spion_discoverer;

/* attention: of the layer; its block is the discovery's. What is found is one pattern for all heads,
 * in the map before dropout. For patterns of heads make one of each group's heads alone, and run it on
 * views of these with their part of lse. SPION_INVALID for spans, varlen, relative_bias and another
 * key_length. The context compiles one kernel. */
SPION_API int32_t spion_discoverer_create(spion_context* context, const spion_attention* attention,
                                          const spion_discovery* discovery,
                                          spion_discoverer** discoverer) SPION_NOEXCEPT;
SPION_API void spion_discoverer_release(spion_discoverer* discoverer) SPION_NOEXCEPT;
/* Bytes of the sums: float32 numbers, where the tensors are. */
SPION_API int32_t spion_discoverer_sum_bytes(const spion_discoverer* discoverer,
                                             size_t* bytes) SPION_NOEXCEPT;

typedef struct spion_discoverer_args {
    size_t size;
    spion_tensor q, k;
    const float* lse; /* [B, H, L] of dense attention: a forward call on the full pattern */
    const int32_t* lengths;
    float* sums; /* written: means over batch and heads */
    size_t sum_bytes;
    const float* alibi_slopes; /* [H] with alibi */
} spion_discoverer_args;

/* As spion_forward: on a stream, without waiting. */
SPION_API int32_t spion_discoverer_run(const spion_discoverer* discoverer,
                                       const spion_discoverer_args* args,
                                       void* stream) SPION_NOEXCEPT;
/* sums: a copy on the host of what a run, that has ended, wrote. pooled: null, or room for nb * nb
 * numbers that are written. */
SPION_API int32_t spion_discoverer_finish(const spion_discoverer* discoverer, const float* sums,
                                          size_t sum_bytes, double* pooled,
                                          spion_pattern** pattern) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ looking at the compiler */

typedef enum spion_kernel {
    SPION_KERNEL_FORWARD = 0,
    SPION_KERNEL_BACKWARD_FIRST = 1, /* dQ, or delta */
    SPION_KERNEL_BACKWARD_SECOND = 2 /* dK and dV, or all gradients */
} spion_kernel;

typedef enum spion_stage {
    SPION_STAGE_ATTENTION = 0, /* the operation, docs/ir.md */
    SPION_STAGE_PROGRAM = 1,   /* the tile program: tiles and work order of the typical pattern */
    SPION_STAGE_SOURCE = 2,    /* CUDA C++; host: LLVM IR before optimisation */
    SPION_STAGE_PTX = 3,       /* CUDA alone */
    SPION_STAGE_LLVM = 4,      /* host alone: LLVM IR after optimisation */
    SPION_STAGE_BINARY = 5,    /* cubin, or relocatable object: bytes */
    SPION_STAGE_ASSEMBLY = 6   /* SASS (needs nvdisasm on this machine), or the CPU's assembly */
} spion_stage;

/* One stage of one kernel for any target ("sm_80", .., "sm_120", "host"), which need not be here.
 * options may be null; its `typical` pattern is what the tile program walks (null: the diagonal).
 */
SPION_API int32_t spion_emit(const spion_attention* attention, const spion_plan_options* options,
                             const char* target, int32_t kernel, int32_t stage,
                             spion_blob** blob) SPION_NOEXCEPT;
/* For people: every tile shape of each kernel with its predicted cost, or why it cannot run. */
SPION_API int32_t spion_explain(const spion_attention* attention, const spion_plan_options* options,
                                const char* target, spion_blob** text) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ bundles */

/* Compiles the kernels of `count` attentions for each target into the new folder `path`: a manifest
 * and binaries, which a context opens read-only and without a compiler. options: `count` of them,
 * or null. A bundle is code: open only those whose maker you trust. */
SPION_API int32_t spion_bundle_write(const spion_attention* attentions,
                                     const spion_plan_options* options, size_t count,
                                     const char* const* targets, size_t target_count,
                                     const char* path) SPION_NOEXCEPT;
/* Reads and checks every entry; `text`: null, or a line an entry. */
SPION_API int32_t spion_bundle_check(const char* path, spion_blob** text) SPION_NOEXCEPT;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
