/* lower_gpu_dot.c: contractions on a thread block. In: stage and dot instructions. Out: copies into shared memory, and products of
   fragments.

   A stage is copied by all threads, zero outside its valid part, as rows or turned (lower_gpu.h). A dot gives every thread its rows
   and vectors of the result in registers: per step of depth it reads one element of the left operand a row, the same for the
   threads of that row, and a vector of the right one a column block. A result that has no fragment is computed a vector at a
   time, into its tile. */
#include "codegen/lower_gpu.h"

static KVal op2(Low *lo, int op, KVal a, KVal b) { return snK_op(lo->k, op, i64(), a, b, 0); }
static KType vf(const Low *lo) { return kt(K_F32, lo->L); }

KVal snG_limit(Low *lo, TVal valid, int64_t size)
{
    return valid ? op2(lo, K_max, op2(lo, K_min, lo->v[valid].k, ki(lo, size)), ki(lo, 0)) : ki(lo, size);
}

/* -- Stages --------------------------------------------------------------------------------------------------- */

static void store_staged(Low *lo, const GView *w, KVal row, KVal x)
{
    KVal ptr = snG_view_ptr(lo, w);
    if (!w->turned) {
        snK_store(lo->k, ptr, kadd(lo, kmul(lo, row, w->ld), lo->col), x, 0);
        return;
    }
    for (int l = 0; l < lo->L; l++)
        snK_store(lo->k, ptr, kadd(lo, kmul(lo, kadd(lo, lo->col, ki(lo, l)), w->ld), row), snK_extract(lo->k, x, l), 0);
}

KVal snG_staged_value(Low *lo, TVal value, TVal vr, TVal vc, KVal row, KVal v, bool all, bool tail)
{
    KVal zero = snK_float(lo->k, vf(lo), 0), r = snK_var(lo->k, zero);
    if (!all) snK_if(lo->k, snK_op(lo->k, K_lt, kt(K_BOOL, 1), row, snG_limit(lo, vr, INS(lo, value)->type.r), 0));
    lo->row = row;
    lo->row_limit = vr;
    snL_new_row(lo);
    snL_touch(lo, value);
    lo->col = kmul(lo, v, lo->L);
    snL_new_vec(lo);
    lo->tail = tail;
    KVal x = snL_vec(lo, value), mask = snL_mask(lo, vc);
    if (mask) x = snK_op(lo->k, K_select, vf(lo), mask, x, zero);
    lo->tail = false;
    snK_set(lo->k, r, x);
    if (!all) snK_end(lo->k);
    return snK_get(lo->k, r);
}

static void pack(Low *lo, const GView *w)
{
    Gpu *g = lo->gpu;
    const TIns *i = INS(lo, w->stage);
    int64_t L = lo->L, tall = g->T / g->dot_tc, wide = g->dot_tc * L;
    /* what dots read: whole rows of threads, whole vectors of them */
    int64_t nr = w->turned ? up(i->type.r, wide) : up(i->type.r, tall), nc = w->turned ? up(i->type.c, L) : up(i->type.c, wide);
    int tc = 1;
    while (tc < g->T && tc * L < nc && tc < 32) tc *= 2;
    snG_map(lo, tc);
    lo->width = i->type.c;
    lo->level = 0, lo->phase = -1, lo->rows = i->type.r;
    KVal row = snK_for(lo->k, g->tr, ki(lo, nr), ki(lo, g->TR), 1);
    KVal v = snK_for(lo->k, g->tc, ki(lo, nc / L), ki(lo, g->TC), 1);
    KVal x = snG_staged_value(lo, i->a[0], i->a[1], i->a[2], row, v, !i->a[1] && nr == i->type.r, i->a[2] || nc != i->type.c);
    lo->col = kmul(lo, v, L);
    store_staged(lo, w, row, x);
    snK_end(lo->k);
    snK_end(lo->k);
    lo->row_limit = 0;
}

void snG_pack(Low *lo, TVal stage)
{
    Gpu *g = lo->gpu;
    if (g->mma) { snG_pack_operand(lo, stage); return; }
    for (uint32_t n = 0; n < g->views.n; n++) {
        const GView *w = &g->views.v[n];
        if (w->stage != stage) continue;
        Touched t = { 0 };
        lo->mark++;
        snG_touch_value(lo, &t, INS(lo, stage)->a[0]);
        snG_touch_view(lo, &t, w, true);
        snG_sync(lo, &t);
        pack(lo, w);
    }
}

/* -- The product ------------------------------------------------------------------------------------------------- */

typedef struct Product {
    TVal d;
    KVal a, b, depth;                /* pointers; steps of depth */
    int64_t a_row, a_k, ldb;         /* element (row, k) of the left operand is at row * a_row + k * a_k */
} Product;

/* The left operand: staged, or a tile; a value without one is put into one. */
static void left_operand(Low *lo, Product *p, Touched *t)
{
    const TIns *i = INS(lo, p->d);
    TVal a = i->a[0];
    int64_t ld;
    if (INS(lo, a)->op == T_stage) {
        const GView *w = snG_view(lo, a, false);
        snG_touch_view(lo, t, w, false);
        p->a = snG_view_ptr(lo, w), ld = w->ld;
    } else {
        if (!lo->v[a].at) {
            snG_place_memory(lo, a);
            snG_copy(lo, a, a);
        }
        snG_touch_tile(lo, t, a, false);
        p->a = snL_tile_ptr(lo, a), ld = lo->v[a].ld;
    }
    p->a_row = i->imm & 1 ? 1 : ld;
    p->a_k = i->imm & 1 ? ld : 1;
}

static Product open_product(Low *lo, TVal d)
{
    const TIns *i = INS(lo, d), *a = INS(lo, i->a[0]), *b = INS(lo, i->a[1]);
    bool ta = i->imm & 1, tb = i->imm & 2;
    Product p = { .d = d };
    Touched t = { 0 };
    left_operand(lo, &p, &t);
    const GView *w = snG_view(lo, i->a[1], tb);
    snG_touch_view(lo, &t, w, false);
    lo->mark++;
    if (i->a[2]) snG_touch_value(lo, &t, i->a[2]);
    snG_touch_tile(lo, &t, d, true);
    snG_sync(lo, &t);
    p.b = snG_view_ptr(lo, w), p.ldb = w->ld;
    TVal ka = a->op == T_stage ? a->a[ta ? 1 : 2] : 0, kb = b->a[tb ? 2 : 1];
    p.depth = snG_limit(lo, kb, ta ? a->type.r : a->type.c);
    if (ka && ka != kb) p.depth = op2(lo, K_min, p.depth, lo->v[ka].k);
    return p;
}

static KVal element(Low *lo, const Product *p, KVal row, KVal k)
{
    KVal x = snK_load(lo->k, kt(K_F32, 1), p->a, kadd(lo, kmul(lo, row, p->a_row), kmul(lo, k, p->a_k)), 0);
    return snK_op(lo->k, K_splat, vf(lo), x, 0, 0);
}

static KVal vector(Low *lo, const Product *p, KVal k, KVal v)
{
    return snG_aligned_load(lo, vf(lo), p->b, kadd(lo, kmul(lo, k, p->ldb), kmul(lo, v, lo->L)));
}

/* Rows beyond the tile do the last one again. */
static KVal row_of(Low *lo, TType ty, int i)
{
    const Gpu *g = lo->gpu;
    KVal row = kadd(lo, g->tr, ki(lo, (int64_t)i * g->TR));
    return (i + 1) * g->TR <= ty.r ? row : op2(lo, K_min, row, ki(lo, ty.r - 1));
}

/* Registers start from the accumulator's value. */
static void start(Low *lo, TVal d, const Frag *f)
{
    Gpu *g = lo->gpu;
    const TIns *ins = INS(lo, d);
    TVal c = ins->a[2];
    if (c && lo->v[c].frag == lo->v[d].frag) return;
    lo->width = ins->type.c;
    lo->level = 0, lo->phase = -1, lo->rows = ins->type.r, lo->row_limit = 0;
    for (g->i = 0; g->i < f->ni; g->i++) {
        lo->row = row_of(lo, ins->type, g->i);
        snL_new_row(lo);
        for (g->j = 0; g->j < f->nj; g->j++) {
            snL_new_vec(lo);
            lo->col = kmul(lo, kadd(lo, g->tc, ki(lo, (int64_t)g->j * g->TC)), lo->L);
            lo->tail = (g->j + 1) * g->TC * lo->L > ins->type.c;
            snK_set(lo->k, f->reg[g->i * f->nj + g->j], c ? snL_vec(lo, c) : snK_float(lo->k, vf(lo), 0));
            lo->tail = false;
        }
    }
    g->i = g->j = 0;
}

static void rank1(Low *lo, const Product *p, const Frag *f, const KVal *row, KVal k)
{
    KVal b[16];
    for (int j = 0; j < f->nj; j++) b[j] = vector(lo, p, k, kadd(lo, lo->gpu->tc, ki(lo, (int64_t)j * lo->gpu->TC)));
    for (int i = 0; i < f->ni; i++) {
        KVal a = element(lo, p, row[i], k);
        for (int j = 0; j < f->nj; j++) {
            KVal c = f->reg[i * f->nj + j];
            snK_set(lo->k, c, snK_op(lo->k, K_fma, vf(lo), a, b[j], snK_get(lo->k, c)));
        }
    }
}

static void fragment_dot(Low *lo, TVal d)
{
    Gpu *g = lo->gpu;
    Product p = open_product(lo, d);
    Frag f = g->frags.v[lo->v[d].frag - 1];
    KVal row[64];
    snG_map(lo, g->dot_tc);
    g->fixed = true;
    start(lo, d, &f);
    g->fixed = false;
    SN_ASSERT(f.ni <= 64 && f.nj <= 16, "a fragment of %d x %d", f.ni, f.nj);
    for (int i = 0; i < f.ni; i++) row[i] = row_of(lo, INS(lo, d)->type, i);
    KVal k = snK_for(lo->k, ki(lo, 0), p.depth, ki(lo, 1), 1);
    rank1(lo, &p, &f, row, k);
    snK_end(lo->k);
}

/* What the sum starts from, at the position; `copied`: it is in the tile already. */
static KVal first_value(Low *lo, TVal d, bool copied, KVal at)
{
    TVal c = INS(lo, d)->a[2];
    if (!c) return snK_float(lo->k, vf(lo), 0);
    if (!copied) return snL_vec(lo, c);
    bool one = INS(lo, d)->type.c == 1;
    KVal x = snK_load(lo->k, one ? kt(K_F32, 1) : vf(lo), snL_tile_ptr(lo, d), at, 0);
    return one ? snK_op(lo->k, K_splat, vf(lo), x, 0, 0) : x;
}

/* Into a tile in memory: a vector of the result after the other. Registers that it starts from are copied there: they are other threads'. */
static void tile_dot(Low *lo, TVal d)
{
    Gpu *g = lo->gpu;
    const TIns *i = INS(lo, d);
    bool copied = i->a[2] && lo->v[i->a[2]].frag;
    if (copied) snG_copy(lo, i->a[2], d);
    Product p = open_product(lo, d);
    int64_t nv = (i->type.c + lo->L - 1) / lo->L;
    snG_map(lo, g->dot_tc);
    lo->width = i->type.c;
    lo->level = 0, lo->phase = -1, lo->rows = i->type.r, lo->row_limit = 0;
    lo->row = snK_for(lo->k, g->tr, ki(lo, i->type.r), ki(lo, g->TR), 1);
    snL_new_row(lo);
    KVal v = snK_for(lo->k, g->tc, ki(lo, nv), ki(lo, g->TC), 1), acc;
    snL_new_vec(lo);
    lo->col = kmul(lo, v, lo->L);
    lo->tail = i->type.c % lo->L != 0;
    KVal at = kadd(lo, kmul(lo, lo->row, i->type.r > 1 ? lo->v[d].ld : 0), lo->col);
    acc = snK_var(lo->k, first_value(lo, d, copied, at));
    lo->tail = false;
    KVal k = snK_for(lo->k, ki(lo, 0), p.depth, ki(lo, 1), 1);
    snK_set(lo->k, acc, snK_op(lo->k, K_fma, vf(lo), element(lo, &p, lo->row, k), vector(lo, &p, k, v), snK_get(lo->k, acc)));
    snK_end(lo->k);
    KVal sum = snK_get(lo->k, acc);
    snK_store(lo->k, snL_tile_ptr(lo, d), at, i->type.c == 1 ? snK_extract(lo->k, sum, 0) : sum, 0);
    snK_end(lo->k);
    snK_end(lo->k);
}

void snG_dot(Low *lo, TVal d)
{
    if (lo->gpu->mma) snG_mma_dot(lo, d);
    else if (lo->v[d].frag) fragment_dot(lo, d);
    else tile_dot(lo, d);
}
