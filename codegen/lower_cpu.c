/* lower_cpu.c: a tile program to kernel IR for one CPU core. In: a checked tile program and a target. Out: a kernel whose
   task loop runs programs of the flattened grid one after the other.

   This file decides how each value lives (lower_cpu.h), which vars their dots accumulate into in place, and walks the
   structure: index arithmetic is emitted as met, loops and ifs map to the IR's, everything else goes segment by segment
   to lower_rows.c and lower_dot.c. */
#include "codegen/lower_gpu.h"

/* -- Small questions about the program ----------------------------------------------------------------- */

int snL_tile_args(const Low *lo, TVal x, TVal out[5])
{
    const TIns *i = INS(lo, x);
    int n = 0;
    if (i->op == T_get) return 0;
    for (int k = i->op == T_set; k < 5; k++)
        if (i->a[k] && INS(lo, i->a[k])->type.dtype) out[n++] = i->a[k];
    return n;
}

KVal snL_idx(Low *lo, TVal x, int64_t otherwise) { return x ? lo->v[x].k : ki(lo, otherwise); }

static bool is_break(int op)
{
    return op == T_dot || op == T_scan || op == T_topk || op == T_for || op == T_if || op == T_end;
}

/* Interval of an index value. */
void snL_range(const Low *lo, TVal x, int64_t *least, int64_t *most)
{
    const TIns *i = INS(lo, x);
    int64_t a0 = 0, a1 = 0, b0 = 0, b1 = 0;
    if (i->op >= T_iadd && i->op <= T_imax) {
        snL_range(lo, i->a[0], &a0, &a1);
        snL_range(lo, i->a[1], &b0, &b1);
    }
    if (i->op == T_imin || i->op == T_imax) {              /* one side is enough for a bound */
        bool low = i->op == T_imin;
        *least = (a0 < b0) == low ? a0 : b0, *most = (a1 < b1) == low ? a1 : b1;
        return;
    }
    *least = INT64_MIN / 4, *most = INT64_MAX / 4;
    if (a0 == *least || a1 == *most || b0 == *least || b1 == *most) return;
    switch (i->op) {
    case T_idx: *least = *most = i->imm; break;
    case T_grid: *least = 0, *most = lo->t->grid[i->imm] - 1; break;
    case T_iadd: *least = a0 + b0, *most = a1 + b1; break;
    case T_isub: *least = a0 - b1, *most = a1 - b0; break;
    case T_imul: if (a0 >= 0 && b0 >= 0) *least = a0 * b0, *most = a1 * b1; break;
    case T_idiv: if (b0 > 0 && a0 >= 0) *least = a0 / b1, *most = a1 / b0; break;
    case T_imod: if (b0 > 0) *least = 0, *most = b1 - 1; break;
    case T_for: {
        int64_t e0, e1;
        snL_range(lo, i->a[0], least, &e0);
        snL_range(lo, i->a[1], &e1, most);
        break;
    }
    default: break;
    }
}

/* Scratch for a value: rows padded so that a micro-kernel may run over the edge, and a row length that spreads
   consecutive rows over the sets of the first cache. */
void snL_place(Low *lo, TVal x)
{
    LVal *v = &lo->v[x];
    if (v->at) return;
    TType ty = INS(lo, x)->type;
    int64_t ld = ty.c == 1 ? 1 : up(ty.c, 64), rows = ty.r;
    if (v->wide) ld = up(up(ty.c, 64), v->wide), rows += 24;
    if (v->wide || (ty.r > 1 && ty.c > 1)) ld += 16;
    int size = snL_kind(ty.dtype) == K_BOOL ? 1 : 4;
    v->ld = (int32_t)ld;
    v->at = 1 + snK_scratch(lo->k, rows * ld * size + 64);
}

/* -- Analysis: users, regions, segments, dependences --------------------------------------------------- */

static void find_users(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    lo->first_user = NEWN(lo->arena, uint32_t, n + 2);
    TVal args[5];
    for (int pass = 0; pass < 2; pass++) {
        for (TVal x = 1; x < n; x++)
            for (int k = 0, m = snL_tile_args(lo, x, args); k < m; k++) {
                if (pass) lo->users[lo->first_user[args[k]]++] = x;
                else lo->first_user[args[k] + 1]++;
            }
        if (pass) break;
        for (TVal x = 1; x <= n; x++) lo->first_user[x] += lo->first_user[x - 1];
        lo->users = NEWN(lo->arena, uint32_t, lo->first_user[n] + 1);
    }
    for (TVal x = n; x > 0; x--) lo->first_user[x] = lo->first_user[x - 1];
}

static void find_regions(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    lo->region = NEWN(lo->arena, TVal, n + 1);
    lo->close = NEWN(lo->arena, TVal, n + 1);
    TVal open = 0;
    for (TVal x = 1; x < n; x++) {
        int op = INS(lo, x)->op;
        if (op == T_end) {
            lo->close[open] = x;
            lo->region[x] = lo->region[open];
            open = lo->region[open];
            continue;
        }
        lo->region[x] = open;
        if (op == T_for) {
            SN_ASSERT(lo->nloops < 60, "too many loops in a tile program");
            lo->loops[lo->nloops++] = x;
        }
        if (op == T_for || op == T_if) open = x;
    }
    lo->close[0] = n;
}

/* A segment also ends where an instruction would see what an earlier one of the segment wrote, or turns its value into
   an index, which is wanted before the segment runs. */
static bool must_follow(const Low *lo, TVal begin, TVal x)
{
    const TIns *i = INS(lo, x);
    if (i->op == T_count) return i->a[0] >= begin;
    bool reads = i->op == T_get || ((i->op == T_load || i->op == T_gather) && lo->t->params.v[i->buf].written);
    if (!reads) return false;
    for (TVal y = begin; y < x; y++) {
        const TIns *w = INS(lo, y);
        if (i->op == T_get && ((w->op == T_set && w->a[0] == i->a[0]) || y == i->a[0])) return true;
        if (i->op != T_get && (w->op == T_store || w->op == T_scatter_add) && w->buf == i->buf) return true;
    }
    return false;
}

static void find_segments(Low *lo)
{
    uint32_t seg = 1;
    TVal begin = 1;
    for (TVal x = 1; x < lo->t->ins.n; x++) {
        bool alone = is_break(INS(lo, x)->op);
        if (alone || must_follow(lo, begin, x)) seg++, begin = x;
        lo->v[x].seg = seg;
        if (alone) seg++, begin = x + 1;
    }
}

static void find_deps(Low *lo)
{
    for (TVal x = 1; x < lo->t->ins.n; x++) {
        const TIns *i = INS(lo, x);
        uint64_t d = 0;
        if (i->op == T_grid && i->imm == 0) d = DEP_GRID0;
        if (i->op == T_get || i->op == T_dot) d = DEP_STATE;
        if ((i->op == T_load || i->op == T_gather) && lo->t->params.v[i->buf].written) d = DEP_STATE;
        for (int k = 0; k < 5; k++) if (i->a[k]) d |= lo->v[i->a[k]].deps;
        for (int k = 0; k < lo->nloops; k++) if (lo->loops[k] == x) d = (d & DEP_STATE) | 1ull << (DEP_LOOP + k);
        lo->v[x].deps = d;
    }
}

/* -- How each value lives -------------------------------------------------------------------------------- */

static bool is_leaf(const Low *lo, const TIns *i)
{
    return i->op == T_full || i->op == T_iota || (i->op == T_load && !lo->t->params.v[i->buf].written);
}

/* The stage that evaluates x: each of its users is that stage, or a value that the stage evaluates; 0 = something else uses it.
   Users come later, so their hows are known. */
static TVal evaluating_stage(const Low *lo, TVal x)
{
    TVal stage = 0;
    for (uint32_t a = lo->first_user[x]; a < lo->first_user[x + 1]; a++) {
        TVal u = lo->users[a];
        while (lo->v[u].how == H_INLINE) u = lo->users[lo->first_user[u]];
        if (INS(lo, u)->op != T_stage || (stage && u != stage)) return 0;
        stage = u;
    }
    return stage;
}

static void find_hows(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    for (TVal x = n - 1; x > 0; x--) {
        const TIns *i = INS(lo, x);
        LVal *v = &lo->v[x];
        v->how = H_CHAIN;
        if (!i->type.dtype) v->how = H_IDX;
        else if (i->op == T_dot || i->op == T_scan || i->op == T_topk || i->op == T_var || i->op == T_get ||
                 i->op == T_stage) v->how = H_TILE;
        else if (is_leaf(lo, i)) v->how = H_LEAF;
        else if ((i->op == T_ew || i->op == T_random || i->op == T_gather) && is_vec(i->type) && evaluating_stage(lo, x))
            v->how = H_INLINE;
    }
    for (TVal x = 1; x < n; x++) {
        const TIns *i = INS(lo, x);
        if (!is_one(i->type) || i->op == T_dot || i->op == T_reduce || i->op == T_scan || i->op == T_topk || i->op == T_stage) continue;
        TVal args[5];
        bool simple = snT_op_kind(i->op) == 'V';
        for (int k = 0, m = snL_tile_args(lo, x, args); k < m; k++) simple &= lo->v[args[k]].how == H_SCALAR || i->op == T_var;
        if (simple) lo->v[x].how = H_SCALAR;
    }
}

/* -- Vars: who may share their tile ------------------------------------------------------------------------ */

/* Would a write of g's var at w change what a use of the snapshot g still wants? */
static bool write_hurts(const Low *lo, TVal g, TVal w)
{
    for (uint32_t a = lo->first_user[g]; a < lo->first_user[g + 1]; a++) {
        TVal u = lo->users[a];
        while (lo->v[u].how == H_INLINE) u = lo->users[lo->first_user[u]];
        if (u == w) continue;
        bool late = INS(lo, u)->op == T_stage;
        if (lo->v[w].seg < lo->v[u].seg || (lo->v[w].seg == lo->v[u].seg && late)) return true;
        TVal outer = 0;                                  /* the outermost loop around u that does not hold g */
        for (TVal r = lo->region[u]; r && !(r < g && g < lo->close[r]); r = lo->region[r])
            if (INS(lo, r)->op == T_for) outer = r;
        if (outer && outer < w && w < lo->close[outer]) return true;
    }
    return false;
}

/* dot -> var: its result only goes into the var, and no older value of the var is wanted once the dot has run. */
static void find_dests(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    lo->dest = NEWN(lo->arena, TVal, n);
    for (TVal d = 1; d < n; d++) {
        if (INS(lo, d)->op != T_dot || lo->first_user[d + 1] - lo->first_user[d] != 1) continue;
        TVal s = lo->users[lo->first_user[d]];
        if (INS(lo, s)->op != T_set || lo->region[s] != lo->region[d] || is_one(INS(lo, d)->type)) continue;
        TVal x = INS(lo, s)->a[0];
        bool ok = true;
        for (TVal y = 1; y < n && ok; y++) {
            const TIns *i = INS(lo, y);
            if (i->op == T_get && i->a[0] == x && y < s) ok = y < d && !write_hurts(lo, y, d);
            if (i->op == T_set && i->a[0] == x && y > d && y < s) ok = false;
        }
        if (ok) lo->dest[d] = x;
    }
}

/* var -> loop: the var is full 0 before, the loop runs at least once, and the var's first reader is the dot in it. */
static void find_zero_loops(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    lo->zero_loop = NEWN(lo->arena, TVal, n);
    for (TVal d = 1; d < n; d++) {
        TVal x = lo->dest[d], f = lo->region[d], g = x ? INS(lo, d)->a[2] : 0;
        if (!g || !f || INS(lo, g)->op != T_get || INS(lo, g)->a[0] != x || INS(lo, f)->op != T_for) continue;
        const TIns *init = INS(lo, INS(lo, x)->a[0]);
        int64_t least, begin, end, most;
        snL_range(lo, INS(lo, f)->a[0], &least, &begin);
        snL_range(lo, INS(lo, f)->a[1], &end, &most);
        if (init->op != T_full || init->f != 0 || lo->region[x] != lo->region[f] || lo->region[g] != f) continue;
        if (begin >= end) continue;
        bool ok = true;
        for (TVal y = x + 1; y < lo->close[f]; y++) {
            const TIns *i = INS(lo, y);
            if (i->op == T_get && i->a[0] == x && y != g) ok = false;
            if (i->op == T_set && i->a[0] == x && i->a[1] != d) ok = false;
        }
        if (ok) lo->zero_loop[x] = f;
    }
}

/* Index arithmetic over grid positions and constants alone may be emitted early. */
static bool is_early_idx(const Low *lo, TVal x, TVal before)
{
    const TIns *i = INS(lo, x);
    if (!x || x < before) return true;
    if (i->op == T_get || i->op == T_for || i->op == T_var || i->op == T_count) return false;
    return is_early_idx(lo, i->a[0], before) && is_early_idx(lo, i->a[1], before);
}

/* dot -> store: after its loop, the accumulator's only use is a store of rows of f32. The last step of the dot then stores
   from registers and the tile is never read back. */
static void find_direct(Low *lo)
{
    uint32_t n = lo->t->ins.n;
    lo->direct = NEWN(lo->arena, TVal, n);
    for (TVal d = 1; d < n; d++) {
        TVal x = lo->dest[d], f = lo->region[d], s = 0;
        if (!x || !lo->zero_loop[x] || lo->zero_loop[x] != f) continue;
        int uses = 0;
        for (TVal y = lo->close[f]; y < n; y++) {
            const TIns *i = INS(lo, y);
            if (i->op == T_set && i->a[0] == x) uses = 2;
            if (i->op != T_get || i->a[0] != x) continue;
            for (uint32_t a = lo->first_user[y]; a < lo->first_user[y + 1]; a++, uses++) s = lo->users[a];
        }
        const TIns *i = INS(lo, s);
        if (uses != 1 || i->op != T_store || lo->region[s] != lo->region[f] || i->cs != 1) continue;
        if (lo->t->params.v[i->buf].dtype != SN_F32) continue;
        bool early = true;
        for (int k = 0; k < 4; k++) if (k != 1) early &= is_early_idx(lo, i->a[k], f);
        if (early) lo->direct[d] = s, lo->direct[s] = d;
    }
}

/* A get reads the var's own tile unless a later write would be seen by one of its uses. */
bool snL_get_shares(const Low *lo, TVal g)
{
    TVal x = INS(lo, g)->a[0];
    for (TVal w = g + 1; w < lo->t->ins.n; w++) {
        const TIns *i = INS(lo, w);
        bool set = i->op == T_set && i->a[0] == x && !(INS(lo, i->a[1])->op == T_dot && lo->dest[i->a[1]] == x);
        if ((set || lo->dest[w] == x) && write_hurts(lo, g, w)) return false;
    }
    return true;
}

static void place_vars(Low *lo)
{
    for (TVal x = 1; x < lo->t->ins.n; x++) {
        const TIns *i = INS(lo, x);
        if (i->op != T_dot) continue;
        int mr, nr;
        snK_micro(lo->target, i->type.r, i->type.c, &mr, &nr);
        TVal a = i->a[0], c = i->a[2], same[] = { x, lo->dest[x], a, c, INS(lo, a)->op == T_get ? INS(lo, a)->a[0] : 0,
                                                  c && INS(lo, c)->op == T_get ? INS(lo, c)->a[0] : 0 };
        for (unsigned k = 0; k < sizeof same / sizeof *same; k++)
            if (same[k] && lo->v[same[k]].wide < nr) lo->v[same[k]].wide = (uint8_t)nr;
    }
    for (TVal x = 1; x < lo->t->ins.n; x++) {
        const TIns *i = INS(lo, x);
        LVal *v = &lo->v[x];
        if (v->how != H_TILE || i->op == T_stage) continue;
        if (i->op == T_var) snL_place(lo, x);
        if (i->op == T_dot && lo->dest[x]) v->at = lo->v[lo->dest[x]].at, v->ld = lo->v[lo->dest[x]].ld;
        if (i->op == T_get && snL_get_shares(lo, x)) v->at = lo->v[i->a[0]].at, v->ld = lo->v[i->a[0]].ld;
        snL_place(lo, x);
    }
}

/* -- Walking ------------------------------------------------------------------------------------------------ */

static void emit_idx(Low *lo, TVal x)
{
    static const uint8_t op[T_NOPS] = { [T_iadd] = K_add, [T_isub] = K_sub, [T_imul] = K_mul, [T_idiv] = K_div,
                                        [T_imod] = K_rem, [T_imin] = K_min, [T_imax] = K_max };
    const TIns *i = INS(lo, x);
    LVal *v = &lo->v[x];
    if (i->op == T_idx) v->k = ki(lo, i->imm);
    else if (i->op == T_get) v->k = snK_get(lo->k, lo->v[i->a[0]].k);
    else if (i->op == T_var) v->k = snK_var(lo->k, lo->v[i->a[0]].k);
    else if (i->op == T_count) v->k = snK_op(lo->k, K_cast, i64(), lo->v[i->a[0]].k, 0, 0);
    else if (op[i->op]) v->k = snK_op(lo->k, op[i->op], i64(), lo->v[i->a[0]].k, lo->v[i->a[1]].k, 0);
}

/* Does the loop run exactly once? Then its body needs no loop. */
static bool runs_once(const Low *lo, const TIns *i)
{
    int64_t a, b, s;
    return snT_const_idx(lo->t, i->a[0], &a) && snT_const_idx(lo->t, i->a[1], &b) && snT_const_idx(lo->t, i->a[2], &s) &&
           a < b && b - a <= s;
}

void snL_force_idx(Low *lo, TVal x)
{
    if (!x || lo->v[x].k) return;
    snL_force_idx(lo, INS(lo, x)->a[0]);
    snL_force_idx(lo, INS(lo, x)->a[1]);
    emit_idx(lo, x);
}

static void lower_structure(Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    if (i->op == T_for) {
        for (TVal d = x; d < lo->close[x]; d++)
            for (int k = 0; k < 4; k++)
                if (INS(lo, d)->op == T_dot && lo->region[d] == x && lo->direct[d] && k != 1) snL_force_idx(lo, INS(lo, lo->direct[d])->a[k]);
        bool once = runs_once(lo, i);
        KVal a = lo->v[i->a[0]].k;
        Ring ring;
        if (!once) snG_edge(lo);
        bool ringed = snG_fill_ring(lo, x, &ring);
        lo->v[x].k = once ? a : snK_for(lo->k, a, lo->v[i->a[1]].k, lo->v[i->a[2]].k, 1);
        if (ringed) snG_begin_step(lo, x, &ring);
        snL_region(lo, x + 1, lo->close[x]);
        if (ringed) snG_end_step(lo, &ring);
        if (!once) snK_end(lo->k), snG_edge(lo);
    } else if (i->op == T_if) {
        KVal cond = lo->v[i->a[0]].k;
        if (!cond) snG_sync_value(lo, i->a[0]);
        snK_if(lo->k, cond ? cond : snL_scal(lo, i->a[0]));
        snL_region(lo, x + 1, lo->close[x]);
        snK_end(lo->k);
        snG_edge(lo);
    }
}

void snL_region(Low *lo, TVal begin, TVal end)
{
    for (TVal x = begin; x < end; ) {
        const TIns *i = INS(lo, x);
        if (i->op == T_for || i->op == T_if) {
            lower_structure(lo, x);
            x = lo->close[x] + 1;
        } else if (is_break(i->op)) {
            snL_new_row(lo);
            if (i->op == T_dot) lo->gpu ? snG_dot(lo, x) : snL_dot(lo, x);
            else if (i->op == T_scan) snL_scan(lo, x);
            else if (i->op == T_topk) snL_topk(lo, x);
            x++;
        } else {
            TVal e = x;
            while (e < end && lo->v[e].seg == lo->v[x].seg) {
                if (lo->v[e].how == H_IDX && snT_op_kind(INS(lo, e)->op) == 'V') emit_idx(lo, e);
                e++;
            }
            snL_segment(lo, x, e);
            x = e;
        }
    }
}

void snL_grid(Low *lo, KVal task)
{
    const Tile *t = lo->t;
    KVal rest = task, pos[MAX_RANK];
    for (int d = 0; d < t->ngrid; d++) {
        bool last = d == t->ngrid - 1;
        pos[d] = last ? rest : snK_op(lo->k, K_rem, i64(), rest, ki(lo, t->grid[d]), 0);
        if (!last) rest = snK_op(lo->k, K_div, i64(), rest, ki(lo, t->grid[d]), 0);
        if (d == 0) lo->outer_key = last ? ki(lo, 0) : rest;
    }
    for (TVal x = 1; x < t->ins.n; x++)
        if (t->ins.v[x].op == T_grid) lo->v[x].k = pos[t->ins.v[x].imm];
}

/* Before the first program that a worker runs of a launch: no kept panel is valid. */
static void clear_keys(Low *lo)
{
    bool any = false;
    for (uint32_t n = 0; n < lo->views.n; n++) any |= lo->views.v[n].keys > 0;
    if (!any) return;
    KVal zero = snK_int(lo->k, kt(K_U32, 1), 0), again = snK_leaf(lo->k, K_sysarg, kt(K_U32, 1), 4);
    snK_if(lo->k, snK_op(lo->k, K_eq, kt(K_BOOL, 1), again, zero, 0));
    for (uint32_t n = 0; n < lo->views.n; n++) {
        const View *w = &lo->views.v[n];
        if (!w->keys) continue;
        KVal i = snK_for(lo->k, ki(lo, 0), ki(lo, w->slots), ki(lo, 1), 1);
        snK_store(lo->k, snK_scratch_ptr(lo->k, K_I64, w->keys - 1), i, ki(lo, -1), 0);
        snK_end(lo->k);
    }
    snK_end(lo->k);
}

void snL_analyse(Low *lo)
{
    find_users(lo);
    find_regions(lo);
    find_segments(lo);
    find_deps(lo);
    find_hows(lo);
    find_dests(lo);
}

Kernel *snK_lower_cpu(sn_ctx *c, Arena *a, const Tile *t, const Target *target)
{
    Low low = { .t = t, .target = target, .arena = a, .L = target->f32_lanes }, *lo = &low;
    lo->k = snK_new(c, a, snU_str(c, t->name));
    lo->v = NEWN(a, LVal, t->ins.n + 1);
    lo->params = NEWN(a, KVal, t->params.n + 1);
    for (uint32_t p = 0; p < t->params.n; p++) {
        const TParam *q = &t->params.v[p];
        if (q->local) lo->params[p] = snK_scratch_ptr(lo->k, (KKind)q->dtype, snK_scratch(lo->k, q->count * snG_dtype_size((Dtype)q->dtype)));
        else lo->params[p] = snK_ptr(lo->k, snK_param(lo->k, snU_str(c, q->name), (KKind)q->dtype, q->written));
    }
    snL_analyse(lo);
    find_zero_loops(lo);
    find_direct(lo);
    place_vars(lo);
    snL_views(lo);
    clear_keys(lo);
    KVal first = snK_leaf(lo->k, K_task, i64(), 0), end = snK_leaf(lo->k, K_task, i64(), 1);
    snL_grid(lo, snK_for(lo->k, first, end, ki(lo, 1), 1));
    snL_region(lo, 1, t->ins.n);
    snK_end(lo->k);
    snK_verify(lo->k);
    return lo->k;
}
