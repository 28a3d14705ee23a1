/* check.c: does a pass move the answer? Seeded inputs for a graph, and the reference evaluator run after every pass.

   In:  a graph and a list of passes. Out: a report, a line per pass:

     canon      ok        1.1e-16  loss
     recognise  MOVED     0.02     loss                 <- the first pass to look at */
#include <math.h>
#include "passes/pass.h"

/* -- Seeded inputs -------------------------------------------------------------------------------- */

static uint64_t next_bits(uint64_t *s) {                                /* splitmix64 */
    uint64_t z = *s += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double uniform(uint64_t *s) { return (double)(next_bits(s) >> 11) * 0x1p-53; }

static double normal(uint64_t *s) {
    double r = sqrt(-2 * log(1 - uniform(s)));
    return r * cos(6.283185307179586 * uniform(s));
}

static bool passes_index(const Graph *g, const Node *n) {
    const OpInfo *op = snG_op(g->ctx, n->op);
    return op->cls == C_MOVE || n->op == OP_select || n->op == OP_fence || n->op == OP_stop_gradient || n->op == OP_min;
}

/* Extent of the iota behind moves, 0 when it is not one. */
static int64_t iota_extent(const Graph *g, NodeId id) {
    while (snG_op(g->ctx, snG_node(g, id)->op)->cls == C_MOVE) id = snG_in(g, id, 0);
    if (snG_node(g, id)->op != OP_iota) return 0;
    int64_t axis = snG_attr_named(g, id, "axis")->i[0];
    const Type *t = snG_type(g, id);
    return t->dim[axis < 0 ? axis + t->rank : axis];
}

static int64_t smaller(int64_t a, int64_t b) { return b && b < a ? b : a; }

typedef struct Span { int64_t lo, hi; } Span;      /* hi itself is out */

/* Is the node x plus or minus a whole number, *by? */
static bool shifts(const Graph *g, NodeId id, NodeId x, int64_t *by) {
    unsigned op = snG_node(g, id)->op;
    double c;
    if ((op != OP_add && op != OP_sub) || snG_in(g, id, 0) != x || !snG_is_const(g, snG_in(g, id, 1), &c) || c != floor(c)) return false;
    *by = (int64_t)(op == OP_add ? c : -c);
    return true;
}

/* Which integers an input may be, from the uses that it reaches unchanged or shifted; 0 to 7 when they say nothing. */
static Span index_range(const Graph *g, NodeId leaf) {
    ArenaMark mark = snU_mark(&g->ctx->scratch);
    bool *is = NEWN(&g->ctx->scratch, bool, g->nodes.n);
    int64_t *off = NEWN(&g->ctx->scratch, int64_t, g->nodes.n), by;
    Span r = { 0, INT64_MAX };
    is[leaf] = true;
    for (NodeId id = leaf + 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        unsigned cls = snG_op(g->ctx, n->op)->cls;
        for (unsigned i = 0; i < n->nin; i++) {
            NodeId x = snG_in(g, id, i);
            if (!is[x]) continue;
            if (passes_index(g, n)) is[id] = true, off[id] = off[x];
            else if (shifts(g, id, x, &by)) is[id] = true, off[id] = off[x] + by;
            if (cls == C_GATHER && i == 1) {
                r.hi = smaller(r.hi, snG_type(g, snG_in(g, id, 0))->dim[0] - off[x]);
                if (-off[x] > r.lo) r.lo = -off[x];
            }
            if (cls == C_EWISE && n->nin == 2) r.hi = smaller(r.hi, iota_extent(g, snG_in(g, id, 1 - i)));
        }
    }
    snU_reset(&g->ctx->scratch, mark);
    if (r.hi == INT64_MAX) r.hi = r.lo + 8;
    return r;
}

static bool all_composites(const Graph *g, NodeId id, const void *user) { (void)g; (void)id; (void)user; return true; }

void snP_seed_inputs(const Graph *g, uint64_t seed, unsigned flags, Arena *a, EvalEnv *env) {
    Graph *flat = snP_inline(g, all_composites, NULL);
    const char **names = NEWN(a, const char *, g->leaves.n + 1);
    EvalVal *vals = NEWN(a, EvalVal, g->leaves.n + 1);
    int n = 0;
    for (uint32_t i = 0; i < flat->leaves.n; i++) {
        const Leaf *l = &flat->leaves.v[i];
        unsigned op = snG_node(flat, l->node)->op;
        const Type *t = snG_type(flat, l->node);
        bool defaulted = l->init != INIT_NONE;
        if (op == OP_weight ? !(flags & SEED_WEIGHTS) : op == OP_state ? !(flags & SEED_STATES)
                            : defaulted && !(flags & SEED_DEFAULTED)) continue;
        names[n] = snU_str(g->ctx, l->name);
        uint64_t s = seed ^ snU_hash(names[n], strlen(names[n]), 1);
        EvalVal v = { NEWN(a, double, snG_count(t)), snG_count(t) };
        Span r = snG_is_int(t->dtype) ? index_range(flat, l->node) : (Span){ 0, 2 };
        for (int64_t k = 0; k < v.n; k++)
            v.v[k] = snG_is_float(t->dtype) ? snG_round(SN_F32, normal(&s)) : (double)r.lo + floor(uniform(&s) * (double)(r.hi - r.lo));
        vals[n++] = v;
    }
    env->names = names;
    env->vals = vals;
    env->n = n;
    env->seed = seed;
    env->step = env->step ? env->step : 1;
    snG_free(flat);
}

/* -- After every pass ------------------------------------------------------------------------------- */

typedef struct Answer { const char *name; EvalVal val; } Answer;
typedef struct Answers { Answer *v; uint32_t n; } Answers;

static Answers answers(const Graph *g, const EvalEnv *env, Arena *a) {
    EvalVal *vals = NEWN(a, EvalVal, g->nodes.n);
    snG_eval(g, EVAL_F64, env, a, vals);
    Answers out = { NEWN(a, Answer, g->outputs.n + g->updates.n + 1), 0 };
    for (uint32_t i = 0; i < g->outputs.n; i++)
        out.v[out.n++] = (Answer){ snU_str(g->ctx, g->outputs.v[i].name), vals[g->outputs.v[i].node] };
    for (uint32_t i = 0; i < g->updates.n; i++)
        out.v[out.n++] = (Answer){ snU_fmt(a, "update %s", snU_str(g->ctx, snG_leaf(g, g->updates.v[i].target)->name)),
                                   vals[g->updates.v[i].value] };
    return out;
}

/* Largest difference over the largest value; infinite where one is not finite and the other is another thing. */
static double distance(EvalVal a, EvalVal b) {
    double top = 1e-30, diff = 0;
    if (a.n != b.n) return INFINITY;
    for (int64_t i = 0; i < a.n; i++) {
        if (a.v[i] == b.v[i] || (isnan(a.v[i]) && isnan(b.v[i]))) {
            if (isfinite(a.v[i])) top = fmax(top, fabs(a.v[i]));
            continue;
        }
        if (!isfinite(a.v[i]) || !isfinite(b.v[i])) return INFINITY;
        top = fmax(top, fabs(a.v[i]));
        diff = fmax(diff, fabs(a.v[i] - b.v[i]));
    }
    return diff / top;
}

static double compare(const Answers *a, const Answers *b, const char **worst) {
    double most = 0;
    *worst = "";
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t k = 0; k < b->n; k++) {
            if (strcmp(a->v[i].name, b->v[k].name) != 0) continue;
            double d = distance(a->v[i].val, b->v[k].val);
            if (d > most) most = d, *worst = a->v[i].name;
        }
    return most;
}

int snP_check(sn_ctx *c, const Graph *g, const PassOptions *opt, const char *list, uint64_t seed, StrBuf *report) {
    Arena a = {0};
    EvalEnv env = {0};
    snP_seed_inputs(g, seed, SEED_WEIGHTS, &a, &env);
    Answers last = answers(g, &env, &a);
    const Graph *now = g;
    int moved = 0;
    for (const char *p = list; *p; ) {
        int n = (int)strcspn(p, ",");
        char *name = snU_strdup(&a, p, (size_t)n);
        const char *worst;
        Graph *next = snP_run(c, now, opt, name);
        Answers got = answers(next, &env, &a);
        bool other = next->name != now->name;                          /* accum, apply: another graph, nothing to compare */
        double d = compare(other ? &got : &last, &got, &worst);
        bool bad = !(d <= 1e-7);                /* a folded constant is rounded to f32 again */
        snU_putf(report, "%-10s %-6s %-8.2g %s\n", name, bad ? "MOVED" : "ok", d, worst);
        moved += bad;
        last = got;
        if (now != g) snG_free((Graph *)now);
        now = next;
        p += n + (p[n] == ',');
    }
    if (now != g) snG_free((Graph *)now);
    snU_free_arena(&a);
    return moved;
}
