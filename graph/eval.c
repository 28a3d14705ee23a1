/* eval.c: the reference evaluator: plain loops in f64, the oracle of every test.

   In: a graph, values for its leaves (or for any named node), seed and step. Out: every node's value as doubles, row-major;
   integers and booleans are exact in a double. One function per op class.

   random   philox key = seed (low, high word); element e takes word e & 3 of the counter
              without a key operand   (e >> 2, step, micro, stream)                          e: number in the tensor
              keyed by k[row]         (e >> 2, k[row], 0, stream | 2^31)                     e: number in the row
            and is (word >> 8) 2^-24. Leaves draw from (i, 2^32 - 1, 0, hash of the name), see snG_init_leaf. */
#include "graph/graph.h"
#include "graph/scalar.h"
#include <math.h>

#define MOST_ELEMENTS ((int64_t)1 << 31)                       /* of one graph's values: 16 GiB */

/* given: per node, the value that takes its place; v == NULL = none. */
typedef struct Eval { const Graph *g; EvalMode mode; const EvalEnv *env; Arena *a; EvalVal *vals; const EvalVal *given; } Eval;

void snG_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1], c[4] = { ctr[0], ctr[1], ctr[2], ctr[3] };
    for (int r = 0; r < 10; r++) {
        uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t d[4] = { (uint32_t)(q >> 32) ^ c[1] ^ k0, (uint32_t)q, (uint32_t)(p >> 32) ^ c[3] ^ k1, (uint32_t)p };
        memcpy(c, d, sizeof c);
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

static double rounded(const Eval *e, const Type *t, double v)
{
    if (!snG_is_float((Dtype)t->dtype)) return snG_round((Dtype)t->dtype, v);
    return e->mode == EVAL_F64 ? v : snG_round(e->mode == EVAL_F32 ? SN_F32 : (Dtype)t->dtype, v);
}

/* Sums of floats are kept in f32 outside EVAL_F64, whatever the dtype. */
static bool sums_f32(const Eval *e, const Type *t)
{
    return snG_is_float((Dtype)t->dtype) && (e->mode == EVAL_F32 || (e->mode == EVAL_TYPED && t->dtype != SN_F64));
}

/* -- Leaves and generators ----------------------------------------------------------------------------------- */

static double unit(uint32_t w) { return ((double)(w >> 8) + 0.5) * 0x1p-24; }

/* So that 0.99999999, which is 1 in f32, is not below 1. runtime/session.c has the same two. */
bool snG_in_range(const InputRange *r, Dtype d, double v)
{
    v = snG_round(d, v);
    bool above = r->bits & RANGE_ABOVE ? v > r->lo : v >= r->lo, below = r->bits & RANGE_BELOW ? v < r->hi : v <= r->hi;
    return !r->bits || (isfinite(v) && above && below && (!(r->bits & RANGE_WHOLE) || v == floor(v)));
}

void snG_range_text(const InputRange *r, char out[SN_RANGE_TEXT])
{
    int n = snprintf(out, SN_RANGE_TEXT, "%s %g", r->bits & RANGE_WHOLE ? "a whole number from" : r->bits & RANGE_ABOVE ? "above" : "at least", r->lo);
    if (r->bits & RANGE_WHOLE) snprintf(out + n, SN_RANGE_TEXT - (size_t)n, " to %g", r->hi);
    else if (isinf(r->hi)) snprintf(out + n, SN_RANGE_TEXT - (size_t)n, " and finite");
    else snprintf(out + n, SN_RANGE_TEXT - (size_t)n, " and %s %g", r->bits & RANGE_BELOW ? "below" : "at most", r->hi);
}

void snG_init_leaf(const Graph *g, const Leaf *l, uint64_t seed, double *out)
{
    const Type *t = snG_type(g, l->node);
    const char *name = snU_str(g->ctx, l->name);
    uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, w[4] = { 0 };
    uint32_t stream = (uint32_t)snU_hash(name, strlen(name), 0) & 0x7fffffff;
    for (int64_t e = 0, n = snG_count(t); e < n; e++) {
        double v = l->init == INIT_ONES ? 1 : l->init == INIT_FULL ? l->a : 0;
        if (l->init == INIT_NORMAL) {
            if (!(e & 1)) snG_philox(key, (uint32_t[4]){ (uint32_t)(e >> 1), 0xffffffff, 0, stream }, w);
            double r = sqrt(-2 * log(unit(w[0]))), phi = 2 * M_PI * unit(w[1]);
            v = r * (e & 1 ? sin(phi) : cos(phi)) * l->a;
        } else if (l->init == INIT_UNIFORM) {
            if (!(e & 3)) snG_philox(key, (uint32_t[4]){ (uint32_t)(e >> 2), 0xffffffff, 0, stream }, w);
            v = l->a + (l->b - l->a) * ((double)(w[e & 3] >> 8) * 0x1p-24);
        }
        out[e] = snG_round((Dtype)t->dtype, v);
    }
}

static void eval_leaf(Eval *e, NodeId id, double *y)
{
    const Leaf *l = snG_leaf(e->g, id);
    if (l->init == INIT_NONE)
        snU_fail(e->g->ctx, SN_USAGE, snG_node(e->g, id)->loc, "%s has no value; feed it", snU_str(e->g->ctx, l->name));
    snG_init_leaf(e->g, l, e->env->seed, y);
}

static void eval_random(Eval *e, NodeId id, double *y)
{
    const Type *t = snG_type(e->g, id);
    bool keyed = snG_node(e->g, id)->nin > 0;
    uint32_t key[2] = { (uint32_t)e->env->seed, (uint32_t)(e->env->seed >> 32) }, w[4] = { 0 };
    uint32_t stream = (uint32_t)snG_attr_int(e->g, id, 1);
    int64_t n = snG_count(t), row = keyed ? n / t->dim[0] : n;
    const double *k = keyed ? e->vals[snG_in(e->g, id, 0)].v : NULL;
    for (int64_t i = 0; i < n; i++) {
        int64_t j = i % row;
        uint32_t ctr[4] = { (uint32_t)(j >> 2), e->env->step, e->env->micro, stream };
        if (keyed) ctr[1] = (uint32_t)(int32_t)k[i / row], ctr[2] = 0, ctr[3] = stream | 0x80000000u;
        if (!(j & 3)) snG_philox(key, ctr, w);
        y[i] = (double)(w[j & 3] >> 8) * 0x1p-24;
    }
}

static void eval_gen(Eval *e, NodeId id, double *y)
{
    const Type *t = snG_type(e->g, id);
    if (snG_node(e->g, id)->op == OP_const) { y[0] = snG_attr(e->g, id, 0)->f; return; }
    if (snG_node(e->g, id)->op == OP_random) { eval_random(e, id, y); return; }
    int64_t axis = snG_attr_int(e->g, id, 1), after = 1;
    for (int i = (int)axis + 1; i < t->rank; i++) after *= t->dim[i];
    for (int64_t i = 0, n = snG_count(t); i < n; i++) y[i] = (double)(i / after % t->dim[axis]);
}

/* -- Elementwise, reductions, scans --------------------------------------------------------------------------- */

static void eval_ewise(Eval *e, NodeId id, double *y)
{
    const Node *n = snG_node(e->g, id);
    const OpInfo *op = snG_op(e->g->ctx, n->op);
    const Type *t = snG_type(e->g, id);
    const double *x[8];
    int64_t step[8];
    unsigned nin = n->op == OP_fence ? 1 : n->nin;
    for (unsigned k = 0; k < nin; k++) {
        NodeId in = snG_in(e->g, id, k);
        x[k] = e->vals[in].v, step[k] = snG_type(e->g, in)->rank != 0;
    }
    Dtype from = (Dtype)snG_type(e->g, snG_in(e->g, id, nin - 1))->dtype;
    SN_ASSERT(nin <= 8 && op->scalar->nargs <= 8, "operands of %s", op->cname);
    if (n->op == OP_fence) x[1] = x[0], step[1] = step[0];
    snG_scalar_map(op->scalar, from, (Dtype)t->dtype, x, step, snG_count(t), e->mode, y);
}

static void eval_sum(Eval *e, NodeId id, double *y)
{
    const Type *t = snG_type(e->g, id), *x = snG_type(e->g, snG_in(e->g, id, 0));
    const double *v = e->vals[snG_in(e->g, id, 0)].v;
    bool f32 = sums_f32(e, t);
    int64_t stride[MAX_RANK], at[MAX_RANK] = { 0 }, s = 1, o = 0;
    for (int i = x->rank - 1; i >= 0; i--) {
        bool kept = t->rank && t->dim[i] != 1;
        stride[i] = kept ? s : 0;
        if (kept) s *= t->dim[i];
    }
    int last = x->rank - 1;
    int64_t n = x->rank ? x->dim[last] : 1, so = x->rank ? stride[last] : 0;
    for (int64_t row = 0, rows = snG_count(x) / n; row < rows; row++, v += n) {
        for (int64_t j = 0; j < n; j++) {
            double *p = &y[o + j * so];
            *p = f32 ? (double)(float)(*p + v[j]) : *p + v[j];
        }
        for (int k = last - 1; k >= 0; k--) {
            o += stride[k];
            if (++at[k] < x->dim[k]) break;
            o -= stride[k] * at[k], at[k] = 0;
        }
    }
    for (int64_t i = 0, count = snG_count(t); i < count; i++) y[i] = rounded(e, t, y[i]);
}

typedef struct Along { int64_t before, n, after; } Along;

static Along along(const Type *t, int64_t axis)
{
    Along a = { 1, 1, 1 };
    if (axis < 0) axis += t->rank;
    for (int i = 0; i < t->rank; i++) *(i < axis ? &a.before : i == axis ? &a.n : &a.after) *= t->dim[i];
    return a;
}

/* u comes before w: NaN first, then the larger. */
static bool larger(double u, double w) { return w == w && (u != u || u > w); }

static void eval_extreme(Eval *e, NodeId id, double *y)
{
    unsigned op = snG_node(e->g, id)->op;
    const double *x = e->vals[snG_in(e->g, id, 0)].v;
    Along a = along(snG_type(e->g, snG_in(e->g, id, 0)), snG_attr_int(e->g, id, 0));
    bool least = op == OP_amin || op == OP_argmin, arg = op == OP_argmax || op == OP_argmin;
    for (int64_t b = 0; b < a.before; b++)
        for (int64_t c = 0; c < a.after; c++) {
            const double *p = x + b * a.n * a.after + c;
            int64_t best = 0;
            for (int64_t i = 1; i < a.n; i++) {
                double u = p[i * a.after], w = p[best * a.after];
                if (least ? larger(-u, -w) : larger(u, w)) best = i;
            }
            y[b * a.after + c] = arg ? (double)best : p[best * a.after];
        }
}

static void eval_cumsum(Eval *e, NodeId id, double *y)
{
    const Type *t = snG_type(e->g, id);
    const double *x = e->vals[snG_in(e->g, id, 0)].v;
    Along a = along(t, snG_attr_int(e->g, id, 0));
    bool exclusive = snG_attr_int(e->g, id, 1), reverse = snG_attr_int(e->g, id, 2);
    for (int64_t b = 0; b < a.before; b++)
        for (int64_t c = 0; c < a.after; c++) {
            double s = 0;
            for (int64_t k = 0; k < a.n; k++) {
                int64_t i = (b * a.n + (reverse ? a.n - 1 - k : k)) * a.after + c;
                double next = rounded(e, t, s + x[i]);
                y[i] = exclusive ? s : next;
                s = next;
            }
        }
}

/* The k largest of each row in falling order, the lower index first. indices: their positions instead. */
static void eval_topk(Eval *e, NodeId id, bool indices, double *y)
{
    const Type *x = snG_type(e->g, snG_in(e->g, id, 0));
    const double *v = e->vals[snG_in(e->g, id, 0)].v;
    int64_t n = x->dim[x->rank - 1], k = snG_attr_int(e->g, id, 0), rows = snG_count(x) / n;
    uint8_t *taken = snU_alloc(e->a, (size_t)n);
    for (int64_t r = 0; r < rows; r++) {
        memset(taken, 0, (size_t)n);
        for (int64_t j = 0; j < k; j++) {
            int64_t best = -1;
            for (int64_t i = 0; i < n; i++) if (!taken[i] && (best < 0 || larger(v[r * n + i], v[r * n + best]))) best = i;
            taken[best] = 1;
            y[r * k + j] = indices ? (double)best : v[r * n + best];
        }
    }
}

/* -- Moves ------------------------------------------------------------------------------------------------------- */

static void strides_of(const Type *t, int64_t *s)
{
    int64_t n = 1;
    for (int i = t->rank - 1; i >= 0; i--) s[i] = n, n *= t->dim[i];
}

/* y[i] = x[sum of index_k * step_k + base] over the shape of t. */
static void copy_strided(const Type *t, double *y, const double *x, int64_t base, const int64_t *step)
{
    int last = t->rank - 1;
    int64_t at[MAX_RANK] = { 0 }, n = t->rank ? t->dim[last] : 1, s = t->rank ? step[last] : 0;
    for (int64_t row = 0, rows = snG_count(t) / n; row < rows; row++, y += n) {
        for (int64_t j = 0; j < n; j++) y[j] = x[base + j * s];
        for (int k = last - 1; k >= 0; k--) {
            base += step[k];
            if (++at[k] < t->dim[k]) break;
            base -= step[k] * at[k], at[k] = 0;
        }
    }
}

/* One operand into its range [start, start + size) of the result's axis. */
static void place(const Type *t, double *y, const Type *x, const double *v, int64_t axis, int64_t start)
{
    Along a = along(x, axis);
    int64_t n = t->dim[axis];
    for (int64_t b = 0; b < a.before; b++)
        memcpy(y + (b * n + start) * a.after, v + b * a.n * a.after, sizeof(double) * (size_t)(a.n * a.after));
}

static void eval_move(Eval *e, NodeId id, double *y)
{
    const Graph *g = e->g;
    const Type *t = snG_type(g, id), *x = snG_type(g, snG_in(g, id, 0));
    const double *v = e->vals[snG_in(g, id, 0)].v;
    int64_t s[MAX_RANK], step[MAX_RANK], base = 0, start = 0;
    strides_of(x, s);
    memcpy(step, s, sizeof step);
    switch (snG_node(g, id)->op) {
    case OP_permute: for (int i = 0; i < t->rank; i++) step[i] = s[snG_attr(g, id, 0)->i[i]]; break;
    case OP_expand: for (int i = 0; i < t->rank; i++) step[i] = x->dim[i] == 1 ? 0 : s[i]; break;
    case OP_slice: base = snG_attr_int(g, id, 1) * s[snG_attr_int(g, id, 0)]; break;
    case OP_part: eval_topk(e, snG_in(g, id, 0), true, y); return;
    case OP_pad:
        for (int64_t i = 0, n = snG_count(t); i < n; i++) y[i] = rounded(e, t, snG_attr(g, id, 3)->f);
        place(t, y, x, v, snG_attr_int(g, id, 0), snG_attr_int(g, id, 1));
        return;
    case OP_concat:
        for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
            const Type *p = snG_type(g, snG_in(g, id, i));
            place(t, y, p, e->vals[snG_in(g, id, i)].v, snG_attr_int(g, id, 0), start);
            start += p->dim[snG_attr_int(g, id, 0)];
        }
        return;
    }
    copy_strided(t, y, v, base, step);
}

/* -- Contractions and rows by index ---------------------------------------------------------------------------------- */

/* Panels of eight columns, in registers as four pairs: what both SSE2 and NEON have. */
enum { LANES = 8 };
typedef double Pair __attribute__((vector_size(16)));
typedef float Narrow __attribute__((vector_size(8)));

/* b[k, n], or its transpose, as panels [panel][k][LANES], padded by zeros. */
static void pack(double *to, const double *b, int64_t k, int64_t n, bool turned)
{
    for (int64_t j = 0; j < n; j += LANES)
        for (int64_t p = 0; p < k; p++, to += LANES)
            for (int64_t l = 0; l < LANES && j + l < n; l++) to[l] = turned ? b[(j + l) * k + p] : b[p * n + j + l];
}

/* y[l] = sum over p of a[p * step] * b[p][l], in the order of p; f32: rounded after every step. */
static void dot(double *y, int64_t lanes, const double *a, int64_t step, const Pair *b, int64_t k, bool f32)
{
    Pair s0 = { 0 }, s1 = s0, s2 = s0, s3 = s0;
#define ROUND(s) __builtin_convertvector(__builtin_convertvector(s, Narrow), Pair)
    for (int64_t p = 0; p < k; p++, b += LANES / 2) {
        Pair x = { a[p * step], a[p * step] };
        s0 += x * b[0], s1 += x * b[1], s2 += x * b[2], s3 += x * b[3];
        if (f32) s0 = ROUND(s0), s1 = ROUND(s1), s2 = ROUND(s2), s3 = ROUND(s3);
    }
#undef ROUND
    Pair s[] = { s0, s1, s2, s3 };
    memcpy(y, s, sizeof(double) * (size_t)lanes);
}

/* An operand of products: as it is, or rounded to tf32. */
static const double *operand(const Eval *e, NodeId x)
{
    const Type *t = snG_type(e->g, x);
    const double *v = e->vals[x].v;
    if (!e->env->tf32 || e->mode == EVAL_F64 || t->dtype != SN_F32) return v;
    int64_t n = snG_count(t);
    double *y = NEWN(e->a, double, n + 1);
    for (int64_t i = 0; i < n; i++) {
        int exp;
        double m = frexp(v[i], &exp);
        y[i] = isfinite(v[i]) ? ldexp(round(ldexp(m, 11)), exp - 11) : v[i];
    }
    return y;
}

static void eval_matmul(Eval *e, NodeId id, double *y)
{
    const Type *t = snG_type(e->g, id), *ta = snG_type(e->g, snG_in(e->g, id, 0));
    bool tra = snG_attr_int(e->g, id, 0), trb = snG_attr_int(e->g, id, 1), f32 = sums_f32(e, t);
    int64_t m = t->dim[t->rank - 2], n = t->dim[t->rank - 1], k = ta->dim[ta->rank - (tra ? 2 : 1)], count = snG_count(t);
    int64_t rows = m, depth = k;                         /* what of them counts; the rest of y is 0 */
    if (snG_node(e->g, id)->op == OP_matmul_some) {
        int64_t *some = snG_attr_int(e->g, id, 2) ? &depth : &rows, first = (int64_t)e->vals[snG_in(e->g, id, 2)].v[0];
        *some = first < 0 ? 0 : first < *some ? first : *some;
    }
    ArenaMark mark = snU_mark(e->a);
    const double *A = operand(e, snG_in(e->g, id, 0)), *B = operand(e, snG_in(e->g, id, 1));
    double *b = NEWN(e->a, double, (n + LANES - 1) / LANES * LANES * k);
    for (double *c = y; c < y + count; c += m * n, A += m * k, B += k * n) {
        pack(b, B, k, n, trb);
        for (int64_t j = 0; j < n; j += LANES)
            for (int64_t i = 0; i < rows; i++)
                dot(c + i * n + j, n - j < LANES ? n - j : LANES, tra ? A + i : A + i * k, tra ? m : 1, (const Pair *)(b + j * k), depth, f32);
    }
    snU_reset(e->a, mark);
    for (int64_t i = 0; i < count; i++) y[i] = rounded(e, t, y[i]);
}

static int64_t checked_row(Eval *e, NodeId id, double v, int64_t rows)
{
    if (v >= 0 && v < (double)rows) return (int64_t)v;
    snU_fail(e->g->ctx, SN_USAGE, snG_node(e->g, id)->loc, "%s: index %.0f of a table of %lld rows", snG_op(e->g->ctx, snG_node(e->g, id)->op)->cname,
             v, (long long)rows);
}

static void eval_gather(Eval *e, NodeId id, double *y)
{
    const Graph *g = e->g;
    NodeId idx = snG_in(g, id, 1);
    const Type *table = snG_type(g, snG_in(g, id, 0)), *t = snG_type(g, id);
    int64_t row = snG_count(table) / table->dim[0], n = snG_count(snG_type(g, idx));
    const double *x = e->vals[snG_in(g, id, 0)].v, *at = e->vals[idx].v;
    if (snG_node(g, id)->op == OP_gather) {
        for (int64_t i = 0; i < n; i++) memcpy(y + i * row, x + checked_row(e, id, at[i], table->dim[0]) * row, sizeof(double) * (size_t)row);
        return;
    }
    const double *u = e->vals[snG_in(g, id, 2)].v;
    memcpy(y, x, sizeof(double) * (size_t)snG_count(t));
    bool f32 = sums_f32(e, t);
    for (int64_t i = 0; i < n; i++) {
        double *to = y + checked_row(e, id, at[i], table->dim[0]) * row;
        for (int64_t j = 0; j < row; j++) to[j] = f32 ? (double)(float)(to[j] + u[i * row + j]) : to[j] + u[i * row + j];
    }
    for (int64_t i = 0, c = snG_count(t); i < c; i++) y[i] = rounded(e, t, y[i]);
}

/* -- The loop ------------------------------------------------------------------------------------------------------------ */

static void run(Eval *e);

static void eval_composite(Eval *e, NodeId id, double *y)
{
    const Graph *g = e->g;
    const Node *n = snG_node(g, id);
    const Type *types[MAX_IN];
    ArenaMark mark = snU_mark(e->a);
    for (unsigned i = 0; i < n->nin; i++) types[i] = snG_type(g, snG_in(g, id, i));
    const Graph *body = snG_body(g->ctx, n->op, types, n->nin, n->attr, n->loc);
    EvalVal *vals = NEWN(e->a, EvalVal, body->nodes.n), *given = NEWN(e->a, EvalVal, body->nodes.n);
    for (unsigned i = 0; i < n->nin; i++) given[body->leaves.v[i].node] = e->vals[snG_in(g, id, i)];
    Eval inner = { body, e->mode, e->env, e->a, vals, given };
    run(&inner);
    const EvalVal *r = &vals[body->outputs.v[0].node];
    memcpy(y, r->v, sizeof(double) * (size_t)r->n);
    snU_reset(e->a, mark);
}

static void eval_node(Eval *e, NodeId id, double *y)
{
    unsigned op = snG_node(e->g, id)->op;
    switch (snG_op(e->g->ctx, op)->cls) {
    case C_LEAF: eval_leaf(e, id, y); break;
    case C_GEN: eval_gen(e, id, y); break;
    case C_EWISE: eval_ewise(e, id, y); break;
    case C_REDUCE: op == OP_sum ? eval_sum(e, id, y) : eval_extreme(e, id, y); break;
    case C_SCAN: op == OP_cumsum ? eval_cumsum(e, id, y) : eval_topk(e, id, false, y); break;
    case C_MOVE: eval_move(e, id, y); break;
    case C_CONTRACT: eval_matmul(e, id, y); break;
    case C_GATHER: eval_gather(e, id, y); break;
    case C_COMPOSITE: eval_composite(e, id, y); break;
    default: SN_ASSERT(false, "op %u has no evaluation", op);
    }
}

/* What outputs and updates need, stopping at given values; everything where a graph has neither. */
static uint8_t *live_nodes(const Eval *e)
{
    const Graph *g = e->g;
    uint8_t *live = NEWN(e->a, uint8_t, g->nodes.n);
    if (!g->outputs.n && !g->updates.n) memset(live, 1, g->nodes.n);
    for (uint32_t i = 0; i < g->outputs.n; i++) live[g->outputs.v[i].node] = 1;
    for (uint32_t i = 0; i < g->updates.n; i++) live[g->updates.v[i].value] = 1;
    for (NodeId id = g->nodes.n - 1; id > 0; id--)
        for (unsigned k = 0; live[id] && !e->given[id].v && k < snG_node(g, id)->nin; k++) live[snG_in(g, id, k)] = 1;
    return live;
}

static void run(Eval *e)
{
    const Graph *g = e->g;
    const uint8_t *live = live_nodes(e);
    int64_t total = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        int64_t n = snG_count(snG_type(g, id));
        e->vals[id] = e->given[id];
        if (e->given[id].v || !live[id]) continue;
        if (snG_node(g, id)->op == OP_reshape) { e->vals[id] = e->vals[snG_in(g, id, 0)]; continue; }
        if (n > MOST_ELEMENTS - total)
            snU_fail(g->ctx, SN_UNSUPPORTED, snG_node(g, id)->loc, "too large for the reference evaluator: its values need over 16 GiB");
        total += n;
        e->vals[id] = (EvalVal){ NEWN(e->a, double, n), n };
        eval_node(e, id, e->vals[id].v);
    }
}

/* Values by printed name, rounded as the mode asks. */
static EvalVal *given_values(const Eval *e)
{
    const Graph *g = e->g;
    HashMap map = { 0 };
    EvalVal *given = NEWN(e->a, EvalVal, g->nodes.n);
    for (int i = 0; i < e->env->n; i++) snU_insert(e->a, &map, snU_symz(g->ctx, e->env->names[i]), (uint32_t)i + 1);
    for (NodeId id = 1; id < g->nodes.n && e->env->n; id++) {
        uint32_t k = snG_node(g, id)->op == OP_const ? 0 : snU_find(&map, snU_symz(g->ctx, snG_node_name(g, id)));
        const Type *t = snG_type(g, id);
        int64_t n = snG_count(t);
        if (!k) continue;
        const EvalVal *v = &e->env->vals[k - 1];
        if (v->n != n)
            snU_fail(g->ctx, SN_SHAPE, snG_node(g, id)->loc, "%s: %lld values given, %lld needed", snG_node_name(g, id),
                     (long long)v->n, (long long)n);
        given[id] = (EvalVal){ NEWN(e->a, double, n), n };
        for (int64_t i = 0; i < n; i++) given[id].v[i] = rounded(e, t, v->v[i]);
    }
    return given;
}

void snG_eval(const Graph *g, EvalMode mode, const EvalEnv *env, Arena *a, EvalVal *vals)
{
    Eval e = { g, mode, env, a, vals, NULL };
    e.given = given_values(&e);
    run(&e);
}
