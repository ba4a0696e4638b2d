/* The library from C99, on the host: one forward pass, and an error that says what to do about it. */
#include <spion/spion_c.h>
#include <stdio.h>
#include <stdlib.h>

enum { kHeads = 2, kLength = 128, kWidth = 16, kElements = kHeads * kLength * kWidth };

static void require(int32_t status) {
    if (status != SPION_OK) {
        fprintf(stderr, "05_plain_c: %s\n", spion_last_error());
        exit(1);
    }
}

static spion_tensor view(float* data) {
    spion_tensor tensor = {
        0, SPION_FP32, 4, {1, kHeads, kLength, kWidth}, {kElements, kLength * kWidth, kWidth, 1}};
    tensor.data = data;
    return tensor;
}

static float q[kElements], k[kElements], v[kElements], o[kElements];

static void fill(void) {
    int i;
    for (i = 0; i < kElements; ++i) {
        q[i] = (float)(i % 7) - 3;
        k[i] = (float)(i % 5) - 2;
        v[i] = (float)(i / kWidth % kLength); /* every row of V is its own position */
    }
}

int main(void) {
    spion_context_options context_options = SPION_CONTEXT_OPTIONS_INIT;
    spion_attention attention = SPION_ATTENTION_INIT;
    spion_plan_info info = SPION_PLAN_INFO_INIT;
    spion_forward_args call = {0};
    spion_context* context = NULL;
    spion_pattern* pattern = NULL;
    spion_plan* plan = NULL;
    void *tables = NULL, *workspace = NULL;
    size_t workspace_bytes = 0, alignment = 0;

    fill();
    context_options.device = SPION_HOST;
    require(spion_context_create(&context_options, &context));
    attention.heads = kHeads;
    attention.head_dim = kWidth;
    attention.length = kLength;
    attention.block = 32;
    attention.dtype = SPION_FP32;
    require(spion_plan_create(context, &attention, NULL, &plan));
    require(spion_plan_query(plan, &info));

    /* Blocks of 32 on the diagonal. */
    require(spion_pattern_from_text(kLength, 32, "1000\n0100\n0010\n0001\n", &pattern));
    tables = malloc(info.table_bytes);
    require(spion_plan_write_tables(plan, pattern, tables, info.table_bytes));
    require(spion_plan_workspace(plan, 1, SPION_FORWARD, &workspace_bytes, &alignment));
    workspace =
        malloc(workspace_bytes); /* malloc aligns for every type, which is enough on the host */
    require(spion_plan_prepare_workspace(plan, 1, SPION_FORWARD, workspace, workspace_bytes, NULL));

    call.size = sizeof call;
    call.q = view(q);
    call.k = view(k);
    call.v = view(v);
    call.o = view(o);
    call.tables = tables;
    call.table_bytes = info.table_bytes;
    call.workspace = workspace;
    call.workspace_bytes = workspace_bytes;
    require(spion_forward(plan, &call, NULL));
    printf("row 40 attends to positions 32 to 63, on average to %.2f\n", o[40 * kWidth]);

    /* What is wrong is said before anything runs. */
    call.q.shape[3] = 8;
    if (spion_forward(plan, &call, NULL) == SPION_INVALID) {
        printf("refused: %s\n", spion_last_error());
    }

    free(workspace);
    free(tables);
    spion_pattern_release(pattern);
    spion_plan_release(plan);
    spion_context_release(context);
    return 0;
}
