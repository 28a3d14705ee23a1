/* call.c: calls: blocks, ops of the table, compile-time functions.

   In:  an Elab at NAME "(". Out: the Val. Looked up in this order: blocks and ops of the module and of std.sn,
   the functions of FUNCTIONS below, the op table. Positional arguments are operands first, then attributes in table order;
   name=value works for either.

     sum(x, 1)      matmul(q, k, tb=1)      cast(x, f32)      q, k, v = split(x, 1, 3)      norm(x) as n1 */
#include <math.h>
#include "graph/parse.h"

/* The arguments of one call; they live on the front end's stack until the call returns. */
typedef struct Args {
    Elab *e;
    Sym callee;
    uint32_t base, n;
} Args;

static const Val *arg(const Args *a, uint32_t i) { return &a->e->f->stack.v[a->base + i]; }
static Sym arg_name(const Args *a, uint32_t i) { return a->e->f->stack_names.v[a->base + i]; }

#define FAIL(a, code, ...) snU_fail((a)->e->c, SN_##code, snG_here((a)->e).loc, __VA_ARGS__)
static const char *callee(const Args *a) { return snU_str(a->e->c, a->callee); }

static Val node_val(NodeId n) { return (Val){ .kind = V_NODE, .node = n }; }
static Val int_val(int64_t i) { return (Val){ .kind = V_INT, .i = i }; }
static bool integral(const Val *v) { return v->kind == V_INT || v->kind == V_BOOL; }

uint32_t snG_arguments(Elab *e) {
    uint32_t n = 0;
    while (e->t->kind != T_RPAREN) {
        Sym name = 0;
        if (e->t->kind == T_NAME && e->t[1].kind == T_ASSIGN) {
            name = e->t->s;
            e->t += 2;
        }
        Val v = snG_expression(e);
        if (v.kind == V_NONE) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "an argument has no value: a block without return");
        PUSH(&e->c->arena, e->f->stack, v);
        PUSH(&e->c->arena, e->f->stack_names, name);
        if (++n > 4096) snU_fail(e->c, SN_PARSE, snG_here(e).loc, "too many arguments");
        if (!snG_accept(e, T_COMMA)) break;
    }
    snG_take(e, T_RPAREN);
    return n;
}

/* -- Arguments by formal ------------------------------------------------------------------------------ */

/* Binds the arguments to the names of a builtin, e.g. "x axis n"; those that are missing stay V_NONE. */
static void bind(const Args *a, const char *formals, Val *out, unsigned required) {
    Sym names[MAX_NAMED];
    unsigned nf = 0;
    for (const char *p = formals; *p; ) {
        size_t k = strcspn(p, " ");
        names[nf] = snU_sym(a->e->c, p, k);
        out[nf++] = (Val){0};
        p += k + (p[k] == ' ');
    }
    unsigned next = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        unsigned k = next;
        Sym s = arg_name(a, i);
        if (s) for (k = 0; k < nf && names[k] != s; k++) ;
        else next++;
        if (k >= nf) {
            if (s) FAIL(a, UNKNOWN, "%s has no argument %s; it takes (%s)", callee(a), snU_str(a->e->c, s), formals);
            FAIL(a, PARSE, "too many arguments for %s(%s)", callee(a), formals);
        }
        if (out[k].kind != V_NONE) FAIL(a, PARSE, "%s gets its argument %s twice", callee(a), snU_str(a->e->c, names[k]));
        out[k] = *arg(a, i);
    }
    for (unsigned k = 0; k < required; k++)
        if (out[k].kind == V_NONE) FAIL(a, PARSE, "%s needs its argument %s; it takes (%s)", callee(a), snU_str(a->e->c, names[k]), formals);
}

static NodeId want_node(const Args *a, const Val *v) {
    if (v->kind != V_NODE) FAIL(a, TYPE, "%s needs a tensor here, not %s", callee(a), snG_kind_name(v));
    return v->node;
}

static int64_t want_int(const Args *a, const Val *v, const char *what) {
    if (!integral(v)) FAIL(a, TYPE, "%s: %s must be a compile-time integer, not %s", callee(a), what, snG_kind_name(v));
    return v->i;
}

static int64_t want_axis(const Args *a, const Val *v, int rank) {
    int64_t k = want_int(a, v, "the axis");
    if (k < -rank || k >= rank) FAIL(a, SHAPE, "%s: axis %lld of a tensor with %d axes", callee(a), (long long)k, rank);
    return k < 0 ? k + rank : k;
}

static Dtype want_dtype(const Args *a, const Val *v, Dtype otherwise) {
    if (v->kind == V_NONE) return otherwise;
    if (v->kind != V_DTYPE) FAIL(a, TYPE, "%s needs a dtype such as f32, not %s", callee(a), snG_kind_name(v));
    return (Dtype)v->i;
}

/* A list of extents as a type; -1 takes the extent of `old`, counted from the right. */
static Type want_shape(const Args *a, const Val *v, Dtype d, const Type *old) {
    Type t = { .dtype = (uint8_t)d };
    if (v->kind != V_LIST) FAIL(a, TYPE, "%s needs a shape such as [B, T], not %s", callee(a), snG_kind_name(v));
    if (v->n > MAX_RANK) FAIL(a, SHAPE, "a tensor has at most %d axes", MAX_RANK);
    int64_t count = 1;
    for (uint32_t i = 0; i < v->n; i++) {
        int64_t n = want_int(a, &v->list[i], "an extent");
        int64_t k = old ? (int64_t)i - v->n + old->rank : -1;
        if (n == -1 && k >= 0) n = old->dim[k];
        if (n <= 0 || __builtin_mul_overflow(count, n, &count) || count > (int64_t)1 << 46)
            FAIL(a, SHAPE, "%s: bad extent %lld", callee(a), (long long)n);
        t.dim[i] = n;
        t.name[i] = v->list[i].kind == V_INT ? v->list[i].dim : 0;
    }
    t.rank = (uint8_t)v->n;
    return t;
}

/* -- Ops of the table ------------------------------------------------------------------------------------ */

static AttrVal to_attr(const Args *a, const OpInfo *op, unsigned k, const Val *v) {
    static const char *const KINDS[] = { "", "an integer", "a number", "a list of integers", "a dtype", "a string" };
    AttrVal r = { .kind = op->attr_kind[k] };
    switch (r.kind) {
    case A_INT: if (integral(v)) { r.i[0] = v->i; return r; } break;
    case A_FLOAT:
        if (integral(v)) { r.f = (double)v->i; return r; }
        if (v->kind == V_FLOAT) { r.f = v->f; return r; }
        break;
    case A_DTYPE: if (v->kind == V_DTYPE) { r.i[0] = v->i; return r; } break;
    case A_STR: if (v->kind == V_STRING) { r.s = v->s; return r; } break;
    case A_LIST:
        if (integral(v)) { r.n = 1; r.i[0] = v->i; return r; }
        if (v->kind != V_LIST || v->n > 8) break;
        r.n = (uint8_t)v->n;
        for (uint32_t i = 0; i < v->n; i++) r.i[i] = want_int(a, &v->list[i], snU_str(a->e->c, op->attr_name[k]));
        return r;
    default: break;
    }
    FAIL(a, TYPE, "%s: %s must be %s, not %s", callee(a), snU_str(a->e->c, op->attr_name[k]), KINDS[r.kind], snG_kind_name(v));
}

typedef struct Call { unsigned op; Val in[MAX_IN]; unsigned nin; Attrs attrs; const Val *shape; } Call;

static void add_operand(const Args *a, Call *k, const Val *v) {
    if (v->kind == V_LIST) {
        for (uint32_t i = 0; i < v->n; i++) add_operand(a, k, &v->list[i]);
        return;
    }
    if (k->nin == MAX_IN) FAIL(a, UNSUPPORTED, "%s takes at most %d operands", callee(a), MAX_IN);
    k->in[k->nin++] = *v;
}

static bool is_operand_list(const Val *v) { return v->kind == V_LIST && v->n && v->list[0].kind == V_NODE; }

static int name_index(const Sym *names, unsigned n, Sym s) {
    for (unsigned i = 0; i < n; i++)
        if (names[i] == s) return (int)i;
    return -1;
}

static void set_attr(const Args *a, Call *k, const OpInfo *op, unsigned i, const Val *v) {
    if (i >= op->nattr) FAIL(a, PARSE, "too many arguments for %s", callee(a));
    if (k->attrs.v[i].kind) FAIL(a, PARSE, "%s gets its argument %s twice", callee(a), snU_str(a->e->c, op->attr_name[i]));
    if (op->attr_name[i] == W_shape) k->shape = v;
    k->attrs.v[i] = to_attr(a, op, i, v);
}

static void collect(const Args *a, Call *k) {
    const OpInfo *op = snG_op(a->e->c, k->op);
    bool variadic = op->flags & F_VARIADIC, got[MAX_NAMED] = {0};
    unsigned next = 0, attr = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        const Val *v = arg(a, i);
        Sym s = arg_name(a, i);
        int operand = s ? name_index(op->in_name, MAX_NAMED, s) : -1, at = s ? name_index(op->attr_name, op->nattr, s) : -1;
        if (s && operand < 0 && at < 0) FAIL(a, UNKNOWN, "%s has no argument %s", callee(a), snU_str(a->e->c, s));
        if (at >= 0) set_attr(a, k, op, (unsigned)at, v);
        else if (variadic && (operand >= 0 || (!attr && (v->kind == V_NODE || is_operand_list(v))))) add_operand(a, k, v);
        else if (operand >= 0 || (!variadic && next < op->nin)) {
            unsigned j = operand >= 0 ? (unsigned)operand : next++;
            if (got[j]) FAIL(a, PARSE, "%s gets its operand %s twice", callee(a), snU_str(a->e->c, op->in_name[j]));
            got[j] = true;
            k->in[j] = *v;
        } else set_attr(a, k, op, attr++, v);
    }
    if (variadic) return;
    k->nin = op->nin;
    for (unsigned j = 0; j < op->nin; j++)
        if (!got[j]) FAIL(a, PARSE, "%s needs its operand %s", callee(a), snU_str(a->e->c, op->in_name[j]));
}

static void check_attrs(const Args *a, const Call *k, const OpInfo *op) {
    for (unsigned i = 0; i < op->nattr; i++)
        if (!k->attrs.v[i].kind && !op->attr_has_default[i])
            FAIL(a, PARSE, "%s needs its argument %s", callee(a), snU_str(a->e->c, op->attr_name[i]));
}

/* The stream of a random(...) that names none: equal calls in two places of a model differ. */
int64_t snG_next_stream(sn_ctx *c, Instances *in, Sym path) {
    char text[32];
    snprintf(text, sizeof text, "#%u", snG_path_info(in, path)->draws++);
    const char *s = snU_str(c, path);
    return (int64_t)(snU_hash(text, strlen(text), snU_hash(s, strlen(s), 0)) & 0x7fffffff);
}

static int64_t auto_stream(Elab *e) {
    if (e->in_op)
        snU_fail(e->c, SN_UNSUPPORTED, snG_here(e).loc,
                 "random inside an op needs an explicit stream; or make the op a block");
    return snG_next_stream(e->c, e->instances, e->path);
}

/* Dim names of a written shape go into the type of a node that was just made. */
static void name_shape(const Args *a, NodeId id, const Val *shape) {
    Elab *e = a->e;
    const Type *t = snG_type(e->g, id);
    if (!shape || shape->kind != V_LIST || id != e->g->nodes.n - 1 || shape->n != t->rank) return;
    Type named = *t;
    bool any = false;
    for (uint32_t i = 0; i < shape->n; i++) {
        const Val *v = &shape->list[i];
        named.name[i] = v->kind == V_INT && v->i == t->dim[i] && v->dim ? v->dim : 0;
        any |= named.name[i] != 0;
    }
    if (any) snG_name_dims(e, id, &named);
}

static Val call_op(Args *a, unsigned id) {
    Elab *e = a->e;
    Call k = { .op = id };
    const OpInfo *op = snG_op(e->c, id);
    if (op->cls == C_LEAF) FAIL(a, PARSE, "%s is a declaration, not a function", callee(a));
    if (!e->g) FAIL(a, TYPE, "%s makes a tensor; this must be a compile-time value", callee(a));
    collect(a, &k);
    if (id == OP_random && !k.attrs.v[1].kind) k.attrs.v[1] = (AttrVal){ .kind = A_INT, .i = { auto_stream(e) } };
    check_attrs(a, &k, op);
    NodeId in[MAX_IN];
    if (id == OP_const) return node_val(snG_const(e->g, snG_here(e), (Dtype)k.attrs.v[1].i[0], k.attrs.v[0].f));
    if (id == OP_matmul)
        return node_val(snG_matmul(e->g, snG_here(e), want_node(a, &k.in[0]), want_node(a, &k.in[1]),
                                   k.attrs.v[0].i[0] != 0, k.attrs.v[1].i[0] != 0, (Dtype)k.attrs.v[2].i[0]));
    snG_operands(e, id, k.in, k.nin, in);
    if (op->cls == C_EWISE && !op->nattr) return node_val(snG_ewise(e->g, snG_here(e), id, in, k.nin));
    NodeId out = snG_add(e->g, snG_here(e), id, in, k.nin, op->nattr ? &k.attrs : NULL);
    if (k.shape) name_shape(a, out, k.shape);
    return node_val(out);
}

/* -- Compile-time functions --------------------------------------------------------------------------------- */

static Val fn_shape(Args *a) {
    Val v[1];
    bind(a, "x", v, 1);
    const Type *t = snG_type(a->e->g, want_node(a, &v[0]));
    Val r = { .kind = V_LIST, .n = t->rank };
    r.list = NEWN(&a->e->c->scratch, Val, t->rank + 1);
    for (int i = 0; i < t->rank; i++) r.list[i] = (Val){ .kind = V_INT, .dim = t->name[i], .i = t->dim[i] };
    return r;
}

static Val fn_dimof(Args *a) {
    Val v[2];
    bind(a, "x axis", v, 2);
    const Type *t = snG_type(a->e->g, want_node(a, &v[0]));
    int64_t k = want_axis(a, &v[1], t->rank);
    return (Val){ .kind = V_INT, .dim = t->name[k], .i = t->dim[k] };
}

static Val fn_rank(Args *a) {
    Val v[1];
    bind(a, "x", v, 1);
    return int_val(v[0].kind == V_NODE ? snG_type(a->e->g, v[0].node)->rank : 0);
}

static Val fn_dtypeof(Args *a) {
    Val v[1];
    bind(a, "x", v, 1);
    return (Val){ .kind = V_DTYPE, .i = snG_type(a->e->g, want_node(a, &v[0]))->dtype };
}

static Val fn_count(Args *a) {
    Val v[1];
    bind(a, "x", v, 1);
    return int_val(snG_count(snG_type(a->e->g, want_node(a, &v[0]))));
}

static Val fn_len(Args *a) {
    Val v[1];
    bind(a, "l", v, 1);
    if (v[0].kind != V_LIST) FAIL(a, TYPE, "len needs a list, not %s", snG_kind_name(&v[0]));
    return int_val(v[0].n);
}

static Val fn_is_node(Args *a) {
    Val v[1];
    bind(a, "x", v, 1);
    return (Val){ .kind = V_BOOL, .i = v[0].kind == V_NODE };
}

/* sqrt, log, ... of compile-time numbers; of tensors they are the ops of that name. */
static Val fn_math(Args *a) {
    bool tensor = a->n == 0 || a->n > 2, floats = false;
    double x[2] = {0};
    for (uint32_t i = 0; i < a->n && !tensor; i++) {
        const Val *v = arg(a, i);
        tensor = arg_name(a, i) || (!integral(v) && v->kind != V_FLOAT);
        floats |= v->kind == V_FLOAT;
        x[i] = v->kind == V_FLOAT ? v->f : (double)v->i;
    }
    if (tensor) return call_op(a, snG_find_op(a->e->c, a->callee));
    bool two = a->callee == W_pow || a->callee == W_min || a->callee == W_max;
    if (a->n != 1u + two) FAIL(a, PARSE, "%s needs %d arguments", callee(a), 1 + two);
    double r = 0;
    switch (a->callee) {
    case W_sqrt: r = sqrt(x[0]); break;
    case W_log: r = log(x[0]); break;
    case W_exp: r = exp(x[0]); break;
    case W_pow: r = pow(x[0], x[1]); break;
    case W_abs: if (!floats && arg(a, 0)->i != INT64_MIN) return int_val(llabs(arg(a, 0)->i)); r = fabs(x[0]); break;
    case W_min: case W_max: {
        bool first = a->callee == W_min ? x[0] <= x[1] : x[0] >= x[1];
        if (!floats) return *arg(a, first ? 0 : 1);
        r = first ? x[0] : x[1];
        break;
    }
    default:                                             /* floor, ceil: integers */
        r = a->callee == W_floor ? floor(x[0]) : ceil(x[0]);
        if (!(fabs(r) < 9e18)) FAIL(a, TYPE, "%s of a number that is too large", callee(a));
        return floats ? int_val((int64_t)r) : *arg(a, 0);
    }
    return (Val){ .kind = V_FLOAT, .f = r };
}

static Val fn_inverse(Args *a) {
    Val v[1];
    bind(a, "perm", v, 1);
    if (v[0].kind != V_LIST || v[0].n > 64) FAIL(a, TYPE, "inverse needs a permutation such as [0, 2, 1]");
    Val r = { .kind = V_LIST, .n = v[0].n };
    r.list = NEWN(&a->e->c->scratch, Val, r.n + 1);
    for (uint32_t i = 0; i < r.n; i++) {
        int64_t k = want_axis(a, &v[0].list[i], (int)r.n);
        if (r.list[k].kind) FAIL(a, SHAPE, "inverse: %lld occurs twice", (long long)k);
        r.list[k] = int_val(i);
    }
    return r;
}

static Val fn_split(Args *a) {
    Val v[3];
    bind(a, "x axis n", v, 3);
    Elab *e = a->e;
    NodeId x = want_node(a, &v[0]);
    const Type *t = snG_type(e->g, x);
    int64_t axis = want_axis(a, &v[1], t->rank), n = want_int(a, &v[2], "the number of parts"), d = t->dim[axis];
    if (n <= 0 || n > 4096 || d % n) FAIL(a, SHAPE, "split: an axis of %lld does not split into %lld", (long long)d, (long long)n);
    Val r = { .kind = V_LIST, .n = (uint32_t)n };
    r.list = NEWN(&e->c->scratch, Val, n);
    for (int64_t i = 0; i < n; i++) {
        Attrs at = { .v = { { .kind = A_INT, .i = { axis } }, { .kind = A_INT, .i = { i * (d / n) } }, { .kind = A_INT, .i = { d / n } } } };
        r.list[i] = node_val(snG_add(e->g, snG_here(e), OP_slice, &x, 1, &at));
    }
    return r;
}

/* -- Functions that build nodes --------------------------------------------------------------------------------- */

static Val filled(Args *a, const Val *shape, Val value, Dtype d) {
    Elab *e = a->e;
    Type t = want_shape(a, shape, d, NULL);
    NodeId v = snG_to_node(e, value, d);
    if (d && snG_type(e->g, v)->dtype != d) FAIL(a, TYPE, "%s: the value is not %s", callee(a), snG_dtype_name(d));
    if (snG_type(e->g, v)->rank) FAIL(a, SHAPE, "%s: the value must be a scalar", callee(a));
    t.dtype = snG_type(e->g, v)->dtype;
    NodeId out = snG_broadcast_to(e->g, snG_here(e), v, &t);
    name_shape(a, out, shape);
    return node_val(out);
}

static Val fn_zeros(Args *a) {
    Val v[2];
    bind(a, "shape dtype", v, 1);
    Dtype d = want_dtype(a, &v[1], SN_F32);
    return filled(a, &v[0], (Val){ .kind = d == SN_BOOL ? V_BOOL : V_INT, .i = a->callee == W_ones }, d);
}

static Val fn_full(Args *a) {
    Val v[3];
    bind(a, "shape value dtype", v, 2);
    return filled(a, &v[0], v[1], want_dtype(a, &v[2], 0));
}

/* random(shape, key=sample, stream=5); the flat form has its operand first. */
static Val fn_random(Args *a) { return call_op(a, OP_random); }

static Val fn_expand(Args *a) {
    Val v[2];
    bind(a, "x shape", v, 2);
    Elab *e = a->e;
    NodeId x = snG_to_node(e, v[0], 0);
    const Type old = *snG_type(e->g, x);
    Type t = want_shape(a, &v[1], old.dtype, &old);
    NodeId out = snG_broadcast_to(e->g, snG_here(e), x, &t);
    name_shape(a, out, &v[1]);
    return node_val(out);
}

static Val fn_spread(Args *a) {
    Val v[2];
    bind(a, "x like", v, 2);
    Elab *e = a->e;
    NodeId like = want_node(a, &v[1]);
    NodeId x = snG_to_node(e, v[0], (Dtype)snG_type(e->g, like)->dtype);
    Type t = *snG_type(e->g, like);
    t.dtype = snG_type(e->g, x)->dtype;
    return node_val(snG_broadcast_to(e->g, snG_here(e), x, &t));
}

/* The reverse of spread: sums what broadcasting x to the operand's shape would have repeated. */
static Val fn_sum_to(Args *a) {
    Val v[2];
    bind(a, "x like", v, 2);
    Elab *e = a->e;
    NodeId x = want_node(a, &v[0]);
    const Type from = *snG_type(e->g, x), to = *snG_type(e->g, want_node(a, &v[1]));
    if (to.rank > from.rank) FAIL(a, SHAPE, "sum_to: the tensor has fewer axes than its target");
    Attrs at = { .v[0] = { .kind = A_LIST } };
    AttrVal *axes = &at.v[0], shape = { .kind = A_LIST, .n = to.rank };
    int lead = from.rank - to.rank;
    for (int i = 0; i < from.rank; i++)
        if (from.dim[i] != 1 && (i < lead || to.dim[i - lead] == 1)) axes->i[axes->n++] = i;
    for (int i = 0; i < to.rank; i++) shape.i[i] = to.dim[i];
    if (to.rank == 0 && from.rank) axes->n = 0;
    if (axes->n || (to.rank == 0 && from.rank)) x = snG_add(e->g, snG_here(e), OP_sum, &x, 1, &at);
    if (snG_type(e->g, x)->rank != to.rank) x = snG_add(e->g, snG_here(e), OP_reshape, &x, 1, &(Attrs){ .v[0] = shape });
    return node_val(x);
}

static Val fn_transpose(Args *a) {
    Val v[3];
    bind(a, "x a b", v, 1);
    Elab *e = a->e;
    NodeId x = want_node(a, &v[0]);
    int rank = snG_type(e->g, x)->rank;
    if (rank < 2) FAIL(a, SHAPE, "transpose needs two axes");
    int64_t i = v[1].kind ? want_axis(a, &v[1], rank) : rank - 2, j = v[2].kind ? want_axis(a, &v[2], rank) : rank - 1;
    Attrs at = { .v[0] = { .kind = A_LIST, .n = (uint8_t)rank } };
    for (int k = 0; k < rank; k++) at.v[0].i[k] = k;
    at.v[0].i[i] = j;
    at.v[0].i[j] = i;
    return node_val(snG_add(e->g, snG_here(e), OP_permute, &x, 1, &at));
}

static Val fn_part(Args *a) {
    Val v[2];
    bind(a, "x index", v, 2);
    int64_t i = want_int(a, &v[1], "the index");
    if (i < 0 || i > 16) FAIL(a, SHAPE, "part: no result %lld", (long long)i);
    return node_val(snG_part(a->e->g, snG_here(a->e), want_node(a, &v[0]), (int)i));
}

typedef Val (*Fn)(Args *a);
static Fn find_function(Sym s) {
    switch (s) {
    case W_shape: return fn_shape;
    case W_dimof: return fn_dimof;
    case W_rank: return fn_rank;
    case W_dtypeof: return fn_dtypeof;
    case W_count: return fn_count;
    case W_len: return fn_len;
    case W_is_node: return fn_is_node;
    case W_sqrt: case W_log: case W_exp: case W_pow: case W_min: case W_max: case W_abs: case W_floor: case W_ceil:
        return fn_math;
    case W_inverse: return fn_inverse;
    case W_split: return fn_split;
    case W_zeros: case W_ones: return fn_zeros;
    case W_full: return fn_full;
    case W_random: return fn_random;
    case W_expand: return fn_expand;
    case W_spread: return fn_spread;
    case W_sum_to: return fn_sum_to;
    case W_transpose: return fn_transpose;
    case W_part: return fn_part;
    default: return NULL;
    }
}

/* -- The call -------------------------------------------------------------------------------------------------------- */

/* The call `name` with n arguments on the stack from `base`; `as`: instance name, 0 = the block's. */
Val snG_call_named(Elab *e, Sym name, uint32_t base, uint32_t n, Sym as) {
    Args a = { e, name, base, n };
    const Body *b = snG_find_body(e->names, name);
    if (b && b->kind == BODY_BLOCK) return snG_call_block(e, b, base, n, as);
    if (as) FAIL(&a, PARSE, "only an instance of a block takes a name with as; %s is an op", callee(&a));
    if (b) return call_op(&a, b->op);
    Fn fn = find_function(name);
    if (fn && !e->g && fn != fn_math && fn != fn_inverse && fn != fn_len && fn != fn_is_node)
        FAIL(&a, TYPE, "%s needs a tensor; this must be a compile-time value", callee(&a));
    if (fn) return fn(&a);
    unsigned op = snG_find_op(e->c, name);
    if (!op) FAIL(&a, UNKNOWN, "no block, op or function is named %s", callee(&a));
    return call_op(&a, op);
}

Val snG_call_expr(Elab *e) {
    Sym name = e->t->s;
    const Tok *at = e->t;
    e->t += 2;
    uint32_t base = e->f->stack.n, n = snG_arguments(e);
    Sym as = 0;
    if (e->t->kind == T_NAME && e->t->s == W_as) {
        e->t++;
        as = snG_take_name(e, "the instance's name");
    }
    const Tok *after = e->t;
    e->t = at;                                           /* errors point at the call, not behind it */
    Val v = snG_call_named(e, name, base, n, as);
    e->t = after;
    e->f->stack.n = e->f->stack_names.n = base;
    return v;
}
