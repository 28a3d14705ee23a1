/* lower_gpu_async.c: stages that are blocks of memory as they are, copied by cp.async while threads compute. In: stages in shared
   memory for tensor cores. Out: copies of 16 bytes, and waits before the barrier that precedes the first read.

   A stage by itself starts its copy where it stands and is waited for where a dot wants it (snG_sync). The stages of a pipelined loop
   become a RING of slots: step t computes with slot t mod S while the copies of steps t + 1 .. t + S - 1 are under way. One barrier a
   step says two things: the slot of step t is there for all, and all are through with that of step t - 1, which the next copy
   overwrites. TMA would replace `copy`, and its mbarriers the groups. */
#include "codegen/lower_gpu.h"

enum { BYTES = 16, UNROLL = 16 };                        /* bytes of a copy */

static int chunk(const GView *w) { return BYTES / snK_kind_bytes(w->kind); }    /* its elements */

static KVal op2(Low *lo, int op, KVal a, KVal b) { return snK_op(lo->k, op, i64(), a, b, 0); }

/* -- Which stages ------------------------------------------------------------------------------------------------- */

/* Does an index follow from the grid and loops alone? Then it can be computed for a later step. */
static bool is_arithmetic(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    if (!x || i->op == T_idx || i->op == T_grid || i->op == T_for) return true;
    return i->op >= T_iadd && i->op <= T_imax && is_arithmetic(lo, i->a[0]) && is_arithmetic(lo, i->a[1]);
}

static bool known_ahead(const Low *lo, TVal x, TVal loop)
{
    return !x || lo->region[x] != loop || is_arithmetic(lo, x);
}

/* A block that is copied as it is: rows that begin at multiples of 16 bytes, in memory that nobody writes. */
bool snG_is_block(const Low *lo, const GView *w)
{
    const TIns *s = INS(lo, w->stage), *x = INS(lo, s->a[0]);
    return s->op == T_stage && x->op == T_load && w->shared && x->cs == 1 && x->type.dtype == w->kind && !lo->t->params.v[x->buf].written &&
           snL_alignment_of(lo, x, x->type.r > 1, chunk(w)) == chunk(w);
}

/* Loop whose ring the stage is of; 0 = none. */
static TVal ring_of(const Low *lo, TVal stage)
{
    const TIns *s = INS(lo, stage), *x = INS(lo, s->a[0]);
    TVal f = lo->region[stage];
    bool ok = f && INS(lo, f)->op == T_for && INS(lo, f)->imm && x->op == T_load;
    ok = ok && known_ahead(lo, x->a[0], f) && known_ahead(lo, x->a[1], f) && known_ahead(lo, x->a[2], f);
    return ok && known_ahead(lo, s->a[1], f) && known_ahead(lo, s->a[2], f) ? f : 0;
}

int64_t snG_view_bytes(const GView *w) { return w->rows * w->ld * snK_kind_bytes(w->kind); }

/* Rings for the views that can have one, as deep as half the shared memory allows: two blocks shall find room on a multiprocessor.
   What else the program puts there is not known yet: see snK_lower_gpu. */
void snG_plan_rings(Low *lo)
{
    Gpu *g = lo->gpu;
    for (int n = 0; n < lo->nloops; n++) {
        TVal f = lo->loops[n];
        int64_t each = 0, rest = lo->target->shared_bytes / 2;
        for (uint32_t v = 0; v < g->views.n; v++) {
            GView *w = &g->views.v[v];
            w->ring = w->ring ? w->ring : snG_is_block(lo, w) && ring_of(lo, w->stage) == f ? f : 0;
            each += w->ring == f ? snG_view_bytes(w) : 0;
            rest -= w->ring == f ? 0 : snG_view_bytes(w) * (w->slots ? w->slots : 1);
        }
        int64_t slots = each ? rest / each : 0;
        slots = slots > g->most_slots ? g->most_slots : slots;
        for (uint32_t v = 0; v < g->views.n; v++) {
            GView *w = &g->views.v[v];
            if (w->ring != f) continue;
            w->slots = slots < 2 ? 0 : (int)slots;
            if (!w->slots) w->ring = 0;
        }
    }
}

/* -- Copies ---------------------------------------------------------------------------------------------------------- */

static KVal least(Low *lo, KVal a, TVal valid) { return valid ? op2(lo, K_min, a, lo->v[valid].k) : a; }

/* Bytes of the chunk at (row, col) that are inside; 0 = all, surely. */
static KVal bytes_inside(Low *lo, const GView *w, KVal row, KVal col)
{
    const TIns *s = INS(lo, w->stage), *x = INS(lo, s->a[0]);
    KType i32 = kt(K_I32, 1);
    TType ty = x->type;
    KVal n = 0;
    if (s->a[2] || x->a[2] || w->cols != ty.c) {
        KVal left = op2(lo, K_sub, least(lo, least(lo, ki(lo, ty.c), s->a[2]), x->a[2]), col);
        n = snK_op(lo->k, K_cast, i32, kmul(lo, op2(lo, K_max, op2(lo, K_min, left, ki(lo, chunk(w))), ki(lo, 0)), snK_kind_bytes(w->kind)), 0, 0);
    }
    if (s->a[1] || x->a[1] || w->rows != ty.r) {
        KVal in = snK_op(lo->k, K_lt, kt(K_BOOL, 1), row, least(lo, least(lo, ki(lo, ty.r), s->a[1]), x->a[1]), 0);
        n = snK_op(lo->k, K_select, i32, in, n ? n : snK_int(lo->k, i32, BYTES), snK_int(lo->k, i32, 0));
    }
    return n;
}

/* The chunk at (row, col); slot: elements from the view's start. */
static void copy_chunk(Low *lo, const GView *w, KVal slot, KVal row, KVal col)
{
    const TIns *x = INS(lo, INS(lo, w->stage)->a[0]);
    KVal n = bytes_inside(lo, w, row, col), from = kadd(lo, kadd(lo, lo->v[x->a[0]].k, x->type.r > 1 ? kmul(lo, row, x->rs) : ki(lo, 0)), col);
    if (n) {                                              /* an address outside is not read from, but be it none */
        KVal any = snK_op(lo->k, K_gt, kt(K_BOOL, 1), n, snK_int(lo->k, kt(K_I32, 1), 0), 0);
        from = snK_op(lo->k, K_select, i64(), any, from, ki(lo, 0));
    }
    KVal to = kadd(lo, slot, kadd(lo, kmul(lo, row, w->ld), col));
    KVal a = snK_op(lo->k, K_offset, kt(K_PTR, 1), snK_shared_ptr(lo->k, w->kind, w->at), to, 0), b = snK_op(lo->k, K_offset, kt(K_PTR, 1), lo->params[x->buf], from, 0);
    snK_emit(lo->k, (KIns){ .op = K_cp_async, .a = { a, b, n }, .imm = BYTES });
}

/* Chunk c, counted along the rows. */
static void copy_nth(Low *lo, const GView *w, KVal slot, KVal c)
{
    int64_t across = w->cols / chunk(w);
    copy_chunk(lo, w, slot, op2(lo, K_div, c, ki(lo, across)), kmul(lo, op2(lo, K_rem, c, ki(lo, across)), chunk(w)));
}

/* All threads take chunks in turn. Where they cover whole rows, a thread's are apart by a constant, and so its addresses. */
static void copy(Low *lo, const GView *w, KVal slot)
{
    const Gpu *g = lo->gpu;
    int64_t across = w->cols / chunk(w), chunks = w->rows * across, whole = chunks / g->T;
    bool rows = g->T % across == 0;
    if (whole > UNROLL) {
        copy_nth(lo, w, slot, snK_for(lo->k, g->tid, ki(lo, chunks), ki(lo, g->T), 1));
        snK_end(lo->k);
        return;
    }
    KVal row = op2(lo, K_div, g->tid, ki(lo, across)), col = kmul(lo, op2(lo, K_rem, g->tid, ki(lo, across)), chunk(w));
    for (int64_t n = 0; n * g->T < chunks; n++) {
        KVal c = kadd(lo, g->tid, ki(lo, n * g->T));
        bool some = (n + 1) * g->T > chunks;
        if (some) snK_if(lo->k, snK_op(lo->k, K_lt, kt(K_BOOL, 1), c, ki(lo, chunks), 0));
        if (rows) copy_chunk(lo, w, slot, kadd(lo, row, ki(lo, n * (g->T / across))), col);
        else copy_nth(lo, w, slot, c);
        if (some) snK_end(lo->k);
    }
}

static void commit(Low *lo) { snK_emit(lo->k, (KIns){ .op = K_cp_commit }); }
static void wait(Low *lo, int64_t groups) { snK_emit(lo->k, (KIns){ .op = K_cp_wait, .imm = groups }); }

/* -- A stage by itself ------------------------------------------------------------------------------------------- */

void snG_copy_block(Low *lo, const GView *w)
{
    Gpu *g = lo->gpu;
    Touched t = { 0 };
    snG_touch_view(lo, &t, w, true);
    snG_sync(lo, &t);
    copy(lo, w, ki(lo, 0));
    commit(lo);
    PUSH(lo->arena, g->pending, t.writes.v[0]);
}

/* Before a barrier that orders `reads`: the copies they are of have arrived. Later ones go on. */
void snG_await(Low *lo, const int64_t *reads, uint32_t n)
{
    Gpu *g = lo->gpu;
    uint32_t done = 0;
    for (uint32_t i = 0; i < g->pending.n; i++)
        for (uint32_t k = 0; k < n; k++) if (g->pending.v[i] == reads[k]) done = i + 1;
    if (!done) return;
    wait(lo, g->pending.n - done);
    for (uint32_t i = done; i < g->pending.n; i++) g->pending.v[i - done] = g->pending.v[i];
    g->pending.n -= done;
}

void snG_await_all(Low *lo)
{
    if (lo->gpu->pending.n) wait(lo, 0);
    lo->gpu->pending.n = 0;
}

/* -- Rings ------------------------------------------------------------------------------------------------------------ */

static bool is_of(const GView *w, TVal loop) { return w->ring == loop && w->slots; }

static void forget_indices(Low *lo, TVal loop)
{
    for (TVal x = loop + 1; x < lo->close[loop]; x++) {
        int op = INS(lo, x)->op;
        if (op >= T_iadd && op <= T_imax && lo->region[x] == loop) lo->v[x].k = 0;
    }
}

/* Starts the copies of step `at`, if there is one, into slot `slot`; a group of its own in any case. */
static void start_step(Low *lo, TVal loop, KVal at, KVal slot)
{
    Gpu *g = lo->gpu;
    KVal was = lo->v[loop].k;
    snK_if(lo->k, snK_op(lo->k, K_lt, kt(K_BOOL, 1), at, lo->v[INS(lo, loop)->a[1]].k, 0));
    lo->v[loop].k = at;
    forget_indices(lo, loop);
    for (uint32_t n = 0; n < g->views.n; n++) {
        const GView *w = &g->views.v[n];
        if (!is_of(w, loop)) continue;
        const TIns *s = INS(lo, w->stage), *x = INS(lo, s->a[0]);
        TVal index[] = { x->a[0], x->a[1], x->a[2], s->a[1], s->a[2] };
        for (int k = 0; k < 5; k++) snL_force_idx(lo, index[k]);
        copy(lo, w, kmul(lo, slot, snG_view_bytes(w) / snK_kind_bytes(w->kind)));
    }
    snK_end(lo->k);
    forget_indices(lo, loop);
    lo->v[loop].k = was;
    commit(lo);
}

static const GView *first_of(const Low *lo, TVal loop)
{
    for (uint32_t n = 0; n < lo->gpu->views.n; n++) if (is_of(&lo->gpu->views.v[n], loop)) return &lo->gpu->views.v[n];
    return NULL;
}

bool snG_fill_ring(Low *lo, TVal loop, Ring *r)
{
    const GView *w = lo->gpu && lo->gpu->mma ? first_of(lo, loop) : NULL;
    const TIns *f = INS(lo, loop);
    if (!w) return false;
    Touched t = { 0 };
    *r = (Ring){ .slots = w->slots, .read = snK_var(lo->k, ki(lo, 0)), .write = snK_var(lo->k, ki(lo, w->slots - 1)) };
    for (uint32_t n = 0; n < lo->gpu->views.n; n++) {
        GView *v = &lo->gpu->views.v[n];
        if (!is_of(v, loop)) continue;
        v->slot = r->read;
        snG_touch_view(lo, &t, v, true);
    }
    snG_await_all(lo);
    snG_sync(lo, &t);
    snK_set(lo->k, r->read, ki(lo, 0));
    snK_set(lo->k, r->write, ki(lo, r->slots - 1));
    for (int s = 0; s < r->slots - 1; s++) start_step(lo, loop, kadd(lo, lo->v[f->a[0]].k, kmul(lo, lo->v[f->a[2]].k, s)), ki(lo, s));
    return true;
}

void snG_begin_step(Low *lo, TVal loop, const Ring *r)
{
    Gpu *g = lo->gpu;
    wait(lo, r->slots - 2);
    snK_emit(lo->k, (KIns){ .op = K_barrier });
    g->reads.n = g->writes.n = 0;
    g->unknown = false;
    KVal ahead = kadd(lo, lo->v[loop].k, kmul(lo, lo->v[INS(lo, loop)->a[2]].k, r->slots - 1));
    start_step(lo, loop, ahead, snK_get(lo->k, r->write));
}

static void next_slot(Low *lo, KVal slot, int slots)
{
    KVal n = kadd(lo, snK_get(lo->k, slot), ki(lo, 1)), end = snK_op(lo->k, K_eq, kt(K_BOOL, 1), n, ki(lo, slots), 0);
    snK_set(lo->k, slot, snK_op(lo->k, K_select, i64(), end, ki(lo, 0), n));
}

void snG_end_step(Low *lo, const Ring *r)
{
    next_slot(lo, r->read, r->slots);
    next_slot(lo, r->write, r->slots);
}
