/* tile.c: builder of tile programs. In: one instruction at a time, from a kernel family or the parser. Out: the program, with
   types and shapes checked (a misfit is a family's bug and aborts), index arithmetic folded and equal pure values shared.

   A value is visible from its definition to the end of the region (for, if) that holds it, so sharing looks back through
   the open regions only. Programs are short; the look-back is linear. */
#include "codegen/tile.h"

static const struct { const char *name; uint8_t nargs; char kind; } op_info[T_NOPS] = {
    { "none", 0, 'V' },
#define T(name, nargs, kind, text) { #name, nargs, (#kind)[0] },
#include "tile.def"
#undef T
};

const char *snT_op_name(int op) { return op_info[op].name; }
int snT_op_args(int op) { return op_info[op].nargs; }
char snT_op_kind(int op) { return op_info[op].kind; }

Tile *snT_new(sn_ctx *c, Arena *a, const char *family, const char *name)
{
    Tile *t = NEW(a, Tile);
    t->ctx = c;
    t->arena = a;
    t->family = family;
    t->name = snU_symz(c, name);
    PUSH(a, t->ins, (TIns){ 0 });
    return t;
}

int snT_param(Tile *t, const char *name, Dtype d, int64_t count, bool written)
{
    TParam p = { .name = snU_symz(t->ctx, name), .dtype = (uint8_t)d, .written = written, .count = count };
    PUSH(t->arena, t->params, p);
    return (int)t->params.n - 1;
}

int snT_local(Tile *t, const char *name, Dtype d, int64_t count)
{
    int p = snT_param(t, name, d, count, true);
    t->params.v[p].local = true;
    return p;
}

int snT_nargs(const Tile *t)
{
    int n = 0;
    for (uint32_t p = 0; p < t->params.n; p++) n += !t->params.v[p].local;
    return n;
}

TType snT_type(const Tile *t, TVal v) { return t->ins.v[v].type; }

bool snT_const_idx(const Tile *t, TVal v, int64_t *out)
{
    if (!v || t->ins.v[v].op != T_idx) return false;
    *out = t->ins.v[v].imm;
    return true;
}

/* -- Checks ------------------------------------------------------------------------------------------ */

/* Each check returns what is wrong, or NULL. */
#define CHECK(cond, what) do { if (!(cond)) return what; } while (0)

static bool is_idx(const Tile *t, TVal v) { return v && v < t->ins.n && t->ins.v[v].type.dtype == 0; }
static bool is_tile(const Tile *t, TVal v) { return v && v < t->ins.n && t->ins.v[v].type.dtype != 0; }
static bool idx_or_none(const Tile *t, TVal v) { return !v || is_idx(t, v); }
static bool broadcasts(TType from, TType to) { return (from.r == 1 || from.r == to.r) && (from.c == 1 || from.c == to.c); }

static const char *check_memory(const Tile *t, const TIns *i)
{
    CHECK(i->buf >= 0 && (uint32_t)i->buf < t->params.n, "no such buffer");
    CHECK(is_idx(t, i->a[0]), "address is not an idx");
    const TParam *p = &t->params.v[i->buf];
    if (i->op == T_load || i->op == T_gather) {
        CHECK(i->type.dtype == p->dtype, "dtype of the tile is not the buffer's");
    } else {
        CHECK(p->written, "buffer is not declared as written");
        CHECK(is_tile(t, i->a[1]), "value is not a tile");
    }
    int valid = i->op == T_load ? 1 : i->op == T_scatter_add ? 3 : 2;
    CHECK(idx_or_none(t, i->a[valid]) && idx_or_none(t, i->a[valid + 1]), "valid counts are not idx");
    if (i->op == T_gather || i->op == T_scatter_add) {
        TVal k = i->a[i->op == T_gather ? 1 : 2];
        CHECK(is_tile(t, k) && t->ins.v[k].type.dtype == SN_I32, "index is not an i32 tile");
        TType shape = i->op == T_gather ? i->type : (TType){ 0, t->ins.v[i->a[1]].type.r, 1 };
        CHECK(broadcasts(t->ins.v[k].type, shape), "index does not broadcast");
    }
    return NULL;
}

static const char *check_ew(const Tile *t, const TIns *i)
{
    static const uint8_t nargs[S_N] = { [S_ARG] = 0, [S_CONST] = 0,
#define SC(name, n, text, doc) [S_##name] = n,
#include "graph/scalar.def"
#undef SC
    };
    CHECK(i->fn > S_CONST && i->fn < S_N, "no scalar function");
    for (int k = 0; k < 3; k++) {
        if (k >= nargs[i->fn]) { CHECK(!i->a[k], "too many operands"); continue; }
        CHECK(is_tile(t, i->a[k]), "operand is not a tile");
        CHECK(broadcasts(t->ins.v[i->a[k]].type, i->type), "operand does not broadcast");
    }
    if (i->fn == S_select) CHECK(t->ins.v[i->a[0]].type.dtype == SN_BOOL, "select by something not bool");
    if (i->fn >= S_lt && i->fn <= S_ne) CHECK(i->type.dtype == SN_BOOL, "comparison is not bool");
    return NULL;
}

static const char *check_dot(const Tile *t, const TIns *i)
{
    CHECK(is_tile(t, i->a[0]) && is_tile(t, i->a[1]), "operand is not a tile");
    TType a = t->ins.v[i->a[0]].type, b = t->ins.v[i->a[1]].type;
    bool ta = i->imm & 1, tb = i->imm & 2;
    CHECK((ta ? a.r : a.c) == (tb ? b.c : b.r), "depths differ");
    CHECK(i->type.dtype == SN_F32 && i->type.r == (ta ? a.c : a.r) && i->type.c == (tb ? b.r : b.c), "result shape");
    CHECK(t->ins.v[i->a[1]].op == T_stage, "right operand is not staged");
    if (i->a[2]) {
        TType c = snT_type(t, i->a[2]);
        CHECK(c.dtype == SN_F32 && c.r == i->type.r && c.c == i->type.c, "accumulator's type");
    }
    return NULL;
}

static const char *check_reduce(const Tile *t, const TIns *i)
{
    CHECK(is_tile(t, i->a[0]), "operand is not a tile");
    TType x = t->ins.v[i->a[0]].type;
    CHECK(idx_or_none(t, i->a[1]) && idx_or_none(t, i->a[2]), "valid counts are not idx");
    if (i->op == T_reduce)
        CHECK(i->type.r == (i->imm == 0 ? 1 : x.r) && i->type.c == (i->imm == 0 ? x.c : 1), "result shape");
    else
        CHECK(i->type.r == x.r && i->type.c == x.c, "result shape");
    bool arg = i->op == T_reduce && i->red >= RED_ARGMAX;
    CHECK(i->type.dtype == (arg ? SN_I32 : x.dtype), "result dtype");
    return NULL;
}

const char *snT_misfit(const Tile *t, const TIns *i)
{
    if (op_info[i->op].kind == 'V' && i->type.dtype) CHECK(i->type.r > 0 && i->type.c > 0, "empty shape");
    switch (i->op) {
    case T_grid: CHECK(i->imm >= 0 && i->imm < t->ngrid, "no such grid dimension"); break;
    case T_idx: break;
    case T_iadd: case T_isub: case T_imul: case T_idiv: case T_imod: case T_imin: case T_imax:
        CHECK(is_idx(t, i->a[0]) && is_idx(t, i->a[1]), "operand is not an idx");
        break;
    case T_count: {
        CHECK(is_tile(t, i->a[0]), "operand is not a tile");
        TType x = snT_type(t, i->a[0]);
        CHECK(x.dtype == SN_I32 && x.r == 1 && x.c == 1, "operand is not i32[1, 1]");
        break;
    }
    case T_full: CHECK(i->type.dtype, "full is not a tile"); break;
    case T_iota:
        CHECK(is_idx(t, i->a[0]), "operand is not an idx");
        CHECK(i->type.dtype == SN_I32 && (i->imm ? i->type.r : i->type.c) == 1, "result shape");
        break;
    case T_widen:
        CHECK(is_idx(t, i->a[0]) && i->type.dtype == SN_I32 && i->type.r == 1 && i->type.c == 1, "i32[1, 1] of an idx");
        break;
    case T_random:
        CHECK(is_idx(t, i->a[0]) && i->type.dtype == SN_F32, "f32 of an idx");
        if (i->a[1]) CHECK(is_tile(t, i->a[1]) && broadcasts(snT_type(t, i->a[1]), i->type), "key does not broadcast");
        break;
    case T_load: case T_gather: case T_store: case T_scatter_add: return check_memory(t, i);
    case T_ew: return check_ew(t, i);
    case T_reduce: case T_scan: return check_reduce(t, i);
    case T_topk:
        CHECK(is_tile(t, i->a[0]) && i->type.r == snT_type(t, i->a[0]).r && i->type.c <= snT_type(t, i->a[0]).c, "shape");
        CHECK(i->type.dtype == (i->imm ? SN_I32 : snT_type(t, i->a[0]).dtype), "result dtype");
        break;
    case T_stage:
        CHECK(is_tile(t, i->a[0]), "operand is not a tile");
        CHECK(idx_or_none(t, i->a[1]) && idx_or_none(t, i->a[2]), "valid counts are not idx");
        break;
    case T_dot: return check_dot(t, i);
    case T_var: CHECK(i->a[0] && i->a[0] < t->ins.n, "no first value"); break;
    case T_get: CHECK(i->a[0] && t->ins.v[i->a[0]].op == T_var, "not a var"); break;
    case T_set: {
        CHECK(i->a[0] && i->a[1] && t->ins.v[i->a[0]].op == T_var, "not a var, or no value");
        TType x = snT_type(t, i->a[0]), y = snT_type(t, i->a[1]);
        CHECK(x.dtype == y.dtype && x.r == y.r && x.c == y.c, "value's type is not the var's");
        break;
    }
    case T_for:
        for (int k = 0; k < 3; k++) CHECK(is_idx(t, i->a[k]), "bounds are not idx");
        break;
    case T_if: CHECK(is_tile(t, i->a[0]) && snT_type(t, i->a[0]).dtype == SN_BOOL, "condition is not bool"); break;
    case T_end: break;
    default: return "unknown op";
    }
    return NULL;
}

/* -- Sharing and folding -------------------------------------------------------------------------------- */

static bool is_pure(const Tile *t, const TIns *i)
{
    switch (i->op) {
    case T_var: case T_get: case T_dot: return false;
    case T_load: case T_gather: return !t->params.v[i->buf].written;
    default: return op_info[i->op].kind == 'V';
    }
}

static bool same(const TIns *x, const TIns *y)
{
    return x->op == y->op && x->fn == y->fn && x->red == y->red && x->buf == y->buf && x->imm == y->imm &&
           x->rs == y->rs && x->cs == y->cs && x->ks == y->ks && memcmp(&x->f, &y->f, sizeof x->f) == 0 &&
           x->type.dtype == y->type.dtype && x->type.r == y->type.r && x->type.c == y->type.c &&
           memcmp(x->a, y->a, sizeof x->a) == 0;
}

static TVal find_equal(const Tile *t, const TIns *i)
{
    int closed = 0;
    for (TVal v = t->ins.n - 1; v > 0; v--) {
        const TIns *x = &t->ins.v[v];
        if (x->op == T_end) closed++;
        else if (x->op == T_for || x->op == T_if) closed -= closed > 0;
        else if (!closed && same(x, i)) return v;
    }
    return 0;
}

static bool eval_idx(int op, int64_t a, int64_t b, int64_t *out)
{
    switch (op) {
    case T_iadd: *out = a + b; return true;
    case T_isub: *out = a - b; return true;
    case T_imul: *out = a * b; return true;
    case T_idiv: *out = b ? a / b : 0; return b != 0;
    case T_imod: *out = b ? a % b : 0; return b != 0;
    case T_imin: *out = a < b ? a : b; return true;
    case T_imax: *out = a > b ? a : b; return true;
    default: return false;
    }
}

/* The value an index instruction folds to, or 0. */
static TVal fold_idx(Tile *t, const TIns *i)
{
    int64_t a = 0, b = 0, k;
    bool ca = snT_const_idx(t, i->a[0], &a), cb = snT_const_idx(t, i->a[1], &b);
    if (ca && cb && eval_idx(i->op, a, b, &k)) return snT_idx(t, k);
    if (cb && ((b == 0 && (i->op == T_iadd || i->op == T_isub)) || (b == 1 && (i->op == T_imul || i->op == T_idiv))))
        return i->a[0];
    if (ca && ((a == 0 && i->op == T_iadd) || (a == 1 && i->op == T_imul))) return i->a[1];
    if (i->op == T_imul && ((ca && a == 0) || (cb && b == 0))) return snT_idx(t, 0);
    if (i->op == T_imod && cb && b == 1) return snT_idx(t, 0);
    if ((i->op == T_imin || i->op == T_imax) && i->a[0] == i->a[1]) return i->a[0];
    return 0;
}

static TVal fold_tile(Tile *t, const TIns *i)
{
    if (i->op == T_grid && t->grid[i->imm] == 1) return snT_idx(t, 0);
    if (i->op == T_ew && i->fn == S_cast && i->type.dtype == snT_type(t, i->a[0]).dtype) return i->a[0];
    if (i->op == T_reduce && (i->imm ? snT_type(t, i->a[0]).c : snT_type(t, i->a[0]).r) == 1)
        return i->red < RED_ARGMAX ? i->a[0] : snT_full(t, i->type, 0);
    return 0;
}

TVal snT_add(Tile *t, const TIns *ins)
{
    TIns i = *ins;
    SN_ASSERT(i.op > T_none && i.op < T_NOPS, "tile op %d", i.op);
    if ((i.op >= T_grid && i.op <= T_count) || i.op == T_for) i.type = (TType){ 0, 1, 1 };
    if (op_info[i.op].kind != 'V' && i.op != T_for) i.type = (TType){ 0, 1, 1 };
    const char *wrong = snT_misfit(t, &i);
    SN_ASSERT(!wrong, "tile %s: %%%u = %s: %s", snU_str(t->ctx, t->name), t->ins.n, op_info[i.op].name, wrong);
    TVal v = i.op >= T_iadd && i.op <= T_imax ? fold_idx(t, &i) : fold_tile(t, &i);
    if (!v && is_pure(t, &i)) v = find_equal(t, &i);
    if (v) return v;
    PUSH(t->arena, t->ins, i);
    return t->ins.n - 1;
}

/* -- Shorthands ------------------------------------------------------------------------------------------ */

TVal snT_grid(Tile *t, int dim) { return snT_add(t, &(TIns){ .op = T_grid, .imm = dim }); }
TVal snT_idx(Tile *t, int64_t v) { return snT_add(t, &(TIns){ .op = T_idx, .imm = v }); }
TVal snT_ix(Tile *t, int op, TVal a, TVal b) { return snT_add(t, &(TIns){ .op = (uint8_t)op, .a = { a, b } }); }
TVal snT_full(Tile *t, TType ty, double v) { return snT_add(t, &(TIns){ .op = T_full, .type = ty, .f = v }); }

TVal snT_ew(Tile *t, int scalar_op, Dtype result, TVal a, TVal b, TVal c)
{
    TIns i = { .op = T_ew, .fn = (uint8_t)scalar_op, .type = { (uint8_t)result, 1, 1 }, .a = { a, b, c } };
    for (int k = 0; k < 3; k++) {
        if (!i.a[k]) continue;
        TType x = snT_type(t, i.a[k]);
        if (x.r > i.type.r) i.type.r = x.r;
        if (x.c > i.type.c) i.type.c = x.c;
    }
    return snT_add(t, &i);
}

TVal snT_scalar(Tile *t, const Scalar *s, Dtype operand, Dtype result, const TVal *args)
{
    TVal stack[32];
    int n = 0;
    static const uint8_t nargs[S_N] = { [S_ARG] = 0,
#define SC(name, k, text, doc) [S_##name] = k,
#include "graph/scalar.def"
#undef SC
    };
    for (int k = 0; k < s->n; k++) {
        const ScalarIns *i = &s->ins[k];
        if (i->op == S_ARG) { stack[n++] = args[i->arg]; continue; }
        if (i->op == S_CONST) { stack[n++] = snT_full(t, (TType){ (uint8_t)operand, 1, 1 }, i->k); continue; }
        int m = nargs[i->op];
        TVal x[3] = { 0 };
        n -= m;
        for (int j = 0; j < m; j++) x[j] = stack[n + j];
        Dtype d = (Dtype)snT_type(t, x[i->op == S_select ? 1 : 0]).dtype;
        if (i->op >= S_lt && i->op <= S_ne) d = SN_BOOL;
        if (i->op == S_cast || i->op == S_bitcast) d = result;
        stack[n++] = snT_ew(t, i->op, d, x[0], x[1], x[2]);
    }
    SN_ASSERT(n == 1, "scalar text leaves %d values", n);
    return stack[0];
}

TVal snT_iota(Tile *t, TVal first, int axis, int32_t n)
{
    TType ty = { SN_I32, axis ? 1 : n, axis ? n : 1 };
    return snT_add(t, &(TIns){ .op = T_iota, .type = ty, .a = { first }, .imm = axis });
}

TVal snT_load(Tile *t, int buf, int32_t r, int32_t c, TVal base, int64_t rs, int64_t cs, TVal vr, TVal vc)
{
    TIns i = { .op = T_load, .type = { t->params.v[buf].dtype, r, c }, .a = { base, vr, vc }, .buf = buf, .rs = rs, .cs = cs };
    return snT_add(t, &i);
}

void snT_store(Tile *t, int buf, TVal base, TVal v, int64_t rs, int64_t cs, TVal vr, TVal vc)
{
    snT_add(t, &(TIns){ .op = T_store, .a = { base, v, vr, vc }, .buf = buf, .rs = rs, .cs = cs });
}

TVal snT_reduce(Tile *t, TVal v, int axis, RedKind red, TVal vr, TVal vc)
{
    TType x = snT_type(t, v);
    if (axis == 0) x.r = 1; else x.c = 1;
    if (red >= RED_ARGMAX) x.dtype = SN_I32;
    return snT_add(t, &(TIns){ .op = T_reduce, .red = (uint8_t)red, .type = x, .a = { v, vr, vc }, .imm = axis });
}

TVal snT_stage(Tile *t, TVal v, TVal vr, TVal vc)
{
    return snT_add(t, &(TIns){ .op = T_stage, .type = snT_type(t, v), .a = { v, vr, vc } });
}

TVal snT_dot(Tile *t, TVal a, TVal b, TVal acc, bool ta, bool tb)
{
    TType x = snT_type(t, a), y = snT_type(t, b);
    TIns i = { .op = T_dot, .type = { SN_F32, ta ? x.c : x.r, tb ? y.r : y.c }, .a = { a, b, acc }, .imm = ta | tb << 1 };
    return snT_add(t, &i);
}

TVal snT_var(Tile *t, TVal first) { return snT_add(t, &(TIns){ .op = T_var, .type = snT_type(t, first), .a = { first } }); }
TVal snT_get(Tile *t, TVal var) { return snT_add(t, &(TIns){ .op = T_get, .type = snT_type(t, var), .a = { var } }); }
void snT_set(Tile *t, TVal var, TVal v) { snT_add(t, &(TIns){ .op = T_set, .a = { var, v } }); }

TVal snT_for(Tile *t, TVal begin, TVal end, TVal step, bool pipelined)
{
    return snT_add(t, &(TIns){ .op = T_for, .a = { begin, end, step }, .imm = pipelined });
}

void snT_if(Tile *t, TVal cond) { snT_add(t, &(TIns){ .op = T_if, .a = { cond } }); }
void snT_end(Tile *t) { snT_add(t, &(TIns){ .op = T_end }); }
