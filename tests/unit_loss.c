/* unit_loss.c: a projection, its cross entropy and what a model makes of the losses, compiled, against the same text, evaluated. In: [--all] [--seed N] [-t TARGET] [words of a
   case's name]. Out: `N passed, N failed`.

   A case is a shape, a form of the projection and how rows count, times options (label smoothing, z-loss) and dtypes: f32, bf16 in memory, f32 with products of
   bf16 operands (--autocast). Gradients of x, w and the rows' weights must meet the tolerance of design.md 8, the loss that of f32, and the bits must
   not depend on the number of threads. The reference is differentiated as written; what is compiled must have become the op linear_xent, over the rows
   that count where the text says which. All cases are one module; without --all one in 29. */
#include <math.h>
#include "codegen/family.h"
#include "passes/pass.h"
#include "runtime/program.h"
#include "tests/check.h"
#include "tools/verify.h"

typedef struct Shape { int B, T, D, V; } Shape;
static const Shape SHAPES[] = { { 1, 1, 9, 70 }, { 1, 1, 32, 130 }, { 1, 3, 16, 33 }, { 2, 5, 48, 257 }, { 1, 70, 24, 65 } };

/* The losses l of x: dt[B, T, D], projected by w: dt[D, V] or v: dt[V, D]. */
static const struct { const char *name, *text; } FORMS[] = {
    { "plain", "l = xent(x @ w, t)" },
    { "tied", "l = xent(x @ transpose(v), t)" },
    { "scaled", "l = xent(x @ w * 8, t)" },
    { "flat", "l = xent(reshape(reshape(x, [B * T, D]) @ w, [B, T, V]), t)" },
    { "chunks", "l = linear_xent(x, w, t, true, chunk=2)" },
    { "chunks, tied", "l = linear_xent(x, v, t, true, tb=1, chunk=32)" },
};

/* some: bool, three in four; none, every: false, true, but data; r: any; zero: 0. counts: rows are compacted. */
static const struct { const char *name, *text; bool counts; } ROWS[] = {
    { "mean", "s = mean(l)", false },
    { "weights", "s = sum(l * r)", false },
    { "weights of zero", "s = sum(l * zero)", false },
    { "some", "s = sum(select(some, l, 0) * r)", true },
    { "none", "s = sum(select(none, l, 0) * r)", true },
    { "none, their mean", "s = sum(select(none, l, 0)) / max(sum(cast(none, dtypeof(l))), 1)", true },
    { "every one", "s = sum(select(every, l, 0) * r)", true },
    { "weighed", "s = sum(l * select(some, r, 0))", true },
    { "weighed, none", "s = sum(l * select(none, r, 0))", true },
    { "counted", "s = sum(l * cast(some, dtypeof(l))) / max(sum(cast(some, dtypeof(l))), 1)", true },
    { "one sequence", "s = sum(select(iota([B, T], 0) == B - 1, l, 0) * r)", true },
};
static const struct { const char *name, *dtype, *autocast; } DTYPES[] = { { "f32", "f32", NULL }, { "bf16", "bf16", NULL }, { "autocast", "f32", "bf16" } };
static const char *const OPTIONS[] = { "", "smoothing=0.1", "z=0.01", "smoothing=0.2, z=0.001" };
#define COUNT(a) ((int)(sizeof (a) / sizeof *(a)))

typedef struct Case { char name[160]; const char *text; bool counts; Graph *ref; } Case;
static const char *target = "host";
static uint64_t seed = 5;

/* -- Graphs --------------------------------------------------------------------------------------------------- */

/* The form with the options among the arguments of its last call. */
static void put_losses(StrBuf *b, const char *form, const char *options) {
    size_t n = strlen(form) - 1;
    snU_putf(b, "  %.*s%s%s)\n", (int)n, form, *options ? ", " : "", options);
}

static void put_case(StrBuf *b, int k, const Shape *n, int form, int rows, int option, int dtype) {
    const char *dt = DTYPES[dtype].dtype;
    snU_putf(b, "graph g%d(B=%d, T=%d, D=%d, V=%d) {\n  input x: %s[B, T, D]\n  input w: %s[D, V]\n  input v: %s[V, D]\n", k, n->B, n->T, n->D, n->V, dt, dt, dt);
    snU_putf(b, "  input t: i32[B, T]\n  input r: %s[B, T]\n  input zero: %s[B, T]\n  input some: bool[B, T]\n  input none: bool[B, T]\n  input every: bool[B, T]\n", dt, dt);
    put_losses(b, FORMS[form].text, OPTIONS[option]);
    snU_putf(b, "  %s\n  output loss = cast(reshape(s, []), f32)\n}\n", ROWS[rows].text);
}

static uint32_t count_ops(const Graph *g, const char *op) {
    uint32_t n = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) n += !strcmp(snG_op(g->ctx, snG_node(g, id)->op)->cname, op);
    return n;
}

/* Rows that count are an operand of the op, of the shape of the targets, where they do not all count. */
static bool compacted(const Graph *g) {
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (!strcmp(snG_op(g->ctx, snG_node(g, id)->op)->cname, "linear_xent")) return snG_type(g, snG_in(g, id, 3))->rank > 0;
    return false;
}

/* -- Values --------------------------------------------------------------------------------------------------- */

static void seed_inputs(const Graph *g, Arena *a, EvalEnv *env) {
    snP_seed_inputs(g, seed, SEED_WEIGHTS, a, env);
    env->seed = seed;
    for (int k = 0; k < env->n; k++) {
        EvalVal *v = (EvalVal *)&env->vals[k];
        const char *name = env->names[k];
        for (int64_t i = 0; i < v->n; i++) {
            uint32_t key[2] = { (uint32_t)seed, 9 }, r[4];
            snG_philox(key, (uint32_t[4]){ (uint32_t)i }, r);
            if (!strcmp(name, "zero") || !strcmp(name, "none")) v->v[i] = 0;
            else if (!strcmp(name, "every")) v->v[i] = 1;
            else if (!strcmp(name, "some")) v->v[i] = r[0] % 4 != 0;
        }
    }
}

/* Leaves out what has too few elements for their errors to say what is usual. */
static void leave_out(Graph *g) {
    enum { FEWEST = 64 };
    for (uint32_t i = g->outputs.n; i-- > 0;) if (snG_count(snG_type(g, g->outputs.v[i].node)) < FEWEST) g->outputs.v[i] = g->outputs.v[--g->outputs.n];
}

static bool same_bits(sn_session *const *s, const char *name, const Graph *g, Arena *a) {
    for (uint32_t i = 0; i < g->outputs.n; i++) {
        const Type *t = snG_type(g, g->outputs.v[i].node);
        size_t bytes = (size_t)(snG_count(t) * snG_dtype_size(t->dtype));
        char *x = snU_alloc(a, bytes + 1), *y = snU_alloc(a, bytes + 1);
        const char *out = snU_str(g->ctx, g->outputs.v[i].name);
        if (sn_read(s[0], name, out, x, bytes) < 0 || sn_read(s[1], name, out, y, bytes) < 0 || memcmp(x, y, bytes)) return false;
    }
    return true;
}

/* The loss in f32, one number: within some roundings of what its terms, of up to 100, add up to. NaN where it is not there. */
static double loss_of(const Graph *g, const EvalEnv *env, Arena *a) {
    EvalVal *v = NEWN(a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, env, a, v);
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!strcmp(snU_str(g->ctx, g->outputs.v[i].name), "loss")) return v[g->outputs.v[i].node].v[0];
    return NAN;
}

static void check_loss(const Case *k, sn_session *s, const char *name, double want) {
    float got = NAN;
    double bar = 64 * snV_ulp(SN_F32, fmax(fabs(want), 32));
    bool read = sn_read(s, name, "loss", &got, sizeof got) >= 0;
    ok(read && fabs(got - want) <= bar, "%s: the loss is %.9g, should be %.9g", k->name, got, want);
}

static void compare(const Case *k, int dtype, sn_session *const *s) {
    Arena a = {0};
    StrBuf report = {0};
    EvalEnv env = {0};
    const char *name = snU_str(k->ref->ctx, k->ref->name);
    seed_inputs(k->ref, &a, &env);
    double loss = dtype ? 0 : loss_of(k->ref, &env, &a);
    leave_out(k->ref);
    bool good = true;
    for (int i = 0; i < 2 && good; i++) good = snV_verify(s[i], name, k->ref, &env, false, &report) == 0;
    ok(good, "%s: %s", k->name, report.n ? report.s : sn_rt_error());
    if (good && !dtype) check_loss(k, s[0], name, loss);
    if (good) ok(same_bits(s, name, k->ref, &a), "%s: bits differ with the number of threads", k->name);
    snU_free_buf(&report);
    snU_free_arena(&a);
}

/* -- A module of cases for one dtype ------------------------------------------------------------------------------- */

static bool wanted(const char *name, char **words) {
    for (char **w = words; *w; w++)
        if (strstr(name, *w)) return true;
    return !*words;
}

typedef struct Cases { Case *v; int n; } Cases;

static Cases collect(int dtype, bool all, char **words, StrBuf *text) {
    Cases c = { calloc((size_t)COUNT(SHAPES) * COUNT(FORMS) * COUNT(ROWS) * COUNT(OPTIONS), sizeof(Case)), 0 };
    if (!c.v) abort();
    int turn = dtype;
    for (int f = 0; f < COUNT(FORMS); f++)
        for (int r = 0; r < COUNT(ROWS); r++)
            for (int o = 0; o < COUNT(OPTIONS); o++, turn++) {
                if (!all && turn % 29) continue;
                for (int i = 0; i < (all ? COUNT(SHAPES) : 1); i++) {
                    const Shape *n = &SHAPES[all ? i : turn / 29 % COUNT(SHAPES)];
                    Case *k = &c.v[c.n];
                    snprintf(k->name, sizeof k->name, "%s, %s, %s, %s, %d x %d rows, %d to %d", FORMS[f].name, ROWS[r].name,
                             *OPTIONS[o] ? OPTIONS[o] : "no option", DTYPES[dtype].name, n->B, n->T, n->D, n->V);
                    if (!wanted(k->name, words)) continue;
                    k->counts = ROWS[r].counts;
                    put_case(text, c.n++, n, f, r, o, dtype);
                }
            }
    return c;
}

static const PassOptions inputs = { .grad_inputs = true };

/* What is compiled, in `to`; the reference stays with the case. */
static void differentiate(sn_ctx *c, Case *k, const Graph *g, int dtype, Graph **to) {
    const char *half = DTYPES[dtype].autocast;
    k->ref = snP_run(c, g, &inputs, "grad");
    *to = snP_run(c, g, &inputs, "canon,recognise,grad");
    ok(count_ops(*to, "linear_xent") == 1 && count_ops(*to, "linear_xent_dx") == 1 && count_ops(*to, "linear_xent_dw") == 1, "%s: is no linear_xent", k->name);
    ok(compacted(*to) == k->counts, "%s: rows are%s compacted", k->name, k->counts ? " not" : "");
    if (!half) return;
    Graph *wide = k->ref;
    k->ref = snP_run(c, wide, &(PassOptions){ .autocast = half }, "expand,autocast");
    snG_free(wide);
}

static void run_cases(int dtype, bool all, char **words) {
    sn_ctx *c = sn_ctx_new();
    StrBuf text = {0};
    Cases k = collect(dtype, all, words, &text);
    Module *m = k.n ? snG_parse(c, "loss.sn", text.s, text.n, NULL, 0) : NULL;
    if (k.n && !m) ok(false, "%s", c->message);
    SnProgram *p = NULL;
    SN_ENTER(c, { ok(false, "%s", c->message); return; });
    for (int i = 0; m && i < k.n; i++) {
        Graph *g = m->graphs.v[i];
        differentiate(c, &k.v[i], g, dtype, &m->graphs.v[i]);
        snG_free(g);
    }
    SN_LEAVE(c);
    if (m && !(p = snK_build(m, &(BuildOptions){ .target = target, .autocast = DTYPES[dtype].autocast }, NULL))) ok(false, "%s", c->message);
    sn_session *s[2] = { NULL, NULL };
    for (int i = 0; p && i < 2; i++) s[i] = sn_session_new(p, &(sn_session_desc){ .seed = seed, .threads = 1 + 2 * i, .poison = true });
    if (p && !(s[0] && s[1])) ok(false, "%s", sn_rt_error());
    for (int i = 0; s[0] && s[1] && i < k.n; i++) compare(&k.v[i], dtype, s);
    for (int i = 0; i < 2; i++) if (s[i]) sn_session_free(s[i]);
    for (int i = 0; m && i < k.n; i++) if (k.v[i].ref) snG_free(k.v[i].ref);
    snR_program_free(p);
    if (m) snG_free_module(m);
    free(k.v);
    snU_free_buf(&text);
    sn_ctx_free(c);
}

int main(int argc, char **argv) {
    bool all = argc > 1 && !strcmp(argv[1], "--all");
    argc -= all, argv += all;
    if (argc > 2 && !strcmp(argv[1], "--seed")) seed = strtoull(argv[2], NULL, 10), argc -= 2, argv += 2;
    if (argc > 2 && !strcmp(argv[1], "-t")) target = argv[2], argc -= 2, argv += 2;
    for (int d = 0; d < COUNT(DTYPES); d++) run_cases(d, all, argv + 1);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
