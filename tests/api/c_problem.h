/* What the tests of the C interface say and compute with: a count of failures, one small problem on the
 * host. C99; included once by each program. */
#ifndef SPION_TESTS_C_PROBLEM_H
#define SPION_TESTS_C_PROBLEM_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spion/spion_c.h"

enum { H = 1, L = 32, D = 16, BLOCK = 16, COUNT = H * L * D };

static int failures = 0;

static void expect(int line, int32_t status, int32_t wanted, const char* words) {
    const char* said = spion_last_error();
    if (status != wanted || (wanted != SPION_OK && strstr(said, words) == NULL)) {
        printf("line %d: status %d for %d, \"%s\" without \"%s\"\n", line, (int)status, (int)wanted,
               said, words);
        ++failures;
    }
}
#define OK(call) expect(__LINE__, call, SPION_OK, "")
#define INVALID(call, words) expect(__LINE__, call, SPION_INVALID, words)

static void check(int line, int holds, const char* what) {
    if (!holds) {
        printf("line %d: not so: %s\n", line, what);
        ++failures;
    }
}
#define CHECK(condition) check(__LINE__, condition, #condition)

struct problem {
    float q[COUNT], k[COUNT], v[COUNT], o[COUNT], d[COUNT], lse[H * L];
    void* tables;
    size_t table_bytes;
    void* workspace;
    size_t workspace_bytes;
};

static spion_tensor view(float* data) {
    spion_tensor tensor = {0, SPION_FP32, 4, {1, H, L, D}, {H * L * D, L * D, D, 1}};
    tensor.data = data;
    return tensor;
}

static spion_forward_args forward_args(struct problem* p) {
    spion_forward_args args;
    memset(&args, 0, sizeof(args));
    args.size = sizeof(args);
    args.q = view(p->q);
    args.k = view(p->k);
    args.v = view(p->v);
    args.o = view(p->o);
    args.lse = p->lse;
    args.tables = p->tables;
    args.table_bytes = p->table_bytes;
    args.workspace = p->workspace;
    args.workspace_bytes = p->workspace_bytes;
    return args;
}

static spion_attention attention(void) {
    spion_attention a = SPION_ATTENTION_INIT;
    a.heads = H;
    a.head_dim = D;
    a.length = L;
    a.block = BLOCK;
    a.dtype = SPION_FP32;
    return a;
}

static spion_context* host_context(int frozen) {
    spion_context_options options = SPION_CONTEXT_OPTIONS_INIT;
    spion_context* context = NULL;
    options.cache = SPION_CACHE_MEMORY;
    options.threads = 2;
    options.frozen = frozen;
    OK(spion_context_create(&options, &context));
    return context;
}

#endif
