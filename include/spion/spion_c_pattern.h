/* Which blocks are computed, and how they are found in scores. Part of spion_c.h. */
#ifndef SPION_SPION_C_PATTERN_H
#define SPION_SPION_C_PATTERN_H

#include "spion/spion_c_common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ pattern */

/* Which blocks of the L x Lk map are computed: nb x nbk bits, nb = ceil(L / block), nbk = ceil(Lk /
 * block); the last row and column of blocks are ragged when L or Lk is no multiple of the block. Rows
 * are query blocks, columns key blocks. `block` is 16, 32, 64 or 128. Where a function takes one length,
 * Lk = L and the bits are nb x nb. Several maps of equal size, for heads with patterns of their own, are
 * one spion_pattern (spion_pattern_from_heads). */
typedef struct spion_pattern spion_pattern;

/* bits: nb * nb bytes, row-major, not 0 = computed; count: their number. */
SPION_API int32_t spion_pattern_from_bits(int64_t length, int32_t block, const uint8_t* bits,
                                          size_t count, spion_pattern** pattern) SPION_NOEXCEPT;
/* Of L queries and Lk keys: rows * columns bytes. */
SPION_API int32_t spion_pattern_from_cross_bits(int64_t length, int64_t key_length, int32_t block,
                                                const uint8_t* bits, size_t count,
                                                spion_pattern** pattern) SPION_NOEXCEPT;
/* One pattern of several: one a head of K and V, or one a head, in order; or of plans with
 * sequence_patterns those of each sequence, in order. Each has the same lengths and
 * block; one that has several itself counts as those. */
SPION_API int32_t spion_pattern_from_heads(const spion_pattern* const* heads, size_t count,
                                           spion_pattern** pattern) SPION_NOEXCEPT;
/* That of one head: index in [0, patterns). */
SPION_API int32_t spion_pattern_of_head(const spion_pattern* pattern, int32_t index,
                                        spion_pattern** head) SPION_NOEXCEPT;
/* nb lines of nb characters 0 or 1, what spion_pattern_text gives. */
SPION_API int32_t spion_pattern_from_text(int64_t length, int32_t block, const char* text,
                                          spion_pattern** pattern) SPION_NOEXCEPT;
SPION_API int32_t spion_pattern_full(int64_t length, int32_t block,
                                     spion_pattern** pattern) SPION_NOEXCEPT;
/* Compressed rows: the columns of row I are columns[offsets[I]] .. columns[offsets[I + 1] - 1].
 * offsets: nb + 1 of them, from 0 to column_count; columns in [0, nb), each once a row. */
SPION_API int32_t spion_pattern_from_csr(int64_t length, int32_t block, const int32_t* offsets,
                                         size_t offset_count, const int32_t* columns,
                                         size_t column_count,
                                         spion_pattern** pattern) SPION_NOEXCEPT;

/* The arrays of a FlexAttention BlockMask, those of one batch and head. */
typedef struct spion_block_mask {
    size_t size;
    int64_t rows;                      /* query blocks: nb */
    int64_t row_pitch;                 /* entries between the rows of the index arrays, >= nb */
    const int32_t* kv_num_blocks;      /* [rows] */
    const int32_t* kv_indices;         /* [rows, row_pitch]: the first kv_num_blocks of each row */
    const int32_t* full_kv_num_blocks; /* likewise, or null */
    const int32_t* full_kv_indices;
} spion_block_mask;
#define SPION_BLOCK_MASK_INIT \
    { sizeof(spion_block_mask), 0, 0, 0, 0, 0, 0 }
/* Partly masked blocks (kv_indices) are taken whole, as there is no mask within a block here; a
 * block must not be in both lists. */
SPION_API int32_t spion_pattern_from_block_mask(int64_t length, int32_t block,
                                                const spion_block_mask* mask,
                                                spion_pattern** pattern) SPION_NOEXCEPT;
/* A layout of DeepSpeed's sparse attention: [heads, nb, nb] of elements of element_bytes (1, 4 or
 * 8), not 0 = computed. All heads must have the same one: a plan has one pattern for its heads. */
SPION_API int32_t spion_pattern_from_layout(int64_t length, int32_t block, const void* layout,
                                            int32_t element_bytes, int64_t heads, int64_t rows,
                                            int64_t columns,
                                            spion_pattern** pattern) SPION_NOEXCEPT;
/* base_blockmask of Block-Sparse-Attention: [batch, heads, nb, nb] likewise, blocks of 128. */
SPION_API int32_t spion_pattern_from_base_blockmask(int64_t length, const void* base_blockmask,
                                                    int32_t element_bytes, int64_t batch,
                                                    int64_t heads, int64_t rows, int64_t columns,
                                                    spion_pattern** pattern) SPION_NOEXCEPT;
/* Keys attend to queries: what the gradients of K and V walk. */
SPION_API int32_t spion_pattern_transpose(const spion_pattern* pattern,
                                          spion_pattern** transposed) SPION_NOEXCEPT;
SPION_API void spion_pattern_release(spion_pattern* pattern) SPION_NOEXCEPT;

typedef struct spion_pattern_info {
    size_t size;
    int64_t length;
    int64_t rows;        /* nb */
    int64_t block_count; /* computed blocks, of all heads */
    double
        density; /* computed elements / all, ragged edges counted exactly; of several, the mean */
    int32_t block;
    char digest[36]; /* 32 hex digits of SHA-256 over lengths, block and bits */
    int64_t key_length;
    int64_t columns;  /* nbk */
    int32_t patterns; /* 1, or one a head */
    int32_t reserved;
    double imbalance; /* the fullest head's blocks over the mean: 1 where all have as many */
} spion_pattern_info;
#define SPION_PATTERN_INFO_INIT \
    { sizeof(spion_pattern_info), 0, 0, 0, 0, 0, {0}, 0, 0, 0, 0, 0 }
SPION_API int32_t spion_pattern_query(const spion_pattern* pattern,
                                      spion_pattern_info* info) SPION_NOEXCEPT;
/* bits: room for patterns * rows * columns bytes, count of them; 1 = computed. */
SPION_API int32_t spion_pattern_bits(const spion_pattern* pattern, uint8_t* bits,
                                     size_t count) SPION_NOEXCEPT;
SPION_API int32_t spion_pattern_text(const spion_pattern* pattern,
                                     spion_blob** text) SPION_NOEXCEPT;
/* A picture for terminals of at most `columns` columns (0: 64), two block rows a line. Here and in the
 * text there is an empty line between two heads. */
SPION_API int32_t spion_pattern_picture(const spion_pattern* pattern, int32_t columns,
                                        spion_blob** text) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ masks within blocks */

typedef enum spion_window { SPION_WINDOW_LEFT = 1, SPION_WINDOW_RIGHT = 2 } spion_window;

/* Query i of a sample keeps key j when all rules that are given say so. All arrays are the host's. */
typedef struct spion_mask_rules {
    size_t size;
    int32_t causal;           /* not 0: j <= i + Lk - L */
    int32_t window;           /* spion_window, which of the two sides count; 0: none */
    int32_t left, right;      /* at least 0: i - left <= j, j <= i + right, i counted from Lk - L */
    const int32_t* documents; /* [B, L], never decreasing in a sample: i's equals j's; or null */
    const int32_t* prefixes;  /* [B] in [0, L], with causal: keys below it are kept by all */
    const int32_t* query_lengths;  /* [B] in [0, L]: queries from it on keep nothing; or null */
    int64_t key_length;            /* Lk; 0: L */
    const int32_t* key_documents;  /* [B, Lk] of keys; null: `documents`, where Lk is L */
    const int32_t* cu_seqlens;     /* [B + 1], of calls with varlen: what lies from
                                     cu_seqlens[b + 1] - cu_seqlens[b] on is not sequence b's, and
                                     keeps and is kept by nothing; or null */
    const int32_t* key_cu_seqlens; /* [B + 1], of calls with key_starts: the same of keys, and
                                     cu_seqlens then of queries alone; Lk - L of the rules above is
                                     each sequence's own number; or null */
} spion_mask_rules;
#define SPION_MASK_RULES_INIT \
    { sizeof(spion_mask_rules), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* The rules as kernels read them, for calls of a plan with `spans`: query_spans [B, L, 2], the first
 * key that a query keeps and the end of those, and key_spans [B, Lk, 2], the same of the queries that
 * keep a key. count: numbers that the first has room for, 2 * B * L. */
SPION_API int32_t spion_write_spans(const spion_mask_rules* rules, int64_t batch, int64_t length,
                                    int32_t* query_spans, int32_t* key_spans,
                                    size_t count) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ discovery */

typedef enum spion_variant {
    SPION_VARIANT_CF = 0, /* diagonal convolution, then flood fill (SPION) */
    SPION_VARIANT_F = 1,  /* flood fill alone */
    SPION_VARIANT_C = 2   /* diagonal convolution, then the blocks with most weight */
} spion_variant;

typedef struct spion_discovery {
    size_t size;
    int32_t block;   /* 0: 64 */
    int32_t variant; /* spion_variant */
    int32_t filter;  /* edge of the diagonal filter; 0: 31 */
    int32_t reserved;
    double
        quantile; /* of the pooled map, above which blocks are kept; 0: 0.96. Not SPION_VARIANT_C */
    double density; /* SPION_VARIANT_C alone: of the blocks; 0: 0.04 */
} spion_discovery;
#define SPION_DISCOVERY_INIT \
    { sizeof(spion_discovery), 0, 0, 0, 0, 0, 0 }

/* scores: [L, L] row-major, mean probabilities of dense attention. */
SPION_API int32_t spion_discover_scores(const spion_discovery* discovery, int64_t length,
                                        const float* scores,
                                        spion_pattern** pattern) SPION_NOEXCEPT;
/* pooled: [nb, nb], as spion_discoverer_finish pools it. */
SPION_API int32_t spion_discover_pooled(const spion_discovery* discovery, int64_t length,
                                        const double* pooled,
                                        spion_pattern** pattern) SPION_NOEXCEPT;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
