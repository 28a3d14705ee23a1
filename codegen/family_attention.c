/* family_attention.c: attention and its gradients, block by block: nothing of queries x keys is ever in memory.

   In: a group of attention ops over the same operands (passes/attention.h). Out: tile programs.

   forward    a program takes a block of queries of one head, goes over the blocks of keys, and keeps the running maximum, sum and
              output of each row (online softmax); it stores the output and the log-sum-exp that the backward pass starts from.
   backward   p = exp(s - lse) again, block by block. Either one program a head: keys outside, queries inside, dk and dv in
              tiles and dq in memory of the program's own (5 products); or two programs, keys outside for dk and dv, queries
              outside for dq (7 products, but as many tasks as there are blocks).

   Mask, bias and gain are cones over (query, key), evaluated where they are needed. A block whose mask is false everywhere is
   skipped, one whose mask is true everywhere does not evaluate it. A row without keys has output 0 and lse 0. */
#include <float.h>
#include <math.h>
#include "codegen/gen.h"
#include "passes/attention.h"

typedef struct Att {
    Gen c;
    Attention a;
    AttentionSched s;
    int T, S, D, V;                  /* dims of the domain */
    bool scaled;                     /* the scale is in the staged q */
    double base;                     /* scores are logarithms to e: 1, or where the operands are rounded to 2: log2(e), for exp2 is cheaper */
    double early;                    /* the base, where it can go into the scale: without cap and bias; else 1 */
    TVal masked;                     /* var: a block of scores; 0 = no mask */
    TVal slope;                      /* of the cap, where the scores just made stand */
} Att;

/* -- Shorthands -------------------------------------------------------------------------------------------- */

static TVal f32(Att *t, int fn, TVal a, TVal b) { return snT_ew(t->c.t, fn, SN_F32, a, b, 0); }
static TVal num(Att *t, double v) { return snT_full(t->c.t, (TType){ SN_F32, 1, 1 }, v); }
static TVal zeros(Att *t, int32_t r, int32_t c) { return snT_full(t->c.t, (TType){ SN_F32, r, c }, 0); }
static TVal times(Att *t, TVal x, double k) { return k == 1 ? x : f32(t, S_mul, x, num(t, k)); }
static int64_t extent(const Att *t, int dim) { return t->c.dom.ext[dim]; }

/* Tiles from here on span dims row and col; -1: none. */
static void span(Att *t, int row, int32_t r, int col, int32_t c)
{
    Gen *g = &t->c;
    g->row = row, g->R = r, g->vr = row < 0 ? 0 : gen_inside(g, row, r);
    g->col = col, g->C = c, g->vc = col < 0 ? 0 : gen_inside(g, col, c);
    g->memo.n = 0;
}

static void span_pairs(Att *t) { span(t, t->T, t->s.bq, t->S, t->s.bk); }

static TVal operand(Att *t, AttRole r)
{
    Lin at[MAX_RANK];
    snP_role_at(t->c.g, &t->a, r, at);
    return gen(&t->c, t->a.in[r], at);
}

/* Is the operand there, and not the constant that changes nothing? */
static bool has(const Att *t, AttRole r)
{
    double v;
    NodeId x = t->a.in[r];
    return x && !(snG_is_const(t->c.g, x, &v) && v == (r == ATT_bias ? 0 : 1));
}

static Dtype dtype(const Att *t, AttRole r) { return (Dtype)snG_type(t->c.g, t->a.in[r])->dtype; }

/* A block of q, k, v or dy on chip. */
static TVal stage(Att *t, AttRole r)
{
    bool query = r == ATT_q || r == ATT_dy, narrow = r == ATT_q || r == ATT_k;
    int col = narrow ? t->D : t->V;
    span(t, query ? t->T : t->S, query ? t->s.bq : t->s.bk, col, (int32_t)extent(t, col));
    TVal v = operand(t, r);
    if (r == ATT_q && t->scaled) v = times(t, v, t->a.scale * t->early);
    return snT_stage(t->c.t, gen_full(&t->c, v, t->c.R, t->c.C), t->c.vr, 0);
}

/* -- Scores -------------------------------------------------------------------------------------------------- */

/* Opens `if the block is not empty`; *full is true where the mask need not be looked at. */
static void open_block(Att *t, TVal *full)
{
    Lin at[MAX_RANK];
    if (!t->masked) return;
    span_pairs(t);
    snP_role_at(t->c.g, &t->a, ATT_mask, at);
    Range r = gen_range(&t->c, t->a.in[ATT_mask], at);
    *full = r.lo;
    snT_if(t->c.t, r.hi);
}

static void close_block(Att *t)
{
    if (t->masked) snT_end(t->c.t);
    t->c.memo.n = 0;
}

static TVal power(Att *t, TVal x) { return f32(t, t->base == 1 ? S_exp : S_exp2, x, 0); }

/* Scale, cap and bias on q k^T, and the base; masked scores are -inf. */
static TVal scores(Att *t, TVal q, TVal k, TVal full)
{
    Tile *tile = t->c.t;
    TVal x = snT_dot(tile, q, k, 0, false, true);
    span_pairs(t);
    bool biased = has(t, ATT_bias), capped = t->a.cap > 0;
    if (!t->scaled) x = times(t, x, t->a.scale * t->early);
    if (capped) {
        TVal h = f32(t, S_tanh, times(t, x, 1 / t->a.cap), 0);
        t->slope = f32(t, S_sub, num(t, 1), f32(t, S_mul, h, h));
        x = times(t, h, t->a.cap * (biased ? 1 : t->base));
    }
    if (biased) x = times(t, f32(t, S_add, x, operand(t, ATT_bias)), t->base);
    if (!t->masked) return x;
    snT_set(tile, t->masked, x);
    snT_if(tile, snT_ew(tile, S_not, SN_BOOL, full, 0, 0));
    t->c.memo.n = 0;
    TVal ok = gen_full(&t->c, operand(t, ATT_mask), t->s.bq, t->s.bk);
    snT_set(tile, t->masked, snT_ew(tile, S_select, SN_F32, ok, snT_get(tile, t->masked), num(t, -(double)INFINITY)));
    snT_end(tile);
    t->c.memo.n = 0;
    return snT_get(tile, t->masked);
}

/* In the dtype in which the next product reads it. */
static TVal rounded(Att *t, TVal v, AttRole like) { return snT_ew(t->c.t, S_cast, dtype(t, like), v, 0, 0); }

/* -- Programs ------------------------------------------------------------------------------------------------ */

/* A grid over blocks of dim `row` (-1: none) and the leading dims. */
static void open_program(Att *t, const char *family, int row, int32_t size)
{
    Gen *c = &t->c;
    gen_tile(c, family);
    c->args.n = 0;
    memset(c->base, 0, sizeof c->base);
    for (int i = t->T; i < c->dom.n; i++) c->base[i] = i == row ? 0 : 1;    /* not the grid's */
    c->row = row, c->R = size, c->col = -1, c->C = 1;
    gen_grid(c);
    for (int i = t->T; i < c->dom.n; i++) if (i != row) c->base[i] = snT_idx(c->t, 0);
    t->masked = has(t, ATT_mask) ? snT_var(c->t, zeros(t, t->s.bq, t->s.bk)) : 0;
    c->t->bytes = gen_bytes(c->g, c->grp);
}

static void close_program(Att *t, GroupTiles *out)
{
    GroupTile gt = { .tile = t->c.t };
    for (uint32_t i = 0; i < t->c.args.n; i++) PUSH(t->c.a, gt.args, t->c.args.v[i]);
    PUSH(t->c.a, out->v, gt);
}

static void open_loop(Att *t, int dim, int32_t step)
{
    Tile *tile = t->c.t;
    t->c.base[dim] = snT_for(tile, snT_idx(tile, 0), snT_idx(tile, extent(t, dim)), snT_idx(tile, step), true);
    t->c.memo.n = 0;
}

static void close_loop(Att *t)
{
    snT_end(t->c.t);
    t->c.memo.n = 0;
}

/* Stores v, over the tile that is spanned, into every output that is a result of `kind` or a view of one. */
static void store_results(Att *t, AttKind kind, TVal v)
{
    Gen *c = &t->c;
    for (uint32_t i = 0; i < c->grp->outputs.n; i++) {
        NodeId out = c->grp->outputs.v[i], x = gen_viewed(c, out);
        Lin at[MAX_RANK], address;
        if (snP_attention_kind(c->g, x) != kind) continue;
        snP_result_at(c->g, &t->a, x, at);
        if (!gen_onto(c, out, at, &address)) SN_ASSERT(false, "no place for %s", snG_node_name(c->g, out));
        gen_store(c, out, address, snT_ew(c->t, S_cast, (Dtype)snG_type(c->g, out)->dtype, v, 0, 0));
    }
}

static bool wanted(const Att *t, AttKind kind)
{
    for (uint32_t i = 0; i < t->c.grp->outputs.n; i++)
        if (snP_attention_kind(t->c.g, gen_viewed(&t->c, t->c.grp->outputs.v[i])) == kind) return true;
    return false;
}

/* -- Forward --------------------------------------------------------------------------------------------------- */

typedef struct Online { TVal max, sum, acc; } Online;    /* vars: [bq, 1], [bq, 1], [bq, Dv]; acc 0: not wanted */

/* The block of keys that the program stands at, into the running rows. */
static void online_block(Att *t, TVal q, const Online *o)
{
    Tile *tile = t->c.t;
    TVal full = 0;
    open_block(t, &full);
    TVal s = scores(t, q, stage(t, ATT_k), full);
    span_pairs(t);
    TVal old = snT_get(tile, o->max), inf = num(t, -(double)INFINITY);
    TVal max = f32(t, S_max, old, snT_reduce(tile, s, 1, RED_PEAK, 0, t->c.vc));   /* a NaN comes back by p */
    TVal u = snT_ew(tile, S_select, SN_F32, snT_ew(tile, S_eq, SN_BOOL, max, inf, 0), num(t, 0), max);   /* no key yet */
    TVal p = power(t, f32(t, S_sub, s, u)), shrink = power(t, f32(t, S_sub, old, u));
    TVal sum = snT_reduce(tile, p, 1, RED_SUM, 0, t->c.vc);
    snT_set(tile, o->sum, f32(t, S_add, f32(t, S_mul, snT_get(tile, o->sum), shrink), sum));
    if (o->acc) {
        if (has(t, ATT_gain)) p = f32(t, S_mul, p, operand(t, ATT_gain));
        p = rounded(t, p, ATT_v);
        TVal v = stage(t, ATT_v), acc = f32(t, S_mul, snT_get(tile, o->acc), shrink);
        snT_set(tile, o->acc, snT_dot(tile, p, v, acc, false, false));
    }
    snT_set(tile, o->max, max);
    close_block(t);
}

static void forward(Att *t, GroupTiles *out)
{
    bool values = wanted(t, ATT_OUT);
    int32_t bq = t->s.bq, dv = (int32_t)extent(t, t->V);
    open_program(t, "attention", t->T, bq);
    Tile *tile = t->c.t;
    TVal q = stage(t, ATT_q);
    Online o = { .max = snT_var(tile, snT_full(tile, (TType){ SN_F32, bq, 1 }, -(double)INFINITY)), .sum = snT_var(tile, zeros(t, bq, 1)) };
    if (values) o.acc = snT_var(tile, zeros(t, bq, dv));
    open_loop(t, t->S, t->s.bk);
    online_block(t, q, &o);
    close_loop(t);
    TVal sum = snT_get(tile, o.sum), some = snT_ew(tile, S_gt, SN_BOOL, sum, num(t, 0), 0), none = num(t, 0);
    if (values) {
        TVal inverse = snT_ew(tile, S_select, SN_F32, some, f32(t, S_div, num(t, 1), sum), none);
        span(t, t->T, bq, t->V, dv);
        store_results(t, ATT_OUT, f32(t, S_mul, snT_get(tile, o.acc), inverse));
    }
    span(t, t->T, bq, -1, 1);
    TVal lse = f32(t, S_add, times(t, snT_get(tile, o.max), 1 / t->base), f32(t, S_log, sum, 0));
    store_results(t, ATT_LSE, snT_ew(tile, S_select, SN_F32, some, lse, none));
    tile->flops = 2.0 * (double)(snP_points(&t->c.dom) / (extent(t, t->D) * dv)) * (double)(extent(t, t->D) + (values ? dv : 0));
    close_program(t, out);
}

/* -- Backward ---------------------------------------------------------------------------------------------------- */

typedef struct Grads {
    bool dq, dk, dv;
    TVal q, k, v, dy;                /* staged */
    TVal acc_q, acc_k, acc_v;        /* vars; of dq only without local */
    int local;                       /* 1 + buffer where dq adds up */
} Grads;

static void add_dot(Att *t, TVal var, TVal left, TVal right, bool transposed)
{
    snT_set(t->c.t, var, snT_dot(t->c.t, left, right, snT_get(t->c.t, var), transposed, false));
}

/* dq's block of rows in memory: plus ds k. */
static void add_local(Att *t, const Grads *w, TVal ds)
{
    Tile *tile = t->c.t;
    int32_t d = (int32_t)extent(t, t->D);
    TVal at = snT_ix(tile, T_imul, t->c.base[t->T], snT_idx(tile, d)), inside = gen_inside(&t->c, t->T, t->s.bq);
    TVal old = snT_load(tile, w->local - 1, t->s.bq, d, at, d, 1, inside, 0);
    snT_store(tile, w->local - 1, at, snT_dot(tile, ds, w->k, old, false, false), d, 1, inside, 0);
}

/* p (dp - delta), delta the row's mean of dp under p. The operand is that but for rounding (the sum of dy y), and where a row has
   few keys dp - delta may be little else. So where it is this attention's own a row whose keys are all in the block is summed here
   (over the sum of its p, which lse leaves off 1 by its own rounding), and a row's only key, p = 1, has no gradient (of halves that
   would be finer than the operands). */
static TVal score_grad(Att *t, TVal p, TVal dp)
{
    Tile *tile = t->c.t;
    if (t->a.own && extent(t, t->S) <= t->s.bk) {
        TVal sum = snT_reduce(tile, p, 1, RED_SUM, 0, t->c.vc), least = num(t, FLT_MIN);
        TVal mean = f32(t, S_div, snT_reduce(tile, f32(t, S_mul, p, dp), 1, RED_SUM, 0, t->c.vc), f32(t, S_max, sum, least));
        return f32(t, S_mul, p, f32(t, S_sub, dp, mean));
    }
    span(t, t->T, t->s.bq, -1, 1);
    TVal delta = operand(t, ATT_delta);
    span_pairs(t);
    TVal ds = f32(t, S_mul, p, f32(t, S_sub, dp, delta));
    if (!t->a.own || dtype(t, ATT_v) != SN_F32) return ds;
    TVal one = num(t, t->base == 1 ? 1 : 1 - 0x1p-18);       /* to base 2 the sums have roundings of their own */
    return snT_ew(tile, S_select, SN_F32, snT_ew(tile, S_ge, SN_BOOL, p, one, 0), num(t, 0), ds);
}

/* What the block adds to each gradient. */
static void grad_block(Att *t, const Grads *w, TVal full)
{
    Tile *tile = t->c.t;
    TVal s = scores(t, w->q, w->k, full), slope = t->slope;
    TVal dp = w->dq || w->dk ? snT_dot(tile, w->dy, w->v, 0, false, true) : 0;
    span(t, t->T, t->s.bq, -1, 1);
    TVal lse = times(t, operand(t, ATT_lse), t->base);
    span_pairs(t);
    TVal p = power(t, f32(t, S_sub, s, lse)), gain = has(t, ATT_gain) ? operand(t, ATT_gain) : 0, ds = 0;
    if (dp) {
        ds = score_grad(t, p, gain ? f32(t, S_mul, dp, gain) : dp);
        if (t->a.cap > 0) ds = f32(t, S_mul, ds, slope);
        ds = rounded(t, ds, ATT_q);
    }
    if (w->dv) add_dot(t, w->acc_v, rounded(t, gain ? f32(t, S_mul, p, gain) : p, ATT_dy), w->dy, true);
    if (w->dk) add_dot(t, w->acc_k, ds, w->q, true);
    if (w->dq && w->local) add_local(t, w, ds);
    else if (w->dq) add_dot(t, w->acc_q, ds, w->k, false);
}

static void stage_keys(Att *t, Grads *w) { w->k = stage(t, ATT_k), w->v = stage(t, ATT_v); }
static void stage_queries(Att *t, Grads *w) { w->q = stage(t, ATT_q), w->dy = stage(t, ATT_dy); }

static void store_keys(Att *t, const Grads *w)
{
    int32_t bk = t->s.bk, d = (int32_t)extent(t, t->D), dv = (int32_t)extent(t, t->V);
    span(t, t->S, bk, t->D, d);
    if (w->dk) store_results(t, ATT_DK, times(t, snT_get(t->c.t, w->acc_k), t->scaled ? 1 / t->early : t->a.scale));
    span(t, t->S, bk, t->V, dv);
    if (w->dv) store_results(t, ATT_DV, snT_get(t->c.t, w->acc_v));
}

/* Keys outside: a block of dk and dv, from all queries. */
static void keys_outside(Att *t, Grads *w)
{
    Tile *tile = t->c.t;
    TVal full = 0;
    stage_keys(t, w);
    if (w->dk) w->acc_k = snT_var(tile, zeros(t, t->s.bk, (int32_t)extent(t, t->D)));
    if (w->dv) w->acc_v = snT_var(tile, zeros(t, t->s.bk, (int32_t)extent(t, t->V)));
    open_loop(t, t->T, t->s.bq);
    open_block(t, &full);
    stage_queries(t, w);
    grad_block(t, w, full);
    close_block(t);
    close_loop(t);
    store_keys(t, w);
}

/* dq in memory: to zero, or scaled and stored where it belongs. */
static void local_rows(Att *t, const Grads *w, bool last)
{
    Tile *tile = t->c.t;
    int32_t d = (int32_t)extent(t, t->D);
    open_loop(t, t->T, t->s.bq);
    span(t, t->T, t->s.bq, t->D, d);
    TVal at = snT_ix(tile, T_imul, t->c.base[t->T], snT_idx(tile, d));
    if (last) store_results(t, ATT_DQ, times(t, snT_load(tile, w->local - 1, t->s.bq, d, at, d, 1, t->c.vr, 0), t->a.scale));
    else snT_store(tile, w->local - 1, at, zeros(t, t->s.bq, d), d, 1, t->c.vr, 0);
    close_loop(t);
}

static void backward(Att *t, Grads w, GroupTiles *out)
{
    bool keys = w.dk || w.dv, whole = keys && w.dq;
    int32_t d = (int32_t)extent(t, t->D), dv = (int32_t)extent(t, t->V);
    open_program(t, whole ? "attention.d" : keys ? "attention.dkv" : "attention.dq", whole ? -1 : keys ? t->S : t->T, keys ? t->s.bk : t->s.bq);
    Tile *tile = t->c.t;
    if (whole) {
        w.local = 1 + snT_local(tile, "dq", SN_F32, extent(t, t->T) * d);
        PUSH(t->c.a, t->c.args, 0);
        local_rows(t, &w, false);
        open_loop(t, t->S, t->s.bk);
        keys_outside(t, &w);
        close_loop(t);
        local_rows(t, &w, true);
    } else if (keys) {
        keys_outside(t, &w);
    } else {
        TVal full = 0;
        stage_queries(t, &w);
        w.acc_q = snT_var(tile, zeros(t, t->s.bq, d));
        open_loop(t, t->S, t->s.bk);
        open_block(t, &full);
        stage_keys(t, &w);
        grad_block(t, &w, full);
        close_block(t);
        close_loop(t);
        span(t, t->T, t->s.bq, t->D, d);
        store_results(t, ATT_DQ, times(t, snT_get(tile, w.acc_q), t->a.scale));
    }
    double pairs = (double)(snP_points(&t->c.dom) / ((int64_t)d * dv));
    tile->flops = 2.0 * pairs * ((1 + w.dq + w.dk) * (double)d + ((w.dq || w.dk) + w.dv) * (double)dv);
    close_program(t, out);
}

/* -- Entry --------------------------------------------------------------------------------------------------------- */

/* The op of the group that knows most operands; own only if all are. */
static Attention widest(const Graph *g, const Group *grp)
{
    Attention best = { 0 };
    bool own = true;
    for (uint32_t i = 0; i < grp->nodes.n; i++) {
        if (!snP_attention_kind(g, grp->nodes.v[i])) continue;
        Attention a = snP_attention(g, grp->nodes.v[i]);
        own &= a.own;
        if (!best.kind || (!best.in[ATT_v] && a.in[ATT_v])) best = a;
    }
    best.own = own;
    return best;
}

void gen_attention(const Graph *g, const Group *grp, const Target *target, Arena *arena, GroupTiles *out)
{
    Att t = { .c = gen_open(g, grp, target, arena), .a = widest(g, grp) };
    int64_t heads = 1;
    t.c.dom = t.a.dom;
    t.T = t.a.lead + ATT_T, t.S = t.a.lead + ATT_S, t.D = t.a.lead + ATT_D, t.V = t.a.lead + ATT_DV_;
    for (int i = 0; i < t.a.lead; i++) heads *= t.a.dom.ext[i];
    bool backwards = t.a.kind >= ATT_DQ;
    AttentionShape shape = { heads, extent(&t, t.T), extent(&t, t.S), extent(&t, t.D), extent(&t, t.V), has(&t, ATT_mask), backwards,
                             (t.a.cap > 0) + has(&t, ATT_gain) };
    t.s = snK_sched_attention(target, shape);
    t.scaled = dtype(&t, ATT_q) == SN_F32;
    t.base = t.scaled && !target->tf32 ? 1 : 1.4426950408889634;
    t.early = has(&t, ATT_bias) || t.a.cap > 0 ? 1 : t.base;
    if (!backwards) { forward(&t, out); return; }
    Grads w = { .dq = wanted(&t, ATT_DQ), .dk = wanted(&t, ATT_DK), .dv = wanted(&t, ATT_DV) };
    if (t.s.whole || !w.dq || !(w.dk || w.dv)) { backward(&t, w, out); return; }
    backward(&t, (Grads){ .dk = w.dk, .dv = w.dv }, out);
    backward(&t, (Grads){ .dq = w.dq }, out);
}
