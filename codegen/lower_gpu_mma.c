/* lower_gpu_mma.c: contractions on tensor cores: mma.sync m16n8k16 over 16-bit operands, or m16n8k8 over f32 ones rounded to tf32 where
   that was asked for, sums in f32. In: a program all of whose dots have operands of one such dtype, on a card with warps. Out: stages as
   rows in shared memory, products of fragments.

   The grid of fragments is that of lower_gpu.h with vectors of 2 and 4 threads across. A thread tid = 32 warp + 4 g + t then holds

     rows     8 warp + g + TR i         columns 8 j + 2 t, 8 j + 2 t + 1

   and that is the accumulator of mma (PTX ISA, "Matrix fragments for mma.m16n8k16"): register i = 2 m is the upper half of its 16 rows, i = 2 m + 1
   the lower. Which rows of the tile the halves are is free, for ldmatrix takes an address per row. For the same reason an
   accumulator, rounded, is a left operand: columns 16 k + 0..15 are the registers j = 2 k and 2 k + 1. So the scores of attention
   become probabilities and the left operand of the next product without leaving the registers, and sums along a row are two shuffles.

   A fragment of tf32 is one of 16 bits with half the columns: ldmatrix moves words as well, but does not turn them, so what lies down the
   depth is loaded word by word. An accumulator has columns 2 t and 2 t + 1 where a left operand wants t and t + 4; as all
   orders of the depth have the same sum, the right operand is then read in that order. Words are rounded as they are read.

   Stages lie in memory as the tile does; ldmatrix turns them where a product wants it. Rows are an odd number of 16 bytes apart, so that
   the 8 rows of a matrix lie in different banks; 8 words beyond a multiple of 32 where words are loaded one by one, 4 rows of 8. wgmma reads its operands from shared memory by itself: it
   would replace `multiply` and ask `half_view` for its swizzle; TMA would replace `pack` where a stage is a plain load. */
#include "codegen/lower_gpu.h"

/* Column blocks of a result that has no fragment; depth that is unrolled. */
enum { CHUNK = 8, UNROLL = 64 };

static KVal op2(Low *lo, int op, KVal a, KVal b) { return snK_op(lo->k, op, i64(), a, b, 0); }

static bool is_half(int dtype) { return dtype == SN_BF16 || dtype == SN_F16; }

bool snG_takes_mma(const Low *lo)
{
    bool any = false;
    for (TVal d = 1; d < lo->t->ins.n && lo->target->sm >= 80; d++) {
        const TIns *i = INS(lo, d);
        if (i->op != T_dot) continue;
        int a = INS(lo, i->a[0])->type.dtype, b = INS(lo, i->a[1])->type.dtype;
        if (a != b || !(is_half(a) || (a == SN_F32 && lo->target->tf32))) return false;
        any = true;
    }
    return any;
}

/* Elements of 16 bytes; the depth of an mma is two of these. */
static int unit(const GView *w) { return w->kind == K_F32 ? 4 : 8; }

/* -- Tiles in memory --------------------------------------------------------------------------------------- */

static int64_t rows_of_grid(const Low *lo) { return lo->gpu->T / lo->gpu->dot_tc; }

/* Elements between rows: see the head of the file. */
static int64_t apart(const GView *w, bool by_words)
{
    int64_t u = unit(w);
    if (by_words) return (w->cols + 23) / 32 * 32 + 8;
    return w->cols + (w->cols / u % 2 ? 0 : u);
}

/* Value x as rows of its elements, padded to what its dots read: whole steps along the depth, 8 along n, a grid's along m. */
static GView operand_view(Low *lo, TVal x)
{
    GView *old = snG_view(lo, x, false);
    if (old) return *old;
    TType ty = INS(lo, x)->type;
    GView w = { .stage = x, .kind = (KKind)ty.dtype, .rows = ty.r, .cols = ty.c };
    bool along = false;                                   /* the depth of some product runs along the rows */
    int64_t step = 2 * unit(&w);
    for (uint32_t u = lo->first_user[x]; u < lo->first_user[x + 1]; u++) {
        const TIns *i = INS(lo, lo->users[u]);
        for (int right = 0; right < 2 && i->op == T_dot; right++) {
            if (i->a[right] != x) continue;
            bool down = right ? !(i->imm & 2) : (i->imm & 1);          /* the depth runs down the rows */
            int64_t side = right ? 8 : rows_of_grid(lo), r = up(ty.r, down ? step : side), c = up(ty.c, down ? side : step);
            along |= !down;
            w.rows = r > w.rows ? r : w.rows, w.cols = c > w.cols ? c : w.cols;
        }
    }
    w.cols = up(w.cols, unit(&w));
    w.ld = apart(&w, w.kind == K_F32 && !along);
    if (INS(lo, x)->op != T_stage) w.at = snG_reserve(lo, snG_view_bytes(&w), &w.shared);
    PUSH(lo->arena, lo->gpu->views, w);
    return w;
}

/* Layouts of all stages, then rings, then their places. */
void snG_plan_operands(Low *lo)
{
    Gpu *g = lo->gpu;
    for (TVal x = 1; x < lo->t->ins.n; x++) if (INS(lo, x)->op == T_stage) operand_view(lo, x);
    for (uint32_t n = 0; n < g->views.n; n++) g->views.v[n].shared = true;
    snG_plan_rings(lo);
    for (uint32_t n = 0; n < g->views.n; n++) {
        GView *w = &g->views.v[n];
        w->at = snG_reserve(lo, snG_view_bytes(w) * (w->slots ? w->slots : 1), &w->shared);
        if (!w->shared) w->slots = 0, w->ring = 0;
    }
}

static void pack(Low *lo, const GView *w, TVal value, TVal vr, TVal vc)
{
    Gpu *g = lo->gpu;
    TType ty = INS(lo, value)->type;
    int L = lo->L, tc = 1, u = unit(w);
    lo->L = u;
    while (tc < 32 && (int64_t)tc * u < w->cols) tc *= 2;
    snG_map(lo, tc);
    lo->width = ty.c, lo->level = 0, lo->phase = -1, lo->rows = ty.r;
    KVal row = snK_for(lo->k, g->tr, ki(lo, w->rows), ki(lo, g->TR), 1);
    KVal v = snK_for(lo->k, g->tc, ki(lo, w->cols / u), ki(lo, g->TC), 1);
    KVal x = snG_staged_value(lo, value, vr, vc, row, v, !vr && w->rows == ty.r, vc || w->cols != ty.c);
    if (w->kind != K_F32) x = snK_op(lo->k, K_cast, kt(w->kind, u), x, 0, 0);
    snK_store(lo->k, snG_view_ptr(lo, w), kadd(lo, kmul(lo, row, w->ld), kmul(lo, v, u)), x, 0);
    snK_end(lo->k);
    snK_end(lo->k);
    lo->row_limit = 0;
    lo->L = L;
}

static void pack_in_turn(Low *lo, const GView *w, TVal value, TVal vr, TVal vc)
{
    Touched t = { 0 };
    lo->mark++;
    snG_touch_value(lo, &t, value);
    snG_touch_view(lo, &t, w, true);
    snG_sync(lo, &t);
    pack(lo, w, value, vr, vc);
}

/* Groups of copies are counted; those of a ring must not mix with others. */
static bool in_ring(const Low *lo, TVal region)
{
    for (; region; region = lo->region[region])
        for (uint32_t n = 0; n < lo->gpu->views.n; n++) if (lo->gpu->views.v[n].slots && lo->gpu->views.v[n].ring == region) return true;
    return false;
}

void snG_pack_operand(Low *lo, TVal stage)
{
    const TIns *i = INS(lo, stage);
    GView w = operand_view(lo, stage);
    if (w.slots) return;                                  /* its ring copies it */
    if (snG_is_block(lo, &w) && !in_ring(lo, lo->region[stage])) { snG_copy_block(lo, &w); return; }
    pack_in_turn(lo, &w, i->a[0], i->a[1], i->a[2]);
}

/* -- The product ---------------------------------------------------------------------------------------------------- */

typedef struct Mma {
    TVal d;
    bool ta, tb;
    GView a, b;                      /* a: only if it is no fragment */
    const Frag *left;
    int first, ni, nj;               /* column blocks first .. first + nj - 1 of the result */
    KVal *acc;                       /* [ni][nj], f32x2 vars */
    KVal depth; bool cut;            /* steps of depth; not the whole of the left operand */
    bool whole;                      /* all of the stages' depth, unrolled: both are zero beyond what counts */
    KVal l8, upper, right, warp_row; /* lane & 7, bit 3 and bit 4 of the lane; first row of the warp */
    int half;                        /* depth of a quarter of the left fragment: 8, tf32: 4 */
} Mma;

static bool is_tf32(const Mma *m) { return m->half == 4; }

static KVal lanes_of(Low *lo, KVal x, int first, int n)
{
    static const uint8_t lane[] = { 0, 1, 2, 3 };
    return snK_shuffle(lo->k, x, 0, lane + first, n);
}

static KVal both(Low *lo, KVal a, KVal b)
{
    static const uint8_t lane[] = { 0, 1, 2, 3 };
    return snK_shuffle(lo->k, a, b, lane, 2 * snK_type(lo->k, a).lanes);
}

static KVal rounded_words(Low *lo, KVal x)
{
    KType t = kt(K_U32, snK_type(lo->k, x).lanes);
    return snK_op(lo->k, K_tf32, t, snK_type(lo->k, x).kind == K_U32 ? x : snK_op(lo->k, K_bitcast, t, x, 0, 0), 0, 0);
}

/* To ldmatrix a word is two elements. */
static KVal ldmatrix(Low *lo, const GView *w, KVal row, KVal col, int lanes, bool turned)
{
    bool words = w->kind == K_F32;
    GView h = *w;
    if (words) h.kind = K_BF16, h.cols *= 2, h.ld *= 2, col = kmul(lo, col, 2);
    KVal at = kadd(lo, kmul(lo, row, h.ld), col);
    KVal x = snK_emit(lo->k, (KIns){ .op = K_ldmatrix, .type = kt(K_U32, lanes), .a = { snG_view_ptr(lo, &h), at }, .imm = turned });
    return words ? rounded_words(lo, x) : x;
}

static KVal words_at(Low *lo, const GView *w, KVal row, KVal col, int lanes)
{
    return rounded_words(lo, snK_load(lo->k, kt(K_F32, lanes), snG_view_ptr(lo, w), kadd(lo, kmul(lo, row, w->ld), col), 0));
}

/* The lane's own row g and column t of a matrix of words. */
static KVal lane_g(Low *lo) { return op2(lo, K_and, op2(lo, K_shr, lo->gpu->tid, ki(lo, 2)), ki(lo, 7)); }
static KVal lane_t(Low *lo) { return op2(lo, K_and, lo->gpu->tid, ki(lo, 3)); }

/* Halves of 8 rows times halves of 8 steps: registers 0..3 are (upper, first), (lower, first), (upper, second), (lower, second). */
static KVal left_from_memory(Low *lo, const Mma *m, int i, KVal k)
{
    int64_t TR = rows_of_grid(lo);
    bool whole = 2 * i + 1 < m->ni;
    KVal row = kadd(lo, m->warp_row, ki(lo, 2 * i * TR));
    if (m->ta && is_tf32(m)) {
        KVal w[4], col = kadd(lo, row, lane_g(lo));
        for (int n = 0; n < 4; n++) w[n] = words_at(lo, &m->a, kadd(lo, kadd(lo, k, lane_t(lo)), ki(lo, n / 2 * 4)), kadd(lo, col, ki(lo, whole ? n % 2 * TR : 0)), 1);
        return both(lo, both(lo, w[0], w[1]), both(lo, w[2], w[3]));
    }
    if (whole) row = kadd(lo, row, kmul(lo, m->upper, TR));
    k = kadd(lo, k, kmul(lo, m->right, m->half));
    return m->ta ? ldmatrix(lo, &m->a, kadd(lo, k, m->l8), row, 4, true) : ldmatrix(lo, &m->a, kadd(lo, row, m->l8), k, 4, false);
}

/* Two rounded elements of a fragment, in a word or two; zero beyond the depth. */
static KVal word(Low *lo, const Mma *m, int i, int j)
{
    Kernel *k = lo->k;
    if (i >= m->left->ni || j >= m->left->nj) return snK_int(k, kt(K_U32, is_tf32(m) ? 2 : 1), 0);
    KVal x = snK_get(k, m->left->reg[i * m->left->nj + j]);
    int64_t size = INS(lo, INS(lo, m->d)->a[0])->type.c;
    if (size == 1) x = both(lo, x, snK_float(k, kt(K_F32, 1), 0));
    if (m->cut || 8 * (j + 1) > size) {
        KType it = kt(K_I32, 2);
        KVal rest = op2(lo, K_sub, m->depth, kadd(lo, kmul(lo, lo->gpu->tc, 2), ki(lo, 8 * j)));
        rest = snK_op(k, K_splat, it, snK_op(k, K_cast, kt(K_I32, 1), rest, 0, 0), 0, 0);
        KVal in = snK_op(k, K_lt, kt(K_BOOL, 2), snK_leaf(k, K_lane, it, 0), rest, 0);
        x = snK_op(k, K_select, kt(K_F32, 2), in, x, snK_float(k, kt(K_F32, 2), 0));
    }
    if (is_tf32(m)) return rounded_words(lo, x);
    return snK_op(k, K_bitcast, kt(K_U32, 1), snK_op(k, K_cast, kt(m->b.kind, 2), x, 0, 0), 0, 0);
}

static KVal left_from_registers(Low *lo, const Mma *m, int i, int step)
{
    if (is_tf32(m)) {                                     /* columns 2 t of both halves, then 2 t + 1 */
        static const uint8_t turn[] = { 0, 2, 1, 3 };
        return snK_shuffle(lo->k, word(lo, m, 2 * i, step), word(lo, m, 2 * i + 1, step), turn, 4);
    }
    KVal first = both(lo, word(lo, m, 2 * i, 2 * step), word(lo, m, 2 * i + 1, 2 * step));
    return both(lo, first, both(lo, word(lo, m, 2 * i, 2 * step + 1), word(lo, m, 2 * i + 1, 2 * step + 1)));
}

/* Words of the column blocks j and, when there is one, j + 1: two of each. */
static KVal right_operand(Low *lo, const Mma *m, int j, KVal k, int blocks)
{
    KVal n = ki(lo, 8 * (m->first + j));
    if (is_tf32(m) && (m->left || !m->tb)) {
        KVal w[2], t = m->left ? kmul(lo, lane_t(lo), 2) : lane_t(lo), row = kadd(lo, k, t);
        for (int b = 0; b < blocks; b++) {
            KVal col = kadd(lo, kadd(lo, n, ki(lo, 8 * b)), lane_g(lo));
            if (m->tb) w[b] = words_at(lo, &m->b, col, row, 2);
            else w[b] = both(lo, words_at(lo, &m->b, row, col, 1), words_at(lo, &m->b, kadd(lo, row, ki(lo, m->left ? 1 : 4)), col, 1));
        }
        return blocks == 1 ? w[0] : both(lo, w[0], w[1]);
    }
    if (blocks == 2) n = kadd(lo, n, kmul(lo, m->right, 8));
    k = kadd(lo, k, kmul(lo, m->upper, m->half));
    return m->tb ? ldmatrix(lo, &m->b, kadd(lo, n, m->l8), k, 2 * blocks, false) : ldmatrix(lo, &m->b, kadd(lo, k, m->l8), n, 2 * blocks, true);
}

static void multiply(Low *lo, const Mma *m, int i, int j, KVal a, KVal b)
{
    Kernel *k = lo->k;
    bool whole = 2 * i + 1 < m->ni;
    KVal top = m->acc[2 * i * m->nj + j], low = whole ? m->acc[(2 * i + 1) * m->nj + j] : 0;
    KVal c = both(lo, snK_get(k, top), whole ? snK_get(k, low) : snK_float(k, kt(K_F32, 2), 0));
    KVal r = snK_emit(k, (KIns){ .op = K_mma, .type = kt(K_F32, 4), .a = { a, b, c }, .imm = is_tf32(m) ? 2 : m->b.kind == K_F16 });
    snK_set(k, top, lanes_of(lo, r, 0, 2));
    if (whole) snK_set(k, low, lanes_of(lo, r, 2, 2));
}

/* The depth of an mma. */
static void deeper(Low *lo, const Mma *m, KVal k, int step)
{
    KVal a[32];
    int halves = (m->ni + 1) / 2;
    SN_ASSERT(halves <= 32, "a product of %d x 16 rows a warp", halves);
    for (int i = 0; i < halves; i++) a[i] = m->left ? left_from_registers(lo, m, i, step) : left_from_memory(lo, m, i, k);
    for (int j = 0; j < m->nj; j += 2) {
        int blocks = m->nj - j < 2 ? 1 : 2;
        KVal b = right_operand(lo, m, j, k, blocks);
        for (int n = 0; n < blocks; n++)
            for (int i = 0; i < halves; i++) multiply(lo, m, i, j + n, a[i], blocks == 1 ? b : lanes_of(lo, b, 2 * n, 2));
    }
}

static void all_steps(Low *lo, const Mma *m)
{
    TType a = INS(lo, INS(lo, m->d)->a[0])->type;
    int size = m->ta ? a.r : a.c;
    if (m->left || m->whole) {
        for (int step = 0, deep = 2 * m->half; step * deep < size; step++) deeper(lo, m, ki(lo, step * deep), step);
        return;
    }
    KVal k = snK_for(lo->k, ki(lo, 0), m->depth, ki(lo, 2 * m->half), 0);
    deeper(lo, m, k, 0);
    snK_end(lo->k);
}

/* Stands at register (i, j) of the grid: row, columns, and whether they are of the tile. */
static void stand(Low *lo, TType ty, int i, int j)
{
    Gpu *g = lo->gpu;
    KVal row = kadd(lo, g->tr, ki(lo, (int64_t)i * g->TR));
    bool surely = (i + 1) * g->TR <= ty.r;
    if (j == 0 || g->i != i) {
        g->live = surely ? 0 : snK_op(lo->k, K_lt, kt(K_BOOL, 1), row, ki(lo, ty.r), 0);
        lo->row = surely ? row : op2(lo, K_min, row, ki(lo, ty.r - 1));
        snL_new_row(lo);
    }
    g->i = i, g->j = j;
    snL_new_vec(lo);
    lo->col = kmul(lo, kadd(lo, g->tc, ki(lo, (int64_t)j * g->TC)), lo->L);
    lo->tail = (j + 1) * g->TC * lo->L > ty.c;
}

static void leave(Low *lo)
{
    Gpu *g = lo->gpu;
    g->i = g->j = 0, g->live = 0, lo->tail = false, g->fixed = false;
}

static void start(Low *lo, const Mma *m)
{
    const TIns *ins = INS(lo, m->d);
    TVal c = ins->a[2];
    if (c && lo->v[c].frag && lo->v[c].frag == lo->v[m->d].frag) return;
    lo->width = ins->type.c, lo->level = 0, lo->phase = -1, lo->rows = ins->type.r, lo->row_limit = 0;
    lo->gpu->fixed = true;
    lo->gpu->i = -1;
    for (int i = 0; i < m->ni; i++)
        for (int j = 0; j < m->nj; j++) {
            stand(lo, ins->type, i, m->first + j);
            snK_set(lo->k, m->acc[i * m->nj + j], c ? snL_vec(lo, c) : snK_float(lo->k, kt(K_F32, lo->L), 0));
        }
    leave(lo);
}

/* A result that has no fragment, to its tile. */
static void finish(Low *lo, const Mma *m)
{
    TType ty = INS(lo, m->d)->type;
    KVal ptr = snL_tile_ptr(lo, m->d);
    if (ty.c == 1) {                                      /* one thread of a row writes what four have started from */
        Touched t = { 0 };
        lo->mark++;
        snG_touch_tile(lo, &t, m->d, true);
        snG_sync(lo, &t);
    }
    lo->gpu->i = -1;
    for (int i = 0; i < m->ni; i++)
        for (int j = 0; j < m->nj; j++) {
            stand(lo, ty, i, m->first + j);
            KVal x = snK_get(lo->k, m->acc[i * m->nj + j]), at = kadd(lo, kmul(lo, lo->row, ty.r > 1 ? lo->v[m->d].ld : 0), lo->col);
            KVal in = lo->gpu->live;
            if (ty.c == 1) {
                KVal first = snK_op(lo->k, K_eq, kt(K_BOOL, 1), lo->gpu->tc, ki(lo, 0), 0);
                in = in ? snK_op(lo->k, K_and, kt(K_BOOL, 1), in, first, 0) : first;
                x = snK_extract(lo->k, x, 0);
            }
            if (in) snK_if(lo->k, in);
            snK_store(lo->k, ptr, at, x, 0);
            if (in) snK_end(lo->k);
        }
    leave(lo);
}

/* The left operand: registers, a stage, or a value that is packed now, zero beyond the depth `valid`. */
static void open_left(Low *lo, Mma *m, TVal valid)
{
    TVal a = INS(lo, m->d)->a[0];
    if (lo->v[a].frag) { m->left = &lo->gpu->frags.v[lo->v[a].frag - 1]; return; }
    m->a = operand_view(lo, a);
    if (INS(lo, a)->op != T_stage) pack_in_turn(lo, &m->a, a, m->ta ? valid : 0, m->ta ? 0 : valid);
}

static void open_memory(Low *lo, const Mma *m)
{
    Touched t = { 0 };
    TVal c = INS(lo, m->d)->a[2];
    if (!m->left) snG_touch_view(lo, &t, &m->a, false);
    snG_touch_view(lo, &t, &m->b, false);
    lo->mark++;
    if (c) snG_touch_value(lo, &t, c);
    snG_touch_tile(lo, &t, m->d, true);
    snG_sync(lo, &t);
}

static void open_lanes(Low *lo, Mma *m)
{
    KVal lane = op2(lo, K_and, lo->gpu->tid, ki(lo, 31));
    m->l8 = op2(lo, K_and, lane, ki(lo, 7));
    m->upper = op2(lo, K_and, op2(lo, K_shr, lane, ki(lo, 3)), ki(lo, 1));
    m->right = op2(lo, K_shr, lane, ki(lo, 4));
    m->warp_row = kmul(lo, op2(lo, K_shr, lo->gpu->tid, ki(lo, 5)), 8);
}

void snG_mma_dot(Low *lo, TVal d)
{
    const TIns *i = INS(lo, d), *a = INS(lo, i->a[0]), *b = INS(lo, i->a[1]);
    Gpu *g = lo->gpu;
    Mma m = { .d = d, .ta = i->imm & 1, .tb = i->imm & 2 };
    TVal ka = a->op == T_stage ? a->a[m.ta ? 1 : 2] : 0, kb = b->a[m.tb ? 2 : 1];
    int64_t TR = rows_of_grid(lo), size = m.ta ? a->type.r : a->type.c;
    int blocks = (i->type.c + 7) / 8;
    open_left(lo, &m, kb);
    m.b = operand_view(lo, i->a[1]);
    m.half = unit(&m.b);
    open_memory(lo, &m);
    m.depth = snG_limit(lo, kb, size), m.cut = kb;
    if (ka && ka != kb) m.depth = op2(lo, K_min, m.depth, lo->v[ka].k);
    m.whole = !ka == !kb && size <= UNROLL;
    snG_map(lo, g->dot_tc);
    open_lanes(lo, &m);
    m.ni = (int)((i->type.r + TR - 1) / TR);
    if (lo->v[d].frag) {
        m.nj = blocks, m.acc = g->frags.v[lo->v[d].frag - 1].reg;
        start(lo, &m);
        all_steps(lo, &m);
        return;
    }
    for (m.first = 0; m.first < blocks; m.first += CHUNK) {
        m.nj = blocks - m.first < CHUNK ? blocks - m.first : CHUNK;
        m.acc = NEWN(lo->arena, KVal, m.ni * m.nj);
        for (int n = 0; n < m.ni * m.nj; n++) m.acc[n] = snK_var(lo->k, snK_float(lo->k, kt(K_F32, 2), 0));
        start(lo, &m);
        all_steps(lo, &m);
        finish(lo, &m);
    }
}
