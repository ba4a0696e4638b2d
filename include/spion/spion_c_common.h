/* What the parts of the C interface share: how functions are declared, versions, errors and memory that
 * the library hands out. Part of spion_c.h. */
#ifndef SPION_SPION_C_COMMON_H
#define SPION_SPION_C_COMMON_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SPION_API __attribute__((visibility("default")))
#else
#define SPION_API
#endif

#ifdef __cplusplus
#define SPION_NOEXCEPT noexcept
extern "C" {
#else
#define SPION_NOEXCEPT
#endif

/* ------------------------------------------------------------------ versions and errors */

#define SPION_ABI_MAJOR 0
#define SPION_ABI_MINOR 7
#define SPION_ABI_VERSION (((uint32_t)SPION_ABI_MAJOR << 16) | (uint32_t)SPION_ABI_MINOR)

/* The library's own: a program works with a library of the same major and no smaller minor number,
 * which spion_context_create checks. */
SPION_API uint32_t spion_abi_version(void) SPION_NOEXCEPT;
/* "0.1.0"; lives as long as the program. */
SPION_API const char* spion_version(void) SPION_NOEXCEPT;

typedef enum spion_status {
    SPION_OK = 0,
    SPION_INVALID = 1,  /* what was asked for is not allowed */
    SPION_DEVICE = 2,   /* the machine lacks something, or its device failed */
    SPION_INTERNAL = 3, /* a fault of spion: please report it */
    SPION_FROZEN = 4    /* a kernel would have to be compiled in a context that may not */
} spion_status;

/* The sentence of this thread's last failing call; "" before one. Lives until the thread's next
 * failing call. */
SPION_API const char* spion_last_error(void) SPION_NOEXCEPT;

/* ------------------------------------------------------------------ bytes and text */

typedef struct spion_blob spion_blob;
SPION_API const void* spion_blob_data(const spion_blob* blob) SPION_NOEXCEPT; /* then a 0 byte */
SPION_API size_t spion_blob_size(const spion_blob* blob) SPION_NOEXCEPT; /* without that byte */
SPION_API void spion_blob_release(spion_blob* blob) SPION_NOEXCEPT;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
