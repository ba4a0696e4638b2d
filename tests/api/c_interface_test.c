/* The C interface from C99: one small problem that can be checked by hand, and for everything that
 * can be wrong the status and what the sentence says. Exits with the number of failures. */
#include "tests/api/c_problem.h"

#include <sys/wait.h>
#include <unistd.h>

static void versions_and_structs(void) {
    spion_context_options options = SPION_CONTEXT_OPTIONS_INIT;
    spion_context* context = NULL;
    struct {
        spion_context_options known;
        int64_t later;
    } future;
    CHECK(spion_abi_version() == SPION_ABI_VERSION);
    CHECK(strlen(spion_version()) > 0);
    INVALID(spion_context_create(NULL, &context), "spion_context_options is null");
    INVALID(spion_context_create(&options, NULL), "context is null");
    options.abi_version = ((uint32_t)(SPION_ABI_MAJOR + 1)) << 16;
    INVALID(spion_context_create(&options, &context), "binary interface 1.0");
    options.abi_version = SPION_ABI_VERSION + 1;
    INVALID(spion_context_create(&options, &context), "this library has");
    options.abi_version = SPION_ABI_VERSION;
    options.size = 0;
    INVALID(spion_context_create(&options, &context), "set it to sizeof");
    options.size = sizeof(options);
    options.device = 7;
    INVALID(spion_context_create(&options, &context), "device kind 7 is not known");
    options.device = SPION_HOST;
    options.threads = -1;
    INVALID(spion_context_create(&options, &context), "-1 threads");
    options.threads = 1;
    options.cache = 9;
    INVALID(spion_context_create(&options, &context), "cache kind 9");
    options.cache = SPION_CACHE_FOLDER;
    INVALID(spion_context_create(&options, &context), "cache_folder is null");
    options.cache = SPION_CACHE_MEMORY;
    options.bundle = "/nowhere/at/all";
    expect(__LINE__, spion_context_create(&options, &context), SPION_DEVICE, "no bundle");
    CHECK(context == NULL);

    memset(&future, 0, sizeof(future));
    options.bundle = NULL;
    future.known = options;
    future.known.size = sizeof(future);
    OK(spion_context_create(&future.known, &context)); /* a newer header that sets nothing new */
    spion_context_release(context);
    future.later = 1;
    INVALID(spion_context_create(&future.known, &context), "sets fields beyond");
    spion_context_release(NULL);
    spion_plan_release(NULL);
    spion_pattern_release(NULL);
    spion_blob_release(NULL);
    spion_discoverer_release(NULL);
}

static void operations(spion_context* context) {
    spion_attention a = attention();
    spion_plan_options options = SPION_PLAN_OPTIONS_INIT;
    spion_plan* plan = NULL;
    spion_pattern* other = NULL;
    INVALID(spion_plan_create(NULL, &a, NULL, &plan), "context is null");
    INVALID(spion_plan_create(context, NULL, NULL, &plan), "spion_attention is null");
    a.key_value_heads = H + 1;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "give a number that divides it");
    a = attention();
    a.causal = 1;
    a.spans = 1;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "spans and for causal");
    a = attention();
    a.dropout = 1.0F;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "dropout 1 is not supported");
    a = attention();
    a.patterns = H + 1;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "one a head of K and V, or one a head");
    a = attention();
    a.dtype = SPION_BF16;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "the host computes in fp32 only");
    a.dtype = 17;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "dtype 17 is not known");
    a = attention();
    a.softmax = 5;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "softmax 5 is not known");
    a = attention();
    a.head_dim = 20;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "head dimension 20");
    a = attention();
    a.value_dim = 20;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "head dimension 20 of V");
    a = attention();
    a.block = 24;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "block 24 is not allowed");
    a = attention();
    a.length = 0;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "length 0");
    a = attention();
    a.scale = -1;
    INVALID(spion_plan_create(context, &a, NULL, &plan), "scale -1");
    a = attention();
    options.max_blocks = 5;
    INVALID(spion_plan_create(context, &a, &options, &plan), "max_blocks is 5");
    options.max_blocks = 0;
    options.batch = -2;
    INVALID(spion_plan_create(context, &a, &options, &plan), "usual batch is -2");
    options.batch = 0;
    OK(spion_pattern_full(64, BLOCK, &other));
    options.typical = other;
    INVALID(spion_plan_create(context, &a, &options, &plan), "typical pattern is for length 64");
    spion_pattern_release(other);
    CHECK(plan == NULL);
}

static void tensors(const spion_plan* plan, struct problem* p) {
    spion_forward_args args = forward_args(p);
    INVALID(spion_forward(NULL, &args, NULL), "plan is null");
    INVALID(spion_forward(plan, NULL, NULL), "spion_forward_args is null");
    args.q.dtype = SPION_BF16;
    INVALID(spion_forward(plan, &args, NULL), "q is of dtype 0 (SPION_BF16)");
    args = forward_args(p);
    args.k.shape[2] = L - 1;
    INVALID(spion_forward(plan, &args, NULL), "k has rank 4 and shape [1, 1, 31, 16]");
    args = forward_args(p);
    args.q.rank = 3;
    INVALID(spion_forward(plan, &args, NULL), "q has rank 3");
    args = forward_args(p);
    args.q.shape[0] = 0;
    INVALID(spion_forward(plan, &args, NULL), "B of at least 1");
    args = forward_args(p);
    args.v.shape[0] = 2;
    INVALID(spion_forward(plan, &args, NULL), "v has rank 4 and shape [2,");
    args = forward_args(p);
    args.v.strides[3] = 2;
    INVALID(spion_forward(plan, &args, NULL), "stride of 2 elements along D");
    args = forward_args(p);
    args.v.strides[2] = -D;
    INVALID(spion_forward(plan, &args, NULL), "v has a row stride of -16");
    args = forward_args(p);
    args.o.strides[2] = 0;
    INVALID(spion_forward(plan, &args, NULL), "must be above 0");
    args = forward_args(p);
    args.q.strides[2] = (int64_t)1 << 30;
    INVALID(spion_forward(plan, &args, NULL), "less than 2^31 bytes");
    args = forward_args(p);
    args.o.data = NULL;
    INVALID(spion_forward(plan, &args, NULL), "o is null");
    args = forward_args(p);
    args.q.data = (char*)p->q + 2;
    INVALID(spion_forward(plan, &args, NULL), "multiple of 4 bytes");
    args = forward_args(p);
    args.flags = 64;
    INVALID(spion_forward(plan, &args, NULL), "flags are 0x40");
    args.flags = SPION_OVERLAP | SPION_CHECK | SPION_KNOWN;
    OK(spion_forward(plan, &args, NULL));
}

static void memory(spion_context* context, const spion_plan* plan, struct problem* p) {
    spion_forward_args args = forward_args(p);
    spion_pattern* pattern = NULL;
    spion_attention other = attention();
    spion_plan* foreign = NULL;
    spion_plan_info info = SPION_PLAN_INFO_INIT;
    int32_t lengths[1] = {L + 1};
    int32_t* tables = (int32_t*)p->tables;
    args.table_bytes -= 4;
    INVALID(spion_forward(plan, &args, NULL), "tables of");
    args = forward_args(p);
    args.tables = NULL;
    INVALID(spion_forward(plan, &args, NULL), "spion_plan_write_tables");
    args = forward_args(p);
    tables[0] ^= 1;
    INVALID(spion_forward(plan, &args, NULL), "are no tables of spion");
    tables[0] ^= 1;
    other.scale = 3;
    OK(spion_plan_create(context, &other, NULL, &foreign));
    INVALID(spion_forward(foreign, &args, NULL), "were written for another plan");
    tables[1] += 1;
    INVALID(spion_forward(plan, &args, NULL), "are of layout");
    tables[1] -= 1;
    spion_plan_release(foreign);
    args.lengths = lengths;
    INVALID(spion_forward(plan, &args, NULL), "lengths are given and the plan");
    other = attention();
    other.key_padding = 1;
    OK(spion_plan_create(context, &other, NULL, &foreign));
    OK(spion_plan_query(foreign, &info));
    OK(spion_pattern_full(L, BLOCK, &pattern));
    OK(spion_plan_write_tables(foreign, pattern, tables, info.table_bytes));
    INVALID(spion_forward(foreign, &args, NULL), "lengths[0] is 33");
    args.lengths = NULL;
    INVALID(spion_forward(foreign, &args, NULL), "lengths are null");
    OK(spion_plan_write_tables(plan, pattern, tables, p->table_bytes));
    spion_plan_release(foreign);
    spion_pattern_release(pattern);
}

static void workspaces(const spion_plan* plan, struct problem* p) {
    spion_forward_args args = forward_args(p);
    spion_backward_args backward;
    size_t bytes = 0;
    args.workspace_bytes -= 1;
    INVALID(spion_forward(plan, &args, NULL), "a workspace of");
    args.workspace = NULL;
    INVALID(spion_forward(plan, &args, NULL), "ask spion_plan_workspace");
    args = forward_args(p);
    args.workspace = (char*)p->workspace + 8;
    args.workspace_bytes += 8;
    INVALID(spion_forward(plan, &args, NULL), "the workspace is at");
    INVALID(spion_plan_workspace(plan, 0, SPION_FORWARD, &bytes, NULL), "the batch is 0");
    INVALID(spion_plan_workspace(plan, 1, 3, &bytes, NULL), "pass 3 is not known");
    INVALID(spion_plan_prepare_workspace(plan, 1, SPION_FORWARD, NULL, 0, NULL),
            "a workspace of 0");
    INVALID(spion_plan_prepare_workspace(plan, 1, SPION_FORWARD, (char*)p->workspace + 8,
                                         p->workspace_bytes, NULL),
            "the workspace is at");

    memset(&backward, 0, sizeof(backward));
    backward.size = sizeof(backward);
    backward.q = view(p->q);
    backward.k = view(p->k);
    backward.v = view(p->v);
    backward.o = view(p->o);
    backward.d_o = backward.d_q = backward.d_k = backward.d_v = view(p->d);
    INVALID(spion_backward(plan, &backward, NULL), "lse is null");
}

static void other_patterns(const spion_plan* plan, struct problem* p) {
    spion_pattern* pattern = NULL;
    int32_t* tables = (int32_t*)p->tables;
    OK(spion_pattern_full(2 * L, BLOCK, &pattern));
    INVALID(spion_plan_write_tables(plan, pattern, tables, p->table_bytes),
            "the pattern is for length 64");
    INVALID(spion_plan_write_tables(plan, pattern, tables, 4), "room for 4 bytes");
    spion_pattern_release(pattern);
    OK(spion_pattern_full(L, 2 * BLOCK, &pattern));
    INVALID(spion_plan_write_tables(plan, pattern, tables, p->table_bytes),
            "the pattern is for length 32 in blocks of 32");
    spion_pattern_release(pattern);
}

static void discovery(spion_context* context, struct problem* p) {
    spion_attention a = attention();
    spion_discovery settings = SPION_DISCOVERY_INIT;
    spion_discoverer* discoverer = NULL;
    spion_discoverer_args args;
    spion_pattern* pattern = NULL;
    int32_t lengths[1] = {L + 1};
    float sums[1024];
    size_t bytes = 0;
    settings.block = BLOCK;
    settings.filter = 3;
    INVALID(spion_discoverer_create(NULL, &a, &settings, &discoverer), "context is null");
    settings.variant = 9;
    INVALID(spion_discoverer_create(context, &a, &settings, &discoverer), "variant 9");
    settings.variant = SPION_VARIANT_CF;
    a.key_padding = 1;
    OK(spion_discoverer_create(context, &a, &settings, &discoverer));
    OK(spion_discoverer_sum_bytes(discoverer, &bytes));
    CHECK(bytes <= sizeof(sums));
    memset(&args, 0, sizeof(args));
    args.size = sizeof(args);
    args.q = view(p->q);
    args.k = view(p->k);
    args.lse = p->lse;
    args.sums = sums;
    args.sum_bytes = bytes - 4;
    INVALID(spion_discoverer_run(discoverer, &args, NULL), "lengths are null");
    args.lengths = lengths;
    INVALID(spion_discoverer_run(discoverer, &args, NULL), "lengths[0] is 33");
    lengths[0] = L;
    INVALID(spion_discoverer_run(discoverer, &args, NULL), "bytes of sums");
    args.sum_bytes = bytes;
    args.lse = NULL;
    INVALID(spion_discoverer_run(discoverer, &args, NULL), "lse is null");
    args.lse = p->lse;
    args.q.dtype = SPION_FP16;
    INVALID(spion_discoverer_run(discoverer, &args, NULL), "q is of dtype 1");
    args.q.dtype = SPION_FP32;
    OK(spion_discoverer_run(discoverer, &args, NULL));
    INVALID(spion_discoverer_finish(discoverer, sums, bytes - 4, NULL, &pattern), "copy them all");
    OK(spion_discoverer_finish(discoverer, sums, bytes, NULL, &pattern));
    spion_pattern_release(pattern);
    spion_discoverer_release(discoverer);
}

/* With v = 1 everywhere every row of o is 1, whatever the pattern has of blocks in the row. */
static void answers(const spion_plan* plan, struct problem* p) {
    spion_forward_args args = forward_args(p);
    int i;
    for (i = 0; i < COUNT; ++i) {
        p->q[i] = (float)(i % 7) - 3;
        p->k[i] = (float)(i % 5) - 2;
        p->v[i] = 1;
        p->o[i] = -1;
    }
    OK(spion_forward(plan, &args, NULL));
    for (i = 0; i < COUNT; ++i) {
        CHECK(fabsf(p->o[i] - 1) < 1e-5F);
    }
}

static void frozen(void) {
    spion_context* context = host_context(1);
    spion_attention a = attention();
    spion_plan* plan = NULL;
    spion_counters counters = SPION_COUNTERS_INIT;
    expect(__LINE__, spion_plan_create(context, &a, NULL, &plan), SPION_FROZEN,
           "a frozen context compiles nothing");
    OK(spion_context_counters(context, &counters));
    CHECK(counters.compiled == 0);
    OK(spion_context_freeze(context, 0));
    OK(spion_plan_create(context, &a, NULL, &plan));
    OK(spion_context_counters(context, &counters));
    CHECK(counters.compiled == 3);
    OK(spion_context_freeze(context, 1));
    spion_plan_release(plan);
    OK(spion_plan_create(context, &a, NULL, &plan)); /* from memory */
    OK(spion_context_counters(context, &counters));
    CHECK(counters.compiled == 3);
    spion_plan_release(plan);
    spion_context_release(context);
}

static void after_a_fork(spion_context* context, spion_plan* plan, struct problem* p) {
    int status = -1;
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        spion_forward_args args = forward_args(p);
        const int before = failures;
        INVALID(spion_forward(plan, &args, NULL), "make the context after the fork");
        spion_plan_release(plan); /* neither hangs nor takes from the parent */
        spion_context_release(context);
        fflush(stdout);
        _exit(failures - before);
    }
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
    static struct problem p;
    spion_context* context = host_context(0);
    spion_attention a = attention();
    spion_plan* plan = NULL;
    spion_plan_info info = SPION_PLAN_INFO_INIT;
    spion_pattern* pattern = NULL;
    const uint8_t bits[4] = {1, 0, 1, 1};
    CHECK(strcmp(spion_last_error(), "") == 0);
    CHECK(strlen(spion_context_device(context)) > 0);
    CHECK(strlen(spion_context_target(context)) > 0);
    OK(spion_plan_create(context, &a, NULL, &plan));
    OK(spion_plan_query(plan, &info));
    CHECK(info.kernels == 3);
    OK(spion_pattern_from_bits(L, BLOCK, bits, 4, &pattern));
    p.table_bytes = info.table_bytes;
    p.tables = malloc(info.table_bytes);
    OK(spion_plan_write_tables(plan, pattern, p.tables, p.table_bytes));
    OK(spion_plan_workspace(plan, 1, SPION_BACKWARD, &p.workspace_bytes, NULL));
    p.workspace = malloc(p.workspace_bytes);
    OK(spion_plan_prepare_workspace(plan, 1, SPION_BACKWARD, p.workspace, p.workspace_bytes, NULL));
    answers(plan, &p);
    versions_and_structs();
    operations(context);
    tensors(plan, &p);
    p.workspace_bytes = 0;
    OK(spion_plan_workspace(plan, 1, SPION_FORWARD, &p.workspace_bytes, NULL));
    memory(context, plan, &p);
    workspaces(plan, &p);
    other_patterns(plan, &p);
    answers(plan, &p); /* and goes on */
    discovery(context, &p);
    frozen();
    after_a_fork(context, plan, &p);
    answers(plan, &p);
    spion_pattern_release(pattern);
    spion_context_release(context); /* the plan keeps what it needs */
    answers(plan, &p);
    spion_plan_release(plan);
    free(p.tables);
    free(p.workspace);
    printf("%d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
