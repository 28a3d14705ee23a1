/* lower_gpu_rows.c: the loop nests of a segment over the threads of a block. In: a nest as lower_rows.c plans it: its roots, their levels.
   Out: what one thread does.

     loops    rows tr, tr + TR, ... one after the other, in each row its vectors, level by level. Reductions along the row end
              between the threads of the row, so every thread takes part in every row: one beyond the end does the last one again
              and writes nothing.
     fixed    where fragments take part, rows and vectors are unrolled and levels are outermost, so that all rows of a thread
              go through each exchange between threads together.

   Sums between threads are butterflies: the same tree for every thread, the lower thread's operand first, so all get the same bits. */
#include "codegen/lower_gpu.h"

static KVal op2(Low *lo, int op, KType t, KVal a, KVal b) { return snK_op(lo->k, op, t, a, b, 0); }
static KVal sel(Low *lo, KVal c, KVal a, KVal b) { return snK_op(lo->k, K_select, snK_type(lo->k, a), c, a, b); }
static KVal less(Low *lo, KVal a, KVal b) { return op2(lo, K_lt, kt(K_BOOL, 1), a, b); }
static bool is_arg(int red) { return red == RED_ARGMAX || red == RED_ARGMIN; }
static void barrier(Low *lo) { snK_emit(lo->k, (KIns){ .op = K_barrier }); }

/* -- Between threads ------------------------------------------------------------------------------------------------ */

typedef struct Item { int red; KVal x, arg; } Item;      /* a thread's part of a reduction, then the whole; arg: of arg kinds */

/* 32-bit words go through memory and shuffles; a bool as an i32. */
static KVal as_word(Low *lo, KVal x) { return snK_type(lo->k, x).kind == K_BOOL ? snK_op(lo->k, K_cast, kt(K_I32, 1), x, 0, 0) : x; }
static KVal from_word(Low *lo, KVal x, KKind kind) { return kind == K_BOOL ? snK_op(lo->k, K_cast, kt(K_BOOL, 1), x, 0, 0) : x; }

static KVal word_at(Low *lo, int64_t at, KKind kind) { return snK_shared_ptr(lo->k, kind, at); }

/* Each x of the thread whose number differs in bit s; `at`: where in shared memory the words pass. */
static void partners(Low *lo, KVal *x, int n, int s, int64_t at)
{
    Gpu *g = lo->gpu;
    KVal w[64];
    KKind kind[64];
    for (int i = 0; i < n; i++) kind[i] = (KKind)snK_type(lo->k, x[i]).kind, w[i] = as_word(lo, x[i]);
    if (lo->target->sm && s < 32) {
        for (int i = 0; i < n; i++)
            w[i] = snK_emit(lo->k, (KIns){ .op = K_shfl, .type = snK_type(lo->k, w[i]), .a = { w[i] }, .imm = s });
    } else {
        KVal other = op2(lo, K_xor, i64(), g->tid, ki(lo, s));
        for (int i = 0; i < n; i++)
            snK_store(lo->k, word_at(lo, at + (int64_t)i * g->T * 4, (KKind)snK_type(lo->k, w[i]).kind), g->tid, w[i], 0);
        barrier(lo);
        for (int i = 0; i < n; i++) {
            KType t = snK_type(lo->k, w[i]);
            w[i] = snK_load(lo->k, t, word_at(lo, at + (int64_t)i * g->T * 4, (KKind)t.kind), other, 0);
        }
    }
    for (int i = 0; i < n; i++) x[i] = from_word(lo, w[i], kind[i]);
}

/* (a, i) or (b, j), whichever wins. */
static void better(Low *lo, int red, KVal a, KVal i, KVal b, KVal j, Item *out)
{
    KVal win = snL_beats_at(lo, red, b, j, a, i);
    out->x = sel(lo, win, b, a);
    out->arg = sel(lo, win, j, i);
}

/* Room for the words of n items, twice: one step writes while others still read the last. */
static int64_t exchange_room(Low *lo, int words)
{
    Gpu *g = lo->gpu;
    int64_t bytes = 2 * (int64_t)words * g->T * 4;
    if (bytes > g->red_bytes) g->red = snK_shared(lo->k, bytes), g->red_bytes = bytes;
    return g->red;
}

static void across_some(Low *lo, Item *item, int n, int threads)
{
    Gpu *g = lo->gpu;
    int words = 0, step = 0;
    for (int i = 0; i < n; i++) words += is_arg(item[i].red) ? 2 : 1;
    bool through_memory = !lo->target->sm || threads > 32;
    int64_t room = through_memory ? exchange_room(lo, words) : 0;
    if (through_memory) barrier(lo);
    for (int s = 1; s < threads; s *= 2, step ^= 1) {
        KVal x[64], upper = op2(lo, K_ne, kt(K_BOOL, 1), op2(lo, K_and, i64(), g->tid, ki(lo, s)), ki(lo, 0));
        int w = 0;
        for (int i = 0; i < n; i++) {
            x[w++] = item[i].x;
            if (is_arg(item[i].red)) x[w++] = item[i].arg;
        }
        partners(lo, x, w, s, room + (int64_t)step * words * g->T * 4);
        w = 0;
        for (int i = 0; i < n; i++) {
            KVal mine = item[i].x, other = x[w++], a = sel(lo, upper, other, mine), b = sel(lo, upper, mine, other);
            if (!is_arg(item[i].red)) { item[i].x = snL_combine(lo, item[i].red, a, b); continue; }
            KVal place = x[w++];
            better(lo, item[i].red, a, sel(lo, upper, place, item[i].arg), b, sel(lo, upper, item[i].arg, place), &item[i]);
        }
    }
}

/* Reduces every item over groups of `threads` neighbouring threads; all of them get the result. */
static void across(Low *lo, Item *item, int n, int threads)
{
    enum { AT_ONCE = 16 };                               /* so that their words fit into shared memory */
    for (int i = 0; i < n && threads > 1; i += AT_ONCE) across_some(lo, item + i, n - i < AT_ONCE ? n - i : AT_ONCE, threads);
}

/* -- Sums down the columns -------------------------------------------------------------------------------------------- */

/* A running row for each row of threads; where there is one column, a var a thread. */
typedef struct ColSum { int64_t at, ld; bool shared; } ColSum;

static KVal col_ptr(Low *lo, const ColSum *c, KKind kind, bool arg, int64_t rows)
{
    int64_t at = c->at + (arg ? rows * c->ld * 4 : 0);
    return c->shared ? snK_shared_ptr(lo->k, kind, at) : snK_scratch_ptr(lo->k, kind, at);
}

static KVal col_at(Low *lo, const ColSum *c) { return kadd(lo, kmul(lo, lo->gpu->tr, c->ld), lo->col); }

static void col_reserve(Low *lo, const Root *r, ColSum *c)
{
    bool arg = is_arg(INS(lo, r->x)->red);
    c->ld = up(r->width, lo->L);
    c->at = snG_reserve(lo, lo->gpu->TR * c->ld * 4 * (arg ? 2 : 1), &c->shared);
}

static void col_start(Low *lo, Root *r, const ColSum *c)
{
    const TIns *i = INS(lo, r->x);
    const Gpu *g = lo->gpu;
    KKind kind = snL_kind(INS(lo, r->value)->type.dtype);
    if (r->width == 1) {
        r->acc[0] = snK_var(lo->k, snL_identity(lo, i->red, kt(kind, 1)));
        r->arg[0] = snK_var(lo->k, snK_int(lo->k, kt(K_I32, 1), 0));
        return;
    }
    KVal v = snK_for(lo->k, g->tc, ki(lo, c->ld / lo->L), ki(lo, g->TC), 1);
    lo->col = kmul(lo, v, lo->L);
    snK_store(lo->k, col_ptr(lo, c, kind, false, g->TR), col_at(lo, c), snL_identity(lo, i->red, kt(kind, lo->L)), 0);
    if (is_arg(i->red)) snK_store(lo->k, col_ptr(lo, c, K_I32, true, g->TR), col_at(lo, c), snK_int(lo->k, kt(K_I32, lo->L), 0), 0);
    snK_end(lo->k);
}

static KVal as_lanes(Low *lo, KVal x, int lanes)
{
    KType t = snK_type(lo->k, x);
    return lanes > 1 ? snK_op(lo->k, K_splat, kt((KKind)t.kind, lanes), x, 0, 0) : x;
}

static void col_step(Low *lo, Root *r, const ColSum *c)
{
    const TIns *i = INS(lo, r->x);
    const Gpu *g = lo->gpu;
    KVal x = r->now, ok = snL_row_ok(lo, i->a[1]);
    KType t = snK_type(lo->k, x), it = kt(K_I32, t.lanes);
    if (ok) x = sel(lo, as_lanes(lo, ok, t.lanes), x, snL_identity(lo, i->red, t));
    bool one = r->width == 1;
    KVal ptr = one ? 0 : col_ptr(lo, c, (KKind)t.kind, false, g->TR), acc = one ? snK_get(lo->k, r->acc[0]) : snK_load(lo->k, t, ptr, col_at(lo, c), 0);
    KVal y, place = 0;
    if (is_arg(i->red)) {
        KVal places = one ? 0 : col_ptr(lo, c, K_I32, true, g->TR);
        KVal old = one ? snK_get(lo->k, r->arg[0]) : snK_load(lo->k, it, places, col_at(lo, c), 0);
        KVal here = as_lanes(lo, snK_op(lo->k, K_cast, kt(K_I32, 1), lo->row, 0, 0), t.lanes);
        Item best = { i->red };
        better(lo, i->red, acc, old, x, here, &best);
        if (ok) best.arg = sel(lo, as_lanes(lo, ok, t.lanes), best.arg, old), best.x = sel(lo, as_lanes(lo, ok, t.lanes), best.x, acc);
        y = best.x, place = best.arg;
        if (one) snK_set(lo->k, r->arg[0], place);
        else snK_store(lo->k, places, col_at(lo, c), place, 0);
    } else {
        y = snL_combine(lo, i->red, acc, x);
    }
    if (one) snK_set(lo->k, r->acc[0], y);
    else snK_store(lo->k, ptr, col_at(lo, c), y, 0);
}

/* The running rows of all rows of threads into the tile, in order. */
static void col_finish(Low *lo, Root *r, const ColSum *c)
{
    const TIns *i = INS(lo, r->x);
    const Gpu *g = lo->gpu;
    KType t = kt(snL_kind(INS(lo, r->value)->type.dtype), lo->L), it = kt(K_I32, lo->L);
    KVal from = col_ptr(lo, c, (KKind)t.kind, false, g->TR), places = is_arg(i->red) ? col_ptr(lo, c, K_I32, true, g->TR) : 0;
    KVal v = snK_for(lo->k, g->tid, ki(lo, c->ld / lo->L), ki(lo, g->T), 1), col = kmul(lo, v, lo->L);
    Item sum = { i->red, snK_load(lo->k, t, from, col, 0), places ? snK_load(lo->k, it, places, col, 0) : 0 };
    for (int n = 1; n < g->TR; n++) {
        KVal at = kadd(lo, col, ki(lo, n * c->ld)), x = snK_load(lo->k, t, from, at, 0);
        if (places) better(lo, i->red, sum.x, sum.arg, x, snK_load(lo->k, it, places, at, 0), &sum);
        else sum.x = snL_combine(lo, i->red, sum.x, x);
    }
    snK_store(lo->k, snL_tile_ptr(lo, r->x), col, places ? sum.arg : sum.x, 0);
    snK_end(lo->k);
}

/* One column: over all threads, of each row one. */
static void col_finish_one(Low *lo, Root *r)
{
    const TIns *i = INS(lo, r->x);
    const Gpu *g = lo->gpu;
    Item sum = { i->red, snK_get(lo->k, r->acc[0]), is_arg(i->red) ? snK_get(lo->k, r->arg[0]) : 0 };
    if (g->TC > 1 && i->red == RED_SUM)
        sum.x = sel(lo, op2(lo, K_eq, kt(K_BOOL, 1), g->tc, ki(lo, 0)), sum.x, snL_identity(lo, i->red, snK_type(lo->k, sum.x)));
    across(lo, &sum, 1, g->T);
    snK_set(lo->k, r->acc[0], sum.x);
    if (sum.arg) snK_set(lo->k, r->arg[0], sum.arg);
}

/* -- Vectors ---------------------------------------------------------------------------------------------------------- */

typedef struct Work {
    Nest n;
    ColSum *col;                     /* of R_COL roots */
    KVal *result;                    /* of R_ROW roots: [root][ni] */
    int ni;
    bool row_barrier;                /* one thread of a row writes at its end what the others read */
} Work;

static void write(Low *lo, const Work *w, Root *r, bool vector)
{
    const Gpu *g = lo->gpu;
    bool tile = r->kind == R_TILE && !lo->v[r->tile].frag, memory = r->kind == R_STORE || r->kind == R_SCATTER || tile;
    KVal guard = tile ? g->live : 0;                     /* the others ask snL_row_ok themselves */
    if (r->kind == R_COL) { col_step(lo, r, &w->col[r - w->n.root]); return; }
    if (memory && !vector && g->TC > 1) {                /* one thread of the row does it */
        KVal first = op2(lo, K_eq, kt(K_BOOL, 1), g->tc, ki(lo, 0));
        guard = guard ? op2(lo, K_and, kt(K_BOOL, 1), guard, first) : first;
    }
    if (guard) snK_if(lo->k, guard);
    snL_write_root(lo, r, 0, vector);
    if (guard) snK_end(lo->k);
}

static void vector_body(Low *lo, const Work *w, Root **root, int n, KVal v, bool tail)
{
    snL_new_vec(lo);
    lo->col = kmul(lo, v, lo->L);
    lo->tail = tail;
    for (int k = 0; k < n; k++) root[k]->now = snL_vec(lo, root[k]->value);
    for (int k = 0; k < n; k++) write(lo, w, root[k], true);
    lo->tail = false;
}

/* This thread's vectors of a row of `width`, of loops. */
static void some_vectors(Low *lo, const Work *w, Root **root, int n, int width)
{
    const Gpu *g = lo->gpu;
    Limits cols = { 0 };
    Kernel *k = lo->k;
    snL_column_limits(lo, root, n, &cols);
    int64_t L = lo->L, full = width / L;
    if (!cols.n && full % g->TC == 0 && full / g->TC <= 4) {
        for (int64_t j = 0; j < full / g->TC; j++) vector_body(lo, w, root, n, kadd(lo, g->tc, ki(lo, j * g->TC)), false);
    } else {
        KVal whole = ki(lo, full), all = ki(lo, (width + L - 1) / L);
        for (int i = 0; i < cols.n; i++) {
            KVal limit = op2(lo, K_max, i64(), lo->v[cols.v[i]].k, ki(lo, 0));
            whole = op2(lo, K_min, i64(), whole, op2(lo, K_div, i64(), limit, ki(lo, L)));
        }
        vector_body(lo, w, root, n, snK_for(k, g->tc, whole, ki(lo, g->TC), 1), false);
        snK_end(k);
        if (!cols.n && width % L == 0) return;
        KVal rest = kadd(lo, whole, op2(lo, K_and, i64(), op2(lo, K_sub, i64(), g->tc, whole), ki(lo, g->TC - 1)));
        vector_body(lo, w, root, n, snK_for(k, rest, all, ki(lo, g->TC), 1), true);
        snK_end(k);
        return;
    }
    if (width % L == 0) return;
    snK_if(k, op2(lo, K_eq, kt(K_BOOL, 1), g->tc, ki(lo, full % g->TC)));
    vector_body(lo, w, root, n, ki(lo, full), true);
    snK_end(k);
}

static void fixed_vectors(Low *lo, const Work *w, Root **root, int n, int width)
{
    Gpu *g = lo->gpu;
    Limits cols = { 0 };
    snL_column_limits(lo, root, n, &cols);
    int64_t wide = (int64_t)g->TC * lo->L;
    for (g->j = 0; g->j * wide < width; g->j++)
        vector_body(lo, w, root, n, kadd(lo, g->tc, ki(lo, (int64_t)g->j * g->TC)), cols.n || (g->j + 1) * wide > width);
    g->j = 0;
}

/* All vectors of the row at this level; a reduction's part of this thread stays in its accumulators. */
static void level_vectors(Low *lo, Work *w)
{
    Root *group[MAX_ROOTS];
    Nest *n = &w->n;
    for (int first = 0; first < n->n; first++) {          /* one loop for each width, at its first root */
        int width = n->root[first].width, m = 0;
        bool done = width == 1 || n->root[first].level != lo->level;
        for (int k = 0; k < n->n && !done; k++) {
            if (n->root[k].level != lo->level || n->root[k].width != width) continue;
            if (k < first) done = true;
            group[m++] = &n->root[k];
        }
        if (done) continue;
        lo->width = width;
        for (int k = 0; k < m; k++) {
            snL_touch(lo, group[k]->value);
            if (group[k]->kind == R_SCATTER) snL_scal(lo, INS(lo, group[k]->x)->a[2]);
            if (group[k]->kind == R_ROW) snL_start_row(lo, group[k], 1);
        }
        if (lo->gpu->fixed) fixed_vectors(lo, w, group, m, width);
        else some_vectors(lo, w, group, m, width);
    }
}

static bool sums_here(const Low *lo, const Root *r) { return r->kind == R_ROW && r->width > 1 && r->level == lo->level; }

/* -- Rows --------------------------------------------------------------------------------------------------------------- */

/* Reductions along the row that are known come back as values of the row. */
static void know_results(Low *lo, const Work *w, int i)
{
    for (int k = 0; k < w->n.n; k++) {
        const Root *r = &w->n.root[k];
        if (r->kind != R_ROW || r->level >= lo->level || !w->result[k * w->ni + i]) continue;
        lo->v[r->x].memo = w->result[k * w->ni + i];
        lo->v[r->x].stamp = lo->row_stamp;
    }
}

/* Stores, sets and sums of one-column values: all evaluated, then written. */
static void row_end(Low *lo, Work *w)
{
    for (int k = 0; k < w->n.n; k++)
        if (w->n.root[k].width == 1) w->n.root[k].now = snL_scal(lo, w->n.root[k].value);
    if (w->row_barrier) barrier(lo);
    for (int k = 0; k < w->n.n; k++)
        if (w->n.root[k].width == 1) write(lo, w, &w->n.root[k], false);
}

static void finish_level(Low *lo, Work *w, Item *item, const int *at, int n)
{
    across(lo, item, n, lo->gpu->TC);
    for (int k = 0; k < n; k++) w->result[at[k]] = item[k].arg ? item[k].arg : item[k].x;
}

/* Row number `row` of those below `end`: beyond it, the last one again. */
static void stand_at(Low *lo, KVal row, KVal end, bool surely)
{
    Gpu *g = lo->gpu;
    g->live = surely ? 0 : less(lo, row, end);
    lo->row = surely ? row : op2(lo, K_min, i64(), row, op2(lo, K_sub, i64(), end, ki(lo, 1)));
    snL_new_row(lo);
}

static void looped_rows(Low *lo, Work *w)
{
    Gpu *g = lo->gpu;
    Nest *n = &w->n;
    Item item[MAX_ROOTS];
    int at[MAX_ROOTS];
    bool loop = n->rows > 1;
    lo->row_limit = loop ? snL_common_rows(lo, n) : 0;
    if (loop) {
        KVal end = ki(lo, n->rows);
        if (lo->row_limit) end = op2(lo, K_min, i64(), end, lo->v[lo->row_limit].k);
        KVal first = snK_for(lo->k, ki(lo, 0), end, ki(lo, g->TR), 1);
        stand_at(lo, kadd(lo, first, g->tr), end, g->TR == 1 || (!lo->row_limit && n->rows % g->TR == 0));
    } else {
        lo->row = ki(lo, 0);                             /* all threads are across it */
        snL_new_row(lo);
    }
    for (lo->level = 0; lo->level < n->levels; lo->level++) {
        int m = 0;
        know_results(lo, w, 0);
        level_vectors(lo, w);
        for (int k = 0; k < n->n; k++) {
            if (!sums_here(lo, &n->root[k])) continue;
            Item it = { INS(lo, n->root[k].x)->red };
            it.x = snL_finish_row(lo, &n->root[k], 1, &it.arg);
            at[m] = k, item[m++] = it;
        }
        finish_level(lo, w, item, at, m);
    }
    know_results(lo, w, 0);
    row_end(lo, w);
    if (loop) snK_end(lo->k);
}

static void stand_at_fixed(Low *lo, const Work *w, int i)
{
    Gpu *g = lo->gpu;
    g->i = i, g->j = 0;
    stand_at(lo, kadd(lo, g->tr, ki(lo, (int64_t)i * g->TR)), ki(lo, w->n.rows), (i + 1) * g->TR <= w->n.rows);
    know_results(lo, w, i);
}

static void fixed_rows(Low *lo, Work *w)
{
    Nest *n = &w->n;
    lo->row_limit = 0;
    for (lo->level = 0; lo->level < n->levels; lo->level++) {
        Item *item = NEWN(lo->arena, Item, n->n * w->ni + 1);
        int *at = NEWN(lo->arena, int, n->n * w->ni + 1), m = 0;
        for (int i = 0; i < w->ni; i++) {
            stand_at_fixed(lo, w, i);
            level_vectors(lo, w);
            for (int k = 0; k < n->n; k++) {
                if (!sums_here(lo, &n->root[k])) continue;
                Item it = { INS(lo, n->root[k].x)->red };
                it.x = snL_finish_row(lo, &n->root[k], 1, &it.arg);
                at[m] = k * w->ni + i, item[m++] = it;
            }
        }
        finish_level(lo, w, item, at, m);
    }
    for (int i = 0; i < w->ni; i++) {
        stand_at_fixed(lo, w, i);
        row_end(lo, w);
    }
}

/* -- The nest ------------------------------------------------------------------------------------------------------------ */

/* Threads across: a vector each, a warp at most while there are rows for the others. */
static int columns_of(const Low *lo, int rows, int width, bool in_order)
{
    int tc = 1, T = lo->gpu->T;
    if (in_order || rows == 1) return T;                 /* rows one after the other: every column has its thread */
    while (tc < T && tc * lo->L < width) tc *= 2;
    while (tc > 32 && rows > T / tc) tc /= 2;
    return tc;
}

/* Before the roots are known: the widest value with so many rows. */
static int likely_columns(const Low *lo, int rows)
{
    int width = 1;
    bool in_order = false;
    for (TVal x = lo->seg_begin; x < lo->seg_end; x++) {
        const TIns *i = INS(lo, x);
        TType ty = i->op == T_store || i->op == T_scatter_add || i->op == T_set ? INS(lo, i->a[1])->type : i->op == T_reduce ? INS(lo, i->a[0])->type : i->type;
        if (!ty.dtype || ty.r != rows) continue;
        if (ty.c > width) width = ty.c;
        in_order |= i->op == T_scatter_add;
    }
    return columns_of(lo, rows, width, in_order);
}

static bool reads_fragment(Low *lo, TVal x)
{
    TVal args[5];
    if (lo->v[x].seen == lo->mark) return false;
    lo->v[x].seen = lo->mark;
    if (lo->v[x].frag || (INS(lo, x)->op == T_get && lo->v[INS(lo, x)->a[0]].frag)) return true;
    if (lo->v[x].how == H_TILE || (lo->v[x].at && (x < lo->seg_begin || x >= lo->seg_end))) return false;
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) if (reads_fragment(lo, args[k])) return true;
    return false;
}

static bool takes_fragments(Low *lo, const Nest *n)
{
    bool any = false;
    lo->mark++;
    for (int k = 0; k < n->n && !any; k++)
        any = (n->root[k].kind == R_TILE && lo->v[n->root[k].tile].frag) || reads_fragment(lo, n->root[k].value) ||
              (n->root[k].kind == R_SCATTER && reads_fragment(lo, INS(lo, n->root[k].x)->a[2]));
    return any;
}

int64_t snG_keep_rows(const Low *lo)
{
    const Gpu *g = lo->gpu;
    int64_t fixed = g->dot_tc ? up(lo->rows, g->T / g->dot_tc) : 0;
    return fixed > g->TR ? fixed : g->TR;
}

KVal snG_keep_offset(Low *lo, int width)
{
    const Gpu *g = lo->gpu;
    KVal row = g->fixed ? kadd(lo, g->tr, ki(lo, (int64_t)g->i * g->TR)) : g->tr;
    return kmul(lo, row, up(width, 64));
}

static void sync_nest(Low *lo, Work *w)
{
    Touched t = { 0 }, last = { 0 };
    lo->mark++;
    for (int k = 0; k < w->n.n; k++) {
        const Root *r = &w->n.root[k];
        const TIns *i = INS(lo, r->x);
        snG_touch_value(lo, &t, r->value);
        if (r->kind == R_TILE) snG_touch_tile(lo, &t, r->tile, true);
        if (r->kind == R_STORE || r->kind == R_SCATTER) snG_touch_buffer(lo, &t, i->buf, true);
        if (r->kind == R_SCATTER) snG_touch_value(lo, &t, i->a[2]), snG_touch_buffer(lo, &t, i->buf, false);
        if (r->kind == R_COL && r->width > 1) {
            snG_touch_tile(lo, &t, r->x, true);
            snG_touch_memory(lo, &t, w->col[k].at, w->col[k].shared, true);
        }
    }
    for (int k = 0; k < w->n.n; k++) {
        const Root *r = &w->n.root[k];
        if (r->width > 1) continue;
        if (r->kind == R_TILE) snG_touch_tile(lo, &last, r->tile, true);
        if (r->kind == R_STORE || r->kind == R_SCATTER) snG_touch_buffer(lo, &last, INS(lo, r->x)->buf, true);
    }
    w->row_barrier = lo->gpu->TC > 1 && !lo->gpu->fixed && snG_meets(&last, &t);
    snG_sync(lo, &t);
}

/* The running rows become tiles; what was touched before is behind a barrier. */
static void finish_columns(Low *lo, Work *w)
{
    Touched t = { 0 };
    bool any = false;
    for (int k = 0; k < w->n.n; k++) {
        Root *r = &w->n.root[k];
        if (r->kind != R_COL) continue;
        if (r->width == 1) { col_finish_one(lo, r); continue; }
        any = true;
        snG_touch_memory(lo, &t, w->col[k].at, w->col[k].shared, false);
        snG_touch_tile(lo, &t, r->x, true);
    }
    if (!any) return;
    snG_sync(lo, &t);
    for (int k = 0; k < w->n.n; k++)
        if (w->n.root[k].kind == R_COL && w->n.root[k].width > 1) col_finish(lo, &w->n.root[k], &w->col[k]);
}

static void emit(Low *lo, Work *w)
{
    Gpu *g = lo->gpu;
    Nest *n = &w->n;
    w->ni = g->fixed ? (n->rows + g->TR - 1) / g->TR : 1;
    w->col = NEWN(lo->arena, ColSum, n->n + 1);
    w->result = NEWN(lo->arena, KVal, n->n * w->ni + 1);
    for (int k = 0; k < n->n; k++) if (n->root[k].kind == R_COL && n->root[k].width > 1) col_reserve(lo, &n->root[k], &w->col[k]);
    sync_nest(lo, w);
    for (int k = 0; k < n->n; k++) if (n->root[k].kind == R_COL) col_start(lo, &n->root[k], &w->col[k]);
    if (g->fixed) fixed_rows(lo, w);
    else looped_rows(lo, w);
    lo->row_limit = 0;
    g->live = 0;
    finish_columns(lo, w);
    g->fixed = false;
}

void snG_nest(Low *lo, int phase, int rows)
{
    ArenaMark mark = snU_mark(&lo->t->ctx->scratch);
    int tc = likely_columns(lo, rows);
    snG_map(lo, tc);
    Work w = { .n = snL_open_nest(lo, phase, rows, false) };
    lo->gpu->fixed = lo->gpu->dot_tc && takes_fragments(lo, &w.n);
    if (lo->gpu->fixed) snG_map(lo, lo->gpu->dot_tc);
    if (w.n.n) emit(lo, &w);
    lo->gpu->fixed = false;
    snL_close_nest(lo, &w.n);
    snU_reset(&lo->t->ctx->scratch, mark);
}

void snG_copy(Low *lo, TVal x, TVal to)
{
    TType ty = INS(lo, x)->type;
    Root root = { .x = x, .value = x, .tile = to, .kind = R_TILE, .width = ty.c };
    Work w = { .n = { .root = &root, .n = 1, .rows = ty.r, .levels = 1 } };
    lo->gpu->fixed = takes_fragments(lo, &w.n);
    snG_map(lo, lo->gpu->fixed ? lo->gpu->dot_tc : columns_of(lo, ty.r, ty.c, false));
    lo->level = 0;
    emit(lo, &w);
}
