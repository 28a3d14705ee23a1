/* tile_eval.c: a tile program interpreted in plain C: the oracle of the lowering's tests, and a way to look at a program without
   compiling. In: a program and its buffers. Out: what programs begin..end-1 store. Every tile is an array of doubles that
   hold exactly the values of its dtype; elements outside valid counts are NaN (integers: a large number), so that a use of one shows. */
#include "codegen/tile.h"
#include <math.h>

typedef struct Run {
    const Tile *t;
    void **bufs;
    const uint32_t *la;
    Arena arena;
    double **v;                      /* tiles, by value */
    int64_t *idx;
    TVal *close;
    int64_t grid[MAX_RANK];
} Run;

static const TIns *ins(const Run *r, TVal x) { return &r->t->ins.v[x]; }
static int64_t size(TType t) { return (int64_t)t.r * t.c; }

/* Element (i, j) of operand x, broadcast. */
static double elem(const Run *r, TVal x, int i, int j)
{
    TType t = ins(r, x)->type;
    return r->v[x][(t.r == 1 ? 0 : i) * t.c + (t.c == 1 ? 0 : j)];
}

static double undefined(int dtype) { return snG_is_float((Dtype)dtype) ? (double)NAN : dtype == SN_BOOL ? 1 : 123456789; }

/* -- Memory ------------------------------------------------------------------------------------------------ */

double snT_read(const void *p, Dtype d, int64_t i)
{
    switch (d) {
    case SN_F32: return ((const float *)p)[i];
    case SN_I32: return ((const int32_t *)p)[i];
    case SN_U32: return ((const uint32_t *)p)[i];
    case SN_BOOL: return ((const uint8_t *)p)[i] != 0;
    case SN_BF16: {
        uint32_t u = (uint32_t)((const uint16_t *)p)[i] << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
    default: {                                            /* f16 */
        uint16_t h = ((const uint16_t *)p)[i];
        int e = h >> 10 & 31, m = h & 1023;
        double x = e == 31 ? (m ? (double)NAN : (double)INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        return h >> 15 ? -x : x;
    }
    }
}

void snT_write(void *p, Dtype d, int64_t i, double x)
{
    switch (d) {
    case SN_F32: ((float *)p)[i] = (float)x; break;
    case SN_I32: ((int32_t *)p)[i] = (int32_t)(int64_t)x; break;
    case SN_U32: ((uint32_t *)p)[i] = (uint32_t)(int64_t)x; break;
    case SN_BOOL: ((uint8_t *)p)[i] = x != 0; break;
    case SN_BF16: {
        float f = (float)snG_round(d, x);
        uint32_t u;
        memcpy(&u, &f, 4);
        ((uint16_t *)p)[i] = (uint16_t)(x != x ? 0x7fc0 : u >> 16);
        break;
    }
    default: {
        x = snG_round(SN_F16, x);
        uint16_t sign = signbit(x) ? 0x8000 : 0;
        double a = fabs(x);
        int e = 0;
        if (a != a) { ((uint16_t *)p)[i] = 0x7e00; break; }
        if (isinf(a)) { ((uint16_t *)p)[i] = sign | 0x7c00; break; }
        if (a != 0) (void)frexp(a, &e);
        e = e < -13 ? -13 : e;                            /* a = m * 2^(e - 11) */
        int m = (int)ldexp(a, 11 - e);
        ((uint16_t *)p)[i] = (uint16_t)(sign | (m >= 1024 ? (e + 14) << 10 | (m & 1023) : m));
    }
    }
}

static int64_t limit(const Run *r, TVal valid, int64_t all)
{
    int64_t n = valid ? r->idx[valid] : all;
    return n < all ? n : all;
}

static void load(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    bool g = i->op == T_gather;
    int64_t vr = limit(r, i->a[1 + g], i->type.r), vc = limit(r, i->a[2 + g], i->type.c);
    const TParam *p = &r->t->params.v[i->buf];
    for (int a = 0; a < i->type.r; a++)
        for (int b = 0; b < i->type.c; b++) {
            double *to = &r->v[x][(int64_t)a * i->type.c + b];
            if (a >= vr || b >= vc) { *to = undefined(i->type.dtype); continue; }
            int64_t at = r->idx[i->a[0]] + a * i->rs + b * i->cs;
            if (g) {
                int64_t k = (int64_t)elem(r, i->a[1], a, b);
                at += (k < 0 ? 0 : k >= i->imm ? i->imm - 1 : k) * i->ks;
            }
            SN_ASSERT(at >= 0 && at < p->count, "tile %s: load %%%u reads element %lld of %lld", snU_str(r->t->ctx, r->t->name), x,
                      (long long)at, (long long)p->count);
            *to = snT_read(r->bufs[i->buf], (Dtype)p->dtype, at);
        }
}

static void store(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    bool add = i->op == T_scatter_add;
    TType ty = ins(r, i->a[1])->type;
    int64_t vr = limit(r, i->a[2 + add], ty.r), vc = limit(r, i->a[3 + add], ty.c);
    const TParam *p = &r->t->params.v[i->buf];
    for (int a = 0; a < vr; a++)
        for (int b = 0; b < vc; b++) {
            int64_t at = r->idx[i->a[0]] + a * i->rs + b * i->cs;
            double y = elem(r, i->a[1], a, b);
            if (add) {
                double k = elem(r, i->a[2], a, 0);
                if (k < 0 || k >= (double)i->imm) continue;
                at += (int64_t)k * i->ks;
            }
            SN_ASSERT(at >= 0 && at < p->count, "tile %s: store %%%u writes element %lld of %lld", snU_str(r->t->ctx, r->t->name),
                      x, (long long)at, (long long)p->count);
            if (add) y = (double)(float)(y + snT_read(r->bufs[i->buf], (Dtype)p->dtype, at));
            snT_write(r->bufs[i->buf], (Dtype)p->dtype, at, y);
        }
}

/* -- Arithmetic ----------------------------------------------------------------------------------------------- */

static double wrap(int dtype, double x)
{
    if (dtype == SN_F32) return (double)(float)x;
    if (dtype == SN_BF16 || dtype == SN_F16) return (double)(float)x;   /* only a cast rounds further */
    if (dtype == SN_BOOL) return x != 0;
    int64_t n = (int64_t)x;
    return dtype == SN_I32 ? (double)(int32_t)(uint32_t)n : (double)(uint32_t)n;
}

static double integer(int fn, int dtype, int64_t a, int64_t b)
{
    int s = (int)(b & 31);
    switch (fn) {
    case S_add: return wrap(dtype, (double)(a + b));
    case S_sub: return wrap(dtype, (double)(a - b));
    case S_mul: return dtype == SN_I32 ? (double)(int32_t)((uint32_t)a * (uint32_t)b) : (double)((uint32_t)a * (uint32_t)b);
    case S_div: return b ? wrap(dtype, (double)(a / b)) : 0;
    case S_rem: return b ? (double)(a % b) : 0;
    case S_neg: return wrap(dtype, (double)-a);
    case S_abs: return wrap(dtype, (double)(a < 0 ? -a : a));
    case S_and: return (double)(a & b);
    case S_or: return (double)(a | b);
    case S_xor: return (double)(a ^ b);
    case S_not: return dtype == SN_BOOL ? !a : dtype == SN_I32 ? (double)(int32_t)~(uint32_t)a : (double)~(uint32_t)a;
    case S_shl: return dtype == SN_I32 ? (double)(int32_t)((uint32_t)a << s) : (double)((uint32_t)a << s);
    case S_shr: return dtype == SN_I32 ? (double)((int32_t)a >> s) : (double)((uint32_t)a >> s);
    case S_min: return (double)(a < b ? a : b);
    default: return (double)(a > b ? a : b);              /* max */
    }
}

static double scalar(int fn, int from, int to, double a, double b, double c)
{
    switch (fn) {
    case S_lt: return a < b;
    case S_le: return a <= b;
    case S_gt: return a > b;
    case S_ge: return a >= b;
    case S_eq: return a == b;
    case S_ne: return a != b;
    case S_select: return a != 0 ? b : c;
    case S_cast:
        if (snG_is_float((Dtype)to)) return snG_round((Dtype)to, a);
        if (to == SN_BOOL) return a != 0;
        if (!snG_is_float((Dtype)from)) return wrap(to, a);
        if (a != a) return 0;
        if (to == SN_I32) return a <= -2147483648.0 ? -2147483648.0 : a >= 2147483647.0 ? 2147483647.0 : trunc(a);
        return a <= 0 ? 0 : a >= 4294967295.0 ? 4294967295.0 : trunc(a);
    case S_bitcast: {
        uint8_t bits[4];
        snT_write(bits, (Dtype)from, 0, a);
        return snT_read(bits, (Dtype)to, 0);
    }
    }
    if (!snG_is_float((Dtype)from)) return integer(fn, from, (int64_t)a, (int64_t)b);
    switch (fn) {
    case S_add: return wrap(to, a + b);
    case S_sub: return wrap(to, a - b);
    case S_mul: return wrap(to, a * b);
    case S_div: return wrap(to, a / b);
    case S_rem: return wrap(to, fmod(a, b));
    case S_neg: return -a;
    case S_abs: return fabs(a);
    case S_min: return fmin(a, b);
    case S_max: return fmax(a, b);
    case S_exp: return wrap(to, exp(a));
    case S_exp2: return wrap(to, exp2(a));
    case S_log: return wrap(to, log(a));
    case S_sqrt: return wrap(to, sqrt(a));
    case S_tanh: return wrap(to, tanh(a));
    case S_sin: return wrap(to, sin(a));
    case S_cos: return wrap(to, cos(a));
    case S_erf: return wrap(to, erf(a));
    case S_pow: return wrap(to, pow(a, b));
    case S_floor: return floor(a);
    case S_ceil: return ceil(a);
    default: return nearbyint(a);                         /* rint */
    }
}

static void ew(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    int from = ins(r, i->a[0])->type.dtype;
    for (int a = 0; a < i->type.r; a++)
        for (int b = 0; b < i->type.c; b++) {
            double y[3] = { 0 };
            for (int k = 0; k < 3 && i->a[k]; k++) y[k] = elem(r, i->a[k], a, b);
            r->v[x][(int64_t)a * i->type.c + b] = scalar(i->fn, from, i->type.dtype, y[0], y[1], y[2]);
        }
}

static void uniform(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    for (int a = 0; a < i->type.r; a++)
        for (int b = 0; b < i->type.c; b++) {
            uint64_t e = (uint64_t)(r->idx[i->a[0]] + a * i->rs + b * i->cs);
            uint32_t ctr[4] = { (uint32_t)(e >> 2), r->la[2], r->la[3], (uint32_t)i->imm }, out[4];
            if (i->a[1]) {
                ctr[1] = (uint32_t)(int32_t)elem(r, i->a[1], a, b);
                ctr[2] = 0;
                ctr[3] |= 0x80000000u;
            }
            snG_philox(r->la, ctr, out);
            r->v[x][(int64_t)a * i->type.c + b] = (out[e & 3] >> 8) * 0x1p-24;
        }
}

/* Does y beat best? NaN beats all; equal ones do not. */
static bool beats(int red, double y, double best)
{
    if (y != y) return best == best;
    return red == RED_MAX || red == RED_PEAK || red == RED_ARGMAX ? y > best : y < best;
}

static void reduce(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    TType ty = ins(r, i->a[0])->type;
    int64_t vr = limit(r, i->a[1], ty.r), vc = limit(r, i->a[2], ty.c);
    int outer = i->imm ? ty.r : ty.c;
    int64_t inner = i->imm ? vc : vr;
    for (int o = 0; o < outer; o++) {
        double best = 0, sum = 0;
        int64_t at = 0;
        for (int64_t n = 0; n < inner; n++) {
            double y = i->imm ? elem(r, i->a[0], o, (int)n) : elem(r, i->a[0], (int)n, o);
            sum += y;
            if (n == 0 || beats(i->red, y, best)) best = y, at = n;
        }
        r->v[x][o] = i->red == RED_SUM ? wrap(i->type.dtype, sum) : i->red >= RED_ARGMAX ? (double)at : best;
    }
}

static void scan(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    int64_t n = limit(r, i->a[2], i->type.c);
    for (int a = 0; a < i->type.r; a++) {
        double sum = 0;
        for (int64_t k = 0; k < n; k++) {
            int64_t b = i->imm & 2 ? n - 1 - k : k;
            double *to = &r->v[x][(int64_t)a * i->type.c + b], next = wrap(i->type.dtype, sum + elem(r, i->a[0], a, (int)b));
            *to = i->imm & 1 ? sum : next;
            sum = next;
        }
    }
}

static void topk(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    int n = ins(r, i->a[0])->type.c;
    for (int a = 0; a < i->type.r; a++) {
        int last = -1;
        for (int k = 0; k < i->type.c; k++) {
            int best = -1;
            for (int b = 0; b < n; b++) {
                double y = elem(r, i->a[0], a, b), l = last < 0 ? 0 : elem(r, i->a[0], a, last);
                if (last >= 0 && !(y < l || (y == l && b > last))) continue;
                if (best < 0 || y > elem(r, i->a[0], a, best)) best = b;
            }
            last = best;
            r->v[x][(int64_t)a * i->type.c + k] = i->imm ? best : elem(r, i->a[0], a, best < 0 ? 0 : best);
        }
    }
}

static void stage(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    int64_t vr = limit(r, i->a[1], i->type.r), vc = limit(r, i->a[2], i->type.c);
    for (int a = 0; a < i->type.r; a++)
        for (int b = 0; b < i->type.c; b++)
            r->v[x][(int64_t)a * i->type.c + b] = a < vr && b < vc ? elem(r, i->a[0], a, b) : 0;
}

static void dot(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    bool ta = i->imm & 1, tb = i->imm & 2;
    TType ty = ins(r, i->a[0])->type;
    int64_t depth = limit(r, ins(r, i->a[1])->a[tb ? 2 : 1], ta ? ty.r : ty.c);
    for (int a = 0; a < i->type.r; a++)
        for (int b = 0; b < i->type.c; b++) {
            double sum = i->a[2] ? elem(r, i->a[2], a, b) : 0;
            for (int k = 0; k < (int)depth; k++)
                sum += (ta ? elem(r, i->a[0], k, a) : elem(r, i->a[0], a, k)) * (tb ? elem(r, i->a[1], b, k) : elem(r, i->a[1], k, b));
            r->v[x][(int64_t)a * i->type.c + b] = (double)(float)sum;
        }
}

/* -- Structure --------------------------------------------------------------------------------------------------- */

static int64_t index_op(const Run *r, const TIns *i)
{
    int64_t a = r->idx[i->a[0]], b = r->idx[i->a[1]];
    switch (i->op) {
    case T_grid: return r->grid[i->imm];
    case T_idx: return i->imm;
    case T_iadd: return a + b;
    case T_isub: return a - b;
    case T_imul: return a * b;
    case T_idiv: return a / b;
    case T_imod: return a % b;
    case T_imin: return a < b ? a : b;
    case T_count: return (int64_t)r->v[i->a[0]][0];
    default: return a > b ? a : b;                        /* imax */
    }
}

static void assign(Run *r, TVal to, TVal from)
{
    if (!ins(r, to)->type.dtype) r->idx[to] = r->idx[from];
    else memcpy(r->v[to], r->v[from], sizeof(double) * (size_t)size(ins(r, to)->type));
}

static void step(Run *r, TVal x)
{
    const TIns *i = ins(r, x);
    int64_t n = size(i->type);
    if (i->op <= T_count) { r->idx[x] = index_op(r, i); return; }
    switch (i->op) {
    case T_full: for (int64_t k = 0; k < n; k++) r->v[x][k] = wrap(i->type.dtype, i->f); break;
    case T_iota: for (int64_t k = 0; k < n; k++) r->v[x][k] = wrap(SN_I32, (double)(r->idx[i->a[0]] + k)); break;
    case T_widen: r->v[x][0] = wrap(SN_I32, (double)r->idx[i->a[0]]); break;
    case T_random: uniform(r, x); break;
    case T_load: case T_gather: load(r, x); break;
    case T_store: case T_scatter_add: store(r, x); break;
    case T_ew: ew(r, x); break;
    case T_reduce: reduce(r, x); break;
    case T_scan: scan(r, x); break;
    case T_topk: topk(r, x); break;
    case T_stage: stage(r, x); break;
    case T_dot: dot(r, x); break;
    case T_var: case T_get: assign(r, x, i->a[0]); break;
    case T_set: assign(r, i->a[0], i->a[1]); break;
    default: break;
    }
}

static void region(Run *r, TVal begin, TVal end)
{
    for (TVal x = begin; x < end; x++) {
        const TIns *i = ins(r, x);
        if (i->op == T_for) {
            for (r->idx[x] = r->idx[i->a[0]]; r->idx[x] < r->idx[i->a[1]]; r->idx[x] += r->idx[i->a[2]])
                region(r, x + 1, r->close[x]);
            x = r->close[x];
        } else if (i->op == T_if) {
            if (r->v[i->a[0]][0] != 0) region(r, x + 1, r->close[x]);
            x = r->close[x];
        } else {
            step(r, x);
        }
    }
}

void snT_eval(const Tile *t, void *const *bufs, const uint32_t la[4], int64_t begin, int64_t end)
{
    Run run = { .t = t, .la = la }, *r = &run;
    r->bufs = NEWN(&r->arena, void *, t->params.n + 1);
    for (uint32_t p = 0; p < t->params.n; p++) {
        const TParam *q = &t->params.v[p];
        r->bufs[p] = q->local ? snU_alloc(&r->arena, (size_t)(q->count * snG_dtype_size((Dtype)q->dtype))) : *bufs++;
    }
    r->v = NEWN(&r->arena, double *, t->ins.n);
    r->idx = NEWN(&r->arena, int64_t, t->ins.n);
    r->close = NEWN(&r->arena, TVal, t->ins.n);
    VEC(TVal) open = { 0 };
    for (TVal x = 1; x < t->ins.n; x++) {
        const TIns *i = ins(r, x);
        r->v[x] = NEWN(&r->arena, double, size(i->type) + 1);
        if (i->op == T_for || i->op == T_if) PUSH(&r->arena, open, x);
        if (i->op == T_end) r->close[open.v[--open.n]] = x;
    }
    for (int64_t task = begin; task < end; task++) {
        int64_t rest = task;
        for (int d = 0; d < t->ngrid; d++) r->grid[d] = rest % t->grid[d], rest /= t->grid[d];
        for (uint32_t p = 0; p < t->params.n; p++)            /* NaN, so that a use before the first store shows */
            if (t->params.v[p].local) memset(r->bufs[p], 0xff, (size_t)(t->params.v[p].count * snG_dtype_size((Dtype)t->params.v[p].dtype)));
        region(r, 1, t->ins.n);
    }
    snU_free_arena(&r->arena);
}
