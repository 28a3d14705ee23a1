/* unit_mixed.c: both arms under autocast and recompute, compiled, against the reference evaluator. In: [--device D | -t TARGET].
   Out: `N passed, N failed`.

   Loss and every gradient of a tiny model with dropout, under each dtype of autocast, each recompute and each
   fusion: against the f64 evaluation of the graph as `autocast` leaves it, by the tolerance of design.md 8,
   in which the naive side is the evaluation of that graph with every value rounded to its dtype. Recompute
   moves no value: its outputs are compared bit by bit with those of the same graph without. */
#include "codegen/family.h"
#include "passes/fuse.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "tests/check.h"
#include "tools/verify.h"

static const Define TINY[] = { { "layers", "5" }, { "width", "24" }, { "heads", "2" }, { "hidden", "40" }, { "vocab", "37" },
                               { "B", "3" },      { "T", "10" },     { "dropout", "0.1" } };

static Module *load(sn_ctx *c, const char *path) {
    Module *m = snG_load(c, path, TINY, sizeof TINY / sizeof *TINY);
    SN_ASSERT(m, "%s", c->message);
    return m;
}

static const char *target = "host", *device;      /* device NULL: what suits the target */

/* --device D or -t TARGET; 0 or what was wrong. */
static int choose_target(const char *option, const char *name) {
    static char found[64];
    if (!strcmp(option, "-t")) return target = name, 0;
    return target = found, sn_device_target(device = name, found);
}

/* A session on the graph alone; the caller frees both. */
static sn_session *open_graph(Module *from, Graph *g, const char *fuse, SnProgram **p) {
    Module one = { .ctx = from->ctx, .graphs = { &g, 1, 1 } };
    *p = snK_build(&one, &(BuildOptions){ .target = target, .fuse = fuse }, NULL);
    SN_ASSERT(*p, "%s", from->ctx->message);
    return sn_session_new(*p, &(sn_session_desc){ .device = device, .seed = 7, .poison = true });
}

static size_t output_bytes(const Graph *g, uint32_t i) {
    const Type *t = snG_type(g, g->outputs.v[i].node);
    return (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
}

static char *read_outputs(sn_session *s, const Graph *g, Arena *a, size_t *total) {
    char *all;
    *total = 0;
    for (uint32_t i = 0; i < g->outputs.n; i++) *total += output_bytes(g, i);
    all = snU_alloc(a, *total + 1);
    for (size_t i = 0, at = 0; i < g->outputs.n; at += output_bytes(g, (uint32_t)i), i++)
        sn_read(s, "train", snU_str(g->ctx, g->outputs.v[i].name), all + at, output_bytes(g, (uint32_t)i));
    return all;
}

/* One arm, autocast and fusion under every recompute. */
static void test_case(const char *path, const char *half, const char *fuse) {
    static const char *const HOW[] = { "none", "block", "full" };
    sn_ctx *c = sn_ctx_new();
    Arena a = {0};
    Module *m = load(c, path);
    const Graph *g = snG_get(m, "train");
    PassOptions po = { .autocast = half, .fuse = fuse };
    Graph *ref = snP_run(c, g, &po, "grad,expand,autocast");
    EvalEnv env = {0};
    char *first = NULL;
    snP_seed_inputs(ref, 7, SEED_STATES, &a, &env);
    env.seed = 7, env.step = 1;
    for (int k = 0; k < 3; k++) {
        po.recompute = HOW[k], po.keep = snP_kept(snP_without(c, fuse));
        Graph *now = snP_run(c, g, &po, SNP_ORDER_GRAD);
        SnProgram *p;
        sn_session *s = open_graph(m, now, fuse, &p);
        SN_ASSERT(s, "%s", sn_rt_error());
        StrBuf report = {0};
        size_t n;
        int wrong = snV_verify(s, "train", ref, &env, false, &report);
        const char *cast = half ? half : "none";
        ok(wrong == 0, "%s, autocast %s, fuse %s, recompute %s:\n%s", path, cast, fuse, HOW[k], report.s);
        char *out = read_outputs(s, ref, &a, &n);
        if (!first) first = out;
        ok(!memcmp(first, out, n), "%s, autocast %s, fuse %s: recompute %s has other bits", path, cast, fuse, HOW[k]);
        snU_free_buf(&report);
        sn_session_free(s);
        snR_program_free(p);
        snG_free(now);
    }
    snG_free(ref);
    snG_free_module(m);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

/* -- What recompute is for ---------------------------------------------------------------------------------- */

static Plan plan_of(sn_ctx *c, const Graph *g, const PassOptions *po, const char *order, Arena *a) {
    Graph *now = snP_run(c, g, po, order), *fused = snP_fuse(now, NULL);
    Groups groups = snP_groups(fused, a);
    Plan p = snP_plan(fused, &groups, a);
    snG_free(now);
    snG_free(fused);
    return p;
}

/* Twelve layers, small vocabulary: what is kept for the backward pass is most of the arena. */
static void test_peak(const char *half) {
    static const Define DEEP[] = { { "layers", "12" }, { "width", "64" }, { "heads", "2" },
                                   { "B", "4" },       { "T", "64" },     { "vocab", "67" } };
    sn_ctx *c = sn_ctx_new();
    Arena a = {0};
    Module *m = snG_load(c, "models/ar.sn", DEEP, sizeof DEEP / sizeof *DEEP);
    const Graph *g = snG_get(m, "train");
    int64_t peak[3];
    static const char *const HOW[] = { "none", "block", "full" };
    for (int k = 0; k < 3; k++) {
        PassOptions po = { .autocast = half, .recompute = HOW[k], .keep = snP_kept(0) };
        Plan p = plan_of(c, g, &po, SNP_ORDER_ACCUM, &a);
        peak[k] = p.arena_bytes;
        ok((double)p.arena_bytes <= 1.05 * (double)p.live_peak, "recompute %s: arena %lld, live set %lld", HOW[k],
           (long long)p.arena_bytes, (long long)p.live_peak);
    }
    printf("12 layers, autocast %s: arena none %lld, block %lld, full %lld\n", half ? half : "none", (long long)peak[0],
           (long long)peak[1], (long long)peak[2]);
    ok(peak[1] * 3 < peak[0] && peak[2] < peak[1], "recompute does not shrink the arena: %lld, %lld, %lld",
       (long long)peak[0], (long long)peak[1], (long long)peak[2]);
    snG_free_module(m);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

int main(int argc, char **argv) {
    if (argc > 2 && choose_target(argv[1], argv[2])) return printf("skipped: %s\n0 passed, 0 failed\n", sn_rt_error()), 0;
    static const char *const HALF[] = { NULL, "bf16", "f16" }, *const ARM[] = { "models/ar.sn", "models/dlm.sn" };
    test_peak(NULL);
    test_peak("bf16");
    for (int arm = 0; arm < 2; arm++)
        for (int h = 0; h < 3; h++) {
            test_case(ARM[arm], HALF[h], "all");
            if (h < 2) test_case(ARM[arm], HALF[h], "none");
        }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
