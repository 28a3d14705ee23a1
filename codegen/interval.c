/* interval.c: what a mask can be over a whole block, by interval arithmetic over its cone.

   In:  a node, its coordinates, and a Gen that stands at a block of rows and columns. Out: two [1,1] tiles, a bound
   below and one above of the node's elements in that block. For a mask: above false = the block is empty, below true =
   it is full.

     mask = ge(q, k)      q: rows r0 .. r0 + nr - 1, k: columns c0 .. c0 + nc - 1
   becomes
     below = r0 >= c0 + nc - 1        above = r0 + nr - 1 >= c0

   Index arithmetic costs a few scalar instructions. What depends on memory and varies along one side of the block at
   most is computed exactly, over that side's length, and reduced; a stored tensor of both sides is loaded and reduced.
   What is not known here (random numbers, functions of a 2-D value) is anything. Bounds may be wide, never wrong:
   integers that wrap around give up; floats that may be NaN have bounds that are NaN, with which no comparison decides
   anything. */
#include <math.h>
#include "codegen/gen.h"

enum { ROWS = 1, COLS = 2, MEMORY = 4, OPAQUE = 8 };     /* what a value depends on */

typedef struct Bound { TVal lo, hi; int64_t least, most; } Bound;       /* least, most: of an i32, at compile time */
typedef struct Known { NodeId id; Lin at[MAX_RANK]; int needs; bool bounded; Bound b; } Known;
typedef struct Walk { Gen *c; VEC(Known) known; } Walk;

static Known *known(Walk *w, NodeId id, const Lin *at) {
    size_t bytes = sizeof(Lin) * snG_type(w->c->g, id)->rank;
    for (uint32_t i = 0; i < w->known.n; i++)
        if (w->known.v[i].id == id && !memcmp(w->known.v[i].at, at, bytes)) return &w->known.v[i];
    Known k = { .id = id, .needs = -1 };
    memcpy(k.at, at, bytes);
    PUSH(w->c->a, w->known, k);
    return &w->known.v[w->known.n - 1];
}

/* -- Scalar tiles --------------------------------------------------------------------------------------------- */

static TVal number(Gen *c, Dtype d, double v) { return snT_full(c->t, (TType){ (uint8_t)d, 1, 1 }, v); }

static bool constant(Gen *c, TVal v, double *out) {
    if (!v || c->t->ins.v[v].op != T_full) return false;
    *out = c->t->ins.v[v].f;
    return true;
}

static TVal op2(Gen *c, int fn, TVal a, TVal b) {
    Dtype d = fn >= S_lt && fn <= S_ne ? SN_BOOL : (Dtype)snT_type(c->t, a).dtype;
    return snT_ew(c->t, fn, d, a, b, 0);
}

static TVal both(Gen *c, TVal a, TVal b) {
    double v;
    if (constant(c, a, &v)) return v ? b : a;
    if (constant(c, b, &v)) return v ? a : b;
    return a == b ? a : op2(c, S_and, a, b);
}

static TVal negate(Gen *c, TVal a) {
    double v;
    return constant(c, a, &v) ? number(c, SN_BOOL, !v) : snT_ew(c->t, S_not, SN_BOOL, a, 0, 0);
}

static TVal either(Gen *c, TVal a, TVal b) {
    double v;
    if (constant(c, a, &v)) return v ? a : b;
    if (constant(c, b, &v)) return v ? b : a;
    return a == b ? a : op2(c, S_or, a, b);
}

static TVal pick(Gen *c, TVal cond, TVal a, TVal b) {
    double v;
    if (a == b) return a;
    if (constant(c, cond, &v)) return v ? a : b;
    return snT_ew(c->t, S_select, (Dtype)snT_type(c->t, a).dtype, cond, a, b);
}

static TVal to_dtype(Gen *c, TVal v, Dtype d) { return snT_ew(c->t, S_cast, d, v, 0, 0); }

static bool is_float(Gen *c, TVal v) { return snG_is_float((Dtype)snT_type(c->t, v).dtype); }

/* The smaller or larger of two bounds. Of floats NaN when either is. */
static TVal least_of(Gen *c, TVal a, TVal b) {
    if (a == b) return a;
    if (!is_float(c, a)) return op2(c, S_min, a, b);
    TVal none = number(c, (Dtype)snT_type(c->t, a).dtype, NAN);
    return pick(c, op2(c, S_le, a, b), a, pick(c, op2(c, S_lt, b, a), b, none));
}
static TVal most_of(Gen *c, TVal a, TVal b) {
    if (a == b) return a;
    if (!is_float(c, a)) return op2(c, S_max, a, b);
    TVal none = number(c, (Dtype)snT_type(c->t, a).dtype, NAN);
    return pick(c, op2(c, S_ge, a, b), a, pick(c, op2(c, S_gt, b, a), b, none));
}

/* -- Bounds --------------------------------------------------------------------------------------------------- */

static Bound anything(Gen *c, Dtype d) {
    if (d == SN_BOOL) return (Bound){ number(c, d, 0), number(c, d, 1) };
    if (d == SN_I32) return (Bound){ number(c, d, INT32_MIN), number(c, d, INT32_MAX), INT32_MIN, INT32_MAX };
    if (d == SN_U32) return (Bound){ number(c, d, 0), number(c, d, UINT32_MAX) };
    return (Bound){ number(c, d, NAN), number(c, d, NAN) };
}

static bool fits(Bound b) { return b.least >= INT32_MIN && b.most <= INT32_MAX; }

/* b, or anything where `bad` says that an i32 wrapped around. */
static Bound unless(Gen *c, TVal bad, Bound b) {
    Bound all = anything(c, SN_I32);
    return (Bound){ pick(c, bad, all.lo, b.lo), pick(c, bad, all.hi, b.hi), INT32_MIN, INT32_MAX };
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static Bound join(Gen *c, Bound a, Bound b) {
    return (Bound){ least_of(c, a.lo, b.lo), most_of(c, a.hi, b.hi), least(a.least, b.least), most(a.most, b.most) };
}
static Bound least_bound(Gen *c, Bound a, Bound b) {
    return (Bound){ least_of(c, a.lo, b.lo), least_of(c, a.hi, b.hi), least(a.least, b.least), least(a.most, b.most) };
}
static Bound most_bound(Gen *c, Bound a, Bound b) {
    return (Bound){ most_of(c, a.lo, b.lo), most_of(c, a.hi, b.hi), most(a.least, b.least), most(a.most, b.most) };
}

/* The bounds of a tile that was computed, over its valid rows and columns. */
static Bound reduced(Gen *c, TVal v) {
    Tile *t = c->t;
    Dtype d = (Dtype)snT_type(t, v).dtype;
    TVal out[2];
    bool rows = snT_type(t, v).r > 1, cols = snT_type(t, v).c > 1;
    TVal x = d == SN_BOOL && (rows || cols) ? to_dtype(c, v, SN_I32) : v;
    for (int i = 0; i < 2; i++) {
        RedKind red = i ? RED_MAX : RED_MIN;
        out[i] = snT_reduce(t, snT_reduce(t, x, 1, red, 0, cols ? c->vc : 0), 0, red, rows ? c->vr : 0, 0);
        if (x != v) out[i] = op2(c, S_ne, out[i], number(c, SN_I32, 0));
    }
    return (Bound){ out[0], out[1], INT32_MIN, INT32_MAX };
}

/* An index: affine, so each bound is a corner of the block. */
static Bound form_bound(Gen *c, const Lin *l) {
    Tile *t = c->t;
    TVal corner = gen_address(c, l), end[2] = { corner, corner };
    Bound b = { .least = l->c, .most = l->c };
    for (int axis = 0; axis < 2; axis++) {
        int64_t k = gen_step(axis ? c->col : c->row, l);
        TVal n = axis ? c->vc : c->vr;
        if (!k) continue;
        TVal last = snT_ix(t, T_isub, n ? n : snT_idx(t, axis ? c->C : c->R), snT_idx(t, 1));
        TVal *to = &end[k > 0];
        *to = snT_ix(t, T_iadd, *to, snT_ix(t, T_imul, last, snT_idx(t, k)));
    }
    for (int i = 0; i < c->dom.n; i++) *(l->k[i] < 0 ? &b.least : &b.most) += l->k[i] * (c->dom.ext[i] - 1);
    for (int i = 0; i < 2; i++)
        *(i ? &b.hi : &b.lo) = snT_add(t, &(TIns){ .op = T_widen, .type = { SN_I32, 1, 1 }, .a = { end[i] } });
    return b;
}

/* -- Arithmetic ----------------------------------------------------------------------------------------------- */

/* Floats: an infinite bound may hide inf - inf, so it is no bound. */
static Bound finite_only(Gen *c, Bound b) {
    TVal gap = op2(c, S_sub, b.hi, b.lo), none = op2(c, S_sub, gap, gap);           /* 0, or NaN */
    return (Bound){ op2(c, S_add, b.lo, none), op2(c, S_add, b.hi, none) };
}

/* s = a + b or a - b has wrapped around: the sign that it must have is another. */
static TVal wrapped(Gen *c, int fn, TVal a, TVal b, TVal s) {
    TVal signs = op2(c, S_and, op2(c, S_xor, a, s), op2(c, S_xor, fn == S_add ? b : a, fn == S_add ? s : b));
    return op2(c, S_lt, signs, number(c, SN_I32, 0));
}

static Bound add_bound(Gen *c, int fn, Bound a, Bound b) {
    TVal low = fn == S_add ? b.lo : b.hi, high = fn == S_add ? b.hi : b.lo;
    Bound r = { op2(c, fn, a.lo, low), op2(c, fn, a.hi, high) };
    if (is_float(c, r.lo)) return finite_only(c, r);
    r.least = fn == S_add ? a.least + b.least : a.least - b.most;
    r.most = fn == S_add ? a.most + b.most : a.most - b.least;
    if (fits(r)) return r;
    return unless(c, either(c, wrapped(c, fn, a.lo, low, r.lo), wrapped(c, fn, a.hi, high, r.hi)), r);
}

/* -a, or the absolute value; of the smallest i32 there is neither. */
static Bound neg_bound(Gen *c, Bound a, bool absolute) {
    Dtype d = (Dtype)snT_type(c->t, a.lo).dtype;
    Bound r = { snT_ew(c->t, S_neg, d, a.hi, 0, 0), snT_ew(c->t, S_neg, d, a.lo, 0, 0), -a.most, -a.least };
    bool safe = d != SN_I32 || fits(r);
    if (absolute) {
        TVal zero = number(c, d, 0);
        r = most_bound(c, a, (Bound){ r.lo, r.hi, r.least, r.most });
        r.lo = most_of(c, zero, r.lo), r.least = most(0, r.least);
    }
    return safe ? r : unless(c, op2(c, S_eq, a.lo, number(c, d, INT32_MIN)), r);
}

/* The least and most of fn at the four corners: fn is monotone in either operand. */
static Bound corners(Gen *c, int fn, Bound a, Bound b) {
    TVal p[4] = { op2(c, fn, a.lo, b.lo), op2(c, fn, a.lo, b.hi), op2(c, fn, a.hi, b.lo), op2(c, fn, a.hi, b.hi) };
    return (Bound){ least_of(c, least_of(c, p[0], p[1]), least_of(c, p[2], p[3])),
                    most_of(c, most_of(c, p[0], p[1]), most_of(c, p[2], p[3])) };
}

static Bound mul_bound(Gen *c, Bound a, Bound b) {
    Bound r = { 0 };
    if (is_float(c, a.lo)) return finite_only(c, corners(c, S_mul, a, b));
    int64_t p[4] = { a.least * b.least, a.least * b.most, a.most * b.least, a.most * b.most };
    r.least = least(least(p[0], p[1]), least(p[2], p[3]));
    r.most = most(most(p[0], p[1]), most(p[2], p[3]));
    if (!fits(r)) return anything(c, SN_I32);
    bool positive = a.least >= 0 && b.least >= 0;
    Bound v = positive ? (Bound){ op2(c, S_mul, a.lo, b.lo), op2(c, S_mul, a.hi, b.hi) } : corners(c, S_mul, a, b);
    return (Bound){ v.lo, v.hi, r.least, r.most };
}

/* i32 by a positive i32: towards zero, so it rises with a; with b it falls or rises by the sign of a. */
static Bound div_bound(Gen *c, Bound a, Bound b) {
    Dtype d = (Dtype)snT_type(c->t, a.lo).dtype;
    if (snG_is_float(d)) {
        TVal zero = number(c, d, 0), none = number(c, d, NAN);
        TVal clear = either(c, op2(c, S_gt, b.lo, zero), op2(c, S_lt, b.hi, zero));
        Bound q = finite_only(c, corners(c, S_div, a, b));
        return (Bound){ pick(c, clear, q.lo, none), pick(c, clear, q.hi, none) };
    }
    if (b.least <= 0) return anything(c, SN_I32);
    Bound r = { .least = a.least / (a.least < 0 ? b.least : b.most), .most = a.most / (a.most < 0 ? b.most : b.least) };
    if (b.least == b.most) r.lo = op2(c, S_div, a.lo, b.lo), r.hi = op2(c, S_div, a.hi, b.lo);
    else {
        Bound q = corners(c, S_div, a, b);
        r.lo = q.lo, r.hi = q.hi;
    }
    return r;
}

/* i32 by a positive constant: where all quotients are one, the remainder rises with a. */
static Bound rem_bound(Gen *c, Bound a, Bound b) {
    if (b.least != b.most || b.least <= 0) return anything(c, SN_I32);
    int64_t k = b.least;
    TVal one = op2(c, S_eq, op2(c, S_div, a.lo, b.lo), op2(c, S_div, a.hi, b.lo));
    Bound r = { .least = a.least >= 0 ? 0 : 1 - k, .most = a.most <= 0 ? 0 : k - 1 };
    if (a.least >= 0 && a.most < k) return a;
    r.lo = pick(c, one, op2(c, S_rem, a.lo, b.lo), number(c, SN_I32, (double)r.least));
    r.hi = pick(c, one, op2(c, S_rem, a.hi, b.lo), number(c, SN_I32, (double)r.most));
    return r;
}

static Bound shr_bound(Gen *c, Bound a, Bound b) {
    if (b.least != b.most || b.least < 0 || b.least > 31) return anything(c, SN_I32);
    return (Bound){ op2(c, S_shr, a.lo, b.lo), op2(c, S_shr, a.hi, b.lo), a.least >> b.least, a.most >> b.least };
}

/* -- Truth ---------------------------------------------------------------------------------------------------- */

static Bound not_bound(Gen *c, Bound a) { return (Bound){ negate(c, a.hi), negate(c, a.lo) }; }

static Bound xor_bound(Gen *c, Bound a, Bound b) {
    TVal differ = either(c, both(c, a.lo, negate(c, b.hi)), both(c, b.lo, negate(c, a.hi)));
    TVal agree = either(c, both(c, a.lo, b.lo), negate(c, either(c, a.hi, b.hi)));
    return (Bound){ differ, negate(c, agree) };
}

/* a < b or a <= b. Where a float may be NaN, its bounds are: then it is surely true nowhere and possibly true. */
static Bound less_bound(Gen *c, int fn, Bound a, Bound b) {
    bool i32 = snT_type(c->t, a.lo).dtype == SN_I32;
    TVal no = number(c, SN_BOOL, 0), yes = number(c, SN_BOOL, 1);
    if (i32 && a.most + (fn == S_lt) <= b.least) return (Bound){ yes, yes };
    if (i32 && a.least + (fn == S_lt) > b.most) return (Bound){ no, no };
    if (!is_float(c, a.lo)) return (Bound){ op2(c, fn, a.hi, b.lo), op2(c, fn, a.lo, b.hi) };
    TVal known = both(c, op2(c, S_le, a.lo, a.hi), op2(c, S_le, b.lo, b.hi));
    return (Bound){ both(c, known, op2(c, fn, a.hi, b.lo)), negate(c, op2(c, fn == S_lt ? S_ge : S_gt, a.lo, b.hi)) };
}

static Bound equal_bound(Gen *c, Bound a, Bound b) {
    if (snT_type(c->t, a.lo).dtype == SN_BOOL) return not_bound(c, xor_bound(c, a, b));
    TVal one = both(c, op2(c, S_eq, a.lo, a.hi), op2(c, S_eq, b.lo, b.hi));
    TVal apart = either(c, op2(c, S_gt, a.lo, b.hi), op2(c, S_gt, b.lo, a.hi));
    return (Bound){ both(c, one, op2(c, S_eq, a.lo, b.lo)), negate(c, apart) };
}

static Bound compare(Gen *c, unsigned op, Bound a, Bound b) {
    if (op == OP_eq) return equal_bound(c, a, b);
    if (op == OP_ne) return not_bound(c, equal_bound(c, a, b));
    if (snT_type(c->t, a.lo).dtype == SN_BOOL) return anything(c, SN_BOOL);
    bool swap = op == OP_gt || op == OP_ge;
    return less_bound(c, op == OP_lt || op == OP_gt ? S_lt : S_le, swap ? b : a, swap ? a : b);
}

static Bound select_bound(Gen *c, Bound cond, Bound a, Bound b) {
    if (snT_type(c->t, a.lo).dtype == SN_BOOL) {
        TVal lo = either(c, both(c, a.lo, b.lo), either(c, both(c, cond.lo, a.lo), both(c, negate(c, cond.hi), b.lo)));
        return (Bound){ lo, either(c, both(c, cond.hi, a.hi), both(c, negate(c, cond.lo), b.hi)) };
    }
    Bound r = join(c, a, b);
    r.lo = pick(c, cond.lo, a.lo, pick(c, cond.hi, r.lo, b.lo));
    r.hi = pick(c, cond.lo, a.hi, pick(c, cond.hi, r.hi, b.hi));
    return r;
}

/* -- Ops ------------------------------------------------------------------------------------------------------ */

/* Casts that keep order: to a float from anything, from bool to anything; a float to i32 unless it may be NaN. */
static Bound cast_bound(Gen *c, Bound a, Dtype from, Dtype to) {
    Bound r = { 0 };
    if (to == SN_BOOL || to == SN_U32 || (from == SN_U32 && !snG_is_float(to))) return anything(c, to);
    r.lo = to_dtype(c, a.lo, to), r.hi = to_dtype(c, a.hi, to);
    if (from == SN_BOOL) r.least = 0, r.most = 1;
    else r.least = INT32_MIN, r.most = INT32_MAX;
    if (snG_is_float(from) && !snG_is_float(to)) return unless(c, negate(c, op2(c, S_le, a.lo, a.hi)), r);
    return r;
}

/* Functions of one float that keep order exactly. */
static Bound rising(Gen *c, int fn, Bound a) {
    Dtype d = (Dtype)snT_type(c->t, a.lo).dtype;
    return (Bound){ snT_ew(c->t, fn, d, a.lo, 0, 0), snT_ew(c->t, fn, d, a.hi, 0, 0) };
}

static Bound logic_bound(Gen *c, unsigned op, Bound a, Bound b) {
    if (op == OP_and) return (Bound){ both(c, a.lo, b.lo), both(c, a.hi, b.hi) };
    if (op == OP_or) return (Bound){ either(c, a.lo, b.lo), either(c, a.hi, b.hi) };
    return op == OP_xor ? xor_bound(c, a, b) : not_bound(c, a);
}

/* An elementwise op over bounds x of its operands, of dtype `from`. */
static Bound ewise_bound(Gen *c, NodeId id, Dtype from, const Bound *x) {
    unsigned op = snG_node(c->g, id)->op;
    Dtype d = (Dtype)snG_type(c->g, id)->dtype;
    bool number_in = from == SN_I32 || snG_is_float(from);
    switch (op) {
    case OP_cast: return cast_bound(c, x[0], from, d);
    case OP_stop_gradient: case OP_fence: return x[0];
    case OP_select: return d == SN_U32 ? anything(c, d) : select_bound(c, x[0], x[1], x[2]);
    case OP_lt: case OP_le: case OP_gt: case OP_ge: case OP_eq: case OP_ne: return compare(c, op, x[0], x[1]);
    case OP_and: case OP_or: case OP_xor: case OP_not:
        return d == SN_BOOL ? logic_bound(c, op, x[0], x[1]) : anything(c, d);
    }
    if (!number_in) return anything(c, d);
    switch (op) {
    case OP_add: return add_bound(c, S_add, x[0], x[1]);
    case OP_sub: return add_bound(c, S_sub, x[0], x[1]);
    case OP_mul: return mul_bound(c, x[0], x[1]);
    case OP_div: return div_bound(c, x[0], x[1]);
    case OP_rem: return rem_bound(c, x[0], x[1]);
    case OP_shr: return shr_bound(c, x[0], x[1]);
    case OP_neg: return neg_bound(c, x[0], false);
    case OP_abs: return neg_bound(c, x[0], true);
    case OP_min: return least_bound(c, x[0], x[1]);
    case OP_max: return most_bound(c, x[0], x[1]);
    case OP_floor: return rising(c, S_floor, x[0]);
    case OP_ceil: return rising(c, S_ceil, x[0]);
    case OP_round: return rising(c, S_rint, x[0]);
    case OP_sqrt: return rising(c, S_sqrt, x[0]);
    default: return anything(c, d);
    }
}

/* -- The cone ------------------------------------------------------------------------------------------------- */

static int sides(const Gen *c, const Lin *l) {
    return (gen_step(c->row, l) ? ROWS : 0) | (gen_step(c->col, l) ? COLS : 0);
}

/* The coordinates of operand `in`; false through a reshape that is not affine. */
static bool operand_at(Gen *c, NodeId id, NodeId in, const Lin *at, Lin *to) {
    if (snP_is_view(c->g, id)) return snP_through(c->g, id, &c->dom, at, to);
    memcpy(to, at, sizeof(Lin) * snG_type(c->g, in)->rank);
    return true;
}

static unsigned operands(const Node *n) { return n->op == OP_fence ? 1 : n->nin; }

/* What a value depends on. OPAQUE: a reduction or a scan, which is no business of a block's. */
static int needs(Walk *w, NodeId id, const Lin *at) {
    Gen *c = w->c;
    const Node *n = snG_node(c->g, id);
    const Type *t = snG_type(c->g, id);
    OpClass cls = snG_op(c->g->ctx, n->op)->cls;
    int bits = known(w, id, at)->needs;
    if (bits >= 0) return bits;
    bits = 0;
    Lin to[MAX_RANK], e = snP_linear(t, at);
    if (gen_in_memory(c, id) || n->op == OP_random) bits = MEMORY | sides(c, &e);
    else if (n->op == OP_iota) bits = sides(c, &at[(snG_attr_int(c->g, id, 1) + t->rank) % t->rank]);
    else if (n->op == OP_gather) {
        int lead = snG_type(c->g, snG_in(c->g, id, 1))->rank;
        bits = MEMORY | needs(w, snG_in(c->g, id, 1), at);
        for (int i = lead; i < t->rank; i++) bits |= sides(c, &at[i]);
    } else if (cls == C_EWISE || snP_is_view(c->g, id)) {
        for (unsigned i = 0; i < operands(n); i++) {
            if (operand_at(c, id, snG_in(c->g, id, i), at, to)) bits |= needs(w, snG_in(c->g, id, i), to);
            else bits |= MEMORY | sides(c, &e);                         /* gen loads its operand */
        }
    } else if (n->op != OP_const) bits = OPAQUE | ROWS | COLS;
    return known(w, id, at)->needs = bits;
}

static Bound bound(Walk *w, NodeId id, const Lin *at);

static Bound compute(Walk *w, NodeId id, const Lin *at) {
    Gen *c = w->c;
    const Node *n = snG_node(c->g, id);
    const Type *t = snG_type(c->g, id);
    int bits = needs(w, id, at);
    Lin to[MAX_RANK];
    Bound x[4] = { { 0 } };
    if (n->op == OP_const) {
        double v = snG_attr(c->g, id, 0)->f;
        TVal k = number(c, (Dtype)t->dtype, v);
        return (Bound){ k, k, t->dtype == SN_I32 ? (int64_t)v : 0, t->dtype == SN_I32 ? (int64_t)v : 0 };
    }
    if (n->op == OP_iota) return form_bound(c, &at[(snG_attr_int(c->g, id, 1) + t->rank) % t->rank]);
    bool one_side = (bits & (ROWS | COLS)) != (ROWS | COLS) && !(bits & OPAQUE);
    if (gen_in_memory(c, id) || (bits & MEMORY && one_side)) return reduced(c, gen(c, id, at));
    if (n->op == OP_random) return (Bound){ number(c, SN_F32, 0), number(c, SN_F32, 1 - 0x1p-24) };
    if (bits & OPAQUE) return anything(c, (Dtype)t->dtype);
    if (snP_is_view(c->g, id)) {
        if (!operand_at(c, id, snG_in(c->g, id, 0), at, to)) return reduced(c, gen(c, id, at));
        return bound(w, snG_in(c->g, id, 0), to);
    }
    if (snG_op(c->g->ctx, n->op)->cls != C_EWISE) return anything(c, (Dtype)t->dtype);
    for (unsigned i = 0; i < operands(n); i++) x[i] = bound(w, snG_in(c->g, id, i), at);
    return ewise_bound(c, id, (Dtype)snG_type(c->g, snG_in(c->g, id, 0))->dtype, x);
}

static Bound bound(Walk *w, NodeId id, const Lin *at) {
    Known *k = known(w, id, at);
    if (k->bounded) return k->b;
    Bound b = compute(w, id, at);
    k = known(w, id, at);
    k->bounded = true;
    return k->b = b;
}

Range gen_range(Gen *c, NodeId id, const Lin *at) {
    Walk w = { .c = c };
    if (!c->t) return gen(c, id, at), (Range){ 0, 0 };
    Bound b = bound(&w, id, at);
    return (Range){ b.lo, b.hi };
}
