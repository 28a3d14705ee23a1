/* kir.c: building kernel IR. In: calls of a lowering. Out: one linear array of typed
   instructions.

   snK_op is the one constructor: it folds what changes no bit (constant integers, x + 0, (x + 1)
   + 2, splat of a constant), checks operands and types, and appends. Constants and other leaves
   are shared over the whole kernel: they have no place in the structure, every region may use
   them and the emitter puts them at the start. */
#include "codegen/kir.h"

/* -- Tables ------------------------------------------------------------------------------------ */

static const struct { const char *name; uint8_t nargs; char kind; } ops[K_NOPS] = {
#define R 'R'
#define V 'V'
#define S 'S'
#define E 'E'
#define K(name, nargs, kind, text) [K_##name] = { #name, nargs, kind },
#include "codegen/kir.def"
#undef K
#undef R
#undef V
#undef S
#undef E
};

static const struct { const char *name; uint8_t bytes; } kinds[] = {
    [K_F32] = { "f32", 4 }, [K_BF16] = { "bf16", 2 }, [K_F16] = { "f16", 2 },
    [K_I32] = { "i32", 4 }, [K_U32] = { "u32", 4 },   [K_BOOL] = { "bool", 1 },
    [K_I64] = { "i64", 8 }, [K_PTR] = { "ptr", 8 },   [K_U8] = { "u8", 1 },
};

const char *snK_op_name(int op) { return op > 0 && op < K_NOPS ? ops[op].name : "?"; }
const char *snK_kind_name(int kind) {
    return kind >= K_F32 && kind <= K_U8 ? kinds[kind].name : "?";
}
int snK_nargs(int op) { return ops[op].nargs; }
int snK_kind_bytes(int kind) { return kind >= K_F32 && kind <= K_U8 ? kinds[kind].bytes : 0; }
KType snK_type(const Kernel *k, KVal v) { return v < k->ins.n ? k->ins.v[v].type : (KType){0}; }

static bool same(KType a, KType b) { return a.kind == b.kind && a.lanes == b.lanes; }
static bool is_int(int kind) {
    return kind == K_I32 || kind == K_U32 || kind == K_I64 || kind == K_U8;
}
static bool is_leaf(int op) { return op >= K_const && op <= K_lane; }
static bool is_gpu(int op) {
    return op == K_shared || op == K_block || op == K_thread || (op >= K_barrier && op <= K_tf32);
}
bool snK_has_value(int op) { return ops[op].kind == 'V' || op == K_for; }

static bool legal(KType t) {
    int n = t.lanes;
    return t.kind >= K_F32 && t.kind <= K_U8 && n >= 1 && n <= 64 && !(n & (n - 1)) &&
           (t.kind != K_PTR || n == 1);
}

/* -- Types of one instruction ------------------------------------------------------------------ */

typedef struct Check { const Kernel *k; const KIns *i; KType t, a, b, c, d; char *err; } Check;

static bool no(const Check *c, const char *what) {
    snprintf(c->err, 256, "%s: %s", snK_op_name(c->i->op), what);
    return false;
}

static bool is_optional(int op, int n) {
    return ((op == K_load || op == K_gather) && n == 2) ||
           ((op == K_store || op == K_scatter) && n == 3) || (op == K_shuffle && n == 1) ||
           (op == K_cp_async && n == 2);
}

static bool check_operands(const Check *c, KVal at) {
    const KIns *i = c->i;
    for (int n = 0; n < 4; n++) {
        KVal v = i->a[n];
        if (!v) {
            if (n < ops[i->op].nargs && !is_optional(i->op, n)) return no(c, "operand missing");
            continue;
        }
        if (n >= ops[i->op].nargs) return no(c, "too many operands");
        if (v >= at || v >= c->k->ins.n) return no(c, "operand is not defined before");
        const KIns *d = &c->k->ins.v[v];
        if (ops[d->op].kind != 'V' && d->op != K_for) return no(c, "operand has no value");
        bool wants_var = n == 0 && (i->op == K_get || i->op == K_set);
        if ((d->op == K_var) != wants_var)
            return no(c, wants_var ? "operand is not a var" : "a var is read by get");
    }
    return true;
}

static bool check_leaf(const Check *c) {
    const KIns *i = c->i;
    switch (i->op) {
    case K_const: return c->t.kind != K_PTR || no(c, "no pointer constants");
    case K_param:
        if (c->t.kind != K_PTR || i->imm < 0 || i->imm >= c->k->params.n)
            return no(c, "no such parameter");
        return i->mem == c->k->params.v[i->imm].mem ||
               no(c, "element kind differs from the parameter's");
    case K_scratch:
        if (c->t.kind != K_PTR || !snK_kind_bytes(i->mem) || i->mem == K_PTR)
            return no(c, "not a pointer to elements");
        if (i->imm < 0 || i->imm > c->k->scratch)
            return no(c, "offset outside the kernel's scratch");
        return i->imm % snK_kind_bytes(i->mem) == 0 ||
               no(c, "offset is not aligned to its elements");
    case K_shared:
        if (c->t.kind != K_PTR || !snK_kind_bytes(i->mem) || i->mem == K_PTR)
            return no(c, "not a pointer to elements");
        if (i->space != K_SHARED || i->imm < 0 || i->imm > c->k->shared)
            return no(c, "offset outside the block's shared memory");
        return i->imm % snK_kind_bytes(i->mem) == 0 ||
               no(c, "offset is not aligned to its elements");
    case K_task: case K_block: case K_thread:
        return (same(c->t, kt(K_I64, 1)) && i->imm >= 0 && i->imm < (i->op == K_task ? 2 : 1)) ||
               no(c, "an i64, index out of range");
    case K_sysarg:
        return (same(c->t, kt(K_U32, 1)) && i->imm >= 0 && i->imm < 5) ||
               no(c, "a u32, index 0..4");
    default: return (is_int(c->t.kind) && c->t.kind != K_U8) || no(c, "i32, u32 or i64 lanes");
    }
}

static bool check_arith(const Check *c) {
    int op = c->i->op, kind = c->t.kind;
    int n = ops[op].nargs;
    if (!same(c->a, c->t) || (n > 1 && !same(c->b, c->t)) || (n > 2 && !same(c->c, c->t)))
        return no(c, "operands and result are of different types");
    switch (op) {
    case K_add: case K_sub: case K_mul: case K_div: case K_neg:
    case K_abs: return kind == K_F32 || is_int(kind) || no(c, "not a number in registers");
    case K_min: case K_max:
        return kind == K_F32 || kind == K_BOOL || is_int(kind) ||
               no(c, "not a number in registers");
    case K_rem: case K_shl: case K_shr: return is_int(kind) || no(c, "not an integer");
    case K_and: case K_or: case K_xor:
    case K_not: return is_int(kind) || kind == K_BOOL || no(c, "not an integer or bool");
    case K_mulhi: return kind == K_U32 || no(c, "not u32");
    default: return kind == K_F32 || no(c, "not f32");
    }
}

static bool points_as(const KIns *a, const KIns *b) {
    return a->mem == b->mem && a->space == b->space;
}

static bool check_moves(const Check *c) {
    const KIns *i = c->i;
    KType t = c->t;
    const KIns *x = &c->k->ins.v[i->a[0]], *y = &c->k->ins.v[i->a[1]];
    switch (i->op) {
    case K_select:
        if (c->a.kind != K_BOOL || (c->a.lanes != 1 && c->a.lanes != t.lanes))
            return no(c, "condition is not bool or has other lanes");
        if (!same(c->b, t) || !same(c->c, t)) return no(c, "choices are of different types");
        return t.kind != K_PTR || (points_as(y, i) && points_as(&c->k->ins.v[i->a[2]], i)) ||
               no(c, "pointers to different kinds");
    case K_cast:
        return (c->a.lanes == t.lanes && c->a.kind != K_PTR && t.kind != K_PTR) ||
               no(c, "other lanes, or a pointer");
    case K_bitcast:
        if (c->a.lanes * kinds[c->a.kind].bytes != t.lanes * kinds[t.kind].bytes)
            return no(c, "sizes differ");
        return (c->a.kind == t.kind || (t.kind != K_PTR && t.kind != K_BOOL && c->a.kind != K_PTR &&
                                        c->a.kind != K_BOOL)) ||
               no(c, "bool or pointer");
    case K_splat:
        return (c->a.kind == t.kind && c->a.lanes == 1 && t.kind != K_PTR) ||
               no(c, "not a scalar of this kind");
    case K_extract:
        return (c->a.kind == t.kind && t.lanes == 1 && i->imm >= 0 && i->imm < c->a.lanes &&
                t.kind != K_PTR) ||
               no(c, "no such lane");
    case K_shuffle: {
        if (c->a.kind != t.kind || t.kind == K_PTR || (i->a[1] && !same(c->a, c->b)))
            return no(c, "operands are of different types");
        if (i->imm < 0 || i->imm >= c->k->shuffles.n) return no(c, "no such lane table");
        const uint8_t *lane = c->k->shuffles.v[i->imm].lane;
        for (int n = 0; n < t.lanes; n++)
            if (lane[n] >= c->a.lanes * (i->a[1] ? 2 : 1)) return no(c, "lane out of range");
        return true;
    }
    case K_hsum:
        return (c->a.kind == t.kind && t.lanes == 1 && (t.kind == K_F32 || is_int(t.kind))) ||
               no(c, "a scalar of the vector's kind");
    case K_hmax: case K_hmin:
        return (c->a.kind == t.kind && t.lanes == 1 &&
                (t.kind == K_F32 || t.kind == K_BOOL || is_int(t.kind))) ||
               no(c, "a scalar of the vector's kind");
    case K_var:
        return (same(c->a, t) && points_as(x, i)) || no(c, "first value is of another type");
    case K_get: return (same(c->a, t) && points_as(x, i)) || no(c, "the var is of another type");
    default:
        return (same(c->a, c->b) && (c->a.kind != K_PTR || points_as(x, y))) ||
               no(c, "the var is of another type"); /* set */
    }
}

static bool check_memory(const Check *c) {
    const KIns *i = c->i;
    int op = i->op, mem = c->k->ins.v[i->a[0]].mem;
    KType v = op == K_store || op == K_scatter ? c->c : c->t;
    KType mask = op == K_store || op == K_scatter ? c->d : c->c;
    bool lanes = op == K_gather || op == K_scatter;
    if (c->a.kind != K_PTR) return no(c, "not a pointer");
    if (op == K_offset)
        return (same(c->b, kt(K_I64, 1)) && c->t.kind == K_PTR &&
                points_as(i, &c->k->ins.v[i->a[0]])) ||
               no(c, "an i64 count; the pointer's kind");
    if (v.kind != mem || v.kind == K_PTR) return no(c, "element kind differs from the pointer's");
    if (!lanes && !same(c->b, kt(K_I64, 1))) return no(c, "index is not a scalar i64");
    if (lanes && ((c->b.kind != K_I64 && c->b.kind != K_I32) || c->b.lanes != v.lanes))
        return no(c, "indices are not i32 or i64 of the same lanes");
    if (mask.kind && (mask.kind != K_BOOL || mask.lanes != v.lanes))
        return no(c, "mask is not bool of the same lanes");
    return (i->imm >= 0 && i->imm <= 4096 && !(i->imm & (i->imm - 1))) ||
           no(c, "alignment is not a power of two");
}

static bool is_word(KType t) {
    return t.lanes == 1 && (t.kind == K_F32 || t.kind == K_I32 || t.kind == K_U32);
}

static bool check_gpu(const Check *c) {
    const KIns *i = c->i, *x = &c->k->ins.v[i->a[0]], *y = &c->k->ins.v[i->a[1]];
    switch (i->op) {
    case K_shfl:
        return (same(c->a, c->t) && is_word(c->t) && i->imm > 0 && i->imm < 32) ||
               no(c, "a 32-bit scalar; xor with 1..31");
    case K_mma:
        return (same(c->t, kt(K_F32, 4)) && same(c->c, c->t) && same(c->a, kt(K_U32, 4)) &&
                same(c->b, kt(K_U32, 2)) && i->imm >= 0 && i->imm <= 2) ||
               no(c, "u32x4, u32x2 and f32x4 make an f32x4; imm 0..2");
    case K_ldmatrix:
        return (c->t.kind == K_U32 && c->t.lanes <= 4 && c->a.kind == K_PTR &&
                x->space == K_SHARED && kinds[x->mem].bytes == 2 && same(c->b, kt(K_I64, 1)) &&
                (i->imm & ~INT64_C(1)) == 0) ||
               no(c, "u32x1, x2 or x4 from a shared pointer to 16-bit elements at an i64");
    case K_cp_async:
        return (c->a.kind == K_PTR && x->space == K_SHARED && c->b.kind == K_PTR &&
                y->space == K_GLOBAL && x->mem == y->mem && (!i->a[2] || same(c->c, kt(K_I32, 1))) &&
                (i->imm == 4 || i->imm == 8 || i->imm == 16)) ||
               no(c, "4, 8 or 16 bytes to shared from global memory of one kind; an i32 count");
    case K_cp_wait: return (i->imm >= 0 && i->imm < 16) || no(c, "imm 0..15");
    case K_ex2:
        return (same(c->a, c->t) && c->t.kind == K_F32) || no(c, "not f32");
    case K_tf32:
        return (same(c->a, c->t) && c->t.kind == K_U32) || no(c, "not u32");
    default: return true;            /* barrier, cp_commit */
    }
}

bool snK_check_ins(const Kernel *k, KVal at, const KIns *i, char err[256]) {
    if (i->op < 1 || i->op >= K_NOPS) return snprintf(err, 256, "no such op"), false;
    Check c = { k, i, .t = i->type, .err = err };
    if (!check_operands(&c, at)) return false;
    if (snK_has_value(i->op) && !legal(c.t)) return no(&c, "no such type");
    if (!k->threads && is_gpu(i->op)) return no(&c, "a GPU's op in a kernel without threads");
    c.a = snK_type(k, i->a[0]), c.b = snK_type(k, i->a[1]), c.c = snK_type(k, i->a[2]),
    c.d = snK_type(k, i->a[3]);
    if (is_leaf(i->op)) return check_leaf(&c);
    if (i->op >= K_lt && i->op <= K_ne) {
        if (!same(c.a, c.b) || c.a.kind == K_PTR || c.a.kind == K_BF16 || c.a.kind == K_F16)
            return no(&c, "operands are of different types, or not comparable");
        return same(c.t, kt(K_BOOL, c.a.lanes)) || no(&c, "result is bool of the same lanes");
    }
    if (i->op >= K_add && i->op <= K_mulhi) return check_arith(&c);
    if (i->op >= K_load && i->op <= K_offset) return check_memory(&c);
    if (i->op >= K_barrier && i->op <= K_tf32) return check_gpu(&c);
    switch (i->op) {
    case K_for: {
        int64_t step;
        if ((c.t.kind != K_I64 && c.t.kind != K_I32) || c.t.lanes != 1 || !same(c.a, c.t) ||
            !same(c.b, c.t) || !same(c.c, c.t))
            return no(&c, "bounds and step are not all i64 or all i32");
        if (i->imm < 0 || i->imm > 1024) return no(&c, "unroll is out of range");
        return !snK_const_int(k, i->a[2], &step) || step > 0 || no(&c, "step is not positive");
    }
    case K_if: return same(c.a, kt(K_BOOL, 1)) || no(&c, "condition is not a scalar bool");
    case K_else: case K_end: return true;
    case K_dpbf16:
        return (same(c.t, kt(K_F32, 16)) && same(c.c, c.t) && same(c.a, kt(K_U32, 16)) && same(c.b, c.a)) ||
               no(&c, "two u32x16 and an f32x16 make an f32x16");
    case K_prefetch:
        return (c.a.kind == K_PTR && same(c.b, kt(K_I64, 1)) && (i->imm & ~INT64_C(1)) == 0) ||
               no(&c, "a pointer, an i64 index; imm 0 or 1");
    default: return check_moves(&c);
    }
}

/* -- Kernels and leaves ------------------------------------------------------------------------ */

Kernel *snK_new(sn_ctx *c, Arena *a, const char *name) {
    Kernel *k = NEW(a, Kernel);
    k->ctx = c;
    k->arena = a;
    k->name = snU_symz(c, name);
    PUSH(a, k->ins, (KIns){0});
    return k;
}

int snK_param(Kernel *k, const char *name, KKind mem, bool written) {
    PUSH(k->arena, k->params, ((KParam){ snU_symz(k->ctx, name), (uint8_t)mem, written }));
    return (int)k->params.n - 1;
}

int64_t snK_scratch(Kernel *k, int64_t bytes) {
    int64_t at = k->scratch;
    k->scratch = at + ((bytes + 63) & ~(int64_t)63);
    return at;
}

int64_t snK_shared(Kernel *k, int64_t bytes) {
    int64_t at = k->shared;
    k->shared = at + ((bytes + 127) & ~(int64_t)127);
    return at;
}

KVal snK_push(Kernel *k, KIns i) {
    PUSH(k->arena, k->ins, i);
    return k->ins.n - 1;
}

static KVal add_checked(Kernel *k, KIns i) {
    char err[256];
    SN_ASSERT(snK_check_ins(k, k->ins.n, &i, err), "kernel %s, %%%u: %s", snU_str(k->ctx, k->name),
              k->ins.n, err);
    return snK_push(k, i);
}

/* Leaves are found by content; f is compared by its bits. */
static KVal leaf(Kernel *k, KIns i) {
    uint64_t w[3] = { (uint64_t)i.op | (uint64_t)i.mem << 8 | (uint64_t)i.type.kind << 16 |
                          (uint64_t)i.type.lanes << 24,        /* the op says the space */
                      (uint64_t)i.imm, 0 };
    memcpy(&w[2], &i.f, 8);
    uint64_t h = snU_hash(w, sizeof w, 1);
    uint32_t at = snU_first(&k->cons, h), v;
    while ((v = snU_at(&k->cons, h, &at)) != 0) {
        const KIns *o = &k->ins.v[v];
        if (o->op == i.op && o->mem == i.mem && same(o->type, i.type) && o->imm == i.imm &&
            !memcmp(&o->f, &i.f, 8))
            return v;
    }
    v = add_checked(k, i);
    snU_insert(k->arena, &k->cons, h, v);
    return v;
}

static int64_t wrap(int kind, int64_t v) {
    switch (kind) {
    case K_I32: return (int32_t)(uint32_t)v;
    case K_U32: return (uint32_t)v;
    case K_U8: return (uint8_t)v;
    case K_BOOL: return v != 0;
    default: return v;
    }
}

KVal snK_int(Kernel *k, KType t, int64_t v) {
    return leaf(k, (KIns){ .op = K_const, .type = t, .imm = wrap(t.kind, v) });
}

KVal snK_float(Kernel *k, KType t, double v) {
    return leaf(k, (KIns){ .op = K_const, .type = t, .f = t.kind == K_F32 ? (double)(float)v : v });
}

KVal snK_ptr(Kernel *k, int param) {
    SN_ASSERT(param >= 0 && (uint32_t)param < k->params.n, "no parameter %d", param);
    return leaf(
        k,
        (KIns){ .op = K_param, .mem = k->params.v[param].mem, .type = kt(K_PTR, 1), .imm = param });
}

KVal snK_scratch_ptr(Kernel *k, KKind mem, int64_t byte_offset) {
    return leaf(
        k,
        (KIns){ .op = K_scratch, .mem = (uint8_t)mem, .type = kt(K_PTR, 1), .imm = byte_offset });
}

KVal snK_shared_ptr(Kernel *k, KKind mem, int64_t byte_offset) {
    return leaf(k, (KIns){ .op = K_shared, .mem = (uint8_t)mem, .space = K_SHARED,
                           .type = kt(K_PTR, 1), .imm = byte_offset });
}

KVal snK_leaf(Kernel *k, int op, KType t, int64_t imm) {
    return leaf(k, (KIns){ .op = (uint8_t)op, .type = t, .imm = imm });
}

bool snK_const_int(const Kernel *k, KVal v, int64_t *out) {
    const KIns *i = &k->ins.v[v];
    if (!v || i->op != K_const || !(is_int(i->type.kind) || i->type.kind == K_BOOL)) return false;
    *out = i->imm;
    return true;
}

/* -- Folding ----------------------------------------------------------------------------------- */

static bool compare(int op, int kind, int64_t a, int64_t b) {
    int order = kind == K_U32 || kind == K_U8 || kind == K_BOOL
                    ? ((uint64_t)a > (uint64_t)b) - ((uint64_t)a < (uint64_t)b)
                    : (a > b) - (a < b);
    switch (op) {
    case K_lt: return order < 0;
    case K_le: return order <= 0;
    case K_gt: return order > 0;
    case K_ge: return order >= 0;
    case K_eq: return order == 0;
    default: return order != 0;
    }
}

/* Integer arithmetic on two constants, 64 bits wide; the caller wraps. */
static bool fold_ints(int op, int kind, int64_t a, int64_t b, int64_t *r) {
    int bits = 8 * kinds[kind].bytes;
    uint64_t x = (uint64_t)a, y = (uint64_t)b;
    switch (op) {
    case K_add: *r = (int64_t)(x + y); return true;
    case K_sub: *r = (int64_t)(x - y); return true;
    case K_mul: *r = (int64_t)(x * y); return true;
    case K_div: *r = b == 0 ? 0 : b == -1 ? (int64_t)(0 - x) : a / b; return true;
    case K_rem: *r = b == 0 || b == -1 ? 0 : a % b; return true;
    case K_min: *r = compare(K_lt, kind, a, b) ? a : b; return true;
    case K_max: *r = compare(K_gt, kind, a, b) ? a : b; return true;
    case K_and: *r = a & b; return true;
    case K_or: *r = a | b; return true;
    case K_xor: *r = a ^ b; return true;
    case K_shl: *r = (int64_t)(x << (b & (bits - 1))); return true;
    case K_shr:
        *r = a >> (b & (bits - 1));
        return true; /* constants are kept sign- or zero-extended */
    case K_mulhi: *r = (int64_t)(x * y >> 32); return true;
    default: return false;
    }
}

/* One operand is a constant: identities, and chains of added constants. */
static KVal fold_identity(Kernel *k, int op, KType t, KVal a, KVal b, int64_t y) {
    bool ones = t.kind == K_BOOL ? y == 1 : wrap(t.kind, -1) == y;
    if (y == 0 &&
        (op == K_add || op == K_sub || op == K_or || op == K_xor || op == K_shl || op == K_shr))
        return a;
    if (y == 0 && (op == K_mul || op == K_and)) return b;
    if (y == 1 && (op == K_mul || op == K_div) && t.kind != K_BOOL) return a;
    if (y == 1 && op == K_rem) return snK_int(k, t, 0);
    if (ones && op == K_and) return a;
    if (ones && op == K_or) return b;
    const KIns *i = &k->ins.v[a];
    int64_t x;
    if ((op == K_add || op == K_sub) && i->op == K_add && snK_const_int(k, i->a[1], &x)) {
        int64_t sum = op == K_add ? (int64_t)((uint64_t)x + (uint64_t)y)
                                  : (int64_t)((uint64_t)x - (uint64_t)y);
        return snK_op(k, K_add, t, i->a[0], snK_int(k, t, sum), 0);
    }
    if (op == K_mul && i->op == K_mul && snK_const_int(k, i->a[1], &x))
        return snK_op(k, K_mul, t, i->a[0], snK_int(k, t, (int64_t)((uint64_t)x * (uint64_t)y)), 0);
    return 0;
}

static bool commutes(int op) {
    return op == K_add || op == K_mul || op == K_and || op == K_or || op == K_xor || op == K_mulhi;
}

static KVal fold_two(Kernel *k, int op, KType t, KVal a, KVal b) {
    int64_t x, y, r;
    bool ca = snK_const_int(k, a, &x), cb = snK_const_int(k, b, &y);
    int kind = snK_type(k, a).kind;
    if (ca && cb && op >= K_lt && op <= K_ne) return snK_int(k, t, compare(op, kind, x, y));
    if (!(is_int(t.kind) || t.kind == K_BOOL) || t.kind != kind) return 0;
    if (ca && cb) return fold_ints(op, kind, x, y, &r) ? snK_int(k, t, r) : 0;
    if (cb) return fold_identity(k, op, t, a, b, y);
    if (ca && commutes(op)) return snK_op(k, op, t, b, a, 0);
    return 0;
}

static KVal fold_other(Kernel *k, int op, KType t, KVal a, KVal b, KVal c) {
    const KIns *i = &k->ins.v[a];
    int64_t x;
    bool known = snK_const_int(k, a, &x);
    switch (op) {
    case K_splat:
        if (t.lanes == 1) return a;
        if (i->op != K_const) return 0;
        return leaf(k, (KIns){ .op = K_const, .type = t, .imm = i->imm, .f = i->f });
    case K_cast:
        if (same(t, i->type)) return a;
        if (known && (is_int(t.kind) || t.kind == K_BOOL)) return snK_int(k, t, x);
        return known && t.kind == K_F32 && x > -(1 << 24) && x < 1 << 24
                   ? snK_float(k, t, (double)x)
                   : 0;
    case K_bitcast: return same(t, i->type) ? a : 0;
    case K_neg: return known ? snK_int(k, t, (int64_t)(0 - (uint64_t)x)) : 0;
    case K_not: return known ? snK_int(k, t, t.kind == K_BOOL ? !x : ~x) : 0;
    case K_select: return known && x == 1 ? b : known || b == c ? c : 0;
    case K_hsum: case K_hmax: case K_hmin: return i->type.lanes == 1 ? a : 0;
    case K_offset: return snK_const_int(k, b, &x) && x == 0 ? a : 0;
    default: return 0;
    }
}

KVal snK_op(Kernel *k, int op, KType t, KVal a, KVal b, KVal c) {
    KIns i = { .op = (uint8_t)op, .type = t, .a = { a, b, c } };
    const KIns *like = &k->ins.v[op == K_select ? b : a];
    if (t.kind == K_PTR) i.mem = like->mem, i.space = like->space;
    char err[256];
    SN_ASSERT(snK_check_ins(k, k->ins.n, &i, err), "kernel %s, %%%u: %s", snU_str(k->ctx, k->name),
              k->ins.n, err);
    KVal v = b && !c && op != K_offset ? fold_two(k, op, t, a, b) : fold_other(k, op, t, a, b, c);
    return v ? v : snK_push(k, i);
}

/* -- Vectors, memory, structure ---------------------------------------------------------------- */

KVal snK_extract(Kernel *k, KVal v, int lane) {
    const KIns *i = &k->ins.v[v];
    KType t = kt((KKind)i->type.kind, 1);
    if (i->type.lanes == 1) return v;
    if (i->op == K_const)
        return leaf(k, (KIns){ .op = K_const, .type = t, .imm = i->imm, .f = i->f });
    if (i->op == K_splat) return i->a[0];
    return add_checked(k, (KIns){ .op = K_extract, .type = t, .a = { v }, .imm = lane });
}

KVal snK_shuffle(Kernel *k, KVal a, KVal b, const uint8_t *lanes, int n) {
    KShuffle s = {{0}};
    SN_ASSERT(n >= 1 && n <= 64, "a shuffle of %d lanes", n);
    memcpy(s.lane, lanes, (size_t)n);
    uint32_t at = 0;
    while (at < k->shuffles.n && memcmp(&k->shuffles.v[at], &s, sizeof s)) at++;
    if (at == k->shuffles.n) PUSH(k->arena, k->shuffles, s);
    return add_checked(k, (KIns){ .op = K_shuffle,
                                  .type = kt((KKind)snK_type(k, a).kind, n),
                                  .a = { a, b },
                                  .imm = at });
}

/* A mask that is always on is none; the check of one that is always off stays with the emitter. */
static KVal real_mask(const Kernel *k, KVal mask) {
    int64_t on;
    return mask && snK_const_int(k, mask, &on) && on ? 0 : mask;
}

KVal snK_load(Kernel *k, KType t, KVal ptr, KVal index, KVal mask) {
    return add_checked(k,
                       (KIns){ .op = K_load, .type = t, .a = { ptr, index, real_mask(k, mask) } });
}

void snK_store(Kernel *k, KVal ptr, KVal index, KVal v, KVal mask) {
    add_checked(k, (KIns){ .op = K_store, .a = { ptr, index, v, real_mask(k, mask) } });
}

KVal snK_gather(Kernel *k, KType t, KVal ptr, KVal index, KVal mask) {
    return add_checked(
        k, (KIns){ .op = K_gather, .type = t, .a = { ptr, index, real_mask(k, mask) } });
}

void snK_scatter(Kernel *k, KVal ptr, KVal index, KVal v, KVal mask) {
    add_checked(k, (KIns){ .op = K_scatter, .a = { ptr, index, v, real_mask(k, mask) } });
}

KVal snK_for(Kernel *k, KVal begin, KVal end, KVal step, int unroll) {
    return add_checked(
        k, (KIns){
               .op = K_for, .type = snK_type(k, begin), .a = { begin, end, step }, .imm = unroll });
}

void snK_prefetch(Kernel *k, KVal ptr, KVal index, bool write) {
    add_checked(k, (KIns){ .op = K_prefetch, .a = { ptr, index }, .imm = write });
}

KVal snK_emit(Kernel *k, KIns i) { return add_checked(k, i); }
void snK_if(Kernel *k, KVal cond) { add_checked(k, (KIns){ .op = K_if, .a = { cond } }); }
void snK_else(Kernel *k) { add_checked(k, (KIns){ .op = K_else }); }
void snK_end(Kernel *k) { add_checked(k, (KIns){ .op = K_end }); }

KVal snK_var(Kernel *k, KVal first) {
    return add_checked(k, (KIns){ .op = K_var,
                                  .mem = k->ins.v[first].mem,
                                  .space = k->ins.v[first].space,
                                  .type = snK_type(k, first),
                                  .a = { first } });
}

KVal snK_get(Kernel *k, KVal var) {
    const KIns *v = &k->ins.v[var];
    return add_checked(k, (KIns){ .op = K_get, .mem = v->mem, .space = v->space, .type = v->type,
                                  .a = { var } });
}

void snK_set(Kernel *k, KVal var, KVal v) {
    add_checked(k, (KIns){ .op = K_set, .a = { var, v } });
}
