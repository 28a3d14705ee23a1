/* unit_models.c: whole models, compiled and trained, against the reference evaluator. In: [--device D | -t TARGET] [--seed N] [-v] [-D name=value]...
   [files.sn], else the models; out: `N passed, N failed`.

   Every graph of a file is built fused and unfused (on another device than the host fused alone, but with SN_LONG), at tiny sizes, and runs one step from the same initial weights. The reference
   is the evaluation of the graph right after autodiff and optimizer, before any other pass; outputs, new weights and moments must
   meet the tolerance of design.md 8, and 1 and 3 threads must agree in every bit. */
#include "codegen/family.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "tools/verify.h"

static int passed, failed;
static bool verbose;
static const char *device = "host";                    /* NULL: what suits the target */
static uint64_t seed = 11;
static char target[64];

static const Define TINY[] = { { "layers", "2" }, { "width", "24" }, { "heads", "2" }, { "hidden", "40" }, { "vocab", "37" },
                               { "B", "3" }, { "T", "18" } };

/* Inputs; gradients added up so far; nothing else: weights and moments start as the program starts them. */
static void seed_env(const Graph *ref, Arena *a, EvalEnv *env) {
    snP_seed_inputs(ref, seed, SEED_STATES, a, env);
    const char **names = NEWN(a, const char *, env->n);
    EvalVal *vals = NEWN(a, EvalVal, env->n);
    int n = 0;
    for (int i = 0; i < env->n; i++) {
        bool state = false;
        for (uint32_t k = 0; k < ref->leaves.n; k++)
            state |= snG_node(ref, ref->leaves.v[k].node)->op == OP_state && !strcmp(snU_str(ref->ctx, ref->leaves.v[k].name), env->names[i]);
        if (state && strncmp(env->names[i], "accum.", 6) != 0) continue;
        names[n] = env->names[i];
        vals[n++] = env->vals[i];
    }
    *env = (EvalEnv){ names, vals, n, .seed = seed, .step = 1 };
}

static void verify_graph(sn_ctx *c, const Graph *g, const char *pass, const char *name, sn_session *const *s, const char *what) {
    Arena a = {0};
    StrBuf report = {0};
    EvalEnv env = {0};
    Graph *ref = snP_run(c, g, NULL, pass);
    seed_env(ref, &a, &env);
    bool ok = true;
    for (int i = 0; i < 2; i++) ok &= snV_verify(s[i], name, ref, &env, verbose, &report) == 0;
    for (uint32_t i = 0; i < ref->outputs.n && ok; i++) {
        const Type *t = snG_type(ref, ref->outputs.v[i].node);
        size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
        char *x = snU_alloc(&a, bytes), *y = snU_alloc(&a, bytes);
        const char *out = snU_str(c, ref->outputs.v[i].name);
        sn_read(s[0], name, out, x, bytes);
        sn_read(s[1], name, out, y, bytes);
        if (memcmp(x, y, bytes)) ok = false, snU_putf(&report, "FAILED %s: bits differ with the number of threads\n", out);
    }
    if (report.n) printf("%s %s:\n%s", what, name, report.s);
    if (ok) passed++;
    else failed++;
    snG_free(ref);
    snU_free_buf(&report);
    snU_free_arena(&a);
}

static void verify_program(sn_ctx *c, const Module *m, const SnProgram *p, const char *what) {
    sn_session *s[2];
    for (int i = 0; i < 2; i++) {
        s[i] = sn_session_new(p, &(sn_session_desc){ .device = device, .seed = seed, .threads = 1 + 2 * i, .poison = true });
        if (!s[i]) { printf("FAILED %s: %s\n", what, sn_rt_error()); failed++; return; }
    }
    for (uint32_t i = 0; i < m->graphs.n; i++) {
        const Graph *g = m->graphs.v[i];
        const char *name = snU_str(c, g->name);
        if (strcmp(name, "train") != 0) {
            verify_graph(c, g, "expand", name, s, what);
            continue;
        }
        verify_graph(c, g, "optim", "train", s, what);
        verify_graph(c, g, "accum", "accum", s, what);
        verify_graph(c, g, "apply", "apply", s, what);
    }
    for (int i = 0; i < 2; i++) sn_session_free(s[i]);
}

static void test_file(const char *path, const char *fuse, const Define *defs, int ndefs) {
    sn_ctx *c = sn_ctx_new();
    char what[256];
    snprintf(what, sizeof what, "%s (fuse %s)", path, fuse);
    Module *m = snG_load(c, path, defs, ndefs);
    BuildStats st = {0};
    SnProgram *p = m ? snK_build(m, &(BuildOptions){ .target = target, .train = true, .fuse = fuse, .verbose = verbose }, &st) : NULL;
    if (!p) {
        printf("FAILED %s: %s\n", what, c->message);
        failed++;
    } else {
        printf("%s: %d groups, %d launches, %d compiled, %.2f s\n", what, st.groups, st.kernels, st.unique_kernels, st.compile_s);
        SN_ENTER(c, { printf("FAILED %s: %s\n", what, c->message); failed++; return; });
        verify_program(c, m, p, what);
        SN_LEAVE(c);
        snR_program_free(p);
    }
    if (m) snG_free_module(m);
    sn_ctx_free(c);
}

static void test_both(const char *path, const Define *defs, int n) {
    test_file(path, "all", defs, n);
    if (!strncmp(target, "host", 4) || getenv("SN_LONG")) test_file(path, "none", defs, n);
}

/* Options of the arms: params that are put in place of TINY's. */
static const struct { const char *file; Define params[4]; } VARIANTS[] = {
    { "models/ar.sn", { { "weight_noise", "0.1" }, { "input_mask_form", "uniform" }, { "input_mask", "0.5" }, { "layers", "1" } } },
    { "models/ar.sn", { { "documents", "mask" }, { "cut_rows", "0.5" }, { "layers", "1" } } },
    { "models/ar.sn", { { "loss_on", "answer" }, { "layers", "1" } } },
    { "models/dlm.sn", { { "documents", "reset" }, { "loss_on", "answer" }, { "layers", "1" } } },
    { "models/dlm.sn", { { "attention", "causal" }, { "cut_rows", "1.0" }, { "layers", "1" } } },
    { "models/block_diffusion.sn", { { "block_size", "6" }, { "layers", "1" } } },
    { "models/block_diffusion.sn", { { "block_size", "3" }, { "documents", "reset" }, { "cut_rows", "0.7" }, { "layers", "1" } } },
    { "models/any_order.sn", { { "orders", "mixed" }, { "layers", "1" } } },
    { "models/any_order.sn", { { "eval_order", "left" }, { "input_mask", "0.3" }, { "layers", "1" } } },
    { "models/dlm.sn", { { "kernel", "uniform" }, { "layers", "1" } } },
    { "models/dlm.sn", { { "loss_form", "maskgit" }, { "noise_schedule", "cosine" }, { "layers", "1" } } },
    { "models/ar.sn", { { "experts", "4" }, { "capacity", "1.0" }, { "layers", "1" }, { "ema", "0.9" } } },
    { "models/dlm.sn", { { "experts", "4" }, { "route", "experts" }, { "shared_hidden", "24" }, { "layers", "1" } } },
};

static void test_variants(void) {
    for (size_t v = 0; v < sizeof VARIANTS / sizeof *VARIANTS; v++) {
        Define defs[16];
        int n = 0;
        for (size_t i = 0; i < sizeof TINY / sizeof *TINY; i++) {
            bool own = false;
            for (int k = 0; k < 4 && VARIANTS[v].params[k].name; k++) own |= !strcmp(TINY[i].name, VARIANTS[v].params[k].name);
            if (!own) defs[n++] = TINY[i];
        }
        for (int k = 0; k < 4 && VARIANTS[v].params[k].name; k++) {
            defs[n++] = VARIANTS[v].params[k];
            printf("%s=%s ", VARIANTS[v].params[k].name, VARIANTS[v].params[k].value);
        }
        test_file(VARIANTS[v].file, "all", defs, n);
    }
}

/* One name, two types (the parser refuses that in one file; two modules can disagree): an error that names both graphs. */
static void test_mismatch(void) {
    static const char *const text[2] = { "graph a {\n  weight w: f32[4, 8] = ones()\n  output y = sum(w)\n}\n",
                                         "graph b {\n  weight w: f32[8, 4] = ones()\n  output y = sum(w)\n}\n" };
    sn_ctx *c = sn_ctx_new();
    Arena a = {0};
    Module both = { .ctx = c }, *m[2];
    for (int i = 0; i < 2; i++) {
        m[i] = snG_parse(c, "two", text[i], strlen(text[i]), NULL, 0);
        PUSH(&a, both.graphs, m[i]->graphs.v[0]);
    }
    SnProgram *p = snK_build(&both, &(BuildOptions){ .target = target }, NULL);
    bool ok = !p && strstr(c->message, "f32[8, 4]") && strstr(c->message, "'a'") && strstr(c->message, "'b'");
    if (ok) passed++;
    else failed++, printf("FAILED type mismatch: %s\n", c->message ? c->message : "no error");
    for (int i = 0; i < 2; i++) snG_free_module(m[i]);
    snU_free_arena(&a);
    sn_ctx_free(c);
}

/* Equal builds give equal programs. */
static void test_hash(void) {
    static const char one[] = "graph a {\n  weight w: f32[4, 8] = ones()\n  output y = sum(w)\n  update w = w + 1.0\n}\n";
    uint64_t hash[2] = { 0, 1 };
    for (int i = 0; i < 2; i++) {
        sn_ctx *c = sn_ctx_new();
        Module *m = snG_parse(c, "one", one, strlen(one), NULL, 0);
        SnProgram *p = m ? snK_build(m, &(BuildOptions){ .target = target }, NULL) : NULL;
        if (p) hash[i] = p->hash;
        snR_program_free(p);
        if (m) snG_free_module(m);
        sn_ctx_free(c);
    }
    if (hash[0] == hash[1]) passed++;
    else failed++, printf("FAILED two equal builds differ\n");
}

int main(int argc, char **argv) {
    Define defs[64];
    bool any = false;
    if (argc > 2 && !strcmp(argv[1], "--device")) device = argv[2], argv += 2, argc -= 2;
    if (sn_device_target(device, target)) return printf("skipped: %s\n0 passed, 0 failed\n", sn_rt_error()), 0;
    if (argc > 2 && !strcmp(argv[1], "-t")) device = NULL, snprintf(target, sizeof target, "%s", argv[2]), argv += 2, argc -= 2;
    test_mismatch();
    test_hash();
    int n = sizeof TINY / sizeof *TINY;
    memcpy(defs, TINY, sizeof TINY);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-v")) {
            verbose = true;
        } else if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "-D") && i + 1 < argc && n < 64) {
            char *eq = strchr(argv[++i], '=');
            SN_ASSERT(eq, "-D name=value");
            *eq = 0;
            for (int k = 0; k < n; k++)
                if (!strcmp(defs[k].name, argv[i])) defs[k] = defs[--n];
            defs[n++] = (Define){ argv[i], eq + 1 };
        } else if (argv[i][0] == '-') {
            return fprintf(stderr, "unit_models: %s is no option, or does not come first\n", argv[i]), 2;
        } else {
            test_both(argv[i], defs, n);
            any = true;
        }
    }
    if (!any) test_both("models/ar.sn", defs, n), test_both("models/dlm.sn", defs, n), test_variants();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
