/* unit_passes.c: gradients of every op and composite against finite differences (f64), the optimizer against its formula,
   passes against the reference evaluator, print -> parse -> print after every pass, and the text tests of tests/passes.

   unit_passes [--bless] [FOLDER]      prints `N passed, N failed` */
#include <dirent.h>
#include <math.h>
#include "graph/sn.h"
#include "passes/pass.h"
#include "tests/check.h"

static bool bless;

static Module *parse(sn_ctx *c, const char *text) {
    sn_clear(c);
    return snG_parse(c, "test.sn", text, strlen(text), NULL, 0);
}

static NodeId output_of(const Graph *g, const char *name) {
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!strcmp(snU_str(g->ctx, g->outputs.v[i].name), name)) return g->outputs.v[i].node;
    return 0;
}

/* -- Finite differences ------------------------------------------------------------------------------------ */

static double loss_at(const Graph *g, const EvalEnv *env, NodeId loss) {
    Arena a = {0};
    EvalVal *vals = NEWN(&a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, env, &a, vals);
    double v = vals[loss].v[0];
    snU_free_arena(&a);
    return v;
}

/* Largest |difference quotient - gradient| over the elements of one leaf, relative to the largest gradient (at least 1). `most`:
   elements that are tried; a bigger tensor is sampled. */
static double worst_error(const Graph *g, const EvalEnv *env, NodeId loss, EvalVal *x, const EvalVal *d, int most) {
    const double h = 1e-5;
    double top = 1, worst = 0;
    for (int64_t i = 0; i < d->n; i++) top = fmax(top, fabs(d->v[i]));
    int64_t step = x->n > most ? x->n / most : 1;
    for (int64_t i = step > 1 ? step / 3 : 0; i < x->n; i += step) {
        double keep = x->v[i];
        x->v[i] = keep + h;
        double up = loss_at(g, env, loss);
        x->v[i] = keep - h;
        double down = loss_at(g, env, loss);
        x->v[i] = keep;
        double e = fabs((up - down) / (2 * h) - d->v[i]) / top;
        if (!(e <= worst)) worst = e;
    }
    return worst;
}

/* Every float input and weight of the graph against its gradient. */
static void check_gradient(const char *name, const Graph *g, uint64_t seed, int most) {
    sn_ctx *c = g->ctx;
    Arena a = {0};
    EvalEnv env = {0};
    PassOptions opt = { .grad_inputs = true };
    Graph *d = snP_run(c, g, &opt, "grad");
    snP_seed_inputs(g, seed, SEED_WEIGHTS, &a, &env);
    EvalVal *vals = NEWN(&a, EvalVal, d->nodes.n);
    snG_eval(d, EVAL_F64, &env, &a, vals);
    NodeId loss = output_of(g, "loss");
    for (int i = 0; i < env.n; i++) {
        char out[200];
        snprintf(out, sizeof out, "grad.%s", env.names[i]);
        NodeId id = output_of(d, out);
        if (!id) continue;
        double e = worst_error(g, &env, loss, (EvalVal *)&env.vals[i], &vals[id], most);
        ok(e < 3e-6, "%s: gradient of %s is off by %g", name, env.names[i], e);
    }
    snG_free(d);
    snU_free_arena(&a);
}

/* inputs: "x: f32[3, 4]; w: f32[4]"; expr: any text over them. The loss is a curved function of it, so that dy varies. */
static bool gradient_case(sn_ctx *c, const char *name, const char *inputs, const char *expr, bool must) {
    StrBuf b = {0};
    snU_puts(&b, "graph t {\n");
    for (const char *p = inputs; *p; ) {
        while (*p == ' ') p++;
        size_t n = strcspn(p, ";");
        snU_putf(&b, "  input %.*s\n", (int)n, p);
        p += n + (p[n] == ';');
    }
    snU_putf(&b, "  y = %s\n  output loss = sum(sin(cast(y, f32) * 1.3 + 0.2))\n}\n", expr);
    Module *m = parse(c, b.s);
    if (m && m->graphs.n) {
        SN_ENTER(c, {
            ok(false, "%s: %s\n%s", name, c->message, b.s);
            return true;
        });
        for (uint64_t seed = 1; seed <= 3; seed++) check_gradient(name, m->graphs.v[0], seed, 200);
        SN_LEAVE(c);
    } else if (must) {
        ok(false, "%s does not elaborate: %s\n%s", name, c->message ? c->message : "?", b.s);
    }
    bool good = m != NULL;
    if (m) snG_free_module(m);
    snU_free_buf(&b);
    return good;
}

#define QKV "q: f32[2, 2, 3, 2]; k: f32[2, 2, 4, 2]; v: f32[2, 2, 4, 3]"
#define DY "; dy: f32[2, 2, 3, 3]; c: bool[2, 2, 3, 4]; l: f32[2, 2, 3, 1]; d: f32[2, 2, 3, 1]"

/* Ops that need operands or attributes of their own; all others are tried over generic operands. Several rows per op are welcome. */
static const struct { const char *op, *inputs, *expr; } CASES[] = {
    { "log", "x: f32[3, 4]", "log(abs(x) + 0.5)" },
    { "sqrt", "x: f32[3, 4]", "sqrt(abs(x) + 0.5)" },
    { "rsqrt", "x: f32[3, 4]", "rsqrt(abs(x) + 0.5)" },
    { "cast", "x: f32[3, 4]", "cast(cast(x, f64), f32)" },
    { "div", "a: f32[3, 4]; b: f32[3, 4]", "a / (abs(b) + 0.5)" },
    { "div", "a: f32[]; b: f32[3, 4]", "a / (abs(b) + 0.5)" },
    { "div", "a: f32[3, 4]; b: f32[]", "a / (abs(b) + 0.5)" },
    { "div", "a: f32[2, 3, 4]; b: f32[3, 1]", "a / (abs(b) + 0.5)" },
    { "pow", "a: f32[3, 4]; b: f32[3, 4]", "pow(abs(a) + 0.5, b)" },
    { "pow", "a: f32[3, 4]; b: f32[]", "pow(abs(a) + 0.5, b)" },
    { "select", "c: bool[3, 4]; a: f32[3, 4]; b: f32[3, 4]", "select(c, a, b)" },
    { "select", "c: bool[3, 1]; a: f32[]; b: f32[3, 4]", "select(c, a, b)" },
    { "select", "c: bool[]; a: f32[3, 4]; b: f32[3, 4]", "select(c, a, b)" },
    { "fence", "x: f32[3, 4]; y0: f32[3, 4]", "fence(x, y0) * y0" },
    { "stop_gradient", "x: f32[3, 4]; w: f32[3, 4]", "fence(x, stop_gradient(w))" },
    { "sum", "x: f32[3, 4]", "sum(x)" },
    { "sum", "x: f32[2, 3, 4]", "sum(x, axis=[1])" },
    { "sum", "x: f32[2, 3, 4]", "sum(x * x, axis=[0, 2])" },
    { "amax", "x: f32[3, 4]", "amax(x)" }, { "amax", "x: f32[3, 4, 2]", "amax(x, axis=1)" },
    { "amin", "x: f32[3, 4]", "amin(x)" }, { "amin", "x: f32[3, 4, 2]", "amin(x, axis=0)" },
    { "cumsum", "x: f32[3, 4]", "cumsum(x)" },
    { "cumsum", "x: f32[3, 4, 2]", "cumsum(x, axis=1, exclusive=1)" },
    { "cumsum", "x: f32[3, 4, 2]", "cumsum(x, axis=0, reverse=1)" },
    { "cumsum", "x: f32[3, 4]", "cumsum(x, axis=1, exclusive=1, reverse=1)" },
    { "topk", "x: f32[3, 6]", "topk(x, k=2)" },
    { "reshape", "x: f32[3, 4]", "reshape(x * x, [2, 6])" },
    { "permute", "x: f32[2, 3, 4]", "permute(x, [2, 0, 1])" },
    { "permute", "x: f32[2, 3, 4, 5]", "permute(x, [0, 2, 1, 3])" },
    { "expand", "x: f32[3, 1]", "expand(x, [3, 5])" },
    { "expand", "x: f32[1, 3, 1]", "expand(x, [2, 3, 5])" },
    { "slice", "x: f32[3, 7]", "slice(x, axis=1, start=2, size=3)" },
    { "pad", "x: f32[3, 4]", "pad(x, axis=1, lo=1, hi=2)" },
    { "concat", "a: f32[3, 4]; b: f32[3, 2]; d: f32[3, 1]", "concat(a, b * b, d, axis=1)" },
    { "concat", "a: f32[1, 4]; b: f32[2, 4]", "concat(a, b)" },
    { "matmul", "a: f32[3, 4]; b: f32[4, 5]", "matmul(a, b)" },
    { "matmul", "a: f32[4, 3]; b: f32[4, 5]", "matmul(a, b, ta=1)" },
    { "matmul", "a: f32[3, 4]; b: f32[5, 4]", "matmul(a, b, tb=1)" },
    { "matmul", "a: f32[4, 3]; b: f32[5, 4]", "matmul(a, b, ta=1, tb=1)" },
    { "matmul", "a: f32[2, 3, 4]; b: f32[4, 5]", "a @ b" },
    { "matmul", "a: f32[2, 3, 4]; b: f32[2, 4, 5]", "a @ b" },
    { "matmul", "a: f32[2, 2, 3, 4]; b: f32[2, 2, 5, 4]", "matmul(a, b, tb=1)" },
    { "matmul", "a: f32[2, 2, 4, 3]; b: f32[2, 2, 5, 4]", "matmul(a, b, ta=1, tb=1)" },
    { "matmul", "a: f32[3, 4]", "matmul(a, a, tb=1)" },
    { "matmul_some", "a: f32[3, 4]; b: f32[4, 5]", "matmul_some(a, b, 2)" }, { "matmul_some", "a: f32[4, 3]; b: f32[4, 5]", "matmul_some(a, b, 2, ta=1)" },
    { "matmul_some", "a: f32[3, 4]; b: f32[5, 4]", "matmul_some(a, b, 2, tb=1)" }, { "matmul_some", "a: f32[4, 3]; b: f32[5, 4]", "matmul_some(a, b, 2, ta=1, tb=1)" },
    { "matmul_some", "a: f32[3, 4]; b: f32[4, 5]", "matmul_some(a, b, 3, over=1)" }, { "matmul_some", "a: f32[4, 3]; b: f32[4, 5]", "matmul_some(a, b, 3, ta=1, over=1)" },
    { "matmul_some", "a: f32[3, 4]; b: f32[5, 4]", "matmul_some(a, b, 3, tb=1, over=1)" }, { "matmul_some", "a: f32[4, 3]; b: f32[5, 4]", "matmul_some(a, b, 3, ta=1, tb=1, over=1)" },
    { "matmul_some", "a: f32[2, 3, 4]; b: f32[2, 4, 5]", "matmul_some(a, b, 0)" },
    { "xent", "x: f32[2, 3, 5]; t: i32[2, 3]", "xent(x, t % 5)" }, { "xent", "x: f32[3, 5]; t: i32[3]", "xent(x, t % 5, smoothing=0.1, z=0.01)" },
    { "linear_xent", "x: f32[7, 4]; w: f32[4, 5]; t: i32[7]", "linear_xent(x, w, t % 5, true)" },
    { "linear_xent", "x: f32[7, 4]; w: f32[5, 4]; t: i32[7]", "linear_xent(x, w, t % 5, true, tb=1, chunk=3)" },
    { "linear_xent", "x: f32[6, 4]; w: f32[4, 5]; t: i32[2, 3]; c: bool[2, 3]", "linear_xent(x, w, t % 5, c, chunk=2)" },
    { "linear_xent", "x: f32[7, 4]; w: f32[5, 4]; t: i32[7]; c: bool[7]", "linear_xent(x, w, t % 5, c, tb=1, smoothing=0.1, z=0.01, chunk=3)" },
    { "linear_xent", "x: f32[3, 4]; w: f32[4, 5]; t: i32[3]", "linear_xent(x, w, t % 5, t < -1000, chunk=2)" },
    { "linear_xent", "x: f32[3, 4]; w: f32[4, 5]; t: i32[3]; c: bool[]", "linear_xent(x, w, t % 5, c)" },
    { "gather", "t: f32[5, 3]; i: i32[2, 4]", "gather(t, i)" },
    { "scatter_add", "t: f32[5, 3]; i: i32[4]; u: f32[4, 3]", "scatter_add(t, i, u)" },
    { "scatter_add", "t: f32[5, 3]; i: i32[2, 2]; u: f32[2, 2, 3]", "scatter_add(t, i, u)" },
    { "charge", "x: f32[3, 4]", "charge(x, 2.0)" },
    { "gather_pairs", "x: f32[3, 4]", "gather_pairs(x, iota([6], 0) * 5 % 6 / 2, iota([6], 0) != 4, reshape(iota([6], 0) * 5 % 6, [3, 2]), reshape(iota([6], 0) * 5 % 6 != 4, [3, 2]))" },
    { "softmax", "x: f32[3, 5]; c: bool[3, 5]", "softmax(select(c, x, -inf))" },
    { "softmax", "x: f32[3, 5]", "softmax(x * x)" },
    /* attention: no mask; a mask and a row without any key, bias, gain, cap; repeated heads; v wider than q; bias of each head */
    { "attention", QKV, "attention(q, k, v, true, 0.0, 1.0, scale=0.7)" },
    { "attention", QKV "; c: bool[2, 2, 3, 4]; b: f32[2, 2, 3, 4]; d: f32[2, 2, 3, 4]",
      "attention(q, k, v, c and iota([2, 2, 3, 4], 2) != 1, b, d, scale=0.7, cap=1.5)" },
    { "attention", "q: f32[1, 4, 3, 2]; k: f32[1, 2, 5, 2]; v: f32[1, 2, 5, 6]; b: f32[4, 1, 1]",
      "attention(q, repeat_heads(k, 2), repeat_heads(v, 2), iota([1, 4, 3, 5], 2) >= iota([1, 4, 3, 5], 3), expand(reshape(b, [1, 4, 1, 1]), "
      "[1, 4, 3, 5]), 1.0)" },
    { "attention_lse", QKV "; c: bool[2, 2, 3, 4]; b: f32[]", "attention_lse(q, k, c, b, cap=2)" },
    { "attention_dq", QKV DY, "attention_dq(dy, q, k, v, c, 0.5, 1.0, l, d, cap=2)" },
    { "attention_dk", QKV DY, "attention_dk(dy, q, k, v, c, 0.0, 0.5, l, d, scale=0.3)" },
    { "attention_dv", QKV DY, "attention_dv(dy, q, k, v, c, 0.5, 1.0, l, d, cap=2)" },
    { "attention_ds", QKV DY, "attention_ds(dy, q, k, v, true, 0.0, 1.0, l, d)" },
};

static bool has_case(sn_ctx *c, const char *op) {
    bool any = false;
    for (unsigned i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        if (strcmp(CASES[i].op, op) != 0) continue;
        any = true;
        gradient_case(c, op, CASES[i].inputs, CASES[i].expr, true);
    }
    return any;
}

/* op over operands of the kinds that elaborate; false when none does. */
static bool generic_case(sn_ctx *c, const OpInfo *op) {
    static const char *const kinds[] = { "f32[2, 3, 8]", "f32[8]", "f32[]", "i32[2, 3]", "f32[2, 3, 1]", "bool[2, 3, 8]" };
    enum { NK = 6 };
    int tries = 1, good = 0;
    for (unsigned i = 0; i < op->nin; i++) tries *= NK;
    for (int t = 0; t < tries && good < 4; t++) {
        StrBuf in = {0}, call = {0};
        snU_putf(&call, "%s(", op->cname);
        for (unsigned i = 0, k = (unsigned)t; i < op->nin; i++, k /= NK) {
            snU_putf(&in, "%sx%u: %s", i ? "; " : "", i, kinds[k % NK]);
            snU_putf(&call, "%sx%u", i ? ", " : "", i);
        }
        snU_puts(&call, ")");
        good += gradient_case(c, op->cname, in.s ? in.s : "", call.s, false);
        snU_free_buf(&in);
        snU_free_buf(&call);
    }
    return good > 0;
}

static void test_gradients(sn_ctx *c) {
    for (unsigned op = 1; op < snG_num_ops(c); op++) {
        const OpInfo *info = snG_op(c, op);
        bool any = info->cls == C_COMPOSITE;
        for (int i = 0; i < 8; i++) any |= info->vjp[i] && strcmp(info->vjp[i], "-") != 0;
        if (!any || has_case(c, info->cname) || generic_case(c, info)) continue;
        printf("NOTE   no gradient case for %s\n", info->cname);
    }
}

/* -- Models: check, round trip, gradients --------------------------------------------------------------------- */

static const Define TINY[] = { { "layers", "2" }, { "width", "8" }, { "heads", "2" }, { "hidden", "12" }, { "vocab", "11" },
                               { "B", "2" }, { "T", "6" } };

static void check_orders(const char *name, const Graph *g) {
    static const char *const orders[] = { SNP_ORDER_INFER, SNP_ORDER_TRAIN, SNP_ORDER_ACCUM, SNP_ORDER_APPLY };
    StrBuf b = {0};
    for (unsigned i = 0; i < 4; i++) {
        if (i && !output_of(g, "loss")) continue;
        b.n = 0;
        snU_putf(&b, "%s\n", orders[i]);
        ok(snP_check(g->ctx, g, NULL, orders[i], 5, &b) == 0, "%s: a pass moved the answer:\n%s", name, b.s);
    }
    snU_free_buf(&b);
}

static void test_model(sn_ctx *c, const char *path) {
    sn_clear(c);
    Module *m = snG_load(c, path, TINY, sizeof TINY / sizeof *TINY);
    ok(m != NULL, "%s: %s", path, c->message ? c->message : "?");
    if (!m) return;
    SN_ENTER(c, {
        ok(false, "%s: %s", path, c->message);
        return;
    });
    for (uint32_t i = 0; i < m->graphs.n; i++) check_orders(path, m->graphs.v[i]);
    Graph *train = snG_get(m, "train");
    if (train) check_gradient(path, train, 7, 6);
    SN_LEAVE(c);
    snG_free_module(m);
}

/* -- The optimizer against its formula ------------------------------------------------------------------------ */

static const char TWO_WEIGHTS[] =
    "graph train {\n"
    "  input x: f32[4, 3]\n"
    "  weight w: f32[3, 5] = normal(0.5)\n"
    "  weight b: f32[5] = normal(0.5)\n"
    "  weight e: f32[5, 5] = normal(0.5)\n"
    "  input i: i32[4]\n"
    "  y = x @ w + b + gather(e, i)\n"
    "  output loss = sum(y * y)\n"
    "}\n";

typedef struct Run { Arena a; EvalVal *vals; const Graph *g; } Run;

static Run evaluate(const Graph *g, const EvalEnv *env) {
    Run r = { .g = g };
    r.vals = NEWN(&r.a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, env, &r.a, r.vals);
    return r;
}

static EvalVal update_of(const Run *r, const char *name) {
    for (uint32_t i = 0; i < r->g->updates.n; i++)
        if (!strcmp(snU_str(r->g->ctx, snG_leaf(r->g, r->g->updates.v[i].target)->name), name))
            return r->vals[r->g->updates.v[i].value];
    return (EvalVal){0};
}

static EvalVal result_of(const Run *r, const char *name) { return r->vals[output_of(r->g, name)]; }

static const EvalVal *env_value(const EvalEnv *env, const char *name) {
    for (int i = 0; i < env->n; i++)
        if (!strcmp(env->names[i], name)) return &env->vals[i];
    return NULL;
}

/* First step, constant schedule: warm-up 1/200. */
static void check_adam(const Run *step, const Run *grads, const EvalEnv *env, const char *w, bool decay) {
    char name[64];
    const char *all[] = { "grad.w", "grad.b", "grad.e" };
    double norm = 0, worst = 0, lr = 1e-3 / 200;
    for (int k = 0; k < 3; k++) {
        EvalVal d = result_of(grads, all[k]);
        for (int64_t i = 0; i < d.n; i++) norm += d.v[i] * d.v[i];
    }
    norm = sqrt(norm);
    ok(fabs(result_of(step, "grad_norm").v[0] - norm) < 1e-6 * norm, "grad_norm");
    ok(fabs(result_of(step, "lr_now").v[0] - lr) < 1e-9, "lr_now is %g", result_of(step, "lr_now").v[0]);
    snprintf(name, sizeof name, "grad.%s", w);
    EvalVal d = result_of(grads, name), got = update_of(step, w);
    const EvalVal *old = env_value(env, w);
    ok(got.n == d.n, "update of %s", w);
    for (int64_t i = 0; i < d.n && got.n == d.n; i++) {
        double g = d.v[i] * fmin(1, 1 / (norm + 1e-6)), m = 0.1 * g, v = 0.05 * g * g;
        double want = old->v[i] * (decay ? 1 - lr * 0.1 : 1) - lr * (m / 0.1) / (sqrt(v / 0.05) + 1e-8);
        worst = fmax(worst, fabs(want - got.v[i]));
    }
    ok(worst < 1e-9, "AdamW of %s is off by %g", w, worst);
}

static void test_optimizer(sn_ctx *c) {
    Module *m = parse(c, TWO_WEIGHTS);
    ok(m != NULL, "two weights: %s", c->message ? c->message : "?");
    if (!m) return;
    SN_ENTER(c, {
        ok(false, "optimizer: %s", c->message);
        return;
    });
    const Graph *g = m->graphs.v[0];
    Graph *step = snP_run(c, g, NULL, "optim"), *grad = snP_run(c, g, NULL, "grad");
    Graph *accum = snP_run(c, g, NULL, "accum"), *apply = snP_run(c, g, NULL, "apply");
    Arena a = {0};
    EvalEnv env = {0};
    snP_seed_inputs(g, 3, SEED_WEIGHTS, &a, &env);
    Run s = evaluate(step, &env), d = evaluate(grad, &env), acc = evaluate(accum, &env);
    check_adam(&s, &d, &env, "w", true);
    check_adam(&s, &d, &env, "b", false);
    check_adam(&s, &d, &env, "e", false);                               /* an embedding */
    const char *names[16];
    EvalVal vals[16];
    int n = 0;
    for (; n < env.n; n++) names[n] = env.names[n], vals[n] = env.vals[n];
    for (uint32_t i = 0; i < accum->updates.n; i++, n++) {
        names[n] = snU_str(c, snG_leaf(accum, accum->updates.v[i].target)->name);
        vals[n] = acc.vals[accum->updates.v[i].value];
    }
    EvalEnv both = { .names = names, .vals = vals, .n = n, .seed = env.seed, .step = 1 };
    Run ap = evaluate(apply, &both);
    double worst = fabs(result_of(&ap, "loss").v[0] - result_of(&s, "loss").v[0]);
    for (uint32_t i = 0; i < step->updates.n; i++) {
        EvalVal x = s.vals[step->updates.v[i].value];
        EvalVal y = update_of(&ap, snU_str(c, snG_leaf(step, step->updates.v[i].target)->name));
        ok(x.n == y.n, "apply updates what optim updates");
        for (int64_t k = 0; k < x.n && k < y.n; k++) worst = fmax(worst, fabs(x.v[k] - y.v[k]));
    }
    ok(worst < 1e-12, "accum + apply differs from optim by %g", worst);
    SN_LEAVE(c);
}

/* -- Text tests: `#! opt -p LIST [--autocast DTYPE] [--recompute HOW]`, input, `#= expect`, the whole printed result ------------------------------------ */

static void run_text_test(sn_ctx *c, const char *path) {
    size_t n;
    char *text = snU_read_file(c, path, &n), *expect = strstr(text, "#= expect\n");
    char list[200] = "", option[2][16] = { "" }, value[2][16];
    int words = sscanf(text, "#! opt -p %199[^ \n] --%15[^ \n] %15[^ \n] --%15[^ \n] %15[^ \n]", list, option[0], value[0], option[1], value[1]);
    if (words < 1) { free(text); return; }
    PassOptions po = {0};
    for (int i = 0; i < 2; i++)
        if (*option[i]) *(!strcmp(option[i], "autocast") ? &po.autocast : &po.recompute) = value[i];
    size_t in_len = expect ? (size_t)(expect - text) : n;
    sn_clear(c);
    Module *m = snG_parse(c, path, text, in_len, NULL, 0);
    ok(m != NULL, "%s: %s", path, c->message ? c->message : "?");
    if (!m) { free(text); return; }
    SN_ENTER(c, {
        ok(false, "%s: %s", path, c->message);
        return;
    });
    StrBuf b = {0};
    Graph *g = snP_run(c, m->graphs.v[0], &po, list);
    snG_print(&b, g);
    SN_LEAVE(c);
    expect = expect ? expect + 10 : text + n;
    if (bless && strcmp(expect, b.s) != 0) {
        FILE *f = fopen(path, "w");
        fprintf(f, "%.*s#= expect\n%s", (int)in_len, text, b.s);
        fclose(f);
        printf("blessed %s\n", path);
    } else {
        ok(!strcmp(expect, b.s), "%s: got\n%s", path, b.s);
    }
    snG_free(g);
    snG_free_module(m);
    snU_free_buf(&b);
    free(text);
}

static void test_texts(sn_ctx *c, const char *folder) {
    struct dirent **list;
    int n = scandir(folder, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        size_t len = strlen(list[i]->d_name);
        char path[1000];
        snprintf(path, sizeof path, "%.700s/%.255s", folder, list[i]->d_name);
        if (len > 3 && !strcmp(list[i]->d_name + len - 3, ".sn")) run_text_test(c, path);
        free(list[i]);
    }
    if (n >= 0) free(list);
}

/* A rule that no test here makes fire is a rule without a test. */
static void test_rules_fire(sn_ctx *c) {
    StrBuf b = {0};
    snP_rule_stats(c, &b);
    for (char *line = strtok(b.s, "\n"); line; line = strtok(NULL, "\n")) ok(strtol(line, NULL, 10) > 0, "rule never fires: %s", line);
    snU_free_buf(&b);
}

int main(int argc, char **argv) {
    const char *root = ".";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bless")) bless = true;
        else root = argv[i];
    }
    char path[1000];
    setenv("SN_CHECK", "2", 1);
    sn_ctx *c = sn_open(NULL);
    snprintf(path, sizeof path, "%s/tests/passes", root);
    test_texts(c, path);
    test_optimizer(c);
    test_gradients(c);
    snprintf(path, sizeof path, "%s/models/ar.sn", root);
    test_model(c, path);
    snprintf(path, sizeof path, "%s/models/dlm.sn", root);
    test_model(c, path);
    test_rules_fire(c);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
