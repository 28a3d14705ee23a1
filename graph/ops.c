/* ops.c: the op table. In: the rows of ops.def. Out: OpInfo per op (operands, attributes, gradient texts, compiled scalar
   text), and one type inference per class.

   A row's texts are parsed once per context; composites of std.sn are appended as rows of class C_COMPOSITE. */
#include "graph/graph.h"
#include "graph/ops.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>

struct OpTable { VEC(OpInfo) ops; HashMap by_name; };

static const struct Row { const char *name, *operands, *attrs; int cls, flags; const char *vjp, *scalar, *doc; } table[] = {
    { "none", "", "", C_LEAF, 0, "", "", "" },
#define OP(name, operands, attrs, cls, flags, vjp, scalar, doc) { #name, operands, attrs, cls, flags, vjp, scalar, doc },
#include "graph/ops.def"
#undef OP
};

/* -- Rows -> OpInfo ---------------------------------------------------------------------------------------- */

static const char *word(const char **p, char *out, size_t cap)
{
    while (**p == ' ') ++*p;
    size_t n = 0;
    while (**p && **p != ' ' && n + 1 < cap) out[n++] = *(*p)++;
    out[n] = 0;
    return n ? out : NULL;
}

static void parse_operands(sn_ctx *c, OpInfo *op, const char *text)
{
    char w[64];
    for (const char *p = text; word(&p, w, sizeof w);) {
        size_t n = strlen(w);
        if (n > 3 && !strcmp(w + n - 3, "...")) w[n - 3] = 0;
        op->in_name[op->nin++] = snU_symz(c, w);
    }
    if (op->flags & F_VARIADIC && op->nin == 1 && !strcmp(op->cname, "random")) op->nin = 0;
}

/* "axis:i=-1": name, kind, default. */
static void parse_attr(sn_ctx *c, OpInfo *op, char *w)
{
    char *colon = strchr(w, ':'), *eq = strchr(w, '=');
    int k = op->nattr++;
    AttrVal *d = &op->attr_default[k];
    *colon = 0;
    op->attr_name[k] = snU_symz(c, w);
    switch (colon[1]) {
    case 'i': op->attr_kind[k] = A_INT; break;
    case 'f': op->attr_kind[k] = A_FLOAT; break;
    case 'l': op->attr_kind[k] = A_LIST; break;
    case 't': op->attr_kind[k] = A_DTYPE; break;
    default: op->attr_kind[k] = A_STR; break;
    }
    if (!eq) return;
    op->attr_has_default[k] = true;
    d->kind = op->attr_kind[k];
    if (d->kind == A_INT) d->i[0] = strtoll(eq + 1, NULL, 10);
    else if (d->kind == A_FLOAT) d->f = strtod(eq + 1, NULL);
}                                                              /* t: 0, as the op says */

static void parse_attrs(sn_ctx *c, OpInfo *op, const char *text)
{
    char w[64];
    for (const char *p = text; word(&p, w, sizeof w);) parse_attr(c, op, w);
}

static void parse_vjp(sn_ctx *c, OpInfo *op, const char *text)
{
    int k = 0;
    while (*text && k < MAX_NAMED) {
        const char *end = strchr(text, ';');
        size_t n = end ? (size_t)(end - text) : strlen(text);
        while (n && *text == ' ') text++, n--;
        while (n && text[n - 1] == ' ') n--;
        if (n && !(n == 1 && *text == '-')) op->vjp[k] = snU_strdup(&c->arena, text, n);
        k++;
        text = end ? end + 1 : "";
    }
}

/* -- Scalar texts --------------------------------------------------------------------------------------------- */

typedef struct ScalarParse { sn_ctx *c; const char *p; const OpInfo *op; Scalar *s; } ScalarParse;

static void emit(ScalarParse *x, int op, int arg, double k)
{
    SN_ASSERT(x->s->n < 32, "scalar text of %s is too long", x->op->cname);
    x->s->ins[x->s->n++] = (ScalarIns){ (uint8_t)op, (uint8_t)arg, k };
}

static bool take(ScalarParse *x, const char *tok)
{
    while (*x->p == ' ') x->p++;
    size_t n = strlen(tok);
    if (strncmp(x->p, tok, n)) return false;
    if (n == 1 && (*tok == '<' || *tok == '>') && (x->p[1] == '=' || x->p[1] == *tok)) return false;
    x->p += n;
    return true;
}

static void ternary(ScalarParse *x);

static void call(ScalarParse *x, const char *name, size_t n)
{
    static const char *const fn[S_N] = {
#define SC(name_, nargs, text, doc) [S_##name_] = #name_,
#include "graph/scalar.def"
#undef SC
    };
    do ternary(x); while (take(x, ","));
    SN_ASSERT(take(x, ")"), "scalar text of %s", x->op->cname);
    for (int i = S_CONST + 1; i < S_N; i++)
        if (fn[i] && strlen(fn[i]) == n && !strncmp(fn[i], name, n)) { emit(x, i, 0, 0); return; }
    SN_ASSERT(false, "scalar text of %s: unknown function", x->op->cname);
}

static void primary(ScalarParse *x)
{
    if (take(x, "(")) { ternary(x); take(x, ")"); return; }
    if (take(x, "-")) { primary(x); emit(x, S_neg, 0, 0); return; }
    if (take(x, "~")) { primary(x); emit(x, S_not, 0, 0); return; }
    while (*x->p == ' ') x->p++;
    if (isdigit((unsigned char)*x->p)) {
        char *end;
        double v = strtod(x->p, &end);
        x->p = end;
        emit(x, S_CONST, 0, v);
        return;
    }
    const char *name = x->p;
    while (isalnum((unsigned char)*x->p) || *x->p == '_') x->p++;
    size_t n = (size_t)(x->p - name);
    if (take(x, "(")) { call(x, name, n); return; }
    Sym s = snU_sym(x->c, name, n);
    for (int i = 0; i < x->op->nin; i++) if (x->op->in_name[i] == s) { emit(x, S_ARG, i, 0); return; }
    SN_ASSERT(false, "scalar text of %s: no operand %.*s", x->op->cname, (int)n, name);
}

static void binary(ScalarParse *x, int level)
{
    static const struct { const char *tok; int level, op; } ops[] = {
        { "<<", 4, S_shl }, { ">>", 4, S_shr }, { "<=", 3, S_le }, { ">=", 3, S_ge }, { "==", 2, S_eq }, { "!=", 2, S_ne },
        { "<", 3, S_lt }, { ">", 3, S_gt }, { "&", 1, S_and }, { "^", 1, S_xor }, { "|", 0, S_or }, { "+", 5, S_add },
        { "-", 5, S_sub }, { "*", 6, S_mul }, { "/", 6, S_div }, { "%", 6, S_rem } };
    if (level == 7) { primary(x); return; }
    binary(x, level + 1);
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < sizeof ops / sizeof *ops && !again; i++) {
            if (ops[i].level != level || !take(x, ops[i].tok)) continue;
            binary(x, level + 1);
            emit(x, ops[i].op, 0, 0);
            again = true;
        }
    }
}

static void ternary(ScalarParse *x)
{
    binary(x, 0);
    if (!take(x, "?")) return;
    ternary(x);
    SN_ASSERT(take(x, ":"), "scalar text of %s", x->op->cname);
    ternary(x);
    emit(x, S_select, 0, 0);
}

static const Scalar *compile_scalar(sn_ctx *c, const OpInfo *op, const char *text)
{
    Scalar *s = NEW(&c->arena, Scalar);
    ScalarParse x = { c, text, op, s };
    s->nargs = op->nin;
    ternary(&x);
    while (*x.p == ' ') x.p++;
    SN_ASSERT(!*x.p, "scalar text of %s: '%s' is left over", op->cname, x.p);
    return s;
}

/* -- The table ---------------------------------------------------------------------------------------------------- */

unsigned snG_add_op(sn_ctx *c, const OpInfo *op)
{
    PUSH(&c->arena, c->ops->ops, *op);
    unsigned id = c->ops->ops.n - 1;
    if (id) snU_insert(&c->arena, &c->ops->by_name, (uint64_t)op->name + 1, id);
    return id;
}

void snG_init_ops(sn_ctx *c)
{
    c->ops = NEW(&c->arena, struct OpTable);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct Row *r = &table[i];
        OpInfo op = { .name = snU_symz(c, r->name), .cname = r->name, .cls = (uint8_t)r->cls, .flags = (uint16_t)r->flags,
                      .scalar_text = r->scalar, .doc = r->doc };
        parse_operands(c, &op, r->operands);
        parse_attrs(c, &op, r->attrs);
        parse_vjp(c, &op, r->vjp);
        if (*r->scalar) op.scalar = compile_scalar(c, &op, r->scalar);
        snG_add_op(c, &op);
    }
}

const OpInfo *snG_op(const sn_ctx *c, unsigned op) { return &c->ops->ops.v[op]; }
unsigned snG_find_op(const sn_ctx *c, Sym name) { return snU_find(&c->ops->by_name, (uint64_t)name + 1); }
unsigned snG_num_ops(const sn_ctx *c) { return c->ops->ops.n; }

/* -- Dtypes ------------------------------------------------------------------------------------------------------- */

static const struct { const char *name; int size; } dtypes[SN_NDTYPES] = {
    [SN_F32] = { "f32", 4 }, [SN_BF16] = { "bf16", 2 }, [SN_F16] = { "f16", 2 }, [SN_I32] = { "i32", 4 },
    [SN_U32] = { "u32", 4 }, [SN_BOOL] = { "bool", 1 }, [SN_F64] = { "f64", 8 } };

const char *snG_dtype_name(Dtype d) { return d > 0 && d < SN_NDTYPES ? dtypes[d].name : "?"; }
int snG_dtype_size(Dtype d) { return dtypes[d].size; }

Dtype snG_dtype_of(const char *s, size_t n)
{
    for (int d = 1; d < SN_NDTYPES; d++) if (strlen(dtypes[d].name) == n && !strncmp(dtypes[d].name, s, n)) return (Dtype)d;
    return 0;
}

int64_t snG_count(const Type *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

bool snG_same_shape(const Type *a, const Type *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, sizeof(int64_t) * a->rank);
}

/* -- Inference ------------------------------------------------------------------------------------------------------- */

typedef struct Infer { Graph *g; Here at; const OpInfo *op; unsigned id, nin; const Type *in[MAX_IN]; Attrs *a; Type out; } Infer;

#define FAIL(x, code, ...) snU_fail((x)->g->ctx, code, (x)->at.loc, __VA_ARGS__)

const char *snG_shape_text(sn_ctx *c, const Type *t)
{
    StrBuf b = { 0 };
    snU_putf(&b, "%s[", snG_dtype_name((Dtype)t->dtype));
    for (int i = 0; i < t->rank; i++) snU_putf(&b, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    snU_puts(&b, "]");
    const char *s = snU_strdup(&c->arena, b.s, b.n);
    snU_free_buf(&b);
    return s;
}

#define SHAPE(x, t) snG_shape_text((x)->g->ctx, t)

/* The last axis is written -1, others count from 0: one spelling each. */
static int axis(Infer *x, int k, const Type *t, bool last_is_minus)
{
    int64_t a = x->a->v[k].i[0];
    if (a < -t->rank || a >= t->rank)
        FAIL(x, SN_SHAPE, "%s: axis %lld of %s; axes are %d to %d", x->op->cname, (long long)a, SHAPE(x, t), -t->rank, t->rank - 1);
    if (a < 0) a += t->rank;
    x->a->v[k].i[0] = last_is_minus && a == t->rank - 1 ? -1 : a;
    return (int)a;
}

static void set_shape(Infer *x, const AttrVal *v)
{
    if (v->n > MAX_RANK) FAIL(x, SN_SHAPE, "%s: %d axes; at most %d", x->op->cname, v->n, MAX_RANK);
    x->out.rank = v->n;
    for (int i = 0; i < v->n; i++) x->out.dim[i] = v->i[i];
}

static void infer_ewise(Infer *x)
{
    const Type *shape = x->in[0];
    unsigned first = x->id == OP_select;
    for (unsigned i = 0; i < x->nin; i++) if (x->in[i]->rank && !(shape->rank)) shape = x->in[i];
    for (unsigned i = 0; i < x->nin && x->id != OP_fence; i++) {
        if (x->in[i]->rank && !snG_same_shape(x->in[i], shape))
            FAIL(x, SN_SHAPE, "%s: operands are %s and %s; their shapes must match, or one be a scalar", x->op->cname,
                 SHAPE(x, shape), SHAPE(x, x->in[i]));
        if (i > first && x->in[i]->dtype != x->in[first]->dtype)
            FAIL(x, SN_TYPE, "%s: operands are %s and %s; cast one of them", x->op->cname, snG_dtype_name((Dtype)x->in[first]->dtype),
                 snG_dtype_name((Dtype)x->in[i]->dtype));
    }
    if (x->id == OP_fence) shape = x->in[0];
    Dtype d = (Dtype)x->in[first]->dtype;
    if (first && x->in[0]->dtype != SN_BOOL)
        FAIL(x, SN_TYPE, "select: the condition is %s; it must be bool", SHAPE(x, x->in[0]));
    if ((x->op->flags & F_FLOAT && !snG_is_float(d)) || (x->op->flags & F_INT && !snG_is_int(d)) ||
        (x->op->flags & F_LOGIC && snG_is_float(d)))
        FAIL(x, SN_TYPE, "%s: operand is %s; it takes %s", x->op->cname, snG_dtype_name(d),
             x->op->flags & F_FLOAT ? "floats" : x->op->flags & F_INT ? "i32 or u32" : "bool, i32 or u32");
    bool arith = x->id == OP_add || x->id == OP_sub || x->id == OP_mul || x->id == OP_div || x->id == OP_neg || x->id == OP_abs;
    if (arith && d == SN_BOOL) FAIL(x, SN_TYPE, "%s: operand is bool; cast it to i32 or f32", x->op->cname);
    x->out = *shape;
    x->out.dtype = (uint8_t)(x->op->flags & F_BOOL ? SN_BOOL : d);
    if (x->id == OP_cast || x->id == OP_bitcast) x->out.dtype = (uint8_t)x->a->v[0].i[0];
    if (x->id == OP_bitcast && snG_dtype_size((Dtype)x->out.dtype) != snG_dtype_size(d))
        FAIL(x, SN_TYPE, "bitcast: %s and %s differ in size", snG_dtype_name(d), snG_dtype_name((Dtype)x->out.dtype));
}

static int compare_int(const void *p, const void *q)
{
    int64_t a = *(const int64_t *)p, b = *(const int64_t *)q;
    return a < b ? -1 : a > b;
}

static void infer_sum(Infer *x)
{
    AttrVal *v = &x->a->v[0];
    int rank = x->in[0]->rank;
    x->out = *x->in[0];
    if (x->in[0]->dtype == SN_BOOL) FAIL(x, SN_TYPE, "sum: operand is bool; cast it to i32 or f32");
    if (v->n == 0) { x->out.rank = 0; return; }
    for (int i = 0; i < v->n; i++) {
        if (v->i[i] < -rank || v->i[i] >= rank)
            FAIL(x, SN_SHAPE, "sum: axis %lld of %s; axes are %d to %d", (long long)v->i[i], SHAPE(x, x->in[0]), -rank, rank - 1);
        if (v->i[i] < 0) v->i[i] += rank;
    }
    qsort(v->i, v->n, sizeof v->i[0], compare_int);
    for (int i = 0; i < v->n; i++) {
        if (i && v->i[i] == v->i[i - 1]) FAIL(x, SN_SHAPE, "sum: axis %lld is listed twice", (long long)v->i[i]);
        x->out.dim[v->i[i]] = 1, x->out.name[v->i[i]] = 0;
    }
    if (v->i[v->n - 1] == rank - 1) v->i[v->n - 1] = -1;
}

static void infer_reduce(Infer *x)
{
    if (x->id == OP_sum) { infer_sum(x); return; }
    int k = axis(x, 0, x->in[0], true);
    x->out = *x->in[0];
    x->out.dim[k] = 1, x->out.name[k] = 0;
    if (x->id == OP_argmax || x->id == OP_argmin) x->out.dtype = SN_I32;
}

static void infer_scan(Infer *x)
{
    x->out = *x->in[0];
    if (x->id == OP_cumsum && x->out.dtype == SN_BOOL) FAIL(x, SN_TYPE, "cumsum: operand is bool; cast it to i32 or f32");
    if (x->id == OP_cumsum) { axis(x, 0, x->in[0], true); return; }
    int64_t k = x->a->v[0].i[0], n = x->in[0]->rank ? x->in[0]->dim[x->in[0]->rank - 1] : 0;
    if (k < 1 || k > n) FAIL(x, SN_SHAPE, "topk: k is %lld of a last axis of %lld", (long long)k, (long long)n);
    x->out.dim[x->out.rank - 1] = k, x->out.name[x->out.rank - 1] = 0;
}

static void infer_reshape(Infer *x)
{
    AttrVal *v = &x->a->v[0];
    int64_t known = 1, n = snG_count(x->in[0]);
    int hole = -1;
    for (int i = 0; i < v->n; i++) {
        if (v->i[i] == -1 && hole < 0) hole = i;
        else if (v->i[i] < 1) FAIL(x, SN_SHAPE, "reshape: size %lld of axis %d", (long long)v->i[i], i);
        else if (__builtin_mul_overflow(known, v->i[i], &known)) FAIL(x, SN_SHAPE, "reshape: the shape is too large");
    }
    if (hole >= 0 && n % known == 0) v->i[hole] = n / known, known = n;
    set_shape(x, v);
    if (known != n) FAIL(x, SN_SHAPE, "reshape: %s has %lld elements, the shape %s has %lld", SHAPE(x, x->in[0]), (long long)n,
                         SHAPE(x, &x->out), (long long)known);
}

static void infer_concat(Infer *x)
{
    if (!x->nin) FAIL(x, SN_SHAPE, "concat: nothing to join");
    int k = axis(x, 0, x->in[0], false);
    x->out = *x->in[0];
    x->out.name[k] = x->nin > 1 ? 0 : x->out.name[k];
    for (unsigned i = 1; i < x->nin; i++) {
        Type t = *x->in[i];
        if (t.rank == x->out.rank) t.dim[k] = x->out.dim[k];
        if (t.dtype != x->out.dtype || !snG_same_shape(&t, &x->out))
            FAIL(x, SN_SHAPE, "concat: %s beside %s along axis %d", SHAPE(x, x->in[i]), SHAPE(x, x->in[0]), k);
        x->out.dim[k] += x->in[i]->dim[k];
    }
}

static void infer_move(Infer *x)
{
    const Type *t = x->in[0];
    AttrVal *v = x->a->v;
    x->out = (Type){ .dtype = t->dtype };
    switch (x->id) {
    case OP_reshape: infer_reshape(x); break;
    case OP_permute: {
        unsigned seen = 0;
        x->out = *t;
        for (int i = 0; i < v->n; i++) {
            if (v->i[i] < 0 || v->i[i] >= t->rank || seen >> v->i[i] & 1) seen = ~0u;
            else seen |= 1u << v->i[i], x->out.dim[i] = t->dim[v->i[i]], x->out.name[i] = t->name[v->i[i]];
        }
        if (v->n != t->rank || seen != (1u << t->rank) - 1) FAIL(x, SN_SHAPE, "permute: not an order of the %d axes of %s", t->rank, SHAPE(x, t));
        break;
    }
    case OP_expand:
        set_shape(x, v);
        for (int i = 0; i < v->n; i++)
            if (v->n != t->rank || (t->dim[i] != 1 && t->dim[i] != v->i[i]) || v->i[i] < 1)
                FAIL(x, SN_SHAPE, "expand: %s does not expand to %s; only axes of size 1 do", SHAPE(x, t), SHAPE(x, &x->out));
        if (v->n != t->rank) FAIL(x, SN_SHAPE, "expand: %s does not expand to %s", SHAPE(x, t), SHAPE(x, &x->out));
        for (int i = 0; i < v->n; i++) if (t->dim[i] == v->i[i]) x->out.name[i] = t->name[i];
        break;
    case OP_slice: {
        int k = axis(x, 0, t, false);
        x->out = *t;
        if (v[1].i[0] < 0 || v[2].i[0] < 1 || v[1].i[0] > t->dim[k] - v[2].i[0])
            FAIL(x, SN_SHAPE, "slice: %lld elements from %lld of an axis of %lld", (long long)v[2].i[0], (long long)v[1].i[0], (long long)t->dim[k]);
        if (v[2].i[0] != t->dim[k]) x->out.name[k] = 0;
        x->out.dim[k] = v[2].i[0];
        break;
    }
    case OP_pad: {
        int k = axis(x, 0, t, false);
        x->out = *t;
        if (v[1].i[0] < 0 || v[2].i[0] < 0 || v[1].i[0] > INT32_MAX || v[2].i[0] > INT32_MAX) FAIL(x, SN_SHAPE, "pad: sizes must be 0 to 2^31");
        if (v[1].i[0] + v[2].i[0]) x->out.name[k] = 0;
        x->out.dim[k] += v[1].i[0] + v[2].i[0];
        break;
    }
    case OP_concat: infer_concat(x); break;
    default: SN_ASSERT(false, "no inference for %s", x->op->cname);
    }
}

static void infer_matmul(Infer *x)
{
    const Type *a = x->in[0], *b = x->in[1];
    bool ta = x->a->v[0].i[0], tb = x->a->v[1].i[0];
    int r = a->rank;
    x->a->v[0].i[0] = ta, x->a->v[1].i[0] = tb;
    const char *op = x->op->cname;
    if (r < 2 || b->rank != r) FAIL(x, SN_SHAPE, "%s: operands are %s and %s; both need the same rank, at least 2", op, SHAPE(x, a), SHAPE(x, b));
    if (a->dtype != b->dtype || !snG_is_float((Dtype)a->dtype))
        FAIL(x, SN_TYPE, "%s: operands are %s and %s; both must be of one float dtype", op, SHAPE(x, a), SHAPE(x, b));
    if (x->id == OP_matmul_some && (x->in[2]->rank || x->in[2]->dtype != SN_I32))
        FAIL(x, SN_TYPE, "%s: the count is %s; it must be i32[]", op, SHAPE(x, x->in[2]));
    if (x->id == OP_matmul_some) x->a->v[2].i[0] = x->a->v[2].i[0] != 0;
    for (int i = 0; i < r - 2; i++)
        if (a->dim[i] != b->dim[i]) FAIL(x, SN_SHAPE, "%s: batch axes of %s and %s differ", op, SHAPE(x, a), SHAPE(x, b));
    int64_t ka = a->dim[ta ? r - 2 : r - 1], kb = b->dim[tb ? r - 1 : r - 2];
    if (ka != kb) FAIL(x, SN_SHAPE, "%s: %s%s times %s%s: inner sizes %lld and %lld", op, SHAPE(x, a), ta ? " transposed" : "", SHAPE(x, b),
                       tb ? " transposed" : "", (long long)ka, (long long)kb);
    AttrVal *to = &x->a->v[x->op->nattr - 1];
    if (to->i[0] && !snG_is_float((Dtype)to->i[0])) FAIL(x, SN_TYPE, "%s: the result is %s; it must be a float", op, snG_dtype_name((Dtype)to->i[0]));
    if (to->i[0] == a->dtype) to->i[0] = 0;                    /* one spelling */
    x->out = *a;
    x->out.dtype = (uint8_t)(to->i[0] ? to->i[0] : a->dtype);
    x->out.dim[r - 2] = a->dim[ta ? r - 1 : r - 2], x->out.name[r - 2] = a->name[ta ? r - 1 : r - 2];
    x->out.dim[r - 1] = b->dim[tb ? r - 2 : r - 1], x->out.name[r - 1] = b->name[tb ? r - 2 : r - 1];
}

static void infer_gather(Infer *x)
{
    const Type *t = x->in[0], *i = x->in[1];
    if (i->dtype != SN_I32) FAIL(x, SN_TYPE, "%s: the index is %s; it must be i32", x->op->cname, SHAPE(x, i));
    if (t->rank < 1 || i->rank + t->rank - 1 > MAX_RANK) FAIL(x, SN_SHAPE, "%s: rows of %s by %s", x->op->cname, SHAPE(x, t), SHAPE(x, i));
    Type rows = { .dtype = t->dtype };
    for (int k = 0; k < i->rank; k++) rows.dim[rows.rank] = i->dim[k], rows.name[rows.rank++] = i->name[k];
    for (int k = 1; k < t->rank; k++) rows.dim[rows.rank] = t->dim[k], rows.name[rows.rank++] = t->name[k];
    x->out = x->id == OP_gather ? rows : *t;
    if (x->id == OP_scatter_add && (!snG_same_shape(&rows, x->in[2]) || x->in[2]->dtype != t->dtype))
        FAIL(x, SN_SHAPE, "scatter_add: rows to add are %s; %s are needed", SHAPE(x, x->in[2]), SHAPE(x, &rows));
}

static void infer_gen(Infer *x)
{
    AttrVal *v = x->a->v;
    if (x->id == OP_const) {
        x->out = (Type){ .dtype = (uint8_t)v[1].i[0] };
        v[0].f = snG_round((Dtype)x->out.dtype, v[0].f);
        return;
    }
    x->out = (Type){ .dtype = x->id == OP_iota ? SN_I32 : SN_F32 };
    for (int i = 0; i < v[0].n; i++) if (v[0].i[i] < 1) FAIL(x, SN_SHAPE, "%s: size %lld of axis %d", x->op->cname, (long long)v[0].i[i], i);
    set_shape(x, &v[0]);
    if (x->id == OP_iota) axis(x, 1, &x->out, false);
    if (x->id == OP_random) v[1].i[0] &= 0x7fffffff;
    if (x->id == OP_random && x->nin &&
        (x->in[0]->dtype != SN_I32 || x->in[0]->rank != 1 || !x->out.rank || x->in[0]->dim[0] != x->out.dim[0]))
        FAIL(x, SN_SHAPE, "random: the key is %s; i32[%lld], one per row, is needed", SHAPE(x, x->in[0]), (long long)(x->out.rank ? x->out.dim[0] : 1));
}

static void infer_part(Infer *x)
{
    FAIL(x, SN_TYPE, "part: the operand has one result; part(x, i) is for ops with several, as topk");
}

static void resolve_attrs(Infer *x)
{
    for (int i = 0; i < x->op->nattr; i++) {
        AttrVal *v = &x->a->v[i];
        const char *name = snU_str(x->g->ctx, x->op->attr_name[i]);
        if (v->kind == A_NONE) {
            if (!x->op->attr_has_default[i]) FAIL(x, SN_USAGE, "%s: attribute %s is missing", x->op->cname, name);
            *v = x->op->attr_default[i];
            v->kind = x->op->attr_kind[i];
        }
        if (x->op->attr_kind[i] == A_LIST && v->kind == A_INT) v->kind = A_LIST, v->n = 1;
        if (x->op->attr_kind[i] == A_FLOAT && v->kind == A_INT) { double f = (double)v->i[0]; *v = (AttrVal){ .kind = A_FLOAT, .f = f }; }
        bool unset = v->kind == A_DTYPE && x->op->attr_has_default[i] && !v->i[0];
        if (v->kind == A_DTYPE && !unset && (v->i[0] < SN_F32 || v->i[0] >= SN_NDTYPES)) FAIL(x, SN_TYPE, "%s: attribute %s is no dtype", x->op->cname, name);
        if (v->kind != x->op->attr_kind[i]) FAIL(x, SN_TYPE, "%s: attribute %s has the wrong kind", x->op->cname, name);
    }
}

static void check_size(Infer *x)
{
    int64_t n = 1;
    for (int i = 0; i < x->out.rank; i++)
        if (x->out.dim[i] < 1 || __builtin_mul_overflow(n, x->out.dim[i], &n) || n > (int64_t)1 << 40)
            FAIL(x, SN_SHAPE, "%s: the result %s is too large", x->op->cname, SHAPE(x, &x->out));
}

Type snG_infer(Graph *g, Here at, unsigned op, const NodeId *in, unsigned nin, Attrs *a)
{
    Infer x;
    x.g = g, x.at = at, x.op = snG_op(g->ctx, op), x.id = op, x.nin = nin, x.a = a;
    memset(&x.out, 0, sizeof x.out);
    if (nin > MAX_IN) FAIL(&x, SN_USAGE, "%s: %u operands; at most %d", x.op->cname, nin, MAX_IN);
    if (x.op->flags & F_VARIADIC ? nin < x.op->nin || (op == OP_random && nin > 1) : nin != x.op->nin)
        FAIL(&x, SN_USAGE, "%s: %u operands given, it takes %u", x.op->cname, nin, x.op->nin);
    for (unsigned i = 0; i < nin; i++) {
        SN_ASSERT(in[i] && in[i] < g->nodes.n, "operand %u of %s", i, x.op->cname);
        x.in[i] = snG_type(g, in[i]);
    }
    resolve_attrs(&x);
    switch (x.op->cls) {
    case C_EWISE: infer_ewise(&x); break;
    case C_REDUCE: infer_reduce(&x); break;
    case C_SCAN: infer_scan(&x); break;
    case C_MOVE:
        if (op != OP_part) { infer_move(&x); break; }
        if (!(snG_op(g->ctx, snG_node(g, in[0])->op)->flags & F_MULTI)) infer_part(&x);
        if (a->v[0].i[0] < 0 || a->v[0].i[0] > 1) FAIL(&x, SN_USAGE, "part: topk has results 0 and 1, not %lld", (long long)a->v[0].i[0]);
        x.out = *x.in[0];
        if (a->v[0].i[0] == 1) x.out.dtype = SN_I32;
        break;
    case C_CONTRACT: infer_matmul(&x); break;
    case C_GATHER: infer_gather(&x); break;
    case C_GEN: infer_gen(&x); break;
    case C_COMPOSITE: {
        const Graph *body = snG_body(g->ctx, op, x.in, nin, x.op->nattr ? snG_intern_attrs(g->ctx, a) : 0, at.loc);
        x.out = *snG_type(body, body->outputs.v[0].node);
        break;
    }
    default: FAIL(&x, SN_USAGE, "%s is declared, not called", x.op->cname);
    }
    check_size(&x);
    return x.out;
}

/* -- The op reference -------------------------------------------------------------------------------------------- */

void snG_print_ops(StrBuf *b, const sn_ctx *c)
{
    static const char *const cls[] = { "leaf", "elementwise", "reduction", "move", "contraction", "gather", "generator", "scan", "composite" };
    int last = -1;
    for (unsigned i = 1; i < snG_num_ops(c); i++) {
        const OpInfo *op = snG_op(c, i);
        StrBuf sig = { 0 };
        if (op->cls != last) snU_putf(b, "%s# %s\n", last < 0 ? "" : "\n", cls[op->cls]), last = op->cls;
        snU_putf(&sig, "%s(", snU_str(c, op->name));
        unsigned nin = op->nin ? op->nin : op->in_name[0] != 0;
        for (unsigned k = 0; k < nin; k++)
            snU_putf(&sig, "%s%s%s", k ? ", " : "", snU_str(c, op->in_name[k]), op->flags & F_VARIADIC && k + 1 == nin ? "..." : "");
        for (int k = 0; k < op->nattr; k++) {
            char num[40];
            snU_putf(&sig, "%s%s", k || nin ? ", " : "", snU_str(c, op->attr_name[k]));
            const AttrVal *d = &op->attr_default[k];
            if (!op->attr_has_default[k]) continue;
            if (d->kind == A_INT) snU_putf(&sig, "=%lld", (long long)d->i[0]);
            else if (d->kind == A_FLOAT) snU_putf(&sig, "=%s", snU_num(num, d->f, false));
            else if (d->kind == A_LIST) snU_puts(&sig, "=[]");
        }
        snU_puts(&sig, ")");
        snU_putf(b, "%-44s %s\n", sig.s, op->doc ? op->doc : "");
        snU_free_buf(&sig);
    }
}
