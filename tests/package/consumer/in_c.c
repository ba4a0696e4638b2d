/* The same from C99. */
#include <spion/spion_c.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    spion_attention attention = SPION_ATTENTION_INIT;
    spion_blob* source = NULL;
    spion_pattern* pattern = NULL;
    int found;

    attention.heads = 2;
    attention.head_dim = 64;
    attention.length = 256;
    if (spion_emit(&attention, NULL, "sm_80", SPION_KERNEL_FORWARD, SPION_STAGE_SOURCE, &source) !=
        SPION_OK) {
        fprintf(stderr, "%s\n", spion_last_error());
        return 1;
    }
    found = strstr((const char*)spion_blob_data(source), "kHeadDim") != NULL;
    spion_blob_release(source);
    if (!found || spion_pattern_full(256, 48, &pattern) != SPION_INVALID) {
        fprintf(stderr, "no kHeadDim in the source, or a block of 48 was not refused\n");
        return 1;
    }
    printf("%s: %s\n", spion_version(), spion_last_error());
    return 0;
}
