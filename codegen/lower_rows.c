/* lower_rows.c: segments of elementwise, reduce and memory ops as loop nests. In: a run of instructions with no order but
   through operands. Out: for each PHASE and row count one nest: a loop over rows, in it one column loop per LEVEL.

     phase   a value waits for a whole nest: sums down the rows, a nest with another number of rows, or a tall one
     level   a value waits for reductions along its own row: level 2 of softmax divides by what level 1 summed

   A TALL nest is of one-column values that are dear and hang on reductions of tiles, as exp(old max - new max) in attention: a
   vector of rows at a time, where one row at a time would leave the lanes idle and make the next level wait.

   What a later level needs is recomputed when that is cheap, else kept in a row of scratch. Only ROOTS make code: stores, sets,
   reductions and values that something outside the nest reads. In each vector all roots are evaluated first and written
   after, and sets to one-column vars wait for the end of the row, so every get sees the old value.
   Sums use several accumulators and a fixed tree: the same bits whatever runs it. */
#include "codegen/lower_gpu.h"
#include <math.h>

static KVal op2(Low *lo, int op, KType t, KVal a, KVal b) { return snK_op(lo->k, op, t, a, b, 0); }
static KVal sel(Low *lo, KVal c, KVal a, KVal b) { return snK_op(lo->k, K_select, snK_type(lo->k, a), c, a, b); }

/* -- Planning: phases and levels ---------------------------------------------------------------------------- */

static TType domain(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    switch (i->op) {
    case T_reduce: return INS(lo, i->a[0])->type;
    case T_store: case T_scatter_add: case T_set: return INS(lo, i->a[1])->type;
    default: return i->type;
    }
}

static bool in_segment(const Low *lo, TVal x) { return x >= lo->seg_begin && x < lo->seg_end; }
static bool is_sink(const TIns *i) { return i->op == T_store || i->op == T_scatter_add || i->op == T_set || i->op == T_var; }

/* Takes part in the nests of this segment. */
static bool is_planned(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    if (i->op == T_set || i->op == T_var) return domain(lo, x).dtype != 0 && !is_one(domain(lo, x));
    if (i->op == T_store && lo->direct[x]) return false;
    if (i->op == T_get)
        return i->type.dtype && lo->v[x].how == H_TILE && (lo->v[x].at != lo->v[i->a[0]].at || lo->v[x].frag != lo->v[i->a[0]].frag);
    return is_sink(i) || lo->v[x].how == H_CHAIN;
}

static bool across(const Low *lo, TVal from, TVal to)
{
    const TIns *i = INS(lo, from);
    return domain(lo, from).r != domain(lo, to).r || (i->op == T_reduce && i->imm == 0) || lo->v[from].tall != lo->v[to].tall;
}

static void wait_for(Low *lo, TVal x, TVal from, int extra_level)
{
    LVal *v = &lo->v[x];
    int phase = lo->v[from].phase + across(lo, from, x), level = across(lo, from, x) ? 0 : lo->v[from].level + extra_level;
    if (phase > v->phase) v->phase = (uint16_t)phase, v->level = (uint8_t)level;
    else if (phase == v->phase && level > v->level) v->level = (uint8_t)level;
}

/* A set follows every user of the var's old value and every earlier set; a store follows every load of another buffer of its size,
   which may be the same memory. */
static void order_write(Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    for (TVal y = lo->seg_begin; y < lo->seg_end; y++) {
        const TIns *r = INS(lo, y);
        bool mine = i->op == T_set && r->op == T_get && r->a[0] == i->a[0];
        if (i->op == T_set && r->op == T_set && r->a[0] == i->a[0] && y < x && is_planned(lo, y)) wait_for(lo, x, y, 0);
        if (i->op == T_store && (r->op == T_load || r->op == T_gather) && r->buf != i->buf) {
            const TParam *p = &lo->t->params.v[i->buf], *q = &lo->t->params.v[r->buf];
            mine = p->count * snG_dtype_size((Dtype)p->dtype) == q->count * snG_dtype_size((Dtype)q->dtype);
        }
        if (!mine) continue;
        for (uint32_t a = lo->first_user[y]; a < lo->first_user[y + 1]; a++) {
            TVal u = lo->users[a];
            if (u != x && in_segment(lo, u) && is_planned(lo, u) && !is_sink(INS(lo, u))) wait_for(lo, x, u, 0);
        }
    }
}

/* No operand comes from memory: reading it again in another nest costs little. */
static bool is_of_tiles(Low *lo, TVal x)
{
    TVal args[5];
    const TIns *i = INS(lo, x);
    if (lo->v[x].seen == lo->mark) return true;
    lo->v[x].seen = lo->mark;
    if (lo->v[x].how == H_TILE || i->type.c == 1 || i->op == T_full || i->op == T_iota) return true;
    if (i->op != T_ew) return false;
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) if (!is_of_tiles(lo, args[k])) return false;
    return true;
}

/* Can x be had for a vector of rows? *hangs: on a reduction of this segment; *dear: by a heavy function. A walk ends at the first
   no, so what it has seen is a yes. */
static bool can_be_tall(Low *lo, TVal x, bool *hangs, bool *dear)
{
    TVal args[5];
    const TIns *i = INS(lo, x);
    LVal *v = &lo->v[x];
    if (i->type.c != 1) return false;
    if (v->seen == lo->mark) return true;
    v->seen = lo->mark;
    if (i->op == T_full || is_one(i->type) || (v->how == H_TILE && !v->wide)) return true;
    if (!in_segment(lo, x) || v->how != H_CHAIN) return false;
    if (i->op == T_reduce) return i->imm == 1 && is_of_tiles(lo, i->a[0]) && (*hangs = true);
    if (i->op != T_ew) return false;
    *dear |= snL_is_heavy(i->fn);
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++)
        if (INS(lo, args[k])->op == T_random || !can_be_tall(lo, args[k], hangs, dear)) return false;
    return true;
}

static void make_tall(Low *lo, TVal x)
{
    TVal args[5];
    if (!in_segment(lo, x) || INS(lo, x)->op != T_ew || is_one(INS(lo, x)->type) || lo->v[x].tall) return;
    lo->v[x].tall = true;
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) make_tall(lo, args[k]);
}

static void find_tall(Low *lo)
{
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        const TIns *i = INS(lo, x);
        bool hangs = false, dear = false;
        lo->mark++;
        if (i->op == T_ew && i->type.r >= lo->L && can_be_tall(lo, x, &hangs, &dear) && hangs && dear) make_tall(lo, x);
    }
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        const TIns *i = INS(lo, x);
        if (i->op == T_set && !lo->v[i->a[0]].wide) lo->v[x].tall = lo->v[i->a[1]].tall;
    }
}

static void plan(Low *lo)
{
    TVal args[5];
    if (!lo->gpu) find_tall(lo);
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        if (!is_planned(lo, x)) continue;
        for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) {
            TVal o = args[k];
            if (!in_segment(lo, o) || lo->v[o].how != H_CHAIN) continue;
            wait_for(lo, x, o, INS(lo, o)->op == T_reduce);
        }
    }
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        int op = INS(lo, x)->op;
        if (!is_planned(lo, x) || (op != T_set && op != T_store)) continue;
        order_write(lo, x);
        TType d = domain(lo, x);
        for (TVal y = lo->seg_begin; y < lo->seg_end; y++)      /* last level of its nest: recomputed loads come first */
            if (is_planned(lo, y) && lo->v[y].phase == lo->v[x].phase && domain(lo, y).r == d.r && lo->v[y].level > lo->v[x].level)
                lo->v[x].level = lo->v[y].level;
    }
}

/* Does anything outside its nest read x? */
static bool needs_tile(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    if (lo->v[x].how != H_CHAIN || is_one(i->type)) return false;
    if (i->op == T_reduce && i->imm == 0) return true;
    for (uint32_t a = lo->first_user[x]; a < lo->first_user[x + 1]; a++) {
        TVal u = lo->users[a];
        int op = INS(lo, u)->op;
        if (!in_segment(lo, u) || op == T_stage || lo->v[u].how == H_INLINE) return true;
        if (is_planned(lo, u) && (lo->v[u].phase != lo->v[x].phase || domain(lo, u).r != domain(lo, x).r)) return true;
    }
    return false;
}

/* -- Reductions -------------------------------------------------------------------------------------------------- */

static bool is_arg(int red) { return red == RED_ARGMAX || red == RED_ARGMIN; }
static bool is_max(int red) { return red == RED_MAX || red == RED_PEAK || red == RED_ARGMAX; }

KVal snL_identity(Low *lo, int red, KType t)
{
    if (red == RED_SUM) return t.kind == K_F32 ? snK_float(lo->k, t, 0) : snK_int(lo->k, t, 0);
    if (t.kind == K_F32) return snK_float(lo->k, t, is_max(red) ? -(double)INFINITY : (double)INFINITY);
    if (t.kind == K_U32) return snK_int(lo->k, t, is_max(red) ? 0 : UINT32_MAX);
    if (t.kind == K_BOOL) return snK_int(lo->k, t, !is_max(red));
    return snK_int(lo->k, t, is_max(red) ? INT32_MIN : INT32_MAX);
}

/* acc (+) x, lane by lane. NaN stays, but for a peak. */
KVal snL_combine(Low *lo, int red, KVal acc, KVal x)
{
    KType t = snK_type(lo->k, acc), b = kt(K_BOOL, t.lanes);
    if (t.kind == K_BOOL) return op2(lo, red == RED_MIN ? K_and : K_or, t, acc, x);
    if (red == RED_SUM) return op2(lo, K_add, t, acc, x);
    KVal y = op2(lo, is_max(red) ? K_max : K_min, t, acc, x);       /* x when unordered */
    return t.kind == K_F32 && red != RED_PEAK ? sel(lo, op2(lo, K_ne, b, acc, acc), acc, y) : y;
}

/* Is x a better extreme than best? A NaN beats every number. */
static KVal beats(Low *lo, int red, KVal x, KVal best)
{
    KType t = snK_type(lo->k, x), b = kt(K_BOOL, t.lanes);
    KVal win = op2(lo, is_max(red) ? K_gt : K_lt, b, x, best);
    if (t.kind != K_F32) return win;
    KVal nan = op2(lo, K_and, b, op2(lo, K_ne, b, x, x), op2(lo, K_eq, b, best, best));
    return op2(lo, K_or, b, win, nan);
}

/* Does (y, j) beat (x, i), the lower index on ties? */
KVal snL_beats_at(Low *lo, int red, KVal y, KVal j, KVal x, KVal i)
{
    KType t = snK_type(lo->k, x), b = kt(K_BOOL, t.lanes);
    KVal tie = op2(lo, K_eq, b, x, y);
    if (t.kind == K_F32) tie = op2(lo, K_or, b, tie, op2(lo, K_and, b, op2(lo, K_ne, b, x, x), op2(lo, K_ne, b, y, y)));
    return op2(lo, K_or, b, beats(lo, red, y, x), op2(lo, K_and, b, tie, op2(lo, K_lt, b, j, i)));
}

void snL_start_row(Low *lo, Root *r, int unroll)
{
    const TIns *i = INS(lo, r->x);
    KType t = snL_vt(lo, INS(lo, r->value)->type.dtype), it = kt(K_I32, lo->L);
    for (int u = 0; u < unroll; u++) {
        r->acc[u] = snK_var(lo->k, snL_identity(lo, i->red, t));
        if (!is_arg(i->red)) continue;
        KVal lane = snK_leaf(lo->k, K_lane, it, 0);
        r->arg[u] = snK_var(lo->k, op2(lo, K_add, it, lane, snK_int(lo->k, it, u * lo->L)));
    }
}

void snL_step_row(Low *lo, Root *r, int u)
{
    const TIns *i = INS(lo, r->x);
    KVal x = r->now, acc = snK_get(lo->k, r->acc[u]), mask = snL_mask(lo, i->a[2]);
    if (mask) x = sel(lo, mask, x, snL_identity(lo, i->red, snK_type(lo->k, x)));
    if (!is_arg(i->red)) {
        snK_set(lo->k, r->acc[u], snL_combine(lo, i->red, acc, x));
        return;
    }
    KType it = kt(K_I32, lo->L);
    KVal here = snK_op(lo->k, K_splat, it, snK_op(lo->k, K_cast, kt(K_I32, 1), lo->col, 0, 0), 0, 0);
    here = op2(lo, K_add, it, here, snK_leaf(lo->k, K_lane, it, 0));
    KVal win = beats(lo, i->red, x, acc);
    snK_set(lo->k, r->acc[u], sel(lo, win, x, acc));
    snK_set(lo->k, r->arg[u], sel(lo, win, here, snK_get(lo->k, r->arg[u])));
}

/* The place of the best; *top: its value. */
static KVal finish_arg(Low *lo, Root *r, int unroll, KVal *top)
{
    int red = INS(lo, r->x)->red;
    KVal x = snK_get(lo->k, r->acc[0]), i = snK_get(lo->k, r->arg[0]);
    for (int u = 1; u < unroll; u++) {
        KVal y = snK_get(lo->k, r->acc[u]), j = snK_get(lo->k, r->arg[u]), win = snL_beats_at(lo, red, y, j, x, i);
        x = sel(lo, win, y, x);
        i = sel(lo, win, j, i);
    }
    KType t = snK_type(lo->k, x), t1 = kt((KKind)t.kind, 1), b = kt(K_BOOL, lo->L), it = kt(K_I32, lo->L), i1 = kt(K_I32, 1);
    KVal best = snK_op(lo->k, is_max(red) ? K_hmax : K_hmin, t1, x, 0, 0);
    *top = best;
    KVal among = op2(lo, K_eq, b, x, snK_op(lo->k, K_splat, t, best, 0, 0));
    if (t.kind == K_F32) {                                /* NaNs, if there are any */
        KVal nan = op2(lo, K_ne, b, x, x), ones = snK_op(lo->k, K_cast, it, nan, 0, 0);
        KVal some = op2(lo, K_ne, kt(K_BOOL, 1), snK_op(lo->k, K_hmax, i1, ones, 0, 0), snK_int(lo->k, i1, 0));
        among = sel(lo, snK_op(lo->k, K_splat, b, some, 0, 0), nan, among);
        *top = sel(lo, some, snK_float(lo->k, t1, (double)NAN), best);
    }
    return snK_op(lo->k, K_hmin, i1, sel(lo, among, i, snK_int(lo->k, it, INT32_MAX)), 0, 0);
}

KVal snL_finish_row(Low *lo, Root *r, int unroll, KVal *arg)
{
    const TIns *i = INS(lo, r->x);
    if (is_arg(i->red)) {
        KVal best;
        *arg = finish_arg(lo, r, unroll, &best);
        return best;
    }
    for (int n = unroll; n > 1; n = (n + 1) / 2)
        for (int u = 0; u < n / 2; u++)
            snK_set(lo->k, r->acc[u], snL_combine(lo, i->red, snK_get(lo->k, r->acc[u]), snK_get(lo->k, r->acc[(n + 1) / 2 + u])));
    KVal v = snK_get(lo->k, r->acc[0]);
    KType t = snK_type(lo->k, v), t1 = kt((KKind)t.kind, 1);
    KVal x = snK_op(lo->k, i->red == RED_SUM ? K_hsum : is_max(i->red) ? K_hmax : K_hmin, t1, v, 0, 0);
    if (t.kind == K_F32 && i->red != RED_SUM && i->red != RED_PEAK) {       /* the tree of maxima loses a NaN; a sum does not */
        KVal nan = sel(lo, op2(lo, K_ne, kt(K_BOOL, lo->L), v, v), v, snK_float(lo->k, t, 0));
        nan = snK_op(lo->k, K_hsum, t1, nan, 0, 0);
        x = sel(lo, op2(lo, K_ne, kt(K_BOOL, 1), nan, nan), nan, x);
    }
    return x;
}

static void finish_row(Low *lo, Root *r, int unroll)
{
    KVal arg = 0, x = snL_finish_row(lo, r, unroll, &arg);
    lo->v[r->x].memo = arg ? arg : x;
    lo->v[r->x].stamp = lo->row_stamp;
}

/* Down the columns: the running row lives in scratch (in vars where there is one column). */
static void start_col(Low *lo, Root *r)
{
    const TIns *i = INS(lo, r->x);
    KKind kind = snL_kind(INS(lo, r->value)->type.dtype);
    if (r->width == 1) {
        r->acc[0] = snK_var(lo->k, snL_identity(lo, i->red, kt(kind, 1)));
        r->arg[0] = snK_var(lo->k, snK_int(lo->k, kt(K_I32, 1), 0));
        return;
    }
    int64_t bytes = up(r->width, 64) * 4;
    KVal out = snL_tile_ptr(lo, r->x);
    r->ptr = is_arg(i->red) ? snK_scratch_ptr(lo->k, kind, snK_scratch(lo->k, bytes)) : out;
    r->arg_ptr = is_arg(i->red) ? out : 0;
    KVal c = snK_for(lo->k, ki(lo, 0), ki(lo, r->width), ki(lo, lo->L), 1);
    snK_store(lo->k, r->ptr, c, snL_identity(lo, i->red, kt(kind, lo->L)), 0);
    if (r->arg_ptr) snK_store(lo->k, r->arg_ptr, c, snK_int(lo->k, kt(K_I32, lo->L), 0), 0);
    snK_end(lo->k);
}

static void step_col(Low *lo, Root *r)
{
    const TIns *i = INS(lo, r->x);
    bool one = r->width == 1;
    KVal x = r->now, ok = snL_row_ok(lo, i->a[1]);
    KType t = snK_type(lo->k, x), it = kt(K_I32, t.lanes);
    if (ok) x = sel(lo, one ? ok : snK_op(lo->k, K_splat, kt(K_BOOL, lo->L), ok, 0, 0), x, snL_identity(lo, i->red, t));
    KVal acc = one ? snK_get(lo->k, r->acc[0]) : snK_load(lo->k, t, r->ptr, lo->col, 0), y;
    if (is_arg(i->red)) {
        KVal here = snK_op(lo->k, K_cast, kt(K_I32, 1), lo->row, 0, 0), win = beats(lo, i->red, x, acc);
        if (!one) here = snK_op(lo->k, K_splat, it, here, 0, 0);
        KVal at = sel(lo, win, here, one ? snK_get(lo->k, r->arg[0]) : snK_load(lo->k, it, r->arg_ptr, lo->col, 0));
        if (one) snK_set(lo->k, r->arg[0], at);
        else snK_store(lo->k, r->arg_ptr, lo->col, at, 0);
        y = sel(lo, win, x, acc);
    } else {
        y = snL_combine(lo, i->red, acc, x);
    }
    if (one) snK_set(lo->k, r->acc[0], y);
    else snK_store(lo->k, r->ptr, lo->col, y, 0);
}

/* -- Writing ---------------------------------------------------------------------------------------------------------- */

static KVal to_memory(Low *lo, int dtype, KVal x)
{
    KType t = snK_type(lo->k, x);
    return dtype == SN_BF16 || dtype == SN_F16 ? snK_op(lo->k, K_cast, kt((KKind)dtype, t.lanes), x, 0, 0) : x;
}

/* The value at lo->row (, lo->col) into the root's buffer; `vector` says which. */
static void store_memory(Low *lo, Root *r, bool vector)
{
    const TIns *i = INS(lo, r->x);
    KVal mask = 0, ok = vector && i->cs == 1 && lo->gpu ? snL_gate(lo, i->a[2], i->a[3], &mask) : snL_row_ok(lo, i->a[2]);
    KVal at = lo->v[i->a[0]].k;
    bool rows = INS(lo, r->value)->type.r > 1;
    int dtype = lo->t->params.v[i->buf].dtype;
    if (rows) at = kadd(lo, at, kmul(lo, lo->row, i->rs));
    KVal x = to_memory(lo, dtype, r->now);
    if (ok) snK_if(lo->k, ok);
    if (!vector) {
        snK_store(lo->k, lo->params[i->buf], at, x, 0);
    } else if (i->cs == 1 && lo->gpu) {
        int align = snL_alignment(lo, i, rows);
        snK_emit(lo->k, (KIns){ .op = K_store, .a = { lo->params[i->buf], kadd(lo, at, lo->col), x, mask }, .imm = align > 1 ? align : 0 });
    } else if (i->cs == 1) {
        snK_store(lo->k, lo->params[i->buf], kadd(lo, at, lo->col), x, snL_mask(lo, i->a[3]));
    } else {
        KType it = kt(K_I64, lo->L);
        KVal index = op2(lo, K_mul, it, snK_leaf(lo->k, K_lane, it, 0), snK_int(lo->k, it, i->cs));
        at = kadd(lo, at, kmul(lo, lo->col, i->cs));
        index = op2(lo, K_add, it, index, snK_op(lo->k, K_splat, it, at, 0, 0));
        snK_scatter(lo->k, lo->params[i->buf], index, x, snL_mask(lo, i->a[3]));
    }
    if (ok) snK_end(lo->k);
}

/* One vector (or element) of a row added to the buffer row its index names. */
static void scatter_memory(Low *lo, Root *r, bool vector)
{
    const TIns *i = INS(lo, r->x);
    KType b1 = kt(K_BOOL, 1), i1 = kt(K_I32, 1);
    KVal to = snL_scal(lo, i->a[2]), ok = op2(lo, K_ge, b1, to, snK_int(lo->k, i1, 0)), in = snL_row_ok(lo, i->a[3]);
    ok = op2(lo, K_and, b1, ok, op2(lo, K_lt, b1, to, snK_int(lo->k, i1, i->imm)));
    if (in) ok = op2(lo, K_and, b1, ok, in);
    KVal at = kadd(lo, lo->v[i->a[0]].k, kmul(lo, snK_op(lo->k, K_cast, i64(), to, 0, 0), i->ks));
    if (INS(lo, r->value)->type.r > 1) at = kadd(lo, at, kmul(lo, lo->row, i->rs));
    if (vector) at = kadd(lo, at, kmul(lo, lo->col, i->cs));
    SN_ASSERT(!vector || i->cs == 1, "scatter_add of strided rows");
    int dtype = lo->t->params.v[i->buf].dtype;
    KType mt = kt((KKind)dtype, vector ? lo->L : 1), rt = kt(snL_kind(dtype), mt.lanes);
    snK_if(lo->k, ok);
    KVal mask = vector ? snL_mask(lo, i->a[4]) : 0, old = snK_load(lo->k, mt, lo->params[i->buf], at, mask);
    if (mt.kind != rt.kind) old = snK_op(lo->k, K_cast, rt, old, 0, 0);
    snK_store(lo->k, lo->params[i->buf], at, to_memory(lo, dtype, op2(lo, K_add, rt, old, r->now)), mask);
    snK_end(lo->k);
}

static void store_tile(Low *lo, Root *r, bool vector)
{
    const LVal *v = &lo->v[r->tile];
    if (v->frag) { snK_set(lo->k, snG_register(lo, r->tile), r->now); return; }
    KVal at = INS(lo, r->value)->type.r > 1 ? kmul(lo, lo->row, v->ld) : ki(lo, 0);
    snK_store(lo->k, snL_tile_ptr(lo, r->tile), vector ? kadd(lo, at, lo->col) : at, r->now, 0);
}

void snL_write_root(Low *lo, Root *r, int u, bool vector)
{
    switch (r->kind) {
    case R_ROW: snL_step_row(lo, r, u); break;
    case R_COL: step_col(lo, r); break;
    case R_STORE: store_memory(lo, r, vector); break;
    case R_TILE: store_tile(lo, r, vector); break;
    case R_KEEP: snK_store(lo->k, snL_keep_ptr(lo, r->x), lo->col, r->now, 0); break;
    case R_SCATTER: scatter_memory(lo, r, vector); break;
    }
}

/* -- Column loops --------------------------------------------------------------------------------------------------------- */

typedef struct Loop { Root **root; int n, width, unroll; } Loop;

/* Vector u of the unrolled step at `col`; `quad`: the four vectors of the step all come. */
static void vector_body(Low *lo, const Loop *p, KVal col, int u, bool tail, bool quad)
{
    snL_new_vec(lo);
    if (quad && u == 0) lo->quad_stamp = ++lo->stamp;
    lo->quad = quad ? u + 1 : 0;
    lo->col = u ? kadd(lo, col, ki(lo, (int64_t)u * lo->L)) : col;
    lo->tail = tail;
    for (int k = 0; k < p->n; k++) p->root[k]->now = snL_vec(lo, p->root[k]->value);
    for (int k = 0; k < p->n; k++) snL_write_root(lo, p->root[k], u, true);
    lo->tail = false;
    lo->quad = 0;
}

static void static_loop(Low *lo, const Loop *p)
{
    int64_t L = lo->L, full = p->width / L, main = full / p->unroll * p->unroll;
    if (main > p->unroll) {
        KVal c = snK_for(lo->k, ki(lo, 0), ki(lo, main * L), ki(lo, p->unroll * L), 1);
        for (int u = 0; u < p->unroll; u++) vector_body(lo, p, c, u, false, p->unroll == 4);
        snK_end(lo->k);
    } else {
        main = 0;
    }
    for (int64_t v = main; v < full; v++) vector_body(lo, p, ki(lo, v * L - v % p->unroll * L), (int)(v % p->unroll), false, p->unroll == 4 && v - v % 4 + 4 <= full);
    if (p->width % L) vector_body(lo, p, ki(lo, full * L), 0, true, false);
}

/* Some loads or stores end at a column known only at run time: unrolled, single, then masked vectors. */
static void bounded_loop(Low *lo, const Loop *p, const Limits *cols)
{
    Kernel *k = lo->k;
    int64_t L = lo->L;
    KVal least = ki(lo, p->width), most = 0;
    for (int n = 0; n < cols->n; n++) least = op2(lo, K_min, i64(), least, lo->v[cols->v[n]].k);
    for (int n = 0; n < p->n; n++) {
        const TIns *i = INS(lo, p->root[n]->x);
        int kind = p->root[n]->kind;
        TVal vc = kind == R_STORE ? i->a[3] : kind == R_SCATTER ? i->a[4] : kind == R_ROW ? i->a[2] : 0;
        KVal end = vc ? lo->v[vc].k : ki(lo, p->width);
        most = !most ? end : most == end ? most : op2(lo, K_max, i64(), most, end);
    }
    most = op2(lo, K_min, i64(), most, ki(lo, p->width));
    KVal zero = ki(lo, 0), a = zero, b;
    for (int unroll = p->unroll; unroll >= 1; unroll = unroll > 1 ? 1 : 0) {
        b = op2(lo, K_and, i64(), op2(lo, K_max, i64(), least, zero), ki(lo, -(unroll * L)));
        KVal c = snK_for(k, a, b, ki(lo, unroll * L), 1);
        for (int u = 0; u < unroll; u++) vector_body(lo, p, c, u, false, unroll == 4);
        snK_end(k);
        a = b;
    }
    vector_body(lo, p, snK_for(k, a, most, ki(lo, L), 1), 0, true, false);
    snK_end(k);
}

void snL_column_limits(Low *lo, Root *const *root, int n, Limits *cols)
{
    for (int k = 0; k < n; k++) {
        const TIns *i = INS(lo, root[k]->x);
        snL_limits(lo, root[k]->value, NULL, cols);
        if (root[k]->kind == R_STORE) snL_limit(cols, i->a[3]);
        if (root[k]->kind == R_SCATTER) snL_limit(cols, i->a[4]);
        if (root[k]->kind == R_ROW) snL_limit(cols, i->a[2]);
    }
}

static void column_loop(Low *lo, Root **root, int n, int width)
{
    Limits cols = { 0 };
    int cost = 0, vectors = (width + lo->L - 1) / lo->L;
    lo->width = width;
    snL_column_limits(lo, root, n, &cols);
    for (int k = 0; k < n; k++) cost += 1 + snL_cost(lo, root[k]->value);
    bool quads = false;
    for (int k = 0; k < n; k++) quads |= snL_has_quads(lo, root[k]->value);
    Loop p = { root, n, width, cost <= 12 || quads ? 4 : cost <= 30 ? 2 : 1 };
    while (p.unroll > vectors) p.unroll /= 2;
    for (int k = 0; k < n; k++) {
        snL_touch(lo, root[k]->value);
        if (root[k]->kind == R_SCATTER) snL_scal(lo, INS(lo, root[k]->x)->a[2]);
        if (root[k]->kind == R_ROW) snL_start_row(lo, root[k], p.unroll);
    }
    if (cols.n) bounded_loop(lo, &p, &cols);
    else static_loop(lo, &p);
    for (int k = 0; k < n; k++) if (root[k]->kind == R_ROW) finish_row(lo, root[k], p.unroll);
}

/* -- Nests --------------------------------------------------------------------------------------------------------------------- */

static void add_root(Low *lo, Nest *n, RootKind kind, TVal x, TVal value, TVal tile, int level)
{
    SN_ASSERT(n->n < MAX_ROOTS, "tile %s: too many results in one nest", snU_str(lo->t->ctx, lo->t->name));
    int width = INS(lo, value)->type.c;
    n->root[n->n++] = (Root){ .x = x, .value = value, .tile = tile, .kind = (uint8_t)kind, .level = (uint8_t)level, .width = width };
    if (level + 1 > n->levels) n->levels = level + 1;
}

static void find_roots(Low *lo, Nest *n)
{
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        const TIns *i = INS(lo, x);
        const LVal *v = &lo->v[x];
        if (!is_planned(lo, x) || v->phase != lo->phase || domain(lo, x).r != n->rows || v->tall != n->tall) continue;
        bool used = lo->first_user[x + 1] > lo->first_user[x];
        if (i->op == T_store) add_root(lo, n, R_STORE, x, i->a[1], 0, v->level);
        else if (i->op == T_scatter_add) add_root(lo, n, R_SCATTER, x, i->a[1], 0, v->level);
        else if (i->op == T_set && lo->dest[i->a[1]] != i->a[0]) add_root(lo, n, R_TILE, x, i->a[1], i->a[0], v->level);
        else if (i->op == T_var && !lo->zero_loop[x]) add_root(lo, n, R_TILE, x, i->a[0], x, v->level);
        else if (i->op == T_get) add_root(lo, n, R_TILE, x, x, x, v->level);
        else if (i->op == T_reduce && used) add_root(lo, n, i->imm ? R_ROW : R_COL, x, i->a[0], 0, v->level);
        else if (v->how == H_CHAIN && (v->at || v->frag)) add_root(lo, n, R_TILE, x, x, x, v->level);
        if (i->op == T_reduce && i->imm && (v->at || v->frag)) add_root(lo, n, R_TILE, x, x, x, v->level + 1);
    }
}

/* Values that a later level wants and that are dear to compute again. */
static void mark_keeps(Low *lo, Nest *n, TVal x, int level)
{
    LVal *v = &lo->v[x];
    TVal args[5];
    if (!is_vec(INS(lo, x)->type) || v->kept_seen == lo->keep_mark) return;
    v->kept_seen = lo->keep_mark;
    bool mine = in_segment(lo, x) && v->how == H_CHAIN && v->phase == lo->phase && domain(lo, x).r == n->rows;
    if (!mine || INS(lo, x)->op == T_reduce || v->keep) return;
    if (v->level < level && !v->at && !v->frag) {
        lo->level = v->level;
        bool dear = snL_cost(lo, x) > 8;
        if (dear) {
            v->keep = 1 + snK_scratch(lo->k, (lo->gpu ? snG_keep_rows(lo) : 1) * up(INS(lo, x)->type.c, 64) * 4);
            add_root(lo, n, R_KEEP, x, x, 0, v->level);
            return;
        }
    }
    for (int k = 0, m = snL_tile_args(lo, x, args); k < m; k++) mark_keeps(lo, n, args[k], level);
}

/* Rows below which limit everything in the nest stops, or 0: all rows run and single operations mind their own limit. */
TVal snL_common_rows(Low *lo, const Nest *n)
{
    Limits rows = { 0 };
    for (int k = 0; k < n->n; k++) {
        const Root *r = &n->root[k];
        const TIns *i = INS(lo, r->x);
        TVal own = r->kind == R_STORE ? i->a[2] : r->kind == R_SCATTER ? i->a[3] : r->kind == R_COL ? i->a[1] : 0;
        if (!own && r->kind != R_ROW && r->kind != R_KEEP) return 0;
        snL_limit(&rows, own);
        snL_limits(lo, r->value, &rows, NULL);
    }
    return rows.n == 1 ? rows.v[0] : 0;
}

/* Stores, sets and sums of one-column values: all evaluated, then written. */
static void row_end(Low *lo, Nest *n)
{
    for (int k = 0; k < n->n; k++)
        if (n->root[k].width == 1) n->root[k].now = snL_scal(lo, n->root[k].value);
    for (int k = 0; k < n->n; k++)
        if (n->root[k].width == 1) snL_write_root(lo, &n->root[k], 0, false);
}

static void row_body(Low *lo, Nest *n)
{
    Root *group[MAX_ROOTS];
    for (lo->level = 0; lo->level < n->levels; lo->level++) {
        for (int first = 0; first < n->n; first++) {      /* one loop for each width, at its first root */
            int width = n->root[first].width, m = 0;
            bool done = width == 1 || n->root[first].level != lo->level;
            for (int k = 0; k < n->n && !done; k++) {
                if (n->root[k].level != lo->level || n->root[k].width != width) continue;
                if (k < first) done = true;
                group[m++] = &n->root[k];
            }
            if (!done) column_loop(lo, group, m, width);
        }
    }
    row_end(lo, n);
}

Nest snL_open_nest(Low *lo, int phase, int rows, bool tall)
{
    Nest n = { .root = NEWN(&lo->t->ctx->scratch, Root, MAX_ROOTS), .rows = rows, .tall = tall };
    lo->phase = phase, lo->rows = rows, lo->level = 0;
    find_roots(lo, &n);
    for (int level = n.levels - 1; level > 0; level--) {
        lo->keep_mark++;
        for (int k = 0; k < n.n; k++)
            if (n.root[k].level == level) mark_keeps(lo, &n, n.root[k].value, level);
    }
    return n;
}

void snL_close_nest(Low *lo, const Nest *n)
{
    for (int k = 0; k < n->n; k++)
        if (n->root[k].kind == R_COL && n->root[k].width == 1)
            lo->v[n->root[k].x].k = snK_get(lo->k, is_arg(INS(lo, n->root[k].x)->red) ? n->root[k].arg[0] : n->root[k].acc[0]);
    lo->row_limit = 0;
}

static void emit_nest(Low *lo, int phase, int rows)
{
    ArenaMark mark = snU_mark(&lo->t->ctx->scratch);
    Nest n = snL_open_nest(lo, phase, rows, false);
    lo->row = ki(lo, 0);
    snL_new_row(lo);
    for (int k = 0; k < n.n; k++) if (n.root[k].kind == R_COL) start_col(lo, &n.root[k]);
    lo->row_limit = rows > 1 && n.n ? snL_common_rows(lo, &n) : 0;
    if (rows > 1 && n.n) {
        KVal end = ki(lo, rows);
        if (lo->row_limit) end = op2(lo, K_min, i64(), end, lo->v[lo->row_limit].k);
        lo->row = snK_for(lo->k, ki(lo, 0), end, ki(lo, 1), 1);
        snL_new_row(lo);
    }
    if (n.n) row_body(lo, &n);
    if (rows > 1 && n.n) snK_end(lo->k);
    snL_close_nest(lo, &n);
    snU_reset(&lo->t->ctx->scratch, mark);
}

/* The last vector's lanes below the tile are computed and stored too: scratch has room for them. */
static void emit_tall(Low *lo, int phase, int rows)
{
    ArenaMark mark = snU_mark(&lo->t->ctx->scratch);
    Nest n = snL_open_nest(lo, phase, rows, true);
    if (n.n) {
        lo->row = snK_for(lo->k, ki(lo, 0), ki(lo, rows), ki(lo, lo->L), 1);
        lo->down = true;
        snL_new_row(lo);
        for (int k = 0; k < n.n; k++) n.root[k].now = snL_vec(lo, n.root[k].value);
        for (int k = 0; k < n.n; k++) snK_store(lo->k, snL_tile_ptr(lo, n.root[k].tile), lo->row, n.root[k].now, 0);
        lo->down = false;
        snK_end(lo->k);
        lo->row = ki(lo, 0);
        snL_new_row(lo);
    }
    snU_reset(&lo->t->ctx->scratch, mark);
}

/* A [1,1] value between nests: on a GPU every thread evaluates it. */
static KVal scalar(Low *lo, TVal x)
{
    snG_sync_value(lo, x);
    return snL_scal(lo, x);
}

/* [1,1] values that hang on a reduction of this phase become plain scalars. */
static void settle_scalars(Low *lo, int phase)
{
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++)
        if (lo->v[x].how == H_CHAIN && lo->v[x].phase == phase && is_one(INS(lo, x)->type) && !lo->v[x].k &&
            lo->first_user[x + 1] > lo->first_user[x] && domain(lo, x).r == 1) {
            lo->phase = phase, lo->rows = 1;
            lo->v[x].k = scalar(lo, x);
        }
}

static void emit_nests(Low *lo)
{
    int phases = 0;
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++)
        if (is_planned(lo, x) && lo->v[x].phase >= phases) phases = lo->v[x].phase + 1;
    for (int phase = 0; phase < phases; phase++) {
        int rows = 0;
        for (;;) {                                        /* row counts in rising order */
            int next = INT32_MAX;
            for (TVal x = lo->seg_begin; x < lo->seg_end; x++)
                if (is_planned(lo, x) && lo->v[x].phase == phase && domain(lo, x).r > rows && domain(lo, x).r < next)
                    next = domain(lo, x).r;
            if (next == INT32_MAX) break;
            rows = next;
            if (lo->gpu) snG_nest(lo, phase, rows);
            else emit_nest(lo, phase, rows), emit_tall(lo, phase, rows);
            if (rows == 1) settle_scalars(lo, phase);
        }
    }
}

static void set_scalar_vars(Low *lo)
{
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        const TIns *i = INS(lo, x);
        if (i->op == T_var && is_one(i->type)) lo->v[x].k = snK_var(lo->k, lo->v[i->a[0]].k);
        if (i->op == T_set && (is_one(INS(lo, i->a[0])->type) || !INS(lo, i->a[0])->type.dtype)) {
            KVal v = lo->v[i->a[1]].k;
            snK_set(lo->k, lo->v[i->a[0]].k, v ? v : scalar(lo, i->a[1]));
        }
    }
}

void snL_segment(Low *lo, TVal begin, TVal end)
{
    lo->seg_begin = begin, lo->seg_end = end;
    lo->phase = 0, lo->rows = 0, lo->row_limit = 0;
    lo->row = ki(lo, 0);
    snL_new_row(lo);
    for (TVal x = begin; x < end; x++) {
        const TIns *i = INS(lo, x);
        if (lo->v[x].how != H_SCALAR || i->op == T_var) continue;
        lo->v[x].k = i->op == T_get ? snK_get(lo->k, lo->v[i->a[0]].k) : scalar(lo, x);
    }
    plan(lo);
    for (TVal x = begin; x < end; x++)
        if (needs_tile(lo, x)) lo->gpu ? snG_place(lo, x) : snL_place(lo, x);
    emit_nests(lo);
    set_scalar_vars(lo);
    lo->seg_begin = lo->seg_end = 0;
    for (TVal x = begin; x < end; x++)
        if (INS(lo, x)->op == T_stage) lo->gpu ? snG_pack(lo, x) : snL_pack(lo, x);
}

/* A value that has no tile of its own (a leaf), evaluated into the tile of `to`. */
void snL_copy(Low *lo, TVal x, TVal to)
{
    TType ty = INS(lo, x)->type;
    Root root = { .x = x, .value = x, .tile = to, .kind = R_TILE, .width = ty.c };
    Nest n = { .root = &root, .n = 1, .rows = ty.r, .levels = 1 };
    lo->row_limit = 0;
    lo->row = ty.r > 1 ? snK_for(lo->k, ki(lo, 0), ki(lo, ty.r), ki(lo, 1), 1) : ki(lo, 0);
    snL_new_row(lo);
    row_body(lo, &n);
    if (ty.r > 1) snK_end(lo->k);
}
