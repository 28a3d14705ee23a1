/* lower_scan.c: ops along a row that are neither elementwise nor reductions: running sums and top-k. In: a tile in scratch.
   Out: a tile in scratch, by plain scalar loops: these are rare and short. */
#include "codegen/lower_gpu.h"

static KVal op2(Low *lo, int op, KType t, KVal a, KVal b) { return snK_op(lo->k, op, t, a, b, 0); }
static KVal sel(Low *lo, KVal c, KVal a, KVal b) { return snK_op(lo->k, K_select, snK_type(lo->k, a), c, a, b); }

/* The operand as a tile: leaves are evaluated into one first. */
static TVal operand(Low *lo, TVal x)
{
    TVal a = INS(lo, x)->a[0];
    if (!lo->v[a].at) {
        lo->gpu ? snG_place_memory(lo, a) : snL_place(lo, a);
        lo->gpu ? snG_copy(lo, a, a) : snL_copy(lo, a, a);
    }
    return a;
}

/* Opens the loop over rows; on a GPU a thread takes every T-th. */
static KVal rows(Low *lo, TVal a, TVal x)
{
    KVal n = ki(lo, INS(lo, x)->type.r);
    if (!lo->gpu) return snK_for(lo->k, ki(lo, 0), n, ki(lo, 1), 1);
    Touched t = { 0 };
    snG_touch_tile(lo, &t, a, false);
    snG_touch_tile(lo, &t, x, true);
    snG_sync(lo, &t);
    return snK_for(lo->k, lo->gpu->tid, n, ki(lo, lo->gpu->T), 1);
}

void snL_scan(Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    Kernel *k = lo->k;
    bool exclusive = i->imm & 1, reverse = i->imm & 2;
    TVal a = operand(lo, x);
    KType t = kt(snL_kind(i->type.dtype), 1);
    KVal from = snL_tile_ptr(lo, a), to = snL_tile_ptr(lo, x), end = ki(lo, i->type.c);
    if (i->a[2]) end = op2(lo, K_min, i64(), end, lo->v[i->a[2]].k);
    KVal row = rows(lo, a, x);
    KVal sum = snK_var(k, t.kind == K_F32 ? snK_float(k, t, 0) : snK_int(k, t, 0));
    KVal n = snK_for(k, ki(lo, 0), end, ki(lo, 1), 1);
    KVal c = reverse ? op2(lo, K_sub, i64(), op2(lo, K_sub, i64(), end, ki(lo, 1)), n) : n;
    KVal old = snK_get(k, sum), at = kadd(lo, kmul(lo, row, lo->v[a].ld), c), out = kadd(lo, kmul(lo, row, lo->v[x].ld), c);
    KVal next = op2(lo, K_add, t, old, snK_load(k, t, from, at, 0));
    snK_set(k, sum, next);
    snK_store(k, to, out, exclusive ? old : next, 0);
    snK_end(k);
    if (lo->gpu && i->a[2]) {                            /* what is undefined is at least written: threads may read it as part of a vector */
        n = snK_for(k, op2(lo, K_max, i64(), end, ki(lo, 0)), ki(lo, i->type.c), ki(lo, 1), 1);
        snK_store(k, to, kadd(lo, kmul(lo, row, lo->v[x].ld), n), t.kind == K_F32 ? snK_float(k, t, 0) : snK_int(k, t, 0), 0);
        snK_end(k);
    }
    snK_end(k);
}

/* Selection: k passes, each finds the largest element that comes after the last one taken in the order (value falling, index
   rising). Nothing is marked or moved, so the operand stays. */
void snL_topk(Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    Kernel *k = lo->k;
    TVal a = operand(lo, x);
    TType ty = INS(lo, a)->type;
    KType t = kt(snL_kind(ty.dtype), 1), it = kt(K_I32, 1), b = kt(K_BOOL, 1);
    KVal from = snL_tile_ptr(lo, a), to = snL_tile_ptr(lo, x);
    KVal zero = t.kind == K_F32 ? snK_float(k, t, 0) : snK_int(k, t, 0), none = snK_int(k, it, -1);
    KVal row = rows(lo, a, x);
    KVal last = snK_var(k, zero), last_at = snK_var(k, none);
    KVal n = snK_for(k, ki(lo, 0), ki(lo, i->type.c), ki(lo, 1), 1);
    KVal best = snK_var(k, zero), best_at = snK_var(k, none), l = snK_get(k, last), la = snK_get(k, last_at);
    KVal c = snK_for(k, ki(lo, 0), ki(lo, ty.c), ki(lo, 1), 1);
    KVal y = snK_load(k, t, from, kadd(lo, kmul(lo, row, lo->v[a].ld), c), 0), j = snK_op(k, K_cast, it, c, 0, 0);
    KVal after = op2(lo, K_and, b, op2(lo, K_eq, b, y, l), op2(lo, K_gt, b, j, la));
    after = op2(lo, K_or, b, op2(lo, K_lt, b, la, snK_int(k, it, 0)), op2(lo, K_or, b, op2(lo, K_lt, b, y, l), after));
    KVal g = snK_get(k, best), ga = snK_get(k, best_at);
    KVal win = op2(lo, K_or, b, op2(lo, K_lt, b, ga, snK_int(k, it, 0)), op2(lo, K_gt, b, y, g));
    win = op2(lo, K_and, b, win, after);
    snK_set(k, best, sel(lo, win, y, g));
    snK_set(k, best_at, sel(lo, win, j, ga));
    snK_end(k);
    g = snK_get(k, best), ga = snK_get(k, best_at);
    snK_set(k, last, g);
    snK_set(k, last_at, ga);
    snK_store(k, to, kadd(lo, kmul(lo, row, lo->v[x].ld), n), i->imm ? ga : g, 0);
    snK_end(k);
    snK_end(k);
}
