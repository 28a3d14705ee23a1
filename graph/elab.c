/* elab.c: expressions: tokens -> compile-time values, or nodes of the graph under construction.

   In:  an Elab at the first token of an expression. Out: its Val. Compile-time scalars and lists fold while parsing; the first
   operand that is a node turns an operator into a node; literals take the dtype of the tensor they meet. `c ? a : b` parses only
   the branch that is chosen. Precedence, lowest first: ?:  or  and  not  == != < <= > >=  + -  * / % @  unary -  [i].

     D = width / heads                       # 192 / 4: compile time
     s = matmul(q, k, tb=1) / sqrt(D)        # sqrt(48) folds, then div(matmul, const f32)

   Calls are in call.c; statements and block bodies in parse.c. */
#include <math.h>
#include "graph/parse.h"

enum { MAX_DEPTH = 200, MAX_LIST = 4096 };
static const uint64_t MAX_STEPS = 50000000;

/* -- Errors and small helpers ------------------------------------------------------------------------- */

Here snG_here(Elab *e) {
    Loc loc = e->fixed ? e->fixed : snU_loc(e->c, e->src->file, e->t->line, e->path, e->from);
    return (Here){ loc, e->path };
}

_Noreturn void snG_syntax(Elab *e, const char *wanted) {
    const Tok *t = e->t;
    int n = (int)(t->end - t->pos);
    if (t->kind <= T_NL)
        snU_fail(e->c, SN_PARSE, snG_here(e).loc, "%s expected before %s", wanted, snG_tok_name(t->kind));
    snU_fail(e->c, SN_PARSE, snG_here(e).loc, "%s expected, not \"%.*s\"", wanted, n > 40 ? 40 : n, e->src->text + t->pos);
}

bool snG_accept(Elab *e, int kind) {
    if (e->t->kind != kind) return false;
    e->t++;
    return true;
}

void snG_take(Elab *e, int kind) {
    if (!snG_accept(e, kind)) snG_syntax(e, snG_tok_name(kind));
}

Sym snG_take_name(Elab *e, const char *what) {
    if (e->t->kind != T_NAME) snG_syntax(e, what);
    return (e->t++)->s;
}

static bool word(const Elab *e, Sym w) { return e->t->kind == T_NAME && e->t->s == w; }

const char *snG_kind_name(const Val *v) {
    static const char *const NAMES[] = { "nothing", "an integer", "a float", "a bool", "a string", "a dtype", "a list", "a tensor" };
    return NAMES[v->kind];
}

Dtype snG_word_dtype(Sym s) {
    switch (s) {
    case W_f32: return SN_F32;
    case W_bf16: return SN_BF16;
    case W_f16: return SN_F16;
    case W_i32: return SN_I32;
    case W_u32: return SN_U32;
    case W_bool: return SN_BOOL;
    case W_f64: return SN_F64;
    default: return 0;
    }
}

static Val int_val(int64_t i) { return (Val){ .kind = V_INT, .i = i }; }
static Val float_val(double f) { return (Val){ .kind = V_FLOAT, .f = f }; }
static Val bool_val(bool b) { return (Val){ .kind = V_BOOL, .i = b }; }
static Val node_val(NodeId n) { return (Val){ .kind = V_NODE, .node = n }; }
static bool integral(const Val *v) { return v->kind == V_INT || v->kind == V_BOOL; }
static bool numeric(const Val *v) { return integral(v) || v->kind == V_FLOAT; }
static double number(const Val *v) { return v->kind == V_FLOAT ? v->f : (double)v->i; }

/* -- Names ------------------------------------------------------------------------------------------------ */

void snG_elab_begin(Elab *e, sn_ctx *c, Graph *g, Names *names) {
    *e = (Elab){ .c = c, .f = c->front, .g = g, .names = names };
    e->gen = ++e->f->gen;
    e->base = e->frame = e->f->binds.n;
    e->own.arena = &c->scratch;
    e->instances = &e->own;
}

static void pop_bindings(Front *f, uint32_t n) {
    while (f->binds.n > n) {
        const Binding *b = &f->binds.v[--f->binds.n];
        f->top[b->name] = (TopBinding){ b->below_gen, b->below };
    }
}

void snG_elab_end(Elab *e) { pop_bindings(e->f, e->base); }

void snG_enter_frame(Elab *e, uint32_t *saved) {
    *saved = e->frame;
    e->frame = e->f->binds.n;
}

void snG_leave_frame(Elab *e, uint32_t saved) {
    pop_bindings(e->f, e->frame);
    e->frame = saved;
}

void snG_assign(Elab *e, Sym name, Val v) {
    Front *f = e->f;
    if (name >= f->ntop) {
        uint32_t n = e->c->syms.n * 2;
        f->top = snU_grow(&e->c->arena, f->top, sizeof *f->top * f->ntop, sizeof *f->top * n);
        f->ntop = n;
    }
    TopBinding *top = &f->top[name];
    if (top->gen == e->gen && top->index >= e->frame) {
        f->binds.v[top->index].val = v;
        return;
    }
    PUSH(&e->c->arena, f->binds, ((Binding){ name, top->index, top->gen, v }));
    *top = (TopBinding){ e->gen, f->binds.n - 1 };
}

/* A leaf of this graph by its full name, or by its last part when only one leaf has it. */
static const Val *find_leaf(Elab *e, Sym name) {
    if (!e->g) return NULL;
    const char *s = snU_str(e->c, name);
    size_t n = strlen(s);
    NodeId found = 0;
    e->steps += e->g->leaves.n / 4;
    for (uint32_t i = 0; i < e->g->leaves.n; i++) {
        const Leaf *l = &e->g->leaves.v[i];
        const char *full = snU_str(e->c, l->name);
        size_t m = strlen(full);
        if (l->name == name) { found = l->node; break; }
        if (m <= n || full[m - n - 1] != '.' || memcmp(full + m - n, s, n) != 0) continue;
        if (found)
            snU_fail(e->c, SN_UNKNOWN, snG_here(e).loc, "%s may be %s or %s; write the full name", s, full,
                     snU_str(e->c, snG_leaf(e->g, found)->name));
        found = l->node;
    }
    if (!found) return NULL;
    e->leaf_val = node_val(found);
    return &e->leaf_val;
}

const Val *snG_lookup(Elab *e, Sym name) {
    const Front *f = e->f;
    if (name < f->ntop && f->top[name].gen == e->gen && f->top[name].index >= e->frame)
        return &f->binds.v[f->top[name].index].val;
    for (int i = 0; i < e->nown; i++)
        if (e->own_dims[i].name == name) {
            e->leaf_val = (Val){ .kind = V_INT, .dim = name, .i = e->own_dims[i].value };
            return &e->leaf_val;
        }
    for (const Names *n = e->names; n; n = n->outer) {
        uint32_t i = snU_find(&n->val_of, (uint64_t)name + 1);
        if (i) return &n->vals.v[i - 1].val;
    }
    return find_leaf(e, name);
}

/* -- Values to nodes --------------------------------------------------------------------------------------- */

Dtype snG_literal_dtype(const OpInfo *op, Dtype follow, bool is_float) {
    if (op && op->cls != C_EWISE && op->cls != C_COMPOSITE) follow = 0;
    if (!follow) return is_float ? SN_F32 : SN_I32;
    if (!is_float) return follow == SN_BOOL ? SN_I32 : follow;
    if (snG_is_float(follow)) return follow;
    return op && op->cls == C_COMPOSITE ? SN_F32 : 0;
}

NodeId snG_literal(Elab *e, const OpInfo *op, Val v, Dtype follow) {
    sn_ctx *c = e->c;
    if (v.kind == V_NODE) return v.node;
    if (!e->g) snU_fail(c, SN_TYPE, snG_here(e).loc, "tensors belong in a graph; this must be a compile-time value");
    if (v.kind == V_BOOL) return snG_const(e->g, snG_here(e), SN_BOOL, (double)v.i);
    if (v.kind != V_INT && v.kind != V_FLOAT)
        snU_fail(c, SN_TYPE, snG_here(e).loc, "a tensor expected, not %s", snG_kind_name(&v));
    Dtype d = snG_literal_dtype(op, follow, v.kind == V_FLOAT);
    char buf[40];
    if (!d) snU_fail(c, SN_TYPE, snG_here(e).loc, "the float %s meets a tensor of %s; cast one of them", snU_num(buf, v.f, false), snG_dtype_name(follow));
    if ((d == SN_I32 && (v.i < INT32_MIN || v.i > INT32_MAX)) || (d == SN_U32 && (v.i < 0 || v.i > UINT32_MAX)))
        snU_fail(c, SN_TYPE, snG_here(e).loc, "%lld does not fit into %s", (long long)v.i, snG_dtype_name(d));
    return snG_const(e->g, snG_here(e), d, number(&v));
}

NodeId snG_to_node(Elab *e, Val v, Dtype follow) { return snG_literal(e, NULL, v, follow); }

NodeId snG_need_node(Elab *e) {
    return snG_to_node(e, snG_expression(e), 0);
}

int64_t snG_need_int(Elab *e, const char *what) {
    Val v = snG_expression(e);
    if (!integral(&v)) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "%s must be a compile-time integer, not %s", what, snG_kind_name(&v));
    return v.i;
}

double snG_need_number(Elab *e, const char *what) {
    Val v = snG_expression(e);
    if (!numeric(&v)) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "%s must be a compile-time number, not %s", what, snG_kind_name(&v));
    return number(&v);
}

bool snG_truth(Elab *e, Val v) {
    switch (v.kind) {
    case V_INT: case V_BOOL: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    case V_STRING: return v.s != 0;
    case V_LIST: return v.n != 0;
    case V_NODE:
        snU_fail(e->c, SN_TYPE, snG_here(e).loc, "this condition is a tensor; ?: decides at compile time, use select(c, a, b)");
    default: snU_fail(e->c, SN_TYPE, snG_here(e).loc, "%s is no condition", snG_kind_name(&v));
    }
}

/* The dtype that literals among these operands take: of the first tensor that is not itself a constant, else of a constant. Among
   themselves they meet as numbers do: f32 where one is a float. */
static Dtype follow_dtype(Elab *e, unsigned op, const Val *v, unsigned n) {
    Dtype constant = 0, number = 0;
    if (op == OP_fence) return 0;
    for (unsigned i = op == OP_select; i < n; i++) {
        if (v[i].kind == V_FLOAT) number = SN_F32;
        if (v[i].kind != V_NODE) continue;
        Dtype d = (Dtype)snG_type(e->g, v[i].node)->dtype;
        if (snG_node(e->g, v[i].node)->op != OP_const) return d;
        if (!constant) constant = d;
    }
    return constant ? constant : number;
}

void snG_operands(Elab *e, unsigned op, const Val *v, unsigned n, NodeId *in) {
    Dtype follow = follow_dtype(e, op, v, n);
    const OpInfo *info = snG_op(e->c, op);
    for (unsigned i = 0; i < n; i++) in[i] = snG_literal(e, info, v[i], op == OP_select && i == 0 ? 0 : follow);
}

static Val ewise(Elab *e, unsigned op, const Val *v, unsigned n) {
    NodeId in[3];
    snG_operands(e, op, v, n, in);
    return node_val(snG_ewise(e->g, snG_here(e), op, in, n));
}

/* -- Operators on compile-time values ------------------------------------------------------------------------- */

static _Noreturn void no_operator(Elab *e, const char *op, const Val *a, const Val *b) {
    snU_fail(e->c, SN_TYPE, snG_here(e).loc, "no %s of %s and %s", op, snG_kind_name(a), snG_kind_name(b));
}

static Val int_arith(Elab *e, int kind, int64_t a, int64_t b) {
    int64_t r = 0;
    bool over = false;
    if ((kind == T_SLASH || kind == T_PERCENT) && b == 0) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "%lld is divided by zero", (long long)a);
    if ((kind == T_SLASH || kind == T_PERCENT) && b == -1) { kind = kind == T_SLASH ? T_STAR : kind; if (kind == T_PERCENT) return int_val(0); }
    switch (kind) {
    case T_PLUS: over = __builtin_add_overflow(a, b, &r); break;
    case T_MINUS: over = __builtin_sub_overflow(a, b, &r); break;
    case T_STAR: over = __builtin_mul_overflow(a, b, &r); break;
    case T_PERCENT: r = a % b; break;
    default:
        if (a % b) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "%lld / %lld is not an integer", (long long)a, (long long)b);
        r = a / b;
    }
    if (over) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "this integer overflows 64 bits");
    return int_val(r);
}

static Val join_lists(Elab *e, const Val *a, const Val *b) {
    if (a->n + b->n > MAX_LIST) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "a list has at most %d elements", MAX_LIST);
    Val r = { .kind = V_LIST, .n = a->n + b->n };
    r.list = NEWN(&e->c->scratch, Val, r.n + 1);
    if (a->n) memcpy(r.list, a->list, sizeof(Val) * a->n);
    if (b->n) memcpy(r.list + a->n, b->list, sizeof(Val) * b->n);
    return r;
}

static Val arith(Elab *e, int kind, const Val *a, const Val *b) {
    const char *name = snG_tok_name(kind);
    if (kind == T_PLUS && a->kind == V_LIST && b->kind == V_LIST) return join_lists(e, a, b);
    if (!numeric(a) || !numeric(b)) no_operator(e, name, a, b);
    if (integral(a) && integral(b)) return int_arith(e, kind, a->i, b->i);
    double x = number(a), y = number(b);
    switch (kind) {
    case T_PLUS: return float_val(x + y);
    case T_MINUS: return float_val(x - y);
    case T_STAR: return float_val(x * y);
    case T_SLASH: return float_val(x / y);
    default: return float_val(fmod(x, y));
    }
}

static bool equal(const Val *a, const Val *b) {
    if (numeric(a) && numeric(b)) return integral(a) && integral(b) ? a->i == b->i : number(a) == number(b);
    if (a->kind != b->kind) return false;
    if (a->kind == V_STRING) return a->s == b->s;
    if (a->kind == V_DTYPE) return a->i == b->i;
    if (a->kind != V_LIST || a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->list[i].kind == V_LIST || !equal(&a->list[i], &b->list[i])) return false;
    return true;
}

static Val compare(Elab *e, int kind, const Val *a, const Val *b) {
    if (kind == T_EQ) return bool_val(equal(a, b));
    if (kind == T_NE) return bool_val(!equal(a, b));
    if (!numeric(a) || !numeric(b)) no_operator(e, snG_tok_name(kind), a, b);
    double x = number(a), y = number(b);
    if (integral(a) && integral(b)) x = a->i < b->i ? -1 : a->i > b->i, y = 0;
    switch (kind) {
    case T_LT: return bool_val(x < y);
    case T_LE: return bool_val(x <= y);
    case T_GT: return bool_val(x > y);
    default: return bool_val(x >= y);
    }
}

/* -- The grammar ------------------------------------------------------------------------------------------------ */

static Val parse_unary(Elab *e);

static Val matmul(Elab *e, const Val *a, const Val *b) {
    if (a->kind != V_NODE || b->kind != V_NODE) no_operator(e, "matrix product", a, b);
    return node_val(snG_matmul(e->g, snG_here(e), a->node, b->node, false, false, 0));
}

static Val binary(Elab *e, int kind, const Val *a, const Val *b) {
    static const uint16_t OPS[] = {
        [T_PLUS] = OP_add, [T_MINUS] = OP_sub, [T_STAR] = OP_mul, [T_SLASH] = OP_div, [T_PERCENT] = OP_rem,
        [T_EQ] = OP_eq, [T_NE] = OP_ne, [T_LT] = OP_lt, [T_LE] = OP_le, [T_GT] = OP_gt, [T_GE] = OP_ge,
    };
    if (kind == T_AT) return matmul(e, a, b);
    if (a->kind == V_NODE || b->kind == V_NODE) return ewise(e, OPS[kind], (Val[]){ *a, *b }, 2);
    return kind >= T_EQ ? compare(e, kind, a, b) : arith(e, kind, a, b);
}

static Val parse_product(Elab *e) {
    Val a = parse_unary(e);
    while (e->t->kind == T_STAR || e->t->kind == T_SLASH || e->t->kind == T_PERCENT || e->t->kind == T_AT) {
        int kind = (e->t++)->kind;
        Val b = parse_unary(e);
        a = binary(e, kind, &a, &b);
    }
    return a;
}

static Val parse_sum(Elab *e) {
    Val a = parse_product(e);
    while (e->t->kind == T_PLUS || e->t->kind == T_MINUS) {
        int kind = (e->t++)->kind;
        Val b = parse_product(e);
        a = binary(e, kind, &a, &b);
    }
    return a;
}

static Val parse_comparison(Elab *e) {
    Val a = parse_sum(e);
    if (e->t->kind < T_EQ || e->t->kind > T_GE) return a;
    int kind = (e->t++)->kind;
    Val b = parse_sum(e);
    if (e->t->kind >= T_EQ && e->t->kind <= T_GE)
        snU_fail(e->c, SN_PARSE, snG_here(e).loc, "comparisons do not chain; join two with and");
    return binary(e, kind, &a, &b);
}

static Val parse_not(Elab *e) {
    int nots = 0;
    while (word(e, W_not)) e->t++, nots++;
    Val a = parse_comparison(e);
    if (!nots) return a;
    if (a.kind != V_NODE) return bool_val(snG_truth(e, a) ^ (nots & 1));
    return nots & 1 ? ewise(e, OP_not, &a, 1) : a;
}

static Val logic(Elab *e, unsigned op, Val a, Val b) {
    if (a.kind == V_NODE || b.kind == V_NODE) {
        if (a.kind == V_INT) a.kind = a.i == 0 || a.i == 1 ? V_BOOL : V_INT;
        if (b.kind == V_INT) b.kind = b.i == 0 || b.i == 1 ? V_BOOL : V_INT;
        return ewise(e, op, (Val[]){ a, b }, 2);
    }
    bool x = snG_truth(e, a), y = snG_truth(e, b);
    return bool_val(op == OP_and ? x && y : x || y);
}

static Val parse_and(Elab *e) {
    Val a = parse_not(e);
    while (word(e, W_and)) {
        e->t++;
        a = logic(e, OP_and, a, parse_not(e));
    }
    return a;
}

static Val parse_or(Elab *e) {
    Val a = parse_and(e);
    while (word(e, W_or)) {
        e->t++;
        a = logic(e, OP_or, a, parse_and(e));
    }
    return a;
}

/* Skips a branch that is not taken: up to the ':' or the end of the expression, whichever closes it. */
void snG_skip_expression(Elab *e) {
    int open = 0, questions = 0;
    if (e->t->kind == T_NL || e->t->kind == T_SEMI || e->t->kind == T_END)
        snU_fail(e->c, SN_PARSE, snG_here(e).loc, "an expression is missing at the end of the line: a line goes on inside ( ) and [ ] only");
    for (;; e->t++) {
        switch (e->t->kind) {
        case T_LPAREN: case T_LBRACK: case T_LBRACE: open++; break;
        case T_RPAREN: case T_RBRACK: case T_RBRACE:
            if (!open--) return;
            break;
        case T_QUESTION: questions += !open; break;
        case T_COLON:
            if (!open && !questions--) return;
            break;
        case T_COMMA: case T_DOTDOT: case T_NOTE:
            if (!open) return;
            break;
        case T_NAME:
            if (!open && e->t->s == W_if) return;
            break;
        case T_NL: case T_SEMI: case T_ARROW: case T_ASSIGN:
            if (!open) return;
            break;
        case T_END: return;
        default: break;
        }
    }
}

Val snG_expression(Elab *e) {
    if (++e->depth > MAX_DEPTH) snU_fail(e->c, SN_PARSE, snG_here(e).loc, "this expression is nested too deep (more than %d levels)", MAX_DEPTH);
    e->f->depth = e->depth;
    Val v = parse_or(e);
    while (snG_accept(e, T_QUESTION)) {
        bool yes = snG_truth(e, v);
        if (!yes) snG_skip_expression(e);
        else v = snG_expression(e);
        snG_take(e, T_COLON);
        if (yes) snG_skip_expression(e);
        else v = parse_or(e);
        if (yes) break;
    }
    e->f->depth = --e->depth;
    return v;
}

/* -- Atoms --------------------------------------------------------------------------------------------------------- */

static Val parse_list(Elab *e) {
    snG_take(e, T_LBRACK);
    uint32_t base = e->f->stack.n, n;
    while (e->t->kind != T_RBRACK) {
        Val v = snG_expression(e);
        PUSH(&e->c->arena, e->f->stack, v);
        PUSH(&e->c->arena, e->f->stack_names, 0);
        if (e->f->stack.n - base > MAX_LIST) snU_fail(e->c, SN_PARSE, snG_here(e).loc, "a list has at most %d elements", MAX_LIST);
        if (!snG_accept(e, T_COMMA)) break;
    }
    snG_take(e, T_RBRACK);
    n = e->f->stack.n - base;
    Val list = { .kind = V_LIST, .n = n };
    list.list = NEWN(&e->c->scratch, Val, n + 1);
    if (n) memcpy(list.list, &e->f->stack.v[base], sizeof(Val) * n);
    e->f->stack.n = e->f->stack_names.n = base;
    return list;
}

static Val parse_index(Elab *e, Val v) {
    if (v.kind == V_NODE) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "[ ] indexes compile-time lists; use slice or gather on a tensor");
    if (v.kind != V_LIST) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "%s cannot be indexed", snG_kind_name(&v));
    snG_take(e, T_LBRACK);
    int64_t i = snG_need_int(e, "an index"), k = i < 0 ? i + v.n : i;
    if (k < 0 || k >= v.n) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "index %lld in a list of %u", (long long)i, v.n);
    snG_take(e, T_RBRACK);
    return v.list[k];
}

static Val parse_word(Elab *e) {
    Sym s = e->t->s;
    if (e->t[1].kind == T_LPAREN) return snG_call_expr(e);
    const Val *v = snG_lookup(e, s);
    if (v) {
        e->t++;
        return *v;
    }
    Dtype d = snG_word_dtype(s);
    if (!d && s != W_true && s != W_false && s != W_inf && s != W_nan)
        snU_fail(e->c, SN_UNKNOWN, snG_here(e).loc, "%s is not known here", snU_str(e->c, s));
    e->t++;
    if (d) return (Val){ .kind = V_DTYPE, .i = d };
    return s == W_inf ? float_val(INFINITY) : s == W_nan ? float_val(NAN) : bool_val(s == W_true);
}

static Val parse_atom(Elab *e) {
    if (++e->steps > MAX_STEPS) snU_fail(e->c, SN_PARSE, snG_here(e).loc, "this takes too long to elaborate: loops or blocks multiply");
    const Tok *t = e->t;
    switch (t->kind) {
    case T_INT: e->t++; return int_val(t->i);
    case T_FLOAT: e->t++; return float_val(t->f);
    case T_STRING: e->t++; return (Val){ .kind = V_STRING, .s = t->s };
    case T_LBRACK: return parse_list(e);
    case T_NAME: return parse_word(e);
    case T_LPAREN: {
        e->t++;
        Val v = snG_expression(e);
        snG_take(e, T_RPAREN);
        return v;
    }
    default: snG_syntax(e, "a value");
    }
}

static Val parse_unary(Elab *e) {
    int minus = 0;
    while (snG_accept(e, T_MINUS)) minus++;
    Val v = parse_atom(e);
    while (e->t->kind == T_LBRACK && v.kind == V_LIST) v = parse_index(e, v);
    if (e->t->kind == T_LBRACK) parse_index(e, v);
    if (!(minus & 1)) return v;
    if (v.kind == V_NODE) return ewise(e, OP_neg, &v, 1);
    if (v.kind == V_FLOAT) return float_val(-v.f);
    if (!integral(&v)) snU_fail(e->c, SN_TYPE, snG_here(e).loc, "no minus of %s", snG_kind_name(&v));
    return int_arith(e, T_MINUS, 0, v.i);
}

/* -- Types -------------------------------------------------------------------------------------------------------- */

Type snG_parse_type(Elab *e) {
    static const int64_t MAX_ELEMENTS = (int64_t)1 << 46;
    Type ty = { .dtype = e->t->kind == T_NAME ? (uint8_t)snG_word_dtype(e->t->s) : 0 };
    if (!ty.dtype) snG_syntax(e, "a type such as f32[B, T]");
    e->t++;
    snG_take(e, T_LBRACK);
    int64_t count = 1;
    while (e->t->kind != T_RBRACK) {
        if (ty.rank == MAX_RANK) snU_fail(e->c, SN_SHAPE, snG_here(e).loc, "a tensor has at most %d axes", MAX_RANK);
        Val v = snG_expression(e);
        if (v.kind != V_INT) snU_fail(e->c, SN_SHAPE, snG_here(e).loc, "a dimension must be a compile-time integer, not %s", snG_kind_name(&v));
        if (v.i <= 0 || v.i > MAX_ELEMENTS) snU_fail(e->c, SN_SHAPE, snG_here(e).loc, "a dimension cannot be %lld", (long long)v.i);
        ty.dim[ty.rank] = v.i;
        ty.name[ty.rank++] = v.dim;
        if (__builtin_mul_overflow(count, v.i, &count) || count > MAX_ELEMENTS)
            snU_fail(e->c, SN_SHAPE, snG_here(e).loc, "this tensor has too many elements");
        if (!snG_accept(e, T_COMMA)) break;
    }
    snG_take(e, T_RBRACK);
    return ty;
}

/* Gives a node's type the dim names of an equal type that was written. */
void snG_name_dims(Elab *e, NodeId id, const Type *named) {
    Type ty = *snG_type(e->g, id);
    memcpy(ty.name, named->name, sizeof ty.name);
    e->g->nodes.v[id].type = snG_intern_type(e->c, &ty);
}
