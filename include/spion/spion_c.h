/* spion as a library: block-sparse attention that is compiled while the program runs. C99, and the
 * whole binary interface of libspion.so; spion.h is C++ over it. docs/versions.md says what stays.
 *
 *     context (a device and its kernels) + attention --> plan --+
 *     pattern (which blocks are computed) -------------> tables +--> forward, backward on a stream
 *
 * Functions that can fail return a spion_status as int32_t; spion_last_error() then has one
 * sentence: what was given, what is allowed, how to mend it. On failure outputs are not written
 * and nothing has been launched. No function throws or exits.
 *
 * Structs that are passed by address begin with their size: set every field to 0 and `size` to
 * sizeof the struct, or start from the macro SPION_..._INIT. 0 is every other field's default. New
 * fields are added at the end, so that a program built for an older header goes on.
 *
 * Contexts, patterns and plans are immutable and may be shared by threads; a plan keeps its
 * context. A *_release function takes null, and must not be called while another thread uses the
 * object or the device still computes with it. */
#ifndef SPION_SPION_C_H
#define SPION_SPION_C_H

#include "spion/spion_c_common.h"
#include "spion/spion_c_pattern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ context */

typedef struct spion_context spion_context;

typedef enum spion_device_kind {
    SPION_HOST = 0, /* this CPU: fp32, calls return when they are done */
    SPION_CUDA = 1  /* an NVIDIA GPU of compute capability 8.0 or later */
} spion_device_kind;

typedef enum spion_cache_kind {
    SPION_CACHE_DEFAULT = 0, /* the folder that the command uses: $SPION_CACHE_DIR, or below
                                $XDG_CACHE_HOME or $HOME/.cache */
    SPION_CACHE_FOLDER = 1,  /* cache_folder */
    SPION_CACHE_MEMORY = 2   /* nothing on disk */
} spion_cache_kind;

typedef enum spion_log_level { SPION_LOG_INFO = 0, SPION_LOG_WARNING = 1 } spion_log_level;
/* One line without its end, and all that the library has to say: it prints nothing. May be called
 * on any thread that makes contexts or plans, never from spion_forward or spion_backward; must not
 * throw. */
typedef void (*spion_log_function)(void* user, int32_t level, const char* line);

typedef struct spion_context_options {
    size_t size;
    uint32_t abi_version;     /* SPION_ABI_VERSION */
    int32_t device;           /* spion_device_kind */
    int32_t ordinal;          /* of the GPU, among those the process sees; its primary context */
    int32_t threads;          /* that compute on the host; 0: all that the machine has */
    int32_t frozen;           /* not 0: what would compile returns SPION_FROZEN instead */
    int32_t cache;            /* spion_cache_kind */
    const char* cache_folder; /* with SPION_CACHE_FOLDER: created if need be */
    const char* bundle;       /* a folder written by spion_bundle_write, or null: looked in first */
    spion_log_function log;   /* null: silent */
    void* log_user;
} spion_context_options;
#define SPION_CONTEXT_OPTIONS_INIT \
    { sizeof(spion_context_options), SPION_ABI_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Opens the device. Contexts and plans read the environment (docs/environment.md), calls do not.
 * SPION_DEVICE when there is no such device, or when a bundle cannot be read. */
SPION_API int32_t spion_context_create(const spion_context_options* options,
                                       spion_context** context) SPION_NOEXCEPT;
SPION_API void spion_context_release(spion_context* context) SPION_NOEXCEPT;
/* The device's name, and the name of its target ("sm_90a", or LLVM's name of the CPU). They live
 * as long as the context. */
SPION_API const char* spion_context_device(const spion_context* context) SPION_NOEXCEPT;
SPION_API const char* spion_context_target(const spion_context* context) SPION_NOEXCEPT;
/* From now on: 1 as `frozen` in the options, 0 not. For all threads. */
SPION_API int32_t spion_context_freeze(spion_context* context, int32_t frozen) SPION_NOEXCEPT;

typedef struct spion_counters {
    size_t size;
    int64_t compiled; /* kernels that this context has had compiled */
    int64_t from_disk;
    int64_t from_bundle;
    int64_t from_memory;
} spion_counters;
#define SPION_COUNTERS_INIT \
    { sizeof(spion_counters), 0, 0, 0, 0 }
SPION_API int32_t spion_context_counters(const spion_context* context,
                                         spion_counters* counters) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ plan */

typedef enum spion_dtype {
    SPION_BF16 = 0,
    SPION_FP16 = 1,
    SPION_FP32 = 2, /* the host's one */
    SPION_TF32 = 3  /* fp32 storage, products of operands rounded to tf32 */
} spion_dtype;

typedef enum spion_softmax {
    SPION_MASKED = 0,     /* what is outside the pattern has a score of -inf, as elsewhere */
    SPION_PRUNED_ZERO = 1 /* a score of 0, as in the SPION paper */
} spion_softmax;

typedef struct spion_attention {
    size_t size;
    int32_t heads;           /* H */
    int32_t head_dim;        /* D of Q and K: a multiple of 8 from 16 to 256 */
    int64_t length;          /* L, of Q */
    int32_t block;           /* of the patterns; 0: 64 */
    int32_t dtype;           /* spion_dtype of Q, K, V, O and their gradients */
    float scale;             /* of Q K^T; 0: 1 / sqrt(D) */
    int32_t softmax;         /* spion_softmax */
    int32_t key_padding;     /* not 0: calls are given the number of valid keys of each sample */
    int32_t key_value_heads; /* of K, V, dK and dV, a divisor of H; 0: H of them */
    int32_t causal;        /* not 0: a query keeps the keys up to its own position, where sequences
                                are aligned at their ends: query i keeps key j <= i + Lk - L */
    float dropout;         /* of probabilities: 0, or 0.002 to 0.998, rounded to 1/256; calls are
                                given a spion_dropout_state */
    int32_t spans;         /* not 0: calls are given spans (spion_write_spans); without causal */
    int64_t key_length;    /* Lk, of K and V; 0: L */
    float softcap;         /* above 0: a score s becomes softcap * tanh(s / softcap) */
    int32_t alibi;         /* not 0: calls are given slopes; slope * |i + Lk - L - j| is taken off
                                a score */
    int32_t sinks;         /* not 0: calls are given a score a head that is in the softmax sum of
                                every row, and belongs to no key */
    int32_t patterns;      /* 0: one for all heads; or one a head of K and V, or one a head */
    int32_t value_dim;     /* Dv of V and O and their gradients, likewise a multiple of 8; 0: D */
    int32_t varlen;        /* not 0: sequences of at most L positions lie end to end, nothing
                                padded: calls are given cu_seqlens, and spans; without causal,
                                key_padding and key_length */
    int32_t relative_bias; /* R of 1 to 8192: calls are given biases [H, 2R + 1]; a score gets that
                                of its head at place R + (j - (i + Lk - L), limited to -R to R) */
    /* Null, or what a score becomes, before slopes and biases and in the place of softcap: an
     * expression of score, q, k, head and batch (docs/ir.md), and its derivative by score, null to have
     * it derived, else checked. Read during the call. */
    const char* score;
    const char* score_derivative;
} spion_attention;
#define SPION_ATTENTION_INIT \
    { sizeof(spion_attention), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

typedef struct spion_plan spion_plan;

typedef struct spion_plan_options {
    size_t size;
    /* What patterns will look like, or null: tile shapes, the way of the backward pass and the
     * order of work are weighed for it. Other patterns are computed as well, only not as fast. */
    const spion_pattern* typical;
    int64_t max_blocks; /* most blocks that a pattern of the plan has, over all heads; 0: all */
    int64_t batch;      /* B that is usual; 0: 32 */
} spion_plan_options;
#define SPION_PLAN_OPTIONS_INIT \
    { sizeof(spion_plan_options), 0, 0, 0 }

/* Compiles the kernels of forward and backward, or finds them. Slow; thread-safe; equal plans share
 * kernels. options may be null. Everything that is compiled, loaded or read by a call later on is
 * here. */
SPION_API int32_t spion_plan_create(spion_context* context, const spion_attention* attention,
                                    const spion_plan_options* options,
                                    spion_plan** plan) SPION_NOEXCEPT;
SPION_API void spion_plan_release(spion_plan* plan) SPION_NOEXCEPT;
/* The same for several, in parallel on worker threads, kept by the context until it is released:
 * plans of these shapes made later take milliseconds. options: `count` of them, or null. */
SPION_API int32_t spion_context_warm_up(spion_context* context, const spion_attention* attentions,
                                        const spion_plan_options* options,
                                        size_t count) SPION_NOEXCEPT;

typedef enum spion_origin {
    SPION_FROM_MEMORY = 0,
    SPION_FROM_BUNDLE = 1,
    SPION_FROM_DISK = 2,
    SPION_COMPILED = 3
} spion_origin;

typedef struct spion_plan_info {
    size_t size;
    size_t table_bytes; /* of every pattern's tables: one size for a plan */
    int64_t max_blocks;
    int32_t origin; /* spion_origin: the dearest of the kernels' */
    int32_t kernels;
    double milliseconds; /* that making the plan took */
} spion_plan_info;
#define SPION_PLAN_INFO_INIT \
    { sizeof(spion_plan_info), 0, 0, 0, 0, 0 }
SPION_API int32_t spion_plan_query(const spion_plan* plan, spion_plan_info* info) SPION_NOEXCEPT;
/* For people: kernels, tile shapes, where they came from, and why the backward pass goes its way. */
SPION_API int32_t spion_plan_explain(const spion_plan* plan, spion_blob** text) SPION_NOEXCEPT;

/* The pattern's index tables for this plan: int32 numbers, table_bytes in all, whatever the
 * pattern. The caller copies them to where the tensors are, 16-byte aligned. A copy may be
 * overwritten by another pattern's between calls, also between replays of a CUDA graph. Their first
 * SPION_TABLE_HEAD_BYTES say whose they are: kept on the host beside a copy on a GPU and passed as
 * table_head, they have calls refuse the tables of another plan, and order work for this pattern.
 * SPION_INVALID when lengths, block or number of patterns are not the plan's, or the pattern has more
 * than max_blocks blocks. */
#define SPION_TABLE_HEAD_BYTES 64
SPION_API int32_t spion_plan_write_tables(const spion_plan* plan, const spion_pattern* pattern,
                                          void* tables, size_t bytes) SPION_NOEXCEPT;

typedef enum spion_pass { SPION_FORWARD = 0, SPION_BACKWARD = 1 } spion_pass;
/* What a call needs beside its tensors, where the tensors are: bytes (never 0) and alignment. */
SPION_API int32_t spion_plan_workspace(const spion_plan* plan, int64_t batch, int32_t pass,
                                       size_t* bytes, size_t* alignment) SPION_NOEXCEPT;
/* Makes fresh memory a workspace for this plan, batch and pass: sets to zero, on `stream`, what
 * calls expect to be zero and leave so. Once, not before every call; again when the memory has
 * served another plan, batch or pass, or was written by others. Forward and backward may share one
 * workspace of the larger size if it is prepared for SPION_BACKWARD. Two calls that may run at the
 * same time need a workspace each. */
SPION_API int32_t spion_plan_prepare_workspace(const spion_plan* plan, int64_t batch, int32_t pass,
                                               void* workspace, size_t bytes,
                                               void* stream) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ calls */

/* Element (i, j, k, l) of a tensor of rank 4 lies at data + i * strides[0] + ... elements. Strides
 * count elements, at least 0, any where shape is 1. This struct never changes. */
typedef struct spion_tensor {
    void* data;
    int32_t dtype; /* spion_dtype; SPION_TF32 is stored as SPION_FP32 */
    int32_t rank;
    int64_t shape[4];
    int64_t strides[4];
} spion_tensor;

typedef enum spion_call_flags {
    /* Kernels start while the one before them on the stream ends (where that lets them), and wait
     * for it before they read what it may have written. With this flag they read tables, lengths,
     * dropout's state, slopes, sinks and biases before that: only where no kernel that may still be
     * running then writes these. It saves half a microsecond. */
    SPION_OVERLAP = 1,
    /* The call waits for what is on the stream and reads on the GPU what it cannot look at
     * otherwise: it refuses tables of another plan, lengths, spans and cu_seqlens out of range, and
     * a workspace that is not prepared. To find mistakes with: it allocates, and cannot be captured. */
    SPION_CHECK = 2,
    /* The caller knows that tensors, lse, tables and workspace are memory of the context's GPU, as of
     * arrays that say which one they are on: the driver is not asked about each address. Other memory
     * then faults on the GPU, in place of a sentence. */
    SPION_KNOWN = 4
} spion_call_flags;

/* Which random numbers decide what dropout drops: Philox of seed, offset and the element's place
 * (batch, head, query, key) alone, the same on every device, in forward and backward. It lies where the
 * tensors are. Calls read it and leave it as it is: whoever owns it advances the offset once a step,
 * behind the step's last backward call, on the stream (spion_plan_advance_dropout, or a copy of one's
 * own), so that the backward calls of a step find what its forward calls found. */
typedef struct spion_dropout_state {
    uint64_t seed;
    uint32_t offset;
    int32_t enabled; /* 0: nothing is dropped, and what is kept counts once, as when a model is
                        evaluated */
} spion_dropout_state;

/* All memory is where the plan's device reads it: on the GPU of the context, or the host's. q is
 * [B, H, L, D] and o [B, H, L, Dv], k [B, key_value_heads, Lk, D] and v [B, key_value_heads, Lk, Dv],
 * the last dimension contiguous; on a GPU, addresses and strides are multiples of 16 bytes. `lse` is
 * [B, H, L] fp32, contiguous: the natural logarithm of each row's softmax sum. What a plan was not
 * made with is null. With varlen tensors are [H, T, D] or [H, T, Dv], of rank 3, with the strides of a
 * tensor [T, H, D] as well: position i of sequence b lies in row cu_seqlens[b] + i of T. Patterns, spans
 * and dropout number positions from each sequence's first. `lse` is [B, H, L], and B `sequences`; what
 * lies beyond a sequence's end is not written there. */
typedef struct spion_forward_args {
    size_t size;
    spion_tensor q, k, v;
    spion_tensor o;         /* written */
    float* lse;             /* written; null: not wanted. backward needs it */
    const void* tables;     /* spion_plan_write_tables */
    size_t table_bytes;     /* the plan's table_bytes */
    const int32_t* lengths; /* [B] in [0, Lk] with key_padding, else null. On a GPU they are not
                               looked at: below 0 counts as 0, above Lk as Lk */
    void* workspace;
    size_t workspace_bytes;
    uint64_t flags;         /* spion_call_flags */
    const void* table_head; /* on the host: the first SPION_TABLE_HEAD_BYTES of the tables, or null:
                               tables on a GPU are then known by their size alone */
    const int32_t* query_spans; /* [B, L, 2] where the plan has spans, else null. On a GPU they are
                                   not looked at: what spion_write_spans has not written may give
                                   wrong results */
    const int32_t* key_spans;   /* [B, Lk, 2] likewise */
    const spion_dropout_state* dropout; /* with dropout */
    const float* alibi_slopes;          /* [H] with alibi */
    const float* sinks;                 /* [H] with sinks */
    const int32_t* cu_seqlens;      /* [B + 1] with varlen: where sequences begin, and T. On a GPU
                                  they are not looked at */
    const int32_t* host_cu_seqlens; /* the same numbers on the host, which are looked at, or null */
    int64_t sequences;              /* B with varlen */
    const float* relative_bias;     /* [H, 2R + 1] with relative_bias */
} spion_forward_args;

typedef struct spion_backward_args {
    size_t size;
    spion_tensor q, k, v, o, d_o;
    spion_tensor d_q, d_k, d_v; /* written */
    const float* lse;           /* of the forward call */
    const void* tables;
    size_t table_bytes;
    const int32_t* lengths;
    void* workspace;
    size_t workspace_bytes;
    uint64_t flags;
    const void* table_head;
    const int32_t *query_spans, *key_spans;
    const spion_dropout_state* dropout; /* as the forward call found it */
    const float *alibi_slopes, *sinks;
    float* d_sinks; /* [H] written, with sinks; null: not wanted */
    const int32_t *cu_seqlens, *host_cu_seqlens;
    int64_t sequences;
    const float* relative_bias;
    float* d_relative_bias; /* [H, 2R + 1] written, with relative_bias; null: not wanted */
} spion_backward_args;

/* One forward or backward pass in order on `stream`, a cudaStream_t or CUstream of the context's
 * GPU: null is the legacy default stream. On the host `stream` is ignored and the call returns when
 * it is done. A call allocates nothing, compiles nothing, waits for nothing, reads no environment
 * and leaves the thread's CUDA context as it was, so it can be captured in a CUDA graph: addresses
 * and strides are then fixed, the contents of tables and lengths are not. The same inputs give the
 * same bits, whatever the thread or stream. */
SPION_API int32_t spion_forward(const spion_plan* plan, const spion_forward_args* args,
                                void* stream) SPION_NOEXCEPT;
SPION_API int32_t spion_backward(const spion_plan* plan, const spion_backward_args* args,
                                 void* stream) SPION_NOEXCEPT;
/* Adds `by` to the offset of a state where the tensors are, modulo 2^32, in order on `stream` as a call:
 * the next forward call draws other numbers, and a replay of a CUDA graph that this was captured in
 * does so each time. Layers that share a state drop the same elements: give each its own, with offsets
 * 0 .. n - 1, and advance each by n. SPION_INVALID for a plan without dropout. */
SPION_API int32_t spion_plan_advance_dropout(const spion_plan* plan, spion_dropout_state* state,
                                             uint32_t by, void* stream) SPION_NOEXCEPT;

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
 * options may be null; its `typical` pattern is what the tile program walks (null: the diagonal). */
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
