/* lower_eval.c: the value of a tile expression at one position. In: a tile value and where the nest stands (row, column, whether
   lanes may be outside). Out: one kernel-IR value, a vector along the columns (snL_vec) or, for tiles of one column, a
   scalar (snL_scal). Values are remembered per vector and per row through stamps, so a shared subexpression is emitted once. */
#include "codegen/lower_gpu.h"

KKind snL_kind(int dtype) { return snG_is_float((Dtype)dtype) ? K_F32 : (KKind)dtype; }
KType snL_vt(const Low *lo, int dtype) { return kt(snL_kind(dtype), lo->L); }
void snL_new_vec(Low *lo) { lo->vec_stamp = ++lo->stamp; }
void snL_new_row(Low *lo) { lo->row_stamp = lo->vec_stamp = ++lo->stamp; }
KVal snL_tile_ptr(Low *lo, TVal x)
{
    KKind kind = snL_kind(INS(lo, x)->type.dtype);
    return lo->v[x].shared ? snK_shared_ptr(lo->k, kind, lo->v[x].at - 1) : snK_scratch_ptr(lo->k, kind, lo->v[x].at - 1);
}

/* The row buffer that carries x to later levels; on a GPU every row at work has one. */
KVal snL_keep_ptr(Low *lo, TVal x)
{
    KKind kind = snL_kind(INS(lo, x)->type.dtype);
    KVal p = snK_scratch_ptr(lo->k, kind, lo->v[x].keep - 1);
    return lo->gpu ? snK_op(lo->k, K_offset, kt(K_PTR, 1), p, snG_keep_offset(lo, INS(lo, x)->type.c), 0) : p;
}

static KVal splat(Low *lo, KVal s)
{
    KType t = snK_type(lo->k, s);
    return t.lanes > 1 ? s : snK_op(lo->k, K_splat, kt((KKind)t.kind, lo->L), s, 0, 0);
}

static KVal lanes_i32(Low *lo) { return snK_leaf(lo->k, K_lane, kt(K_I32, lo->L), 0); }
static KVal op1(Low *lo, int op, KType t, KVal a) { return snK_op(lo->k, op, t, a, 0, 0); }
static KVal op2(Low *lo, int op, KType t, KVal a, KVal b) { return snK_op(lo->k, op, t, a, b, 0); }

/* -- Where lanes and rows are inside --------------------------------------------------------------------- */

KVal snL_mask(Low *lo, TVal vc)
{
    if (!lo->tail) return 0;
    KVal limit = ki(lo, lo->width);
    if (vc) limit = op2(lo, K_min, i64(), limit, lo->v[vc].k);
    KVal left = op1(lo, K_cast, kt(K_I32, 1), op2(lo, K_sub, i64(), limit, lo->col));
    return op2(lo, K_lt, kt(K_BOOL, lo->L), lanes_i32(lo), splat(lo, left));
}

/* On a GPU, threads beyond the last row stand at it again and touch nothing. */
KVal snL_row_ok(Low *lo, TVal vr)
{
    KVal live = lo->gpu ? lo->gpu->live : 0, ok = 0;
    if (vr && vr != lo->row_limit) ok = op2(lo, K_lt, kt(K_BOOL, 1), lo->row, lo->v[vr].k);
    return ok && live ? op2(lo, K_and, kt(K_BOOL, 1), ok, live) : ok ? ok : live;
}

static KVal both(Low *lo, KVal mask, KVal ok)
{
    if (!ok) return mask;
    ok = splat(lo, ok);
    return mask ? op2(lo, K_and, kt(K_BOOL, lo->L), mask, ok) : ok;
}

/* -- Memory -------------------------------------------------------------------------------------------------- */

static KVal to_register(Low *lo, int dtype, KVal x)
{
    if (dtype != SN_BF16 && dtype != SN_F16) return x;
    return op1(lo, K_cast, kt(K_F32, snK_type(lo->k, x).lanes), x);
}

/* clamp(index, 0, imm - 1) of a gather. */
static KVal clamp_index(Low *lo, const TIns *i, KVal x)
{
    KType t = snK_type(lo->k, x);
    x = op2(lo, K_min, t, x, snK_int(lo->k, t, i->imm - 1));
    return op2(lo, K_max, t, x, snK_int(lo->k, t, 0));
}

/* Element index of (row, column 0), without a gather's per-column part. */
static KVal row_address(Low *lo, const TIns *i)
{
    KVal at = lo->v[i->a[0]].k;
    if (i->type.r > 1) at = kadd(lo, at, kmul(lo, lo->row, i->rs));
    if (i->op == T_gather && INS(lo, i->a[1])->type.c == 1) {
        KVal x = op1(lo, K_cast, i64(), clamp_index(lo, i, snL_scal(lo, i->a[1])));
        at = kadd(lo, at, kmul(lo, x, i->ks));
    }
    return at;
}

static KVal load_scal(Low *lo, const TIns *i)
{
    KVal at = row_address(lo, i), ok = snL_row_ok(lo, i->a[i->op == T_gather ? 2 : 1]);
    if (ok && !lo->gpu) at = snK_op(lo->k, K_select, i64(), ok, at, ki(lo, 0));
    KKind mem = (KKind)i->type.dtype;
    return to_register(lo, mem, snK_load(lo->k, kt(mem, 1), lo->params[i->buf], at, lo->gpu ? ok : 0));
}

/* Bits of 16 that surely divide an index value: the lowest that is set divides it. */
static int64_t divisor(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    int64_t a, b;
    if (snT_const_idx(lo->t, x, &a)) return a | 16;
    if (i->op == T_for) return divisor(lo, i->a[0]) | divisor(lo, i->a[2]) | 16;
    if (i->op < T_iadd || i->op > T_imax) return 1;
    a = divisor(lo, i->a[0]), b = divisor(lo, i->a[1]);
    if (i->op == T_imul) return (a & -a) * (b & -b) | 16;
    return i->op == T_iadd || i->op == T_isub || i->op == T_imin || i->op == T_imax ? a | b : 1;
}

static int64_t low_bit(int64_t x) { return x & -x; }

/* Elements that the address of `lanes` of unit stride is a multiple of: at most so many, at most 16 bytes. */
int snL_alignment_of(const Low *lo, const TIns *i, bool rows, int lanes)
{
    const TParam *p = &lo->t->params.v[i->buf];
    int64_t size = snG_dtype_size((Dtype)p->dtype), all = low_bit(divisor(lo, i->a[0]) | (rows ? i->rs : 0) | lanes | 16 / size);
    if (i->op == T_gather) all = low_bit(all | i->ks);
    return !lo->gpu || p->align < size ? 1 : (int)(all < p->align / size ? all : p->align / size);
}

int snL_alignment(const Low *lo, const TIns *i, bool rows) { return snL_alignment_of(lo, i, rows, lo->L); }

/* Lanes below vc come in whole vectors: then one comparison says all. */
static KVal whole_vector(Low *lo, TVal vc)
{
    if (!lo->gpu || lo->width % lo->L || (vc && low_bit(divisor(lo, vc) | lo->L) < lo->L)) return 0;
    KVal limit = ki(lo, lo->width);
    if (vc) limit = op2(lo, K_min, i64(), limit, lo->v[vc].k);
    return op2(lo, K_lt, kt(K_BOOL, 1), lo->col, limit);
}

KVal snL_gate(Low *lo, TVal vr, TVal vc, KVal *mask)
{
    KVal ok = snL_row_ok(lo, vr), in = 0;
    *mask = snL_mask(lo, vc);
    if (*mask && (in = whole_vector(lo, vc)) != 0) *mask = 0;
    return ok && in ? op2(lo, K_and, kt(K_BOOL, 1), ok, in) : ok ? ok : in;
}

/* A vector from memory, of threads that stand inside; they branch, for lanes by themselves would be loaded one by one. */
static KVal load_inside(Low *lo, const TIns *i, KVal at, int valid)
{
    KVal mask, in = snL_gate(lo, i->a[valid], i->a[valid + 1], &mask), r = 0;
    KType t = kt((KKind)i->type.dtype, lo->L), rt = snL_vt(lo, i->type.dtype);
    if (in) {
        r = snK_var(lo->k, rt.kind == K_F32 ? snK_float(lo->k, rt, 0) : snK_int(lo->k, rt, 0));
        snK_if(lo->k, in);
    }
    int align = snL_alignment(lo, i, i->type.r > 1);
    KVal x = snK_emit(lo->k, (KIns){ .op = K_load, .type = t, .a = { lo->params[i->buf], at, mask }, .imm = align > 1 ? align : 0 });
    x = to_register(lo, i->type.dtype, x);
    if (!in) return x;
    snK_set(lo->k, r, x);
    snK_end(lo->k);
    return snK_get(lo->k, r);
}

static KVal load_vec(Low *lo, const TIns *i)
{
    int valid = i->op == T_gather ? 2 : 1;
    bool by_column = i->op == T_gather && INS(lo, i->a[1])->type.c > 1;
    if (i->cs == 0 && !by_column) return splat(lo, load_scal(lo, i));
    KType t = kt((KKind)i->type.dtype, lo->L);
    KVal at = kadd(lo, row_address(lo, i), kmul(lo, lo->col, i->cs));
    if (lo->gpu && i->cs == 1 && !by_column) return load_inside(lo, i, at, valid);
    KVal mask = both(lo, snL_mask(lo, i->a[valid + 1]), snL_row_ok(lo, i->a[valid])), x;
    if (i->cs == 1 && !by_column) {
        x = snK_load(lo->k, t, lo->params[i->buf], at, mask);
    } else {
        KType it = kt(lo->t->params.v[i->buf].count < INT32_MAX ? K_I32 : K_I64, lo->L);
        KVal index = op2(lo, K_mul, it, snK_leaf(lo->k, K_lane, it, 0), snK_int(lo->k, it, i->cs));
        index = op2(lo, K_add, it, index, splat(lo, op1(lo, K_cast, kt((KKind)it.kind, 1), at)));
        if (by_column) {
            KVal row = op1(lo, K_cast, it, clamp_index(lo, i, snL_vec(lo, i->a[1])));
            index = op2(lo, K_add, it, index, op2(lo, K_mul, it, row, snK_int(lo->k, it, i->ks)));
        }
        x = snK_gather(lo->k, t, lo->params[i->buf], index, mask);
    }
    return to_register(lo, i->type.dtype, x);
}

static KVal tile_load(Low *lo, TVal x, TVal tile, int lanes)
{
    const LVal *v = &lo->v[tile];
    TType ty = INS(lo, x)->type;
    if (v->frag) return snK_get(lo->k, snG_register(lo, tile));
    KVal at = ty.r > 1 ? kmul(lo, lo->row, v->ld) : ki(lo, 0);
    if (lanes > 1 && !lo->down) at = kadd(lo, at, lo->col);
    KVal mask = lo->gpu ? lo->gpu->live : 0;             /* threads may reach beyond the tile */
    if (lanes > 1 && lo->gpu) mask = both(lo, snL_mask(lo, 0), mask);
    return snK_load(lo->k, kt(snL_kind(ty.dtype), lanes), snL_tile_ptr(lo, tile), at, mask);
}

/* -- Generators ------------------------------------------------------------------------------------------------ */

static KVal iota(Low *lo, const TIns *i, int lanes)
{
    KType t = kt(K_I32, lanes), s = kt(K_I32, 1);
    KVal at = kadd(lo, lo->v[i->a[0]].k, i->imm ? (lanes > 1 ? lo->col : ki(lo, 0)) : lo->row);
    KVal first = op1(lo, K_cast, s, at);
    return lanes > 1 ? op2(lo, K_add, t, splat(lo, first), lanes_i32(lo)) : first;
}

static KVal uniform(Low *lo, KVal word, KType f)
{
    KType u = kt(K_U32, f.lanes), s = kt(K_I32, f.lanes);
    word = op2(lo, K_shr, u, word, snK_int(lo->k, u, 8));
    KVal x = op1(lo, K_cast, f, op1(lo, K_bitcast, s, word));
    return op2(lo, K_mul, f, x, snK_float(lo->k, f, 0x1p-24));
}

/* Word `word` of Philox(count, ...): see graph.h for what the other counters and the key are. */
static KVal philox(Low *lo, const TIns *i, KVal count, KVal word)
{
    Kernel *k = lo->k;
    KType u = snK_type(k, count), u1 = kt(K_U32, 1);
    KVal key[2], ctr[4] = { count }, arg[4];
    for (int n = 0; n < 4; n++) {
        arg[n] = snK_leaf(k, K_sysarg, u1, n);
        if (u.lanes > 1) arg[n] = splat(lo, arg[n]);
    }
    key[0] = arg[0], key[1] = arg[1], ctr[1] = arg[2], ctr[2] = arg[3];
    if (i->a[1]) {
        ctr[1] = op1(lo, K_bitcast, u, u.lanes > 1 ? snL_vec(lo, i->a[1]) : snL_scal(lo, i->a[1]));
        ctr[2] = snK_int(k, u, 0);
    }
    ctr[3] = snK_int(k, u, (int64_t)((uint32_t)i->imm | (i->a[1] ? 0x80000000u : 0)));
    return snK_philox(k, key, ctr, word);
}

/* Index of the element at (row, column 0). */
static KVal first_element(Low *lo, const TIns *i)
{
    KVal e = lo->v[i->a[0]].k;
    return i->type.r > 1 ? kadd(lo, e, kmul(lo, lo->row, i->rs)) : e;
}

/* Element e is word e & 3 of counter e >> 2. The lanes' elements differ by small amounts, so the 64-bit part is scalar. */
static KVal random_at(Low *lo, const TIns *i, int lanes)
{
    Kernel *k = lo->k;
    KType u = kt(K_U32, lanes), u1 = kt(K_U32, 1);
    KVal e = first_element(lo, i);
    if (lanes > 1) e = kadd(lo, e, kmul(lo, lo->col, i->cs));
    KVal low = op1(lo, K_cast, u1, op2(lo, K_and, i64(), e, ki(lo, 3)));
    KVal high = op1(lo, K_cast, u1, op2(lo, K_shr, i64(), e, ki(lo, 2)));
    if (lanes > 1) {
        KVal step = op2(lo, K_mul, u, snK_leaf(k, K_lane, u, 0), snK_int(k, u, i->cs));
        low = op2(lo, K_add, u, splat(lo, low), step);
        high = splat(lo, high);
    }
    KVal word = op2(lo, K_and, u, low, snK_int(k, u, 3));
    KVal count = op2(lo, K_add, u, high, op2(lo, K_shr, u, low, snK_int(k, u, 2)));
    return uniform(lo, philox(lo, i, count, word), kt(K_F32, lanes));
}

KVal snL_unpack(Low *lo, KVal a, KVal b, int size, bool high)
{
    uint8_t lane[64];
    for (int g = 0; g < lo->L; g += 4)
        for (int n = 0; n < 4; n++) {
            int block = n / size, within = n % size;     /* a, b, a, b (size 1); a, b (size 2) */
            int from = g + (high ? 2 : 0) + (size == 1 ? block / 2 : 0) + within;
            lane[g + n] = (uint8_t)(from + (block % 2 ? lo->L : 0));
        }
    return snK_shuffle(lo->k, a, b, lane, lo->L);
}

/* Four neighbouring vectors from the four words of one Philox: counter (l % 4) * L/4 + l / 4 in lane l makes the 4 x 4
   transposes inside groups of lanes yield the elements in order. For rows of elements that start at a multiple of 4. */
static void random_quad(Low *lo, const TIns *i, KVal out[4])
{
    KType u = kt(K_U32, lo->L), f = kt(K_F32, lo->L);
    KVal lane = snK_leaf(lo->k, K_lane, u, 0), w[4];
    KVal order = op2(lo, K_mul, u, op2(lo, K_and, u, lane, snK_int(lo->k, u, 3)), snK_int(lo->k, u, lo->L / 4));
    order = op2(lo, K_add, u, order, op2(lo, K_shr, u, lane, snK_int(lo->k, u, 2)));
    KVal e = kadd(lo, first_element(lo, i), lo->col);
    KVal first = op1(lo, K_cast, kt(K_U32, 1), op2(lo, K_shr, i64(), e, ki(lo, 2)));
    KVal count = op2(lo, K_add, u, splat(lo, first), order);
    for (int n = 0; n < 4; n++) w[n] = philox(lo, i, count, snK_int(lo->k, u, n));
    KVal a = snL_unpack(lo, w[0], w[1], 1, false), b = snL_unpack(lo, w[0], w[1], 1, true);
    KVal c = snL_unpack(lo, w[2], w[3], 1, false), d = snL_unpack(lo, w[2], w[3], 1, true);
    out[0] = snL_unpack(lo, a, c, 2, false), out[1] = snL_unpack(lo, a, c, 2, true);
    out[2] = snL_unpack(lo, b, d, 2, false), out[3] = snL_unpack(lo, b, d, 2, true);
    for (int n = 0; n < 4; n++) out[n] = uniform(lo, out[n], f);
}

/* Four lanes from the four words of one Philox, for rows of elements that start at a multiple of 4. */
static KVal random_four(Low *lo, const TIns *i)
{
    KType u1 = kt(K_U32, 1);
    KVal e = kadd(lo, first_element(lo, i), lo->col), w[4];
    KVal count = op1(lo, K_cast, u1, op2(lo, K_shr, i64(), e, ki(lo, 2)));
    for (int n = 0; n < 4; n++) w[n] = philox(lo, i, count, snK_int(lo->k, u1, n));
    static const uint8_t two[] = { 0, 1 }, four[] = { 0, 1, 2, 3 };
    KVal a = snK_shuffle(lo->k, w[0], w[1], two, 2), b = snK_shuffle(lo->k, w[2], w[3], two, 2);
    return uniform(lo, snK_shuffle(lo->k, a, b, four, 4), kt(K_F32, 4));
}

/* Is the index a multiple of 4, provably? */
static bool is_fourfold(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    bool a = i->a[0] && i->op != T_for && i->op != T_get && is_fourfold(lo, i->a[0]), b = i->a[1] && i->op != T_for && is_fourfold(lo, i->a[1]);
    if (i->op == T_idx) return i->imm % 4 == 0;
    if (i->op == T_imul) return a || b;
    return (i->op == T_iadd || i->op == T_isub || i->op == T_imin || i->op == T_imax) && a && b;
}

static bool comes_in_quads(const Low *lo, const TIns *i)
{
    return i->op == T_random && i->cs == 1 && (i->type.r == 1 || i->rs % 4 == 0) && is_fourfold(lo, i->a[0]) &&
           (!i->a[1] || INS(lo, i->a[1])->type.c == 1);
}

static KVal random_vec(Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    LVal *v = &lo->v[x];
    if (lo->gpu && lo->L == 4 && comes_in_quads(lo, i)) return random_four(lo, i);
    if (!lo->quad || !comes_in_quads(lo, i)) return random_at(lo, i, lo->L);
    if (v->quad_stamp != lo->quad_stamp) {
        SN_ASSERT(lo->quad == 1, "random numbers begin in the middle of four vectors");
        random_quad(lo, i, v->quad);
        v->quad_stamp = lo->quad_stamp;
    }
    return v->quad[lo->quad - 1];
}

/* -- Elementwise -------------------------------------------------------------------------------------------------- */

static KVal convert(Low *lo, int from, int to, KVal x)
{
    int lanes = snK_type(lo->k, x).lanes;
    KType t = kt(snL_kind(to), lanes);
    if (snK_type(lo->k, x).kind != t.kind) x = op1(lo, K_cast, t, x);
    if (from == to || (to != SN_BF16 && to != SN_F16)) return x;
    return op1(lo, K_cast, t, op1(lo, K_cast, kt((KKind)to, lanes), x));     /* rounds */
}

static KVal reinterpret(Low *lo, int from, int to, KVal x)
{
    int lanes = snK_type(lo->k, x).lanes;
    if (from == SN_BF16 || from == SN_F16) x = op1(lo, K_cast, kt((KKind)from, lanes), x);
    if (from != to) x = op1(lo, K_bitcast, kt((KKind)to, lanes), x);
    return to_register(lo, to, x);
}

/* Dropout's `random < p`: no random numbers are made where p is 0. */
static bool is_chance(const Low *lo, const TIns *i)
{
    if (i->fn != S_lt) return false;
    const TIns *a = INS(lo, i->a[0]), *b = INS(lo, i->a[1]);
    return a->op == T_random && is_one(b->type) && !lo->v[i->a[0]].at && lo->first_user[i->a[0] + 1] - lo->first_user[i->a[0]] == 1;
}

static KVal chance(Low *lo, TVal x, int lanes)
{
    const TIns *i = INS(lo, x);
    LVal *v = &lo->v[x];
    KType b = kt(K_BOOL, lanes);
    bool four = lanes > 1 && lo->quad && comes_in_quads(lo, INS(lo, i->a[0]));
    if (four && v->quad_stamp == lo->quad_stamp) return snK_get(lo->k, v->quad[lo->quad - 1]);
    KVal p = snL_scal(lo, i->a[1]), hit[4], r[4];
    int n = four ? 4 : 1;
    for (int u = 0; u < n; u++) hit[u] = snK_var(lo->k, snK_int(lo->k, b, 0));
    snK_if(lo->k, op2(lo, K_gt, kt(K_BOOL, 1), p, snK_float(lo->k, kt(K_F32, 1), 0)));
    if (four) random_quad(lo, INS(lo, i->a[0]), r);
    else r[0] = lo->gpu && lanes > 1 ? random_vec(lo, i->a[0]) : random_at(lo, INS(lo, i->a[0]), lanes);
    for (int u = 0; u < n; u++) snK_set(lo->k, hit[u], op2(lo, K_lt, b, r[u], lanes > 1 ? splat(lo, p) : p));
    snK_end(lo->k);
    if (four) memcpy(v->quad, hit, sizeof hit), v->quad_stamp = lo->quad_stamp;
    return snK_get(lo->k, hit[four ? lo->quad - 1 : 0]);
}

static KVal ew(Low *lo, TVal x, int lanes)
{
    const TIns *i = INS(lo, x);
    if (is_chance(lo, i)) return chance(lo, x, lanes);
    KVal a[3] = { 0 };
    int n = 0;
    for (; n < 3 && i->a[n]; n++) a[n] = lanes > 1 ? snL_vec(lo, i->a[n]) : snL_scal(lo, i->a[n]);
    int from = INS(lo, i->a[0])->type.dtype, to = i->type.dtype;
    if (i->fn == S_cast) return convert(lo, from, to, a[0]);
    if (i->fn == S_bitcast) return reinterpret(lo, from, to, a[0]);
    return snK_scalar(lo->k, i->fn, kt(snL_kind(to), lanes), a, n);
}

static KVal full(Low *lo, const TIns *i, int lanes)
{
    KType t = kt(snL_kind(i->type.dtype), lanes);
    if (t.kind == K_F32) return snK_float(lo->k, t, i->f);
    return snK_int(lo->k, t, i->f < 0 ? (int64_t)i->f : (int64_t)(uint64_t)i->f);
}

static KVal compute(Low *lo, TVal x, int lanes)
{
    const TIns *i = INS(lo, x);
    switch (i->op) {
    case T_full: return full(lo, i, lanes);
    case T_iota: return iota(lo, i, lanes);
    case T_widen: return op1(lo, K_cast, kt(K_I32, 1), lo->v[i->a[0]].k);
    case T_random: return lanes > 1 ? random_vec(lo, x) : random_at(lo, i, 1);
    case T_load: case T_gather: return lanes > 1 ? load_vec(lo, i) : load_scal(lo, i);
    case T_ew: return ew(lo, x, lanes);
    default: snU_abort(__FILE__, __LINE__, "tile %s: %%%u (%s) has no value here", snU_str(lo->t->ctx, lo->t->name), x,
                       snT_op_name(i->op));
    }
}

/* -- Values at the position ----------------------------------------------------------------------------------------- */

static bool in_nest(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    int rows = i->op == T_reduce ? INS(lo, i->a[0])->type.r : i->type.r;
    return x >= lo->seg_begin && x < lo->seg_end && lo->v[x].how == H_CHAIN && lo->v[x].phase == lo->phase && rows == lo->rows;
}

bool snL_is_here(const Low *lo, TVal x) { return in_nest(lo, x) && lo->v[x].level == lo->level; }

/* The tile that x is read from, or 0: it is computed. In its own segment an unshared get still reads the var. */
static TVal read_from(const Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    const LVal *v = &lo->v[x];
    if (i->op == T_get) return x >= lo->seg_begin && x < lo->seg_end ? i->a[0] : x;
    if (v->how == H_TILE) return x;
    if (v->how != H_CHAIN || (!v->at && !v->frag)) return 0;
    return snL_is_here(lo, x) && i->op != T_reduce ? 0 : x;
}

KVal snL_vec(Low *lo, TVal x)
{
    LVal *v = &lo->v[x];
    TType ty = INS(lo, x)->type;
    if (ty.c == 1 && !(lo->down && ty.r > 1)) return splat(lo, snL_scal(lo, x));
    if (v->stamp == lo->vec_stamp) return v->memo;
    TVal tile = read_from(lo, x);
    KVal r;
    if (tile) r = tile_load(lo, x, tile, lo->L);
    else if (v->keep && in_nest(lo, x) && lo->level > v->level)
        r = snK_load(lo->k, snL_vt(lo, ty.dtype), snL_keep_ptr(lo, x), lo->col, 0);
    else r = compute(lo, x, lo->L);
    v->memo = r;
    v->stamp = lo->vec_stamp;
    return r;
}

KVal snL_scal(Low *lo, TVal x)
{
    LVal *v = &lo->v[x];
    if (v->k && v->how != H_TILE) return v->k;
    if (v->stamp == lo->row_stamp && v->stamp) return v->memo;
    TVal tile = in_nest(lo, x) ? 0 : read_from(lo, x);
    KVal r = tile ? tile_load(lo, x, tile, 1) : compute(lo, x, 1);
    v->memo = r;
    v->stamp = lo->row_stamp;
    return r;
}

/* -- Walks over what evaluating a value would touch --------------------------------------------------------------------- */

static bool stops(const Low *lo, TVal x)
{
    const LVal *v = &lo->v[x];
    return read_from(lo, x) || (v->keep && in_nest(lo, x) && lo->level > v->level);
}

static void touch(Low *lo, TVal x)
{
    TVal args[5];
    if (INS(lo, x)->type.c == 1) { snL_scal(lo, x); return; }
    if (lo->v[x].seen == lo->mark || stops(lo, x)) return;
    lo->v[x].seen = lo->mark;
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) touch(lo, args[k]);
}

void snL_touch(Low *lo, TVal x) { lo->mark++; touch(lo, x); }

void snL_limit(Limits *s, TVal valid)
{
    if (!valid) return;
    for (int k = 0; k < s->n; k++) if (s->v[k] == valid) return;
    SN_ASSERT(s->n < 8, "too many different valid counts in one loop");
    s->v[s->n++] = valid;
}

static void limits(Low *lo, TVal x, Limits *rows, Limits *cols)
{
    const TIns *i = INS(lo, x);
    TVal args[5];
    if (lo->v[x].seen == lo->mark || stops(lo, x)) return;
    if (lo->v[x].how == H_SCALAR || (in_nest(lo, x) && i->op == T_reduce)) return;
    lo->v[x].seen = lo->mark;
    if (i->op == T_load || i->op == T_gather) {
        int valid = i->op == T_gather ? 2 : 1;
        if (rows) snL_limit(rows, i->a[valid]);
        if (cols && i->type.c > 1) snL_limit(cols, i->a[valid + 1]);
    }
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) limits(lo, args[k], rows, cols);
}

void snL_limits(Low *lo, TVal x, Limits *rows, Limits *cols) { lo->mark++; limits(lo, x, rows, cols); }

static const uint8_t heavy[S_N] = { [S_exp] = 18, [S_exp2] = 16, [S_log] = 20, [S_tanh] = 24, [S_sin] = 24, [S_cos] = 24, [S_erf] = 24,
                                    [S_pow] = 40, [S_div] = 6, [S_rem] = 8, [S_sqrt] = 6 };
bool snL_is_heavy(int fn) { return heavy[fn] >= 16; }

static int cost(Low *lo, TVal x)
{
    const TIns *i = INS(lo, x);
    TVal args[5];
    if (lo->v[x].seen == lo->mark || i->type.c == 1) return 0;
    lo->v[x].seen = lo->mark;
    if (stops(lo, x)) return 1;
    int c = 1;
    if (i->op == T_random) c = 60;
    if (i->op == T_gather || (i->op == T_load && i->cs > 1)) c = 8;
    if (i->op == T_ew && heavy[i->fn]) c = heavy[i->fn];
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n; k++) c += cost(lo, args[k]);
    return c;
}

int snL_cost(Low *lo, TVal x) { lo->mark++; return cost(lo, x); }

static bool has_quads(Low *lo, TVal x)
{
    TVal args[5];
    if (lo->v[x].seen == lo->mark || INS(lo, x)->type.c == 1 || stops(lo, x)) return false;
    lo->v[x].seen = lo->mark;
    bool found = comes_in_quads(lo, INS(lo, x));
    for (int k = 0, n = snL_tile_args(lo, x, args); k < n && !found; k++) found = has_quads(lo, args[k]);
    return found;
}

bool snL_has_quads(Low *lo, TVal x) { lo->mark++; return has_quads(lo, x); }
