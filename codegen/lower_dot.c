/* lower_dot.c: contractions. In: stage and dot instructions. Out: packing loops and the macro-kernel, as in BLIS: for each
   NR-wide panel of B, for each MR rows of A, held in the second cache, a micro-kernel whose MR x NR accumulators stay in
   registers over the staged depth.

   Layouts of a staged operand (K deep):
     A [k, m]  panels [m / MR][k][MR]
     A [m, k]  the same panels, through transposes in registers: one stream for the micro-kernel instead of MR (measured: 4 %).
               Loads that few columns of B would use are read in place unless their rows share cache sets; computed
               values are stored as rows, padded apart, since a row at a time is the cheapest way to compute them
     B [k, n]  panels [n / NR][k][NR]
     B [n, k]  the same panels, through transposes in registers
   Edges are zero, so the micro-kernel has no branches. Packing evaluates the staged expression. Products of bf16 pack words
   of two elements along the depth where the CPU multiplies such pairs (lower_pairs.c), else f32 as all others.

   A panel that does not depend on grid dimension 0 is packed once for all programs that a worker runs one after the other
   and that need it: each slot remembers the key (outer grid position and loop index) of what it holds.

   The staged depth is most of K: a panel of B larger than the first cache streams from the second, and micro-kernels
   fetch the next panel, so that what costs is packing and storing C, both done once. */
#include "codegen/lower_cpu.h"

static KVal op2(Low *lo, int op, KVal a, KVal b) { return snK_op(lo->k, op, i64(), a, b, 0); }
static KType vf(const Low *lo) { return kt(K_F32, lo->L); }
static KVal zeros(Low *lo) { return snK_float(lo->k, vf(lo), 0); }

/* What is packed: f32 elements, or words of two bf16 along the depth. */
static int group(const View *w) { return w->pairs ? 2 : 1; }
static KType word(const Low *lo, bool pairs) { return kt(pairs ? K_U32 : K_F32, lo->L); }
static KVal no_words(Low *lo, const View *w) { return w->pairs ? snK_int(lo->k, word(lo, true), 0) : zeros(lo); }
static KVal in_words(Low *lo, const View *w, KVal k) { return w->pairs ? op2(lo, K_shr, k, ki(lo, 1)) : k; }
static KVal across(Low *lo, const View *w, bool masked)
{
    return w->pairs ? snL_pairs_across(lo, w->stage, masked) : snL_staged(lo, w->stage, masked);
}

/* A run-time count limited to what the tile has; `size` when there is none. */
static KVal count(Low *lo, TVal valid, int64_t size)
{
    return valid ? op2(lo, K_min, lo->v[valid].k, ki(lo, size)) : ki(lo, size);
}

/* -- Views ------------------------------------------------------------------------------------------------- */

static View *find_view(Low *lo, TVal stage, bool right, bool trans, int width, bool pairs)
{
    for (uint32_t n = 0; n < lo->views.n; n++) {
        View *w = &lo->views.v[n];
        if (w->stage == stage && w->right == right && w->trans == trans && w->width == width && w->pairs == pairs) return w;
    }
    return NULL;
}

static void layout(Low *lo, View *w)
{
    TType ty = INS(lo, w->stage)->type;
    int64_t panels;
    *(w->right == w->trans ? &ty.c : &ty.r) = (int32_t)up(w->right == w->trans ? ty.c : ty.r, group(w)) / group(w);   /* depth in words */
    if (w->in_place) {
        w->panel = INS(lo, INS(lo, w->stage)->a[0])->rs;
        panels = w->width;
    } else if (w->rows) {
        w->panel = up(ty.c, 16);
        if (w->panel / 16 % 2 == 0) w->panel += 16;
        panels = up(ty.r, w->width);
    } else if (w->right == w->trans) {
        w->panel = up(up(ty.c, lo->L) * w->width + (w->right ? 0 : lo->L), 16);
        panels = (ty.r + w->width - 1) / w->width;
    } else {
        w->panel = up((int64_t)ty.r * w->width + 2 * lo->L, 16);
        if (w->right) w->panel = (int64_t)ty.r * w->width;
        panels = (ty.c + w->width - 1) / w->width;
    }
    w->slot_bytes = up(panels * w->panel * 4 + 64, 64);
    w->slots = 1;
}

/* Rows of f32 whose distance is not a multiple of 2 KB: those would fall into few sets of the caches. */
static bool reads_in_place(const Low *lo, TVal stage, bool right, bool trans)
{
    const TIns *i = INS(lo, stage), *from = INS(lo, i->a[0]);
    if (right || trans || from->op != T_load || from->type.dtype != SN_F32 || from->cs != 1) return false;
    return from->rs >= from->type.c && from->rs <= 1 << 16 && from->rs % 512 && !lo->t->params.v[from->buf].written;
}

/* Can the packed operand outlive a program? Then it has one slot for each index of the loop that it depends on. */
static void plan_keep(Low *lo, View *w, int64_t *budget)
{
    uint64_t deps = lo->v[w->stage].deps, loops = deps >> DEP_LOOP;
    if (w->in_place || (deps & (DEP_GRID0 | DEP_STATE)) || lo->t->grid[0] == 1 || (loops & (loops - 1))) return;
    TVal loop = 0;
    int64_t least = 0, begin, end, most = 1, step = 1;
    if (loops) {
        int n = 0;
        while (!(loops >> n & 1)) n++;
        loop = lo->loops[n];
        snL_range(lo, INS(lo, loop)->a[0], &least, &begin);
        snL_range(lo, INS(lo, loop)->a[1], &end, &most);
        if (!snT_const_idx(lo->t, INS(lo, loop)->a[2], &step) || least < 0 || most > 1 << 30 || most <= least) return;
    }
    int64_t slots = (most - least + step - 1) / step;
    if (slots * w->slot_bytes > *budget) return;
    *budget -= slots * w->slot_bytes;
    w->slots = slots, w->lo = least, w->step = step, w->loop = loop;
    w->keys = 1 + snK_scratch(lo->k, slots * 8);
}

void snL_views(Low *lo)
{
    int64_t budget = SN_KEEP_BYTES;
    for (TVal d = 1; d < lo->t->ins.n; d++) {
        const TIns *i = INS(lo, d);
        if (i->op != T_dot) continue;
        int mr, nr;
        bool pairs = snL_in_pairs(lo, d);
        snK_micro(lo->target, i->type.r, i->type.c, &mr, &nr);
        for (int right = 1; right >= 0; right--) {
            TVal s = i->a[right];
            bool trans = i->imm >> right & 1;
            if (INS(lo, s)->op != T_stage || find_view(lo, s, right, trans, right ? nr : mr, pairs)) continue;
            View w = { .stage = s, .right = right, .trans = trans, .width = right ? nr : mr, .pairs = pairs };
            w.in_place = reads_in_place(lo, s, right, trans);
            w.rows = w.in_place || (!right && !trans && INS(lo, INS(lo, s)->a[0])->op != T_load);
            layout(lo, &w);
            plan_keep(lo, &w, &budget);
            w.off = snK_scratch(lo->k, w.slots * w.slot_bytes);
            PUSH(lo->arena, lo->views, w);
        }
    }
}

/* -- Packing ------------------------------------------------------------------------------------------------- */

KVal snL_staged(Low *lo, TVal stage, bool masked)
{
    const TIns *i = INS(lo, stage), *from = INS(lo, i->a[0]);
    snL_new_vec(lo);
    lo->tail = masked;
    KVal x = snL_vec(lo, i->a[0]), mask = snL_mask(lo, i->a[2]);
    bool zero = from->op == T_load && from->a[2] == i->a[2];        /* masked loads are zero already */
    if (mask && !zero) x = snK_op(lo->k, K_select, vf(lo), mask, x, zeros(lo));
    lo->tail = false;
    return x;
}

void snL_begin_row(Low *lo, KVal row, TVal stage)
{
    lo->row = row;
    lo->row_limit = INS(lo, stage)->a[1];
    snL_new_row(lo);
    snL_touch(lo, INS(lo, stage)->a[0]);
}

/* Its columns from `whole` on: single vectors, then the last one. */
static void pack_line_end(Low *lo, const View *w, KVal to, KVal at, KVal whole, bool alone)
{
    const TIns *i = INS(lo, w->stage);
    int64_t one = (int64_t)lo->L * group(w);
    KVal limit = count(lo, i->a[2], i->type.c);
    for (int masked = alone; masked < 2; masked++) {
        if (!i->a[2] && i->type.c % (masked ? one : 4 * one) == 0) return;
        KVal end = masked ? limit : op2(lo, K_and, limit, ki(lo, -one));
        lo->col = snK_for(lo->k, whole, end, ki(lo, one), 1);
        KVal to_col = kadd(lo, at, in_words(lo, w, lo->col));
        snK_store(lo->k, to, to_col, across(lo, w, masked), 0);
        snK_end(lo->k);
        whole = end;
    }
}

/* What x reads in that row and column, where it lies in rows. */
static void fetch(Low *lo, TVal x, KVal row, KVal col)
{
    const TIns *i = INS(lo, x);
    if (i->op == T_load && i->cs == 1 && i->type.r > 1) {
        KVal at = kadd(lo, kadd(lo, lo->v[i->a[0]].k, kmul(lo, row, i->rs)), col);
        snK_prefetch(lo->k, lo->params[i->buf], at, false);
    }
    for (int n = 0; n < 3 && i->op == T_ew; n++) if (i->a[n]) fetch(lo, i->a[n], row, col);
}

/* The current row as it is, to `to` + at. */
static void pack_line(Low *lo, const View *w, KVal to, KVal at)
{
    const TIns *i = INS(lo, w->stage);
    int64_t one = (int64_t)lo->L * group(w);                 /* columns of a vector of words */
    int nv = i->type.c >= 4 * one ? 4 : 1;
    KVal limit = count(lo, i->a[2], i->type.c), whole = op2(lo, K_and, limit, ki(lo, -nv * one)), x[4];
    lo->width = i->type.c;
    KVal later = kadd(lo, lo->row, ki(lo, 1));
    KVal c = snK_for(lo->k, ki(lo, 0), whole, ki(lo, nv * one), 1);
    bool quads = nv == 4 && !w->pairs && snL_has_quads(lo, i->a[0]);
    if (quads) lo->quad_stamp = ++lo->stamp;
    for (int u = 0; u < nv; u++) {
        lo->col = kadd(lo, c, ki(lo, u * one));
        lo->quad = quads ? u + 1 : 0;
        fetch(lo, i->a[0], later, lo->col);
        x[u] = across(lo, w, false);
    }
    lo->quad = 0;
    KVal words = kadd(lo, at, in_words(lo, w, c));
    for (int u = 0; u < nv; u++) snK_store(lo->k, to, kadd(lo, words, ki(lo, (int64_t)u * lo->L)), x[u], 0);
    snK_end(lo->k);
    pack_line_end(lo, w, to, at, whole, nv == 1);
}

/* Row `row` (of pairs: and the next) in blocks of `width` columns (`nv` vectors), to base + block * panel + at. */
static void pack_row(Low *lo, const View *w, KVal row, KVal at, int width, int nv, int64_t panel)
{
    const TIns *i = INS(lo, w->stage);
    int64_t reach = (int64_t)nv * lo->L;
    enum { AHEAD = 8 };                                      /* rows: each begins in another page, which no hardware foresees */
    KVal limit = count(lo, i->a[2], i->type.c), later = kadd(lo, row, ki(lo, AHEAD));
    /* panels whose vectors lie wholly inside, then those that reach over the edge */
    KVal inside = op2(lo, K_div, op2(lo, K_max, op2(lo, K_add, limit, ki(lo, width - reach)), ki(lo, 0)), ki(lo, width));
    KVal all = op2(lo, K_div, op2(lo, K_add, limit, ki(lo, width - 1)), ki(lo, width));
    lo->width = i->type.c;
    for (int masked = 0; masked < 2; masked++) {
        if (masked && !i->a[2] && i->type.c % width == 0 && reach == width) break;
        KVal p = snK_for(lo->k, masked ? inside : ki(lo, 0), masked ? all : inside, ki(lo, 1), masked);
        KVal col = kmul(lo, p, width), to = kadd(lo, at, kmul(lo, p, panel)), x[16];
        for (int u = 0; u < nv; u++) {
            lo->col = kadd(lo, col, ki(lo, (int64_t)u * lo->L));
            if (!masked) fetch(lo, i->a[0], later, lo->col);
            x[u] = w->pairs ? snL_pairs_down(lo, w->stage, row, masked) : snL_staged(lo, w->stage, masked);
        }
        for (int u = 0; u < nv; u++) snK_store(lo->k, w->base, kadd(lo, to, ki(lo, (int64_t)u * lo->L)), x[u], 0);
        snK_end(lo->k);
    }
}

/* A [m, k]: row by row; rows up to a multiple of MR are zero. */
static void pack_rows(Low *lo, const View *w)
{
    const TIns *i = INS(lo, w->stage);
    KVal rows = count(lo, i->a[1], i->type.r);
    KVal row = snK_for(lo->k, ki(lo, 0), rows, ki(lo, 1), 1);
    snL_begin_row(lo, row, w->stage);
    pack_line(lo, w, w->base, kmul(lo, row, w->panel));
    snK_end(lo->k);
    if (!i->a[1] && i->type.r % w->width == 0) return;
    KVal end = kmul(lo, op2(lo, K_div, op2(lo, K_add, rows, ki(lo, w->width - 1)), ki(lo, w->width)), w->width);
    row = snK_for(lo->k, rows, end, ki(lo, 1), 1);
    KVal c = snK_for(lo->k, ki(lo, 0), ki(lo, up(i->type.c, group(w)) / group(w)), ki(lo, lo->L), 1);
    snK_store(lo->k, w->base, kadd(lo, kmul(lo, row, w->panel), c), no_words(lo, w), 0);
    snK_end(lo->k);
    snK_end(lo->k);
}

/* A [m, k] in place: only the rows after the last whole MR of them, so that the micro-kernel may read MR rows. What follows
   them is whatever was there: it reaches no row that counts. */
static void pack_edge(Low *lo, View *w)
{
    const TIns *i = INS(lo, w->stage);
    KVal rows = count(lo, i->a[1], i->type.r);
    w->edge = w->base;
    w->whole = kmul(lo, op2(lo, K_div, rows, ki(lo, w->width)), w->width);
    w->base = snK_op(lo->k, K_offset, (KType){ K_PTR, 1 }, lo->params[INS(lo, i->a[0])->buf], lo->v[INS(lo, i->a[0])->a[0]].k, 0);
    if (!i->a[1] && i->type.r % w->width == 0) return;
    KVal row = snK_for(lo->k, w->whole, rows, ki(lo, 1), 1);
    snL_begin_row(lo, row, w->stage);
    pack_line(lo, w, w->edge, kmul(lo, op2(lo, K_sub, row, w->whole), w->panel));
    snK_end(lo->k);
}

/* A [k, m] and B [k, n]: every row spreads over the panels. A's vectors may reach into the next row of a panel, which
   is written later; the last row has room behind it. */
static void pack_panels(Low *lo, const View *w)
{
    const TIns *i = INS(lo, w->stage);
    KVal row = snK_for(lo->k, ki(lo, 0), count(lo, i->a[1], i->type.r), ki(lo, group(w)), 1);
    snL_begin_row(lo, row, w->stage);
    pack_row(lo, w, row, kmul(lo, in_words(lo, w, row), w->width), w->width, (w->width + lo->L - 1) / lo->L, w->panel);
    snK_end(lo->k);
}

/* Whole 4-lane groups: q[n] >= 0 picks group q[n] of (a, b). */
static KVal groups(Low *lo, KVal a, KVal b, const int *q)
{
    uint8_t lane[64];
    for (int n = 0; n < lo->L; n++) lane[n] = (uint8_t)(q[n / 4] * 4 + n % 4);
    return snK_shuffle(lo->k, a, b, lane, lo->L);
}

/* L vectors, in place: 4 x 4 blocks inside 4-lane groups, then the groups. */
static void transpose(Low *lo, KVal *v)
{
    int L = lo->L;
    for (int g = 0; g < L; g += 4) {
        KVal a = snL_unpack(lo, v[g], v[g + 1], 1, false), b = snL_unpack(lo, v[g], v[g + 1], 1, true);
        KVal c = snL_unpack(lo, v[g + 2], v[g + 3], 1, false), d = snL_unpack(lo, v[g + 2], v[g + 3], 1, true);
        v[g] = snL_unpack(lo, a, c, 2, false);
        v[g + 1] = snL_unpack(lo, a, c, 2, true);
        v[g + 2] = snL_unpack(lo, b, d, 2, false);
        v[g + 3] = snL_unpack(lo, b, d, 2, true);
    }
    for (int j = 0; j < 4 && L == 8; j++) {
        KVal a = v[j], b = v[4 + j];
        v[j] = groups(lo, a, b, (int[]){ 0, 2 });
        v[4 + j] = groups(lo, a, b, (int[]){ 1, 3 });
    }
    for (int j = 0; j < 4 && L == 16; j++) {
        KVal a = groups(lo, v[j], v[4 + j], (int[]){ 0, 4, 1, 5 }), b = groups(lo, v[j], v[4 + j], (int[]){ 2, 6, 3, 7 });
        KVal c = groups(lo, v[8 + j], v[12 + j], (int[]){ 0, 4, 1, 5 }), d = groups(lo, v[8 + j], v[12 + j], (int[]){ 2, 6, 3, 7 });
        v[j] = groups(lo, a, c, (int[]){ 0, 1, 4, 5 });
        v[4 + j] = groups(lo, a, c, (int[]){ 2, 3, 6, 7 });
        v[8 + j] = groups(lo, b, d, (int[]){ 0, 1, 4, 5 });
        v[12 + j] = groups(lo, b, d, (int[]){ 2, 3, 6, 7 });
    }
}

/* `have` rows from `first`, at most L, all columns, transposed to base + at + column * width. At the edge rows are clamped and
   zeroed. L values are stored for each column: what reaches over its end is written later, or is behind the panel. */
static void pack_block(Low *lo, const View *w, KVal first, int have, KVal at, KVal rows, bool edge)
{
    const TIns *i = INS(lo, w->stage);
    int one = lo->L * group(w);
    KVal limit = count(lo, i->a[2], i->type.c), whole = op2(lo, K_and, limit, ki(lo, -one)), v[16];
    lo->width = i->type.c;
    for (int masked = 0; masked < 2; masked++) {
        if (masked && !i->a[2] && i->type.c % one == 0) break;
        KVal c = snK_for(lo->k, masked ? whole : ki(lo, 0), masked ? limit : whole, ki(lo, one), 1);
        for (int l = have; l < lo->L; l++) v[l] = no_words(lo, w);
        for (int l = 0; l < have; l++) {
            KVal row = kadd(lo, first, ki(lo, l)), last = op2(lo, K_sub, rows, ki(lo, 1));
            snL_begin_row(lo, edge ? op2(lo, K_min, row, last) : row, w->stage);
            lo->col = c;
            v[l] = across(lo, w, masked);
            if (!edge) continue;
            KVal in = snK_op(lo->k, K_splat, kt(K_BOOL, lo->L), snK_op(lo->k, K_lt, kt(K_BOOL, 1), row, rows, 0), 0, 0);
            v[l] = snK_op(lo->k, K_select, word(lo, w->pairs), in, v[l], no_words(lo, w));
        }
        transpose(lo, v);
        KVal first_word = in_words(lo, w, c);
        for (int l = 0; l < lo->L; l++)
            snK_store(lo->k, w->base, kadd(lo, at, kmul(lo, kadd(lo, first_word, ki(lo, l)), w->width)), v[l], 0);
        snK_end(lo->k);
    }
}

/* B [n, k] and A [m, k]. */
static void pack_transposed(Low *lo, const View *w)
{
    const TIns *i = INS(lo, w->stage);
    int nv = (w->width + lo->L - 1) / lo->L;
    KVal rows = count(lo, i->a[1], i->type.r);
    KVal all = op2(lo, K_div, op2(lo, K_add, rows, ki(lo, w->width - 1)), ki(lo, w->width));
    bool edges = i->a[1] || i->type.r % w->width;
    KVal p = snK_for(lo->k, ki(lo, 0), all, ki(lo, 1), 1);
    KVal row = kmul(lo, p, w->width), at = kmul(lo, p, w->panel);
    for (int u = nv - 1; u >= 0; u--) {
        int have = w->width - u * lo->L < lo->L ? w->width - u * lo->L : lo->L;
        KVal first = kadd(lo, row, ki(lo, (int64_t)u * lo->L)), to = kadd(lo, at, ki(lo, (int64_t)u * lo->L));
        KVal past = kadd(lo, first, ki(lo, have));
        if (edges) snK_if(lo->k, snK_op(lo->k, K_le, kt(K_BOOL, 1), past, rows, 0));
        pack_block(lo, w, first, have, to, rows, false);
        if (!edges) continue;
        snK_else(lo->k);
        pack_block(lo, w, first, have, to, rows, true);
        snK_end(lo->k);
    }
    snK_end(lo->k);
}

void snL_pack(Low *lo, TVal stage)
{
    for (uint32_t n = 0; n < lo->views.n; n++) {
        View *w = &lo->views.v[n];
        if (w->stage != stage) continue;
        KVal slot = ki(lo, 0), key = lo->outer_key, keys = 0;
        if (w->loop) {
            KVal index = lo->v[w->loop].k;
            slot = op2(lo, K_div, op2(lo, K_sub, index, ki(lo, w->lo)), ki(lo, w->step));
            key = kadd(lo, kmul(lo, key, w->lo + w->slots * w->step + 1), index);
        }
        w->base = snK_scratch_ptr(lo->k, w->pairs ? K_U32 : K_F32, w->off);
        if (w->slots > 1) w->base = snK_op(lo->k, K_offset, (KType){ K_PTR, 1 }, w->base, kmul(lo, slot, w->slot_bytes / 4), 0);
        if (w->keys) {
            keys = snK_scratch_ptr(lo->k, K_I64, w->keys - 1);
            snK_if(lo->k, snK_op(lo->k, K_ne, kt(K_BOOL, 1), snK_load(lo->k, i64(), keys, slot, 0), key, 0));
            snK_store(lo->k, keys, slot, key, 0);
        }
        lo->level = 0, lo->phase = -1, lo->rows = INS(lo, stage)->type.r;
        if (w->in_place) pack_edge(lo, w);
        else if (w->rows) pack_rows(lo, w);
        else if (w->right == w->trans) pack_transposed(lo, w);
        else pack_panels(lo, w);
        if (w->keys) snK_end(lo->k);
        lo->row_limit = 0;
    }
}

/* -- The product ------------------------------------------------------------------------------------------------ */

enum { UNROLL = 4 };                     /* steps of depth */

typedef struct Micro {
    int mr, nr, nv;
    bool pairs;                      /* words of two bf16; all steps and sizes along the depth count words */
    int down;                        /* micro-kernels down a panel of B */
    KVal a, b, c_in, c_out;          /* pointers; c_in 0 = starts from zero */
    KVal from_zero;                  /* bool: the first step of the accumulation; 0 = no */
    KVal last;                       /* bool: the last step, which stores to memory; see direct */
    TVal direct;                     /* store to do from registers; 0 = none */
    KVal edge, whole;                /* A in place: the copied last rows, and how many come before them */
    int64_t a_row, a_k, a_panel, b_panel, ld_in, ld_out;
    KVal depth;
} Micro;

/* One step of depth: a column of A times a row of B. */
static void rank1(Low *lo, const Micro *m, KVal a, KVal b, KVal k, int u, KVal *acc)
{
    Kernel *kr = lo->k;
    KVal bv[16], ka = kmul(lo, k, m->a_k), kb = kmul(lo, k, m->nr);
    for (int j = 0; j < m->nv; j++)
        bv[j] = snK_load(kr, word(lo, m->pairs), b, kadd(lo, kb, ki(lo, (int64_t)u * m->nr + (int64_t)j * lo->L)), 0);
    for (int i = 0; i < m->mr; i++) {
        KVal x = snK_load(kr, kt(m->pairs ? K_U32 : K_F32, 1), a, kadd(lo, ka, ki(lo, i * m->a_row + u * m->a_k)), 0);
        x = snK_op(kr, K_splat, word(lo, m->pairs), x, 0, 0);
        for (int j = 0; j < m->nv; j++) {
            KVal *c = &acc[i * m->nv + j];
            snK_set(kr, *c, snK_op(kr, m->pairs ? K_dpbf16 : K_fma, vf(lo), x, bv[j], snK_get(kr, *c)));
        }
    }
}

/* The finished micro-tile to memory; where it reaches over the edge, row by row under masks. */
static void store_direct(Low *lo, const Micro *m, KVal row, KVal col, const KVal *acc)
{
    Kernel *kr = lo->k;
    const TIns *s = INS(lo, m->direct);
    TType ty = INS(lo, s->a[1])->type;
    KType b1 = kt(K_BOOL, 1);
    KVal rows = count(lo, s->a[2], ty.r), cols = count(lo, s->a[3], ty.c), to = lo->params[s->buf];
    KVal at = kadd(lo, kadd(lo, lo->v[s->a[0]].k, kmul(lo, row, s->rs)), col);
    KVal inside = snK_op(kr, K_and, b1, snK_op(kr, K_le, b1, kadd(lo, row, ki(lo, m->mr)), rows, 0),
                         snK_op(kr, K_le, b1, kadd(lo, col, ki(lo, m->nr)), cols, 0), 0);
    snK_if(kr, inside);
    for (int x = 0; x < m->mr * m->nv; x++)
        snK_store(kr, to, kadd(lo, at, ki(lo, x / m->nv * s->rs + (int64_t)(x % m->nv) * lo->L)), snK_get(kr, acc[x]), 0);
    snK_else(kr);
    for (int i = 0; i < m->mr; i++) {
        snK_if(kr, snK_op(kr, K_lt, b1, kadd(lo, row, ki(lo, i)), rows, 0));
        for (int j = 0; j < m->nv; j++) {
            lo->tail = true, lo->width = ty.c;
            lo->col = kadd(lo, col, ki(lo, (int64_t)j * lo->L));
            KVal mask = snL_mask(lo, s->a[3]);
            snK_store(kr, to, kadd(lo, at, ki(lo, i * s->rs + (int64_t)j * lo->L)), snK_get(kr, acc[i * m->nv + j]), mask);
            lo->tail = false;
        }
        snK_end(kr);
    }
    snK_end(kr);
}

/* Brings the next panel of B closer, a share of it in each of the micro-kernels that run down this one. */
static void next_panel(Low *lo, const Micro *m, KVal b, KVal p, KVal k, KVal depth)
{
    enum { LINE = 16 };                                  /* f32, or words */
    int lines = m->nr * UNROLL / LINE, share = (lines + m->down - 1) / m->down, last = (lines - 1) / share;
    KVal before = kadd(lo, op2(lo, K_mul, op2(lo, K_min, p, ki(lo, last)), depth), k);   /* steps of depth, all shares */
    KVal at = kadd(lo, kmul(lo, before, share * LINE / UNROLL), ki(lo, m->b_panel));
    for (int n = 0; n < share; n++) snK_prefetch(lo->k, b, kadd(lo, at, ki(lo, n * LINE)), false);
}

static void micro_kernel(Low *lo, const Micro *m, KVal p, KVal q)
{
    Kernel *kr = lo->k;
    KType ptr = { K_PTR, 1 };
    KVal a = snK_op(kr, K_offset, ptr, m->a, kmul(lo, p, m->a_panel), 0), b = snK_op(kr, K_offset, ptr, m->b, kmul(lo, q, m->b_panel), 0);
    if (m->edge) {
        KVal in = snK_op(kr, K_lt, kt(K_BOOL, 1), kmul(lo, p, m->mr), m->whole, 0);
        a = snK_op(kr, K_select, ptr, in, a, m->edge);
    }
    KVal col = kmul(lo, q, m->nr), row = kmul(lo, p, m->mr), acc[64];
    KVal in = kadd(lo, kmul(lo, row, m->ld_in), col), out = kadd(lo, kmul(lo, row, m->ld_out), col);
    int n = m->mr * m->nv;
    for (int x = 0; x < n; x++) acc[x] = snK_var(kr, zeros(lo));
    if (m->c_in) {
        if (m->from_zero) snK_if(kr, snK_op(kr, K_not, kt(K_BOOL, 1), m->from_zero, 0, 0));
        for (int x = 0; x < n; x++) {
            int64_t at = x / m->nv * m->ld_in + (int64_t)(x % m->nv) * lo->L;
            snK_set(kr, acc[x], snK_load(kr, vf(lo), m->c_in, kadd(lo, in, ki(lo, at)), 0));
        }
        if (m->from_zero) snK_end(kr);
    }
    KVal whole = op2(lo, K_and, m->depth, ki(lo, -UNROLL));
    KVal k = snK_for(kr, ki(lo, 0), whole, ki(lo, UNROLL), 1);
    next_panel(lo, m, b, p, k, whole);
    for (int u = 0; u < UNROLL; u++) rank1(lo, m, a, b, k, u, acc);
    snK_end(kr);
    k = snK_for(kr, whole, m->depth, ki(lo, 1), 1);
    rank1(lo, m, a, b, k, 0, acc);
    snK_end(kr);
    if (m->direct && m->last) snK_if(kr, m->last);
    if (m->direct) store_direct(lo, m, row, col, acc);
    if (m->direct && !m->last) return;
    if (m->direct) snK_else(kr);
    for (int x = 0; x < n; x++) {
        int64_t at = x / m->nv * m->ld_out + (int64_t)(x % m->nv) * lo->L;
        snK_store(kr, m->c_out, kadd(lo, out, ki(lo, at)), snK_get(kr, acc[x]), 0);
    }
    if (m->direct) snK_end(kr);
}

/* Where rows or columns are cut short at run time the micro-kernels do not reach the rest of the tile, which must still
   be the accumulator's value. */
static void fill_rest(Low *lo, const Micro *m, TType ty, KVal rows, KVal cols)
{
    KType b1 = kt(K_BOOL, 1);
    KVal cut = snK_op(lo->k, K_or, b1, snK_op(lo->k, K_lt, b1, rows, ki(lo, ty.r), 0), snK_op(lo->k, K_lt, b1, cols, ki(lo, ty.c), 0), 0);
    if (m->c_in && m->from_zero) cut = snK_op(lo->k, K_and, b1, cut, m->from_zero, 0);
    else if (m->c_in == m->c_out) return;
    snK_if(lo->k, cut);
    KVal r = snK_for(lo->k, ki(lo, 0), ki(lo, ty.r), ki(lo, 1), 1);
    KVal c = snK_for(lo->k, ki(lo, 0), ki(lo, ty.c), ki(lo, lo->L), 1);
    KVal x = zeros(lo);
    if (m->c_in && !m->from_zero) x = snK_load(lo->k, vf(lo), m->c_in, kadd(lo, kmul(lo, r, m->ld_in), c), 0);
    snK_store(lo->k, m->c_out, kadd(lo, kmul(lo, r, m->ld_out), c), x, 0);
    snK_end(lo->k);
    snK_end(lo->k);
    snK_end(lo->k);
}

/* Where the sum starts from: zero, the accumulator's tile, or zero in the first step of the loop. */
static void accumulator(Low *lo, TVal d, Micro *m)
{
    TVal c = INS(lo, d)->a[2], x = lo->dest[d];
    m->c_out = snL_tile_ptr(lo, d);
    m->ld_out = lo->v[d].ld;
    m->ld_in = m->ld_out;
    if (!c || (INS(lo, c)->op == T_full && INS(lo, c)->f == 0)) return;
    if (lo->v[c].how == H_LEAF || lo->v[c].how == H_SCALAR) {
        snL_copy(lo, c, d);
        m->c_in = m->c_out;
        return;
    }
    TVal f = x ? lo->zero_loop[x] : 0;
    m->c_in = lo->v[c].at == lo->v[d].at ? m->c_out : snL_tile_ptr(lo, c);
    m->ld_in = lo->v[c].ld;
    if (!f || lo->region[d] != f || INS(lo, c)->op != T_get) return;
    KVal begin = lo->v[INS(lo, f)->a[0]].k;
    if (lo->v[f].k == begin) m->c_in = 0;                /* a loop of one step */
    else m->from_zero = snK_op(lo->k, K_eq, kt(K_BOOL, 1), lo->v[f].k, begin, 0);
}

/* Does this step, or the last one of its loop, store the result itself? */
static void direct_store(Low *lo, TVal d, Micro *m)
{
    TVal f = lo->region[d];
    if (!lo->direct[d]) return;
    m->direct = lo->direct[d];
    const TIns *i = INS(lo, f);
    KVal begin = lo->v[i->a[0]].k, next = kadd(lo, lo->v[f].k, lo->v[i->a[2]].k);
    if (lo->v[f].k != begin) m->last = snK_op(lo->k, K_ge, kt(K_BOOL, 1), next, lo->v[i->a[1]].k, 0);
}

/* The left operand: packed, or a tile in scratch read in place. */
static void left_operand(Low *lo, TVal d, Micro *m)
{
    TVal a = INS(lo, d)->a[0];
    bool trans = INS(lo, d)->imm & 1;
    int64_t ld;
    if (INS(lo, a)->op == T_stage) {
        const View *w = find_view(lo, a, false, trans, m->mr, m->pairs);
        m->a = w->base;
        ld = w->panel;
        if (w->in_place && (INS(lo, a)->a[1] || INS(lo, a)->type.r % m->mr)) m->edge = w->edge, m->whole = w->whole;
        if (!w->rows) { m->a_row = 1, m->a_k = m->mr, m->a_panel = ld; return; }
    } else {
        if (!lo->v[a].at) {
            snL_place(lo, a);
            snL_copy(lo, a, a);
            SN_ASSERT(lo->v[a].how != H_CHAIN || lo->v[a].k, "the left operand of a dot has no tile");
        }
        m->a = snL_tile_ptr(lo, a);
        ld = lo->v[a].ld;
    }
    m->a_row = trans ? 1 : ld;
    m->a_k = trans ? ld : 1;
    m->a_panel = trans ? m->mr : m->mr * ld;
}

void snL_dot(Low *lo, TVal d)
{
    const TIns *i = INS(lo, d), *a = INS(lo, i->a[0]), *b = INS(lo, i->a[1]);
    bool ta = i->imm & 1, tb = i->imm & 2, packed = a->op == T_stage;
    Micro m = { 0 };
    snK_micro(lo->target, i->type.r, i->type.c, &m.mr, &m.nr);
    m.nv = m.nr / lo->L;
    m.pairs = snL_in_pairs(lo, d);
    m.down = (i->type.r + m.mr - 1) / m.mr;
    accumulator(lo, d, &m);
    left_operand(lo, d, &m);
    const View *w = find_view(lo, i->a[1], true, tb, m.nr, m.pairs);
    m.b = w->base;
    m.b_panel = w->panel;
    TVal vm = packed ? a->a[ta ? 2 : 1] : 0, vn = b->a[tb ? 1 : 2], ka = packed ? a->a[ta ? 1 : 2] : 0, kb = b->a[tb ? 2 : 1];
    m.depth = count(lo, kb, ta ? a->type.r : a->type.c);
    if (ka && ka != kb) m.depth = op2(lo, K_min, m.depth, lo->v[ka].k);
    if (m.pairs) m.depth = op2(lo, K_shr, kadd(lo, m.depth, ki(lo, 1)), ki(lo, 1));
    KVal rows = count(lo, vm, i->type.r), cols = count(lo, vn, i->type.c);
    direct_store(lo, d, &m);
    if ((vm || vn) && !m.direct) fill_rest(lo, &m, i->type, rows, cols);
    KVal pm = op2(lo, K_div, kadd(lo, rows, ki(lo, m.mr - 1)), ki(lo, m.mr));
    KVal pn = op2(lo, K_div, kadd(lo, cols, ki(lo, m.nr - 1)), ki(lo, m.nr));
    KVal q = snK_for(lo->k, ki(lo, 0), pn, ki(lo, 1), 1), p = snK_for(lo->k, ki(lo, 0), pm, ki(lo, 1), 1);
    micro_kernel(lo, &m, p, q);
    snK_end(lo->k);
    snK_end(lo->k);
}
