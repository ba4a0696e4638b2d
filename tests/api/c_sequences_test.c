/* Two sequences that lie end to end, from C99; exits with the number of failures. */
#include "tests/api/c_problem.h"

/* With v = 1 everywhere every row of o is 1. */
static void sequences(spion_context* context, struct problem* p) {
    spion_attention a = attention();
    spion_mask_rules rules = SPION_MASK_RULES_INIT;
    spion_forward_args args = forward_args(p);
    spion_plan_info info = SPION_PLAN_INFO_INIT;
    spion_plan* plan = NULL;
    spion_pattern* pattern = NULL;
    int32_t starts[3] = {0, 20, L}, query_spans[4 * L], key_spans[4 * L];
    float lse[2 * H * L];
    int i;
    a.varlen = 1;
    OK(spion_plan_create(context, &a, NULL, &plan));
    OK(spion_plan_query(plan, &info));
    OK(spion_pattern_full(L, BLOCK, &pattern));
    rules.cu_seqlens = starts;
    OK(spion_write_spans(&rules, 2, L, query_spans, key_spans, 4 * L));
    args.q.rank = 3;
    args.q.shape[0] = H;
    args.q.shape[1] = L;
    args.q.shape[2] = D;
    args.q.strides[0] = L * D;
    args.q.strides[1] = D;
    args.q.strides[2] = 1;
    args.k = args.v = args.o = args.q;
    args.k.data = p->k;
    args.v.data = p->v;
    args.o.data = p->o;
    args.lse = lse;
    args.table_bytes = info.table_bytes;
    args.tables = malloc(args.table_bytes);
    OK(spion_plan_write_tables(plan, pattern, (void*)args.tables, args.table_bytes));
    OK(spion_plan_workspace(plan, 2, SPION_FORWARD, &args.workspace_bytes, NULL));
    args.workspace = malloc(args.workspace_bytes);
    OK(spion_plan_prepare_workspace(plan, 2, SPION_FORWARD, args.workspace, args.workspace_bytes,
                                    NULL));
    args.query_spans = query_spans;
    args.key_spans = key_spans;
    INVALID(spion_forward(plan, &args, NULL), "sequences is 0");
    args.sequences = 2;
    INVALID(spion_forward(plan, &args, NULL), "cu_seqlens is null");
    args.cu_seqlens = starts;
    for (i = 0; i < COUNT; ++i) {
        p->v[i] = 1;
        p->o[i] = -1;
    }
    OK(spion_forward(plan, &args, NULL));
    for (i = 0; i < COUNT; ++i) {
        CHECK(fabsf(p->o[i] - 1) < 1e-5F);
    }
    starts[2] = L - 1;
    INVALID(spion_forward(plan, &args, NULL), "cu_seqlens ends with 31");
    free((void*)args.tables);
    free(args.workspace);
    spion_pattern_release(pattern);
    spion_plan_release(plan);
}

int main(void) {
    static struct problem p;
    spion_context* context = host_context(0);
    sequences(context, &p);
    spion_context_release(context);
    printf("%d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
