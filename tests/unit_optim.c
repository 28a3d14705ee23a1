/* unit_optim.c: learning rates and AdamW of the optimizer pass against their formulas in plain C.

   In:  a graph with one weight after the pass `optim`, hyper-parameters, steps. Out: the output
   lr_now, by the reference evaluator, is what the formulas below say: warm-up, cosine, WSD with a
   linear and an exponential decay, floor, decay at the end of `total` or from `decay_start` on.
   Moments, bias corrections, clipping and weight decay are followed over two steps.

   unit_optim      prints `N passed, N failed` */
#include <math.h>
#include "graph/sn.h"
#include "passes/pass.h"
#include "tests/check.h"

/* -- The formulas ------------------------------------------------------------------------------ */

enum { CONSTANT, COSINE, LINEAR, EXPONENTIAL };

typedef struct Rate { double schedule, lr, lr_min, warmup, total, decay, decay_start; } Rate;

static double clamped(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

static double shape_at(const Rate *p, double step) {
    if (p->schedule == CONSTANT) return 1;
    if (p->schedule == COSINE) {
        double length = p->total - p->warmup;
        return (1 + cos(acos(-1) * clamped((step - p->warmup) / (length < 1 ? 1 : length)))) / 2;
    }
    if (p->decay <= 0) return 1;
    double start = p->decay_start >= 0 ? p->decay_start : p->total - p->decay;
    double r = clamped((step - start) / (p->decay < 1 ? 1 : p->decay));
    return p->schedule == LINEAR ? 1 - r : 2 * exp2(-r) - 1;
}

static double rate_at(const Rate *p, double step) {
    double warm = step < p->warmup ? step / p->warmup : 1;
    return warm * (p->lr_min + (p->lr - p->lr_min) * shape_at(p, step));
}

/* -- The pass ---------------------------------------------------------------------------------- */

enum { NVALS = 16 };
typedef struct Feed {
    const char *names[NVALS];
    double value[NVALS];
    EvalVal vals[NVALS];
    int n;
} Feed;

static void feed(Feed *f, const char *name, double value) {
    f->names[f->n] = name;
    f->value[f->n] = value;
    f->vals[f->n] = (EvalVal){ &f->value[f->n], 1 };
    f->n++;
}

static void feed_rate(Feed *f, const Rate *p, double step) {
    feed(f, "step", step);
    feed(f, "schedule", p->schedule);
    feed(f, "lr", p->lr);
    feed(f, "lr_min", p->lr_min);
    feed(f, "warmup", p->warmup);
    feed(f, "total", p->total);
    feed(f, "decay", p->decay);
    feed(f, "decay_start", p->decay_start);
}

/* Values of every node, by the reference evaluator. */
static EvalVal *evaluate(const Graph *g, Feed *f, Arena *a) {
    EvalVal *vals = NEWN(a, EvalVal, g->nodes.n);
    EvalEnv env = { .names = f->names, .vals = f->vals, .n = f->n };
    snG_eval(g, EVAL_F64, &env, a, vals);
    return vals;
}

static NodeId output_of(const Graph *g, const char *name) {
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!strcmp(snU_str(g->ctx, g->outputs.v[i].name), name)) return g->outputs.v[i].node;
    return 0;
}

static double update_of(const Graph *g, const EvalVal *vals, const char *name) {
    for (uint32_t i = 0; i < g->updates.n; i++)
        if (!strcmp(snU_str(g->ctx, snG_leaf(g, g->updates.v[i].target)->name), name))
            return vals[g->updates.v[i].value].v[0];
    return NAN;
}

static double lr_now(const Graph *g, const Rate *p, double step) {
    Arena a = {0};
    Feed f = { .n = 0 };
    feed_rate(&f, p, step);
    feed(&f, "x", 1);
    double v = evaluate(g, &f, &a)[output_of(g, "lr_now")].v[0];
    snU_free_arena(&a);
    return v;
}

/* -- Schedules --------------------------------------------------------------------------------- */

static const Rate RATES[] = {
    /* schedule, lr, lr_min, warmup, total, decay, decay_start */
    { CONSTANT,    1e-3, 0,    200, 0,    0,   -1 },
    { CONSTANT,    1e-3, 1e-4, 0,   1000, 100, -1 },
    { COSINE,      1e-3, 0,    100, 1000, 0,   -1 },
    { COSINE,      2e-3, 2e-4, 0,   1000, 0,   -1 },
    { COSINE,      2e-3, 2e-4, 500, 500,  0,   -1 },       /* nothing but warm-up */
    { LINEAR,      1e-3, 0,    100, 1000, 200, -1 },
    { LINEAR,      3e-4, 3e-5, 100, 1000, 900, -1 },       /* decays from the end of the warm-up */
    { LINEAR,      3e-4, 3e-5, 100, 1000, 0,   -1 },       /* stable: no decay yet */
    { LINEAR,      3e-4, 3e-5, 100, 0,    250, 400 },
    { LINEAR,      3e-4, 0,    0,   1000, 100, 0 },        /* decay_start 0 is a step too */
    { EXPONENTIAL, 1e-3, 0,    100, 1000, 200, -1 },
    { EXPONENTIAL, 1e-3, 1e-4, 10,  1000, 990, -1 },
    { EXPONENTIAL, 1e-3, 1e-4, 100, 0,    300, 250 },
};

static void test_formulas(const Graph *g) {
    static const double steps[] = { 1, 2, 50, 99, 100, 101, 250, 251, 400, 525, 550, 650, 651, 799,
                                    800, 801, 900, 999, 1000, 1001, 5000 };
    for (size_t i = 0; i < sizeof RATES / sizeof *RATES; i++) {
        const Rate *p = &RATES[i];
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            double got = lr_now(g, p, steps[k]), want = rate_at(p, steps[k]);
            ok(fabs(got - want) < 1e-6 * p->lr, "row %zu, step %g: %.9g, not %.9g", i, steps[k],
               got, want);
        }
    }
}

/* What the formulas must give at the corners, in numbers. */
static void test_corners(const Graph *g) {
    static const struct { Rate rate; double step, want; } CORNERS[] = {
        { { CONSTANT, 1, 0, 200, 0, 0, -1 }, 1, 1.0 / 200 },
        { { CONSTANT, 1, 0, 200, 0, 0, -1 }, 200, 1 },
        { { COSINE, 1, 0.1, 100, 1100, 0, -1 }, 50, 0.5 },
        { { COSINE, 1, 0.1, 100, 1100, 0, -1 }, 100, 1 },
        { { COSINE, 1, 0.1, 100, 1100, 0, -1 }, 600, 0.55 },
        { { COSINE, 1, 0.1, 100, 1100, 0, -1 }, 1100, 0.1 },
        { { COSINE, 1, 0.1, 100, 1100, 0, -1 }, 9999, 0.1 },
        { { LINEAR, 1, 0.1, 100, 1000, 200, -1 }, 800, 1 },
        { { LINEAR, 1, 0.1, 100, 1000, 200, -1 }, 900, 0.55 },
        { { LINEAR, 1, 0.1, 100, 1000, 200, -1 }, 1000, 0.1 },
        { { LINEAR, 1, 0, 100, 0, 200, 300 }, 450, 0.25 },
        { { EXPONENTIAL, 1, 0, 100, 1000, 200, -1 }, 800, 1 },
        { { EXPONENTIAL, 1, 0, 100, 1000, 200, -1 }, 900, 0.41421356237309505 },
        { { EXPONENTIAL, 1, 0, 100, 1000, 200, -1 }, 1000, 0 },
        { { EXPONENTIAL, 1, 0.2, 100, 1000, 200, -1 }, 1000, 0.2 },
    };
    for (size_t i = 0; i < sizeof CORNERS / sizeof *CORNERS; i++) {
        double got = lr_now(g, &CORNERS[i].rate, CORNERS[i].step), want = CORNERS[i].want;
        ok(fabs(got - want) < 1e-6, "corner %zu: %.9g, not %.9g", i, got, want);
    }
}

/* -- Two steps of AdamW ------------------------------------------------------------------------ */

/* loss = sum(x * w), so d loss / d w = x: the gradients are what is fed. */
static void test_steps(const Graph *g) {
    const Rate rate = { CONSTANT, 0.01, 0, 0, 0, 0, -1 };
    const double grads[] = { 0.5, -3 };
    const double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, wd = 0.1, clip = 1;
    double w = 2, m = 0, v = 0;
    for (int step = 1; step <= 2; step++) {
        Arena a = {0};
        Feed f = { .n = 0 };
        feed_rate(&f, &rate, step);
        feed(&f, "x", grads[step - 1]);
        feed(&f, "w", w);
        feed(&f, "adam.m.w", m);
        feed(&f, "adam.v.w", v);
        EvalVal *vals = evaluate(g, &f, &a);
        double d = grads[step - 1] * fmin(1, clip / (fabs(grads[step - 1]) + 1e-6));
        m = beta1 * m + (1 - beta1) * d;
        v = beta2 * v + (1 - beta2) * d * d;
        double mhat = m / (1 - pow(beta1, step)), vhat = v / (1 - pow(beta2, step));
        w -= rate.lr * (wd * w + mhat / (sqrt(vhat) + eps));
        ok(fabs(update_of(g, vals, "adam.m.w") - m) < 1e-6, "m of step %d", step);
        ok(fabs(update_of(g, vals, "adam.v.w") - v) < 1e-6, "v of step %d", step);
        ok(fabs(update_of(g, vals, "w") - w) < 1e-6, "w of step %d", step);
        snU_free_arena(&a);
    }
}

/* Averages: the first step's weight, then fading by (n - 1) / (n + 8), by ema where that is less; by the gradient's sign w goes down at
   first and up later. */
static void test_averages(const Graph *g) {
    const Rate rate = { CONSTANT, 0.1, 0, 0, 0, 0, -1 };
    double w = 2, m = 0, v = 0, e = 0;
    for (int step = 1; step <= 40; step++) {
        Arena a = {0};
        Feed f = { .n = 0 };
        feed_rate(&f, &rate, step);
        feed(&f, "x", step < 20 ? 1 : -1);
        feed(&f, "ema", 0.7);
        feed(&f, "w", w);
        feed(&f, "adam.m.w", m);
        feed(&f, "adam.v.w", v);
        feed(&f, "ema.w", e);
        EvalVal *vals = evaluate(g, &f, &a);
        double fades = fmin(0.7, (step - 1.0) / (step + 8.0));
        w = update_of(g, vals, "w"), m = update_of(g, vals, "adam.m.w"), v = update_of(g, vals, "adam.v.w");
        e = fades * e + (1 - fades) * w;
        ok(fabs(update_of(g, vals, "ema.w") - e) < 1e-6, "the average after step %d: %.9g, not %.9g", step, update_of(g, vals, "ema.w"), e);
        e = update_of(g, vals, "ema.w");
        snU_free_arena(&a);
    }
}

/* What is no input cannot be a decay. */
static void test_wrong_decay(void) {
    static const char text[] = "graph train {\n  weight w: f32[2] = ones()\n  output loss = sum(w)\n  output ema_decay = sum(w) * 0.1\n}\n";
    sn_ctx *c = sn_open(NULL);
    Module *m = snG_parse(c, "test.sn", text, sizeof text - 1, NULL, 0);
    SN_ENTER(c, {
        ok(strstr(sn_error(c), "ema_decay") != NULL, "a decay that is computed: %s", sn_error(c));
        snG_free_module(m);
        sn_close(c);
        return;
    });
    snP_run(c, m->graphs.v[0], NULL, "optim");
    SN_LEAVE(c);
    ok(false, "a decay that is computed is no error");
}

static Graph *averaged(sn_ctx *c, Module **m) {
    static const char text[] =
        "graph train {\n"
        "  input x: f32[1, 1]\n"
        "  input ema: f32[] = 0.5\n"
        "  weight w: f32[1, 1] = ones()\n"
        "  output loss = sum(x * w)\n"
        "  output ema_decay = ema\n"
        "}\n";
    *m = snG_parse(c, "averaged.sn", text, sizeof text - 1, NULL, 0);
    return *m ? snP_run(c, (*m)->graphs.v[0], NULL, "optim") : NULL;
}

int main(void) {
    static const char text[] =
        "graph train {\n"
        "  input x: f32[1, 1]\n"
        "  weight w: f32[1, 1] = ones()\n"
        "  output loss = sum(x * w)\n"
        "}\n";
    sn_ctx *c = sn_open(NULL);
    Module *m = snG_parse(c, "test.sn", text, sizeof text - 1, NULL, 0);
    Graph *g = m ? snP_run(c, m->graphs.v[0], NULL, "optim") : NULL;
    ok(g != NULL, "optim: %s", sn_error(c));
    if (g) {
        test_formulas(g);
        test_corners(g);
        test_steps(g);
    }
    Module *second;
    Graph *e = averaged(c, &second);
    ok(e != NULL, "optim, averages: %s", sn_error(c));
    if (e) test_averages(e), snG_free(e);
    test_wrong_decay();
    snG_free(g);
    snG_free_module(second);
    snG_free_module(m);
    sn_close(c);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
