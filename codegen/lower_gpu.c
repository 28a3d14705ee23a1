/* lower_gpu.c: a tile program to kernel IR for one thread block (lower_gpu.h). In: a checked tile program and a target that is a GPU.
   Out: a kernel that says what one thread does.

   This file decides where tiles live and places the barriers. Shared memory is handed out in the order of need; a tile that finds
   no room lives in scratch, in global memory: slower, and right. */
#include "codegen/lower_gpu.h"

/* -- Barriers ------------------------------------------------------------------------------------------------ */

/* Memory that may be touched by several threads, as one number. */
static int64_t key(int space, int64_t at) { return (int64_t)space << 56 | at; }
enum { IN_SCRATCH = 1, IN_SHARED, IN_BUFFER };

typedef struct Keys { const int64_t *v; uint32_t n; } Keys;

static bool meet(Keys a, Keys b)
{
    for (uint32_t i = 0; i < a.n; i++)
        for (uint32_t k = 0; k < b.n; k++) if (a.v[i] == b.v[k]) return true;
    return false;
}

#define KEYS(vec) ((Keys){ (vec).v, (vec).n })

bool snG_meets(const Touched *writes, const Touched *reads) { return meet(KEYS(writes->writes), KEYS(reads->reads)); }

void snG_sync(Low *lo, const Touched *t)
{
    Gpu *g = lo->gpu;
    bool any = t->reads.n || t->writes.n;
    bool conflict = meet(KEYS(t->reads), KEYS(g->writes)) || meet(KEYS(t->writes), KEYS(g->writes)) || meet(KEYS(t->writes), KEYS(g->reads));
    if (any && (g->unknown || conflict)) {
        snG_await(lo, t->reads.v, t->reads.n);
        snG_await(lo, t->writes.v, t->writes.n);
        snK_emit(lo->k, (KIns){ .op = K_barrier });
        g->reads.n = g->writes.n = 0;
        for (uint32_t i = 0; i < g->pending.n; i++) PUSH(lo->arena, g->writes, g->pending.v[i]);
        g->unknown = false;
    }
    for (uint32_t i = 0; i < t->reads.n; i++) PUSH(lo->arena, g->reads, t->reads.v[i]);
    for (uint32_t i = 0; i < t->writes.n; i++) PUSH(lo->arena, g->writes, t->writes.v[i]);
}

void snG_edge(Low *lo)
{
    if (!lo->gpu) return;
    snG_await_all(lo);
    lo->gpu->unknown = true;
}

static void touch(Low *lo, Touched *t, int64_t k, bool write)
{
    if (write) PUSH(lo->arena, t->writes, k);
    else PUSH(lo->arena, t->reads, k);
}

void snG_touch_tile(Low *lo, Touched *t, TVal x, bool write)
{
    const LVal *v = &lo->v[x];
    if (v->at && !v->frag) snG_touch_memory(lo, t, v->at - 1, v->shared, write);
}

void snG_touch_memory(Low *lo, Touched *t, int64_t at, bool shared, bool write)
{
    touch(lo, t, key(shared ? IN_SHARED : IN_SCRATCH, at), write);
}

void snG_touch_view(Low *lo, Touched *t, const GView *w, bool write) { snG_touch_memory(lo, t, w->at, w->shared, write); }

/* Buffers that nobody writes need no order, unless an output of their size may be the same memory. */
void snG_touch_buffer(Low *lo, Touched *t, int buf, bool write)
{
    const TParam *p = &lo->t->params.v[buf];
    if (write || p->written) touch(lo, t, key(IN_BUFFER, buf), write);
    for (uint32_t q = 0; q < lo->t->params.n; q++) {
        const TParam *o = &lo->t->params.v[q];
        bool same = o->count * snG_dtype_size((Dtype)o->dtype) == p->count * snG_dtype_size((Dtype)p->dtype);
        if ((int)q == buf || p->local || o->local || !same || (!o->written && !write)) continue;
        touch(lo, t, key(IN_BUFFER, q), write);
    }
}

void snG_touch_value(Low *lo, Touched *t, TVal x)
{
    const TIns *i = INS(lo, x);
    LVal *v = &lo->v[x];
    TVal args[5];
    if (v->seen == lo->mark) return;
    v->seen = lo->mark;
    snG_touch_tile(lo, t, i->op == T_get ? i->a[0] : x, false);
    snG_touch_tile(lo, t, x, false);
    if (i->op == T_load || i->op == T_gather) snG_touch_buffer(lo, t, i->buf, false);
    if (v->how == H_TILE || i->op == T_get) return;
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) snG_touch_value(lo, t, args[k]);
}

void snG_sync_value(Low *lo, TVal x)
{
    Touched t = { 0 };
    if (!lo->gpu) return;
    lo->mark++;
    snG_touch_value(lo, &t, x);
    snG_sync(lo, &t);
}

/* -- Where tiles live ------------------------------------------------------------------------------------------ */

int64_t snG_reserve(Low *lo, int64_t bytes, bool *shared)
{
    *shared = lo->k->shared + up(bytes, 128) <= lo->target->shared_bytes;
    return *shared ? snK_shared(lo->k, bytes) : snK_scratch(lo->k, bytes);
}

/* Rows and columns are padded to what the fragments' grid covers, and rows apart so that they start in different banks. */
void snG_place_memory(Low *lo, TVal x)
{
    LVal *v = &lo->v[x];
    const Gpu *g = lo->gpu;
    TType ty = INS(lo, x)->type;
    if (v->at) return;
    int64_t wide = g->dot_tc ? (int64_t)g->dot_tc * lo->L : lo->L, tall = g->dot_tc ? g->T / g->dot_tc : 1;
    int64_t rows = ty.r == 1 ? 1 : up(ty.r, tall), ld = ty.c == 1 ? 1 : up(ty.c, wide) + (ty.r > 1 ? 4 : 0);
    int size = snL_kind(ty.dtype) == K_BOOL ? 1 : 4;
    v->ld = (int32_t)ld;
    v->at = 1 + snG_reserve(lo, rows * ld * size, &v->shared);
}

static int frag_rows(const Low *lo, TType ty) { int tr = lo->gpu->T / lo->gpu->dot_tc; return (ty.r + tr - 1) / tr; }
static int frag_cols(const Low *lo, TType ty) { int w = lo->gpu->dot_tc * lo->L; return ty.c == 1 ? 1 : (ty.c + w - 1) / w; }

/* Is the value wanted where threads read what others hold: by a stage, as an operand of a dot, along its row one after the other? */
static bool wants_memory(const Low *lo, TVal x)
{
    for (uint32_t a = lo->first_user[x]; a < lo->first_user[x + 1]; a++) {
        TVal u = lo->users[a];
        const TIns *i = INS(lo, u);
        if (i->op == T_stage || i->op == T_scan || i->op == T_topk || lo->v[u].how == H_INLINE) return true;
        if (i->op == T_dot && i->a[0] == x && (!lo->gpu->mma || i->imm & 1)) return true;
        if (i->op == T_scatter_add) return true;
    }
    return false;
}

static bool fits_registers(const Low *lo, TVal x)
{
    TType ty = INS(lo, x)->type;
    int vectors = lo->gpu->dot_tc ? frag_rows(lo, ty) * frag_cols(lo, ty) : 0;
    return vectors && ty.r > 1 && vectors <= (ty.c == 1 ? 16 : lo->gpu->mma ? 64 : 24);
}

static void make_frag(Low *lo, TVal x)
{
    TType ty = INS(lo, x)->type;
    Frag f = { frag_rows(lo, ty), frag_cols(lo, ty), NULL };
    KType t = kt(snL_kind(ty.dtype), ty.c == 1 ? 1 : lo->L);
    KVal first = t.kind == K_F32 ? snK_float(lo->k, t, 0) : snK_int(lo->k, t, 0);
    f.reg = NEWN(lo->arena, KVal, f.ni * f.nj);
    for (int k = 0; k < f.ni * f.nj; k++) f.reg[k] = snK_var(lo->k, first);
    PUSH(lo->arena, lo->gpu->frags, f);
    lo->v[x].frag = lo->gpu->frags.n;
}

void snG_place(Low *lo, TVal x)
{
    if (lo->v[x].at || lo->v[x].frag) return;
    if (!wants_memory(lo, x) && fits_registers(lo, x)) make_frag(lo, x);
    else snG_place_memory(lo, x);
}

KVal snG_register(Low *lo, TVal x)
{
    const Gpu *g = lo->gpu;
    const Frag *f = &g->frags.v[lo->v[x].frag - 1];
    SN_ASSERT(g->fixed && g->i < f->ni && g->j < f->nj, "tile %s: %%%u is read off its fragment's grid", snU_str(lo->t->ctx, lo->t->name), x);
    return f->reg[INS(lo, x)->type.c == 1 ? g->i : g->i * f->nj + g->j];
}

/* Vars, what dots add into them, and gets that may read the var itself share one place: in registers only if all may. */
static void place_vars(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    bool *memory = NEWN(lo->arena, bool, n + 1);
    for (TVal x = 1; x < n; x++) {
        const TIns *i = INS(lo, x);
        if (lo->v[x].how != H_TILE || i->op == T_stage) continue;
        TVal home = i->op == T_dot && lo->dest[x] ? lo->dest[x] : i->op == T_get && snL_get_shares(lo, x) ? i->a[0] : x;
        memory[home] |= wants_memory(lo, x) || !fits_registers(lo, x) || i->op == T_scan || i->op == T_topk ||
                        (i->op == T_dot && i->type.c == 1);
    }
    for (TVal x = 1; x < n; x++) {
        const TIns *i = INS(lo, x);
        LVal *v = &lo->v[x];
        if (v->how != H_TILE || i->op == T_stage) continue;
        TVal home = i->op == T_dot && lo->dest[x] ? lo->dest[x] : i->op == T_get && snL_get_shares(lo, x) ? i->a[0] : x;
        LVal *h = &lo->v[home];
        if (!h->at && !h->frag) memory[home] ? snG_place_memory(lo, home) : make_frag(lo, home);
        if (home != x) v->at = h->at, v->ld = h->ld, v->frag = h->frag, v->shared = h->shared;
    }
}

/* -- Stages ------------------------------------------------------------------------------------------------------- */

GView *snG_view(Low *lo, TVal stage, bool turned)
{
    Gpu *g = lo->gpu;
    for (uint32_t n = 0; n < g->views.n; n++)
        if (g->views.v[n].stage == stage && g->views.v[n].turned == turned) return &g->views.v[n];
    return NULL;
}

KVal snG_view_ptr(Low *lo, const GView *w)
{
    if (w->slots) return snK_op(lo->k, K_offset, kt(K_PTR, 1), snK_shared_ptr(lo->k, w->kind, w->at), kmul(lo, snK_get(lo->k, w->slot), snG_view_bytes(w) / snK_kind_bytes(w->kind)), 0);
    return w->shared ? snK_shared_ptr(lo->k, w->kind, w->at) : snK_scratch_ptr(lo->k, w->kind, w->at);
}

/* A right operand [n, k] is turned, so that a dot reads vectors along n; a left one is read an element at a time either way. */
static void plan_views(Low *lo)
{
    for (TVal d = 1; d < lo->t->ins.n; d++) {
        const TIns *i = INS(lo, d);
        if (i->op != T_dot) continue;
        for (int right = 0; right < 2; right++) {
            TVal s = i->a[right];
            bool turned = right && (i->imm & 2);
            if (INS(lo, s)->op != T_stage || snG_view(lo, s, turned)) continue;
            TType ty = INS(lo, s)->type;
            int64_t r = turned ? ty.c : ty.r, c = turned ? ty.r : ty.c, wide = (int64_t)lo->gpu->dot_tc * lo->L;
            GView w = { .stage = s, .turned = turned, .kind = K_F32, .ld = up(c, wide) + 4 };
            w.at = snG_reserve(lo, up(r, lo->gpu->T / lo->gpu->dot_tc) * w.ld * 4, &w.shared);
            PUSH(lo->arena, lo->gpu->views, w);
        }
    }
}

/* -- The grid of threads ------------------------------------------------------------------------------------------ */

void snG_map(Low *lo, int tc)
{
    Gpu *g = lo->gpu;
    g->TC = tc, g->TR = g->T / tc;
    g->tc = snK_op(lo->k, K_and, i64(), g->tid, ki(lo, tc - 1), 0);
    g->tr = tc == g->T ? ki(lo, 0) : snK_op(lo->k, K_div, i64(), g->tid, ki(lo, tc), 0);
}

KVal snG_aligned_load(Low *lo, KType t, KVal ptr, KVal at)
{
    return snK_emit(lo->k, (KIns){ .op = K_load, .type = t, .a = { ptr, at }, .imm = t.lanes });
}

/* Threads across the columns of dots: a vector each of the narrowest whole number, so that few idle. */
static int dot_columns(const Low *lo)
{
    int widest = 0;
    for (TVal d = 1; d < lo->t->ins.n; d++)
        if (INS(lo, d)->op == T_dot && INS(lo, d)->type.c > widest) widest = INS(lo, d)->type.c;
    if (!widest) return 0;
    int tc = 1;
    while (tc < 16 && tc * lo->L < widest) tc *= 2;
    return tc;
}

static Kernel *lower(sn_ctx *c, Arena *a, const Tile *t, const Target *target, Gpu *gpu)
{
    Low low = { .gpu = gpu, .t = t, .target = target, .arena = a, .L = target->f32_lanes }, *lo = &low;
    lo->k = snK_new(c, a, snU_str(c, t->name));
    lo->k->threads = gpu->T;
    lo->k->ex2 = snK_is_ptx(target);
    lo->v = NEWN(a, LVal, t->ins.n + 1);
    lo->params = NEWN(a, KVal, t->params.n + 1);
    for (uint32_t p = 0; p < t->params.n; p++) {
        const TParam *q = &t->params.v[p];
        if (q->local) lo->params[p] = snK_scratch_ptr(lo->k, (KKind)q->dtype, snK_scratch(lo->k, q->count * snG_dtype_size((Dtype)q->dtype)));
        else lo->params[p] = snK_ptr(lo->k, snK_param(lo->k, snU_str(c, q->name), (KKind)q->dtype, q->written));
    }
    snL_analyse(lo);
    lo->zero_loop = NEWN(a, TVal, t->ins.n + 1);
    lo->direct = NEWN(a, TVal, t->ins.n + 1);
    gpu->tid = snK_leaf(lo->k, K_thread, i64(), 0);
    gpu->mma = snG_takes_mma(lo);
    if (gpu->mma) lo->L = 2;
    gpu->dot_tc = gpu->mma ? 4 : dot_columns(lo);
    if (gpu->mma) snG_plan_operands(lo);
    else plan_views(lo);
    place_vars(lo);
    snL_grid(lo, snK_leaf(lo->k, K_block, i64(), 0));
    snL_region(lo, 1, t->ins.n);
    snK_verify(lo->k);
    return lo->k;
}

/* With the deepest rings that leave room for a second block on the multiprocessor; if none do, the deepest. */
Kernel *snK_lower_gpu(sn_ctx *c, Arena *a, const Tile *t, const Target *target)
{
    enum { THREADS = 128, MOST_SLOTS = 4 };
    Kernel *deepest = NULL;
    for (int slots = MOST_SLOTS, used = 0; slots > 0; slots = used - 1, used = 0) {
        Gpu gpu = { .T = THREADS, .most_slots = slots };
        Kernel *k = lower(c, a, t, target, &gpu);
        if (k->shared <= target->shared_bytes / 2) return k;
        if (!deepest) deepest = k;
        for (uint32_t v = 0; v < gpu.views.n; v++)
            if (gpu.views.v[v].ring && gpu.views.v[v].slots > used) used = gpu.views.v[v].slots;
    }
    return deepest;
}
