/* rewrite.c: text rules. `rule NAME: pattern => replacement [if condition {and condition}]`

   In:  a graph. Out: the graph with every rule applied until none fires: the rules canon.* in the pass canon, all others
   (those of user files too) in recognise.

     rule canon.transposed: matmul(permute(a, $p), b, ta=$s, tb=$t) => matmul(a, b, ta=1 - $s, tb=$t) if swaps($p)

     m: f32[4, 8] = matmul(transposed, b)
   becomes
     m: f32[4, 8] = matmul(a, b, ta=1)

   Patterns are expressions of the model language: calls of ops, infix operators, numbers. A name is a wildcard (the same name twice
   is the same value); $s binds a constant, or an attribute's value in the place of an attribute; attributes that are not written are
   free. Commutative ops match in both orders. The expand of an elementwise operand is looked through, since broadcasting is
   written nowhere. The replacement is ordinary text, elaborated by snG_expr. Ops flagged HEAVY, and composites with one inside,
   match inside a pattern only where the match is their only use. A rule whose name begins with a fusion's (xent.split) is on with it. One sweep builds a new graph bottom-up and tries the rules of each new node's op. */
#include <ctype.h>
#include <math.h>
#include "passes/pass.h"
#include "passes/rewrite.h"

/* -- Patterns -------------------------------------------------------------------------------------- */

typedef enum { PAT_ANY, PAT_NUM, PAT_BIND, PAT_OP } PatKind;
typedef struct Pat {
    PatKind kind;
    uint16_t op;
    uint8_t nin, slot;               /* slot: of a wildcard or of a $binding */
    double num;
    struct Pat *in[MAX_NAMED];
    struct { uint8_t kind, slot; AttrVal v; } attr[MAX_ATTRS];   /* 0 free, 1 must equal v, 2 binds slot */
} Pat;

enum { SLOTS = 10, MAX_DEPTH = 8 };
typedef struct Compiled {
    const Rule *rule;
    Pat *root;
    Sym wild[SLOTS], bind[SLOTS];
    int nwild, nbind;
    unsigned hits;
} Compiled;

typedef struct Match { NodeId wild[SLOTS]; AttrVal bind[SLOTS]; bool shared; } Match;    /* shared: something inside has other uses */

/* -- Pattern text -> Pat ----------------------------------------------------------------------------- */

typedef struct Reader { sn_ctx *c; const char *p; Compiled *out; } Reader;

static Pat *read_expr(Reader *r, int level);

static _Noreturn void bad_rule(Reader *r, const char *what) {
    snU_fail(r->c, SN_PARSE, r->out->rule->loc, "rule %s: %s at: %.30s", snU_str(r->c, r->out->rule->name), what, r->p);
}

static void skip(Reader *r) { while (isspace((unsigned char)*r->p)) r->p++; }

/* Takes the token t when it is next; words must end there. */
static bool take(Reader *r, const char *t) {
    size_t n = strlen(t);
    skip(r);
    if (strncmp(r->p, t, n) != 0) return false;
    if (isalpha((unsigned char)t[0]) && (isalnum((unsigned char)r->p[n]) || r->p[n] == '_')) return false;
    r->p += n;
    return true;
}

static void need(Reader *r, const char *t) { if (!take(r, t)) bad_rule(r, "syntax error"); }

static Sym read_name(Reader *r) {
    skip(r);
    size_t n = 0;
    while (isalnum((unsigned char)r->p[n]) || r->p[n] == '_') n++;
    if (!n) bad_rule(r, "a name is missing");
    r->p += n;
    return snU_sym(r->c, r->p - n, n);
}

static int slot_of(Reader *r, Sym *names, int *n, Sym s) {
    for (int i = 0; i < *n; i++)
        if (names[i] == s) return i;
    if (*n == SLOTS) bad_rule(r, "too many names");
    names[*n] = s;
    return (*n)++;
}

static Pat *new_pat(Reader *r, PatKind k) {
    Pat *p = NEW(&r->c->arena, Pat);
    p->kind = k;
    return p;
}

static Pat *op_pat(Reader *r, const char *name, Pat *a, Pat *b) {
    Pat *p = new_pat(r, PAT_OP);
    p->op = (uint16_t)snG_find_op(r->c, snU_symz(r->c, name));
    if (!p->op) bad_rule(r, "no op of that name");
    p->in[p->nin++] = a;
    if (b) p->in[p->nin++] = b;
    return p;
}

/* Attribute value: $s, number, list of integers, dtype. */
static void read_attr(Reader *r, Pat *p, unsigned k, const OpInfo *op) {
    if (k >= op->nattr) bad_rule(r, "too many arguments");
    if (take(r, "$")) {
        p->attr[k].kind = 2;
        p->attr[k].slot = (uint8_t)slot_of(r, r->out->bind, &r->out->nbind, read_name(r));
        return;
    }
    AttrVal *v = &p->attr[k].v;
    p->attr[k].kind = 1;
    v->kind = op->attr_kind[k];
    char *end = NULL;
    skip(r);
    if (v->kind == A_INT) v->i[0] = strtoll(r->p, &end, 10);
    else if (v->kind == A_FLOAT) v->f = strtod(r->p, &end);
    else if (v->kind == A_DTYPE) {
        Sym s = read_name(r);
        const char *t = snU_str(r->c, s);
        v->i[0] = snG_dtype_of(t, strlen(t));
        return;
    } else {
        need(r, "[");
        for (; !take(r, "]"); take(r, ",")) {
            if (v->n == 8) bad_rule(r, "too long a list");
            v->i[v->n++] = strtoll(r->p, &end, 10);
            if (end == r->p) bad_rule(r, "a number is missing");
            r->p = end;
        }
        return;
    }
    if (end == r->p) bad_rule(r, "a number is missing");
    r->p = end;
}

static Pat *read_call(Reader *r, Sym name) {
    Pat *p = new_pat(r, PAT_OP);
    p->op = (uint16_t)snG_find_op(r->c, name);
    if (!p->op) bad_rule(r, "no op of that name");
    const OpInfo *op = snG_op(r->c, p->op);
    unsigned npos = 0;
    while (!take(r, ")")) {
        const char *before = r->p;
        unsigned k = op->nattr;
        skip(r);
        if (isalpha((unsigned char)*r->p)) {                            /* name=value? */
            Sym s = read_name(r);
            skip(r);
            if (r->p[0] == '=' && r->p[1] != '=')
                for (k = 0; k < op->nattr && op->attr_name[k] != s; k++) { }
            if (k < op->nattr) r->p++;
            else r->p = before;
        }
        if (k < op->nattr) read_attr(r, p, k, op);
        else if (p->nin < op->nin || op->flags & F_VARIADIC) {
            if (p->nin == MAX_NAMED) bad_rule(r, "too many operands");
            p->in[p->nin++] = read_expr(r, 0);
        } else read_attr(r, p, npos++, op);
        if (!take(r, ",")) { need(r, ")"); break; }
    }
    if (p->nin < op->nin && !(op->flags & F_VARIADIC)) bad_rule(r, "too few operands");
    return p;
}

static Pat *read_atom(Reader *r) {
    skip(r);
    if (take(r, "(")) {
        Pat *p = read_expr(r, 0);
        need(r, ")");
        return p;
    }
    if (take(r, "$")) {
        Pat *p = new_pat(r, PAT_BIND);
        p->slot = (uint8_t)slot_of(r, r->out->bind, &r->out->nbind, read_name(r));
        return p;
    }
    if (take(r, "-")) {
        Pat *p = read_atom(r);
        if (p->kind != PAT_NUM) return op_pat(r, "neg", p, NULL);
        p->num = -p->num;
        return p;
    }
    if (take(r, "inf")) {
        Pat *p = new_pat(r, PAT_NUM);
        p->num = INFINITY;
        return p;
    }
    if (isdigit((unsigned char)*r->p)) {
        char *end;
        Pat *p = new_pat(r, PAT_NUM);
        p->num = strtod(r->p, &end);
        r->p = end;
        return p;
    }
    Sym name = read_name(r);
    if (take(r, "(")) return read_call(r, name);
    Pat *p = new_pat(r, PAT_ANY);
    p->slot = (uint8_t)slot_of(r, r->out->wild, &r->out->nwild, name);
    return p;
}

/* Binary operators, loosest first. Longer spellings come before their prefixes. */
static const struct { int level; const char *sign, *op; } INFIX[] = {
    { 0, "or", "or" }, { 1, "and", "and" },
    { 2, "==", "eq" }, { 2, "!=", "ne" }, { 2, "<=", "le" }, { 2, ">=", "ge" }, { 2, "<", "lt" }, { 2, ">", "gt" },
    { 3, "+", "add" }, { 3, "-", "sub" },
    { 4, "*", "mul" }, { 4, "/", "div" }, { 4, "%", "rem" }, { 4, "@", "matmul" },
};

static Pat *read_expr(Reader *r, int level) {
    if (level == 2 && take(r, "not")) return op_pat(r, "not", read_expr(r, 2), NULL);
    if (level == 5) return read_atom(r);
    Pat *p = read_expr(r, level + 1);
    for (;;) {
        unsigned i = 0, n = sizeof INFIX / sizeof *INFIX;
        while (i < n && (INFIX[i].level != level || !take(r, INFIX[i].sign))) i++;
        if (i == n) return p;
        p = op_pat(r, INFIX[i].op, p, read_expr(r, level + 1));
    }
}

static Compiled *compile(sn_ctx *c, Rule *rule) {
    if (rule->compiled) return rule->compiled;
    Compiled *k = NEW(&c->arena, Compiled);
    k->rule = rule;
    Reader r = { c, rule->lhs, k };
    k->root = read_expr(&r, 0);
    skip(&r);
    if (*r.p) bad_rule(&r, "text after the pattern");
    if (k->root->kind != PAT_OP) bad_rule(&r, "a pattern starts with an op");
    return rule->compiled = k;
}

/* -- Matching ---------------------------------------------------------------------------------------- */

typedef struct Rewriter {
    Rebuild r;
    Graph *g;
    VEC(uint32_t) uses;              /* per new node: uses of the old nodes it stands for */
    VEC(Compiled *) *by_op;          /* per root op */
    int depth;                       /* replacements inside replacements */
    bool changed;
    bool recognise;
} Rewriter;

static bool equal_attr(const AttrVal *a, const AttrVal *b) {
    if (a->kind == A_FLOAT || b->kind == A_FLOAT) {
        double x = a->kind == A_FLOAT ? a->f : (double)a->i[0], y = b->kind == A_FLOAT ? b->f : (double)b->i[0];
        return x == y;
    }
    if (a->kind == A_STR || b->kind == A_STR) return a->kind == b->kind && a->s == b->s;
    unsigned n = a->kind == A_LIST ? a->n : 1, m = b->kind == A_LIST ? b->n : 1;
    return n == m && !memcmp(a->i, b->i, n * sizeof *a->i);
}

static bool bind_slot(Match *m, unsigned slot, const AttrVal *v) {
    if (m->bind[slot].kind) return equal_attr(&m->bind[slot], v);
    m->bind[slot] = *v;
    return true;
}

/* Attribute k; of `axis` the one spelling: the last is -1, others count from 0, a list of one axis is a number. */
static AttrVal plain_attr(const Graph *g, NodeId id, unsigned k) {
    AttrVal v = *snG_attr(g, id, k);
    const OpInfo *op = snG_op(g->ctx, snG_node(g, id)->op);
    if (op->nin && !strcmp(snU_str(g->ctx, op->attr_name[k]), "axis")) {
        if (v.kind == A_LIST && v.n == 1) v.kind = A_INT, v.n = 0;
        int64_t rank = snG_type(g, snG_in(g, id, 0))->rank;
        if (v.kind == A_INT) v.i[0] = v.i[0] < 0 ? v.i[0] + rank : v.i[0];
        if (v.kind == A_INT && v.i[0] == rank - 1) v.i[0] = -1;
    }
    return v;
}

/* The value that broadcasting has spread: behind an expand, and behind a reshape that only adds axes of 1 in front. */
static NodeId before_broadcast(const Graph *g, NodeId id) {
    if (snG_node(g, id)->op == OP_expand) id = snG_in(g, id, 0);
    if (snG_node(g, id)->op != OP_reshape) return id;
    const Type *t = snG_type(g, id), *x = snG_type(g, snG_in(g, id, 0));
    int more = t->rank - x->rank;
    for (int i = 0; i < t->rank; i++)
        if (more < 0 || t->dim[i] != (i < more ? 1 : x->dim[i - more])) return id;
    return snG_in(g, id, 0);
}

/* Which orders of a commutative op's operands are tried. Inside a pattern the first that fits is taken; at the root the caller
   tries one after the other, since the condition may refuse the first. */
enum { STRAIGHT = 1, SWAPPED = 2, EITHER = STRAIGHT | SWAPPED, AT_ROOT = 4, BROADCAST = 8, SHARED = 16 };   /* SHARED: others use it too */

static bool match(Rewriter *w, const Pat *p, NodeId id, Match *m, int how);

/* An expand is a view: whoever else reads it, nothing is computed twice. */
static bool is_shared(const Rewriter *w, NodeId id) {
    return id < w->uses.n && w->uses.v[id] > 1 && snG_node(w->g, id)->op != OP_expand;
}

/* A contraction, or a composite with one inside. */
static bool is_heavy(const Graph *g, NodeId id) {
    const Node *n = snG_node(g, id);
    const OpInfo *op = snG_op(g->ctx, n->op);
    if (op->cls != C_COMPOSITE) return op->flags & F_HEAVY;
    const Type *types[MAX_IN];
    for (unsigned i = 0; i < n->nin; i++) types[i] = snG_type(g, snG_in(g, id, i));
    const Graph *body = snG_body(g->ctx, n->op, types, n->nin, n->attr, n->loc);
    for (NodeId i = 1; i < body->nodes.n; i++)
        if (is_heavy(body, i)) return true;
    return false;
}

static bool match_operands(Rewriter *w, const Pat *p, NodeId id, Match *m, int shared, bool swapped) {
    int how = (snG_op(w->g->ctx, p->op)->cls == C_EWISE ? EITHER | BROADCAST : EITHER) | shared;
    for (unsigned i = 0; i < p->nin; i++) {
        unsigned k = swapped && i < 2 ? 1 - i : i;
        if (!match(w, p->in[i], snG_in(w->g, id, k), m, how)) return false;
    }
    return true;
}

static bool match_op(Rewriter *w, const Pat *p, NodeId id, Match *m, int how) {
    const Graph *g = w->g;
    const OpInfo *op = snG_op(g->ctx, p->op);
    bool root = how & AT_ROOT;
    if (how & BROADCAST && op->cls != C_MOVE) id = before_broadcast(g, id);
    const Node *n = snG_node(g, id);
    if (n->op != p->op || n->nin != p->nin) return false;
    int shared = how & SHARED || (!root && is_shared(w, id)) ? SHARED : 0;
    if (shared && is_heavy(g, id)) return false;
    m->shared |= shared != 0;
    for (unsigned k = 0; k < op->nattr; k++) {
        if (!p->attr[k].kind) continue;
        AttrVal v = plain_attr(g, id, k);
        if (p->attr[k].kind == 1 ? !equal_attr(&p->attr[k].v, &v) : !bind_slot(m, p->attr[k].slot, &v)) return false;
    }
    Match saved = *m;
    if (how & STRAIGHT && match_operands(w, p, id, m, shared, false)) return true;
    *m = saved;
    return how & SWAPPED && op->flags & F_COMM && match_operands(w, p, id, m, shared, true);
}

static bool match(Rewriter *w, const Pat *p, NodeId id, Match *m, int how) {
    double v;
    switch (p->kind) {
    case PAT_ANY:
        if (!m->wild[p->slot]) m->wild[p->slot] = id;
        return m->wild[p->slot] == id;
    case PAT_NUM:
        return snG_is_const(w->g, id, &v) && v == p->num;
    case PAT_BIND: {
        if (!snG_is_const(w->g, id, &v)) return false;
        AttrVal a = { .kind = A_FLOAT, .f = v };
        if (!snG_is_float(snG_type(w->g, id)->dtype)) a = (AttrVal){ .kind = A_INT, .i = { (int64_t)v } };
        return bind_slot(m, p->slot, &a);
    }
    case PAT_OP: break;
    }
    return match_op(w, p, id, m, how);
}

/* Cheap and necessary: the ops and constants that the pattern wants right below its root are there. */
static bool could_match(const Rewriter *w, const Pat *p, NodeId id) {
    const Graph *g = w->g;
    const OpInfo *op = snG_op(g->ctx, p->op);
    const Node *n = snG_node(g, id);
    if (n->nin != p->nin) return false;
    bool straight = true, swapped = op->flags & F_COMM && n->nin == 2;
    for (unsigned i = 0; i < n->nin; i++) {
        NodeId x = snG_in(g, id, i);
        if (op->cls == C_EWISE) x = before_broadcast(g, x);
        unsigned have = snG_node(g, x)->op;
        for (int s = 0; s < 2; s++) {
            const Pat *q = p->in[s && i < 2 && n->nin == 2 ? 1 - i : i];
            bool fits = q->kind == PAT_ANY || have == (q->kind == PAT_OP ? q->op : OP_const);
            fits |= q->kind == PAT_OP && snG_op(g->ctx, q->op)->cls == C_MOVE;
            if (!fits) *(s ? &swapped : &straight) = false;
        }
    }
    return straight || swapped;
}

/* -- Conditions ---------------------------------------------------------------------------------------- */

typedef struct Arg { NodeId node; AttrVal v; } Arg;

static bool is_same(const Graph *g, const Arg *a) { return snG_same_shape(snG_type(g, a[0].node), snG_type(g, a[1].node)); }
static bool is_float(const Graph *g, const Arg *a) { return snG_is_float(snG_type(g, a[0].node)->dtype); }
static bool is_pow2(const Graph *g, const Arg *a) {
    int e;
    (void)g;
    return a[0].v.kind == A_FLOAT && isfinite(a[0].v.f) && fabs(frexp(a[0].v.f, &e)) == 0.5 && e > -120 && e < 120;
}
static bool is_exact(const Graph *g, const Arg *a) {        /* the product of two f32 constants is one */
    double x = a[0].v.f * a[1].v.f;
    (void)g;
    return a[0].v.kind == A_FLOAT && a[1].v.kind == A_FLOAT && (double)(float)x == x;
}
static bool is_swap(const Graph *g, const Arg *a) {         /* a permutation that swaps the last two axes */
    const AttrVal *p = &a[0].v;
    (void)g;
    for (int i = 0; i + 2 < p->n; i++)
        if (p->i[i] != i) return false;
    return p->n >= 2 && p->i[p->n - 1] == p->n - 2 && p->i[p->n - 2] == p->n - 1;
}
static bool is_adjacent(const Graph *g, const Arg *a) {     /* a ends on axis k where what starts at the last argument begins */
    const Type *t = snG_type(g, a[0].node);
    int64_t k = a[1].v.i[0];
    return a[3].v.i[0] - a[2].v.i[0] == t->dim[k < 0 ? k + t->rank : k];
}
static bool is_rows(const Graph *g, const Arg *a) {         /* a matrix with a row for each element of b */
    const Type *t = snG_type(g, a[0].node);
    return t->rank == 2 && t->dim[0] == snG_count(snG_type(g, a[1].node));
}
static bool is_bool(const Graph *g, const Arg *a) { return snG_type(g, a[0].node)->dtype == SN_BOOL; }
static bool is_wider(const Graph *g, const Arg *a) {        /* every value of x is one of dtype $t */
    Dtype from = snG_type(g, a[0].node)->dtype, to = (Dtype)a[1].v.i[0];
    return from == to || (to == SN_F32 && (from == SN_BF16 || from == SN_F16 || from == SN_BOOL));
}

static bool is_narrower(const Graph *g, const Arg *a) {     /* $t has half the size of x's dtype or less, both floats */
    Dtype from = snG_type(g, a[0].node)->dtype, to = (Dtype)a[1].v.i[0];
    return snG_is_float(from) && snG_is_float(to) && snG_dtype_size(to) < snG_dtype_size(from);
}

static bool is_last(const Graph *g, const Arg *a) {         /* see plain_attr */
    (void)g;
    return a[0].v.kind == A_INT && a[0].v.i[0] == -1;
}
static bool is_positive(const Graph *g, const Arg *a) {
    (void)g;
    return a[0].v.kind == A_FLOAT ? a[0].v.f > 0 : a[0].v.i[0] > 0;
}

/* A product q k^T, perhaps scaled, capped, biased, masked. */
static bool comes_from_matmul(const Graph *g, NodeId id, int depth) {
    const Node *n = snG_node(g, id);
    if (n->op == OP_matmul) return true;
    if (depth == 8 || snG_op(g->ctx, n->op)->cls != C_EWISE) return false;
    for (unsigned i = 0; i < n->nin; i++)
        if (comes_from_matmul(g, snG_in(g, id, i), depth + 1)) return true;
    return false;
}
static bool is_many(const Graph *g, const Arg *a) {
    const Type *t = snG_type(g, a[0].node);
    return t->rank > 0 && t->dim[t->rank - 1] >= 16;
}
static bool is_single(const Graph *g, const Arg *a) {
    const Type *t = snG_type(g, a[0].node);
    return t->rank > 0 && t->dim[t->rank - 1] == 1;
}
static bool is_scalar(const Graph *g, const Arg *a) { return snG_type(g, a[0].node)->rank == 0; }
static bool is_scores(const Graph *g, const Arg *a) { return comes_from_matmul(g, a[0].node, 0); }

static const struct { const char *name; int nargs; bool (*holds)(const Graph *, const Arg *); const char *doc; } CONDITIONS[] = {
    { "same", 2, is_same, "same(a, b): equal shapes" },
    { "float", 1, is_float, "float(a): a float dtype" },
    { "pow2", 1, is_pow2, "pow2($s): plus or minus a power of two" },
    { "positive", 1, is_positive, "positive($s): larger than 0" },
    { "last", 1, is_last, "last($k): the last axis alone" },
    { "many", 1, is_many, "many(s): the last axis has 16 elements or more" },
    { "scalar", 1, is_scalar, "scalar(h): no axes" },
    { "single", 1, is_single, "single(h): the last axis has 1 element" },
    { "scores", 1, is_scores, "scores(s): elementwise work on a matrix product" },
    { "exact", 2, is_exact, "exact($a, $b): the product is exact in f32" },
    { "swaps", 1, is_swap, "swaps($p): permutation of the last two axes" },
    { "adjacent", 4, is_adjacent, "adjacent(a, $k, $lo, $hi): hi - lo is a's extent on axis k" },
    { "rows", 2, is_rows, "rows(x, t): x is a matrix with a row for each element of t" },
    { "bool", 1, is_bool, "bool(a): of dtype bool" },
    { "narrower", 2, is_narrower, "narrower(x, $t): float dtype t is smaller than x's" },
    { "wider", 2, is_wider, "wider(x, $t): dtype t holds every value of x" },
};

static Arg condition_arg(Reader *r, const Match *m) {
    Compiled *k = r->out;
    bool bind = take(r, "$");
    Sym s = read_name(r);
    int n = bind ? k->nbind : k->nwild;
    for (int i = 0; i < n; i++)
        if ((bind ? k->bind[i] : k->wild[i]) == s)
            return bind ? (Arg){ .v = m->bind[i] } : (Arg){ .node = m->wild[i] };
    bad_rule(r, "the condition has a name that the pattern has not");
}

static bool condition_holds(Rewriter *w, Compiled *k, const Match *m) {
    if (!k->rule->cond) return true;
    Reader r = { w->g->ctx, k->rule->cond, k };
    do {
        const char *name = snU_str(r.c, read_name(&r));
        if (!strcmp(name, "alone")) {                           /* what the pattern matched inside has no other use */
            need(&r, "("), need(&r, ")");
            if (m->shared) return false;
            continue;
        }
        unsigned i = 0, n = sizeof CONDITIONS / sizeof *CONDITIONS;
        while (i < n && strcmp(CONDITIONS[i].name, name) != 0) i++;
        if (i == n) bad_rule(&r, "unknown condition");
        Arg args[4] = {0};
        need(&r, "(");
        for (int a = 0; a < CONDITIONS[i].nargs; a++) {
            if (a) need(&r, ",");
            args[a] = condition_arg(&r, m);
        }
        need(&r, ")");
        if (!CONDITIONS[i].holds(w->g, args)) return false;
    } while (take(&r, "and"));
    return true;
}

/* -- Replacement ------------------------------------------------------------------------------------------ */

static void put_value(StrBuf *b, const AttrVal *v, const sn_ctx *c) {
    char num[40];
    switch (v->kind) {
    case A_INT: snU_putf(b, v->i[0] < 0 ? "(%lld)" : "%lld", (long long)v->i[0]); break;
    case A_FLOAT: {
        const char *s = snU_num(num, v->f, false);
        bool plain = !strpbrk(s, ".einf");
        snU_putf(b, *s == '-' ? "(%s%s)" : "%s%s", s, plain ? ".0" : "");
        break;
    }
    case A_LIST:
        snU_puts(b, "[");
        for (int i = 0; i < v->n; i++) snU_putf(b, "%s%lld", i ? ", " : "", (long long)v->i[i]);
        snU_puts(b, "]");
        break;
    case A_DTYPE: snU_puts(b, snG_dtype_name((Dtype)v->i[0])); break;
    default: snU_putf(b, "\"%s\"", snU_str(c, v->s));
    }
}

/* The replacement text with $bindings filled in. */
static const char *fill(Rewriter *w, Compiled *k, const Match *m) {
    if (!strchr(k->rule->rhs, '$')) return k->rule->rhs;
    sn_ctx *c = w->g->ctx;
    StrBuf b = {0};
    Reader r = { c, k->rule->rhs, k };
    while (*r.p) {
        if (*r.p != '$') { snU_put(&b, r.p++, 1); continue; }
        r.p++;
        Sym s = read_name(&r);
        int i = 0;
        while (i < k->nbind && k->bind[i] != s) i++;
        if (i == k->nbind) bad_rule(&r, "the replacement has a $name that the pattern has not");
        put_value(&b, &m->bind[i], c);
    }
    char *text = snU_strdup(&c->scratch, b.s, b.n);
    snU_free_buf(&b);
    return text;
}

static bool same_type(const Graph *g, NodeId a, NodeId b) {
    const Type *x = snG_type(g, a), *y = snG_type(g, b);
    return x->dtype == y->dtype && snG_same_shape(x, y);
}

static NodeId settle(Rewriter *w, NodeId first, NodeId out, Here at);
static NodeId rewrite_node(Rewriter *w, NodeId id, Here at);

/* One rule at one node: the replacement, or 0. */
static NodeId apply_rule(Rewriter *w, Compiled *k, NodeId id, Here at) {
    if (!could_match(w, k->root, id)) return 0;
    Match m = {0};
    if (!match_op(w, k->root, id, &m, AT_ROOT | STRAIGHT) || !condition_holds(w, k, &m)) {
        m = (Match){0};
        if (!match_op(w, k->root, id, &m, AT_ROOT | SWAPPED) || !condition_holds(w, k, &m)) return 0;
    }
    NodeId first = w->g->nodes.n;
    NodeId out = snG_expr(w->g, at, fill(w, k, &m), k->wild, m.wild, k->nwild, 0);
    if (out == id || !same_type(w->g, out, id)) return 0;
    k->hits++;
    w->changed = true;
    return settle(w, first, out, at);
}

/* Rewrites the nodes inside a replacement, the new ones from `first` on, so that one sweep is enough. */
static NodeId settle(Rewriter *w, NodeId first, NodeId out, Here at) {
    Graph *g = w->g;
    uint32_t n = out < first ? 0 : out - first;
    if (!n || w->depth >= MAX_DEPTH) return out;
    w->depth++;
    ArenaMark mark = snU_mark(&g->ctx->scratch);
    NodeId *map = NEWN(&g->ctx->scratch, NodeId, n + 1);
    for (uint32_t i = 0; i <= n; i++) {
        const Node *x = snG_node(g, first + i);
        NodeId in[MAX_IN];
        bool same = true;
        for (unsigned k = 0; k < x->nin; k++) {
            NodeId old = snG_in(g, first + i, k);
            in[k] = old < first ? old : map[old - first];
            same &= in[k] == old;
        }
        map[i] = same ? first + i : snG_add(g, at, x->op, in, x->nin, x->attr ? snG_attrs(g->ctx, x->attr) : NULL);
        if (i < n) map[i] = rewrite_node(w, map[i], at);
    }
    out = map[n];
    snU_reset(&g->ctx->scratch, mark);
    w->depth--;
    return out;
}

static NodeId rewrite_node(Rewriter *w, NodeId id, Here at) {
    for (int round = 0; round < 16; round++) {
        unsigned op = snG_node(w->g, id)->op;
        NodeId out = 0;
        for (uint32_t i = 0; i < w->by_op[op].n && !out; i++) out = apply_rule(w, w->by_op[op].v[i], id, at);
        if (!out && w->recognise && (out = snP_recognise_body(w->g, id, at))) w->changed = true;
        if (!out) break;
        id = out;
    }
    return id;
}

static void note_uses(Rewriter *w, NodeId id, uint32_t uses) {
    while (w->uses.n <= id) PUSH(w->g->arena, w->uses, 0);
    w->uses.v[id] += uses;
}

/* Is the rule one of a fusion that is left out? */
static bool left_out(const sn_ctx *c, Sym name, unsigned without) {
    static const char *const names[] = {
#define F(name, doc) #name,
        FUSIONS(F)
#undef F
    };
    const char *s = snU_str(c, name);
    size_t n = strcspn(s, ".");
    for (unsigned i = 0; i < NFUSIONS; i++)
        if (s[n] && without >> i & 1 && strlen(names[i]) == n && !memcmp(names[i], s, n)) return true;
    return false;
}

/* A rule's set is the pass that its name starts with; all others are recognise's. */
static bool in_set(const char *name, const char *set) {
    static const char *const SETS[] = { "canon", "autocast" };
    const char *mine = "recognise";
    for (size_t i = 0; i < sizeof SETS / sizeof *SETS; i++) {
        size_t n = strlen(SETS[i]);
        if (!strncmp(name, SETS[i], n) && name[n] == '.') mine = SETS[i];
    }
    return !strcmp(mine, set);
}

static Graph *sweep(const Graph *old, const char *set, unsigned without, bool *changed) {
    sn_ctx *c = old->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    Rewriter w = { .r = snG_rebuild(old), .recognise = !strcmp(set, "recognise") };
    w.g = w.r.g;
    w.by_op = snU_alloc(w.g->arena, sizeof *w.by_op * snG_num_ops(c));
    for (uint32_t i = 0; c->rules && i < c->rules->rules.n; i++) {
        Rule *rule = &c->rules->rules.v[i];
        if (!in_set(snU_str(c, rule->name), set) || left_out(c, rule->name, without)) continue;
        Compiled *k = compile(c, rule);
        PUSH(w.g->arena, w.by_op[k->root->op], k);
    }
    const uint32_t *uses = snG_use_counts(old, w.g->arena);
    for (NodeId id = 1; id < old->nodes.n; id++) {
        const Node *n = snG_node(old, id);
        NodeId copy = snG_copy_node(&w.r, id);
        w.r.map[id] = rewrite_node(&w, copy, (Here){ n->loc, n->path });
        if (w.r.map[id] != copy && n->name) snG_rename(w.g, w.r.map[id], n->name);
        note_uses(&w, w.r.map[id], uses[id]);
    }
    snU_reset(&c->scratch, mark);
    *changed = w.changed;
    return snG_finish(&w.r);
}

static void load_builtin(sn_ctx *c) {
    static const char text[] =
#include "rules_sn.inc"
        ;
    if (c->rules && c->rules->builtin_loaded) return;
    Module *m = snG_parse(c, "rules.sn", text, sizeof text - 1, NULL, 0);
    if (!m) snU_fail(c, SN_PARSE, 0, "rules.sn: %s", c->message ? c->message : "does not parse");
    snG_free_module(m);
    SN_ASSERT(c->rules, "rules.sn has no rules");
    c->rules->builtin_loaded = true;
}

/* Uses are those before a sweep. So a value that a match took the other uses from (the scores under a softmax that was written
   by hand) is only in the next sweep known to be alone. */
Graph *snP_rewrite(const Graph *old, const PassOptions *opt, const char *set) {
    enum { SWEEPS = 4 };
    bool changed;
    load_builtin(old->ctx);
    unsigned without = snP_without(old->ctx, opt->fuse);
    Graph *g = sweep(old, set, without, &changed);
    for (int i = 1; i < SWEEPS && changed && !strcmp(set, "recognise"); i++) {
        Graph *next = sweep(g, set, without, &changed);
        snG_free(g);
        g = next;
    }
    return g;
}

void snP_rule_stats(const sn_ctx *c, StrBuf *b) {
    for (uint32_t i = 0; c->rules && i < c->rules->rules.n; i++) {
        const Compiled *k = c->rules->rules.v[i].compiled;
        snU_putf(b, "%8u  %s\n", k ? k->hits : 0, snU_str(c, c->rules->rules.v[i].name));
    }
}

static Graph *rewrite_with_stats(const Graph *g, const PassOptions *opt, const char *set) {
    Graph *out = snP_rewrite(g, opt, set);
    if (opt->stats) {
        StrBuf b = {0};
        snP_rule_stats(g->ctx, &b);
        fputs(b.s, stderr);
        snU_free_buf(&b);
    }
    return out;
}

Graph *snP_canon(const Graph *g, const PassOptions *opt) { return rewrite_with_stats(g, opt, "canon"); }
Graph *snP_recognise(const Graph *g, const PassOptions *opt) { return rewrite_with_stats(g, opt, "recognise"); }
