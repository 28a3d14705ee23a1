/* print.c: graph -> text.

   In:  a graph. Out: its flat form, which the parser reads back to the same graph; also DOT.

     dim T = 128
     graph train {
       input tokens: i32[16, T]
       h.0.attn.matmul.1: f32[16, T, 192] = matmul(h.0.attn.merge, h.0.attn.wo)
       output loss = x.7
     }

   One node a line, constants inline, attributes equal to their default left out. A node is printed by its own name, else by path and
   op; a name that is taken gets .1, .2, ... Leaves keep their names whatever comes before them: those are their identity. */
#include <math.h>
#include "graph/parse.h"

/* -- Names ------------------------------------------------------------------------------------------------ */

static bool is_leaf(unsigned op) { return op == OP_input || op == OP_weight || op == OP_state; }

static Sym base_name(const Graph *g, const Node *n) {
    sn_ctx *c = g->ctx;
    Sym s = n->name;
    if (!s) {
        const char *op = snG_op(c, n->op)->cname;
        s = n->path ? snU_symf(c, "%s.%s", snU_str(c, n->path), op) : snU_symz(c, op);
    }
    bool word = (s >= W_and && s <= W_nan) || snG_word_dtype(s);
    return word ? snU_symf(c, "%s.0", snU_str(c, s)) : s;
}

/* Printed name per node, in scratch memory. taken: Sym + 1 -> next number to try. */
static Sym *name_nodes(const Graph *g) {
    sn_ctx *c = g->ctx;
    Sym *names = NEWN(&c->scratch, Sym, g->nodes.n + 1);
    HashMap taken = {0}, next = {0};
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        names[g->leaves.v[i].node] = g->leaves.v[i].name;
        snU_insert(&c->scratch, &taken, (uint64_t)g->leaves.v[i].name + 1, 1);
    }
    for (uint32_t i = 0; i < g->dims.n; i++) snU_insert(&c->scratch, &taken, (uint64_t)g->dims.v[i].name + 1, 1);
    uint32_t *count = NEWN(&c->scratch, uint32_t, g->nodes.n + 1), ncount = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        if (n->op == OP_const || names[id]) continue;
        Sym base = base_name(g, n), s = base;
        while (snU_find(&taken, (uint64_t)s + 1)) {
            uint32_t k = snU_find(&next, (uint64_t)base + 1);
            if (!k) snU_insert(&c->scratch, &next, (uint64_t)base + 1, k = ++ncount);
            s = snU_symf(c, "%s.%u", snU_str(c, base), ++count[k]);
        }
        snU_insert(&c->scratch, &taken, (uint64_t)s + 1, 1);
        names[id] = s;
    }
    return names;
}

const char *snG_node_name(const Graph *g, NodeId id) {
    sn_ctx *c = g->ctx;
    if (g->nshown != g->nodes.n) {
        Graph *cache = (Graph *)g;                       /* a cache does not change the graph's meaning */
        ArenaMark mark = snU_mark(&c->scratch);
        cache->shown = snU_copy(g->arena, name_nodes(g), sizeof(Sym) * g->nodes.n);
        cache->nshown = g->nodes.n;
        snU_reset(&c->scratch, mark);
    }
    return snU_str(c, g->shown[id]);
}

/* -- Types, attributes, constants ---------------------------------------------------------------------------- */

void snG_print_type(StrBuf *b, const sn_ctx *c, const Type *t) {
    snU_puts(b, snG_dtype_name((Dtype)t->dtype));
    snU_puts(b, "[");
    for (int i = 0; i < t->rank; i++) {
        if (i) snU_puts(b, ", ");
        if (t->name[i]) snU_puts(b, snU_str(c, t->name[i]));
        else snU_putf(b, "%lld", (long long)t->dim[i]);
    }
    snU_puts(b, "]");
}

typedef struct Printer {
    StrBuf *b;
    const Graph *g;
    sn_ctx *c;
    const Sym *names;
} Printer;

static int find_dim(const Graph *g, Sym name, int64_t value) {
    for (uint32_t i = 0; name && i < g->dims.n; i++)
        if (g->dims.v[i].name == name) return g->dims.v[i].value == value ? (int)i : -1;
    return -1;
}

/* The type with those dim names only that the graph declares with this extent. */
static Type known_dims(const Graph *g, NodeId id) {
    Type t = *snG_type(g, id);
    for (int i = 0; i < t.rank; i++)
        if (find_dim(g, t.name[i], t.dim[i]) < 0) t.name[i] = 0;
    return t;
}

static void put_float(StrBuf *b, double v, bool as_f32) {
    char buf[40];
    snU_puts(b, snU_num(buf, v, as_f32));
    if (!strpbrk(buf, ".ein")) snU_puts(b, ".0");
}

static void put_attr(Printer *p, const AttrVal *v) {
    switch (v->kind) {
    case A_INT: snU_putf(p->b, "%lld", (long long)v->i[0]); break;
    case A_FLOAT: put_float(p->b, v->f, false); break;
    case A_DTYPE: snU_puts(p->b, snG_dtype_name((Dtype)v->i[0])); break;
    case A_STR: snU_putf(p->b, "\"%s\"", snU_str(p->c, v->s)); break;
    case A_LIST:
        snU_puts(p->b, "[");
        for (int i = 0; i < v->n; i++) snU_putf(p->b, "%s%lld", i ? ", " : "", (long long)v->i[i]);
        snU_puts(p->b, "]");
        break;
    default: snU_puts(p->b, "?");
    }
}

static bool same_attr(const AttrVal *a, const AttrVal *b) {
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case A_FLOAT: return !memcmp(&a->f, &b->f, sizeof a->f);
    case A_STR: return a->s == b->s;
    case A_LIST: return a->n == b->n && !memcmp(a->i, b->i, sizeof *a->i * a->n);
    default: return a->i[0] == b->i[0];
    }
}

enum { EACH_ITS_OWN = 255 };           /* no dtype to follow: every constant says its own */

static void put_const(Printer *p, NodeId id, Dtype follow, const OpInfo *user) {
    double v = snG_attr(p->g, id, 0)->f;
    Dtype d = (Dtype)snG_type(p->g, id)->dtype;
    if (d == SN_BOOL) {
        snU_puts(p->b, v != 0 ? "true" : "false");
        return;
    }
    bool bare = follow != EACH_ITS_OWN && snG_literal_dtype(user, follow, snG_is_float(d)) == d;
    if (!bare) snU_puts(p->b, "const(");
    if (snG_is_float(d)) put_float(p->b, v, d == SN_F32);
    else snU_putf(p->b, "%lld", (long long)v);
    if (!bare) snU_putf(p->b, ", %s)", snG_dtype_name(d));
}

/* What the parser gives literals among the operands of this node: see snG_operands. */
static Dtype literals_follow(const Graph *g, NodeId id) {
    const Node *n = snG_node(g, id);
    Dtype first = 0;
    bool several = false;
    if (n->op == OP_fence) return 0;
    for (unsigned i = n->op == OP_select; i < n->nin; i++) {
        Dtype d = (Dtype)snG_type(g, snG_in(g, id, i))->dtype;
        if (snG_node(g, snG_in(g, id, i))->op != OP_const) return d;
        if (d == SN_BOOL) continue;
        several |= first && d != first;
        first = d;
    }
    return several ? EACH_ITS_OWN : 0;
}

static void put_operand(Printer *p, NodeId x, Dtype follow, const OpInfo *user) {
    if (snG_node(p->g, x)->op == OP_const) put_const(p, x, follow, user);
    else snU_puts(p->b, snU_str(p->c, p->names[x]));
}

static void put_call(Printer *p, NodeId id) {
    const Node *n = snG_node(p->g, id);
    const OpInfo *op = snG_op(p->c, n->op);
    Dtype follow = literals_follow(p->g, id);
    const char *sep = "";
    snU_puts(p->b, op->cname);
    snU_puts(p->b, "(");
    for (unsigned i = 0; i < n->nin; i++, sep = ", ") {
        snU_puts(p->b, sep);
        put_operand(p, snG_in(p->g, id, i), n->op == OP_select && !i ? 0 : follow, op);
    }
    for (unsigned i = 0; i < op->nattr; i++) {
        const AttrVal *v = snG_attr(p->g, id, i);
        bool always = n->op == OP_random;               /* a stream that is left out means another thing */
        if (!always && op->attr_has_default[i] && same_attr(v, &op->attr_default[i])) continue;
        snU_putf(p->b, "%s%s=", sep, snU_str(p->c, op->attr_name[i]));
        put_attr(p, v);
        sep = ", ";
    }
    snU_puts(p->b, ")");
}

/* -- Lines ------------------------------------------------------------------------------------------------------ */

static void put_range(StrBuf *b, const InputRange *r) {
    if (r->bits & RANGE_WHOLE) { snU_putf(b, "%.0f..%.0f", r->lo, r->hi + 1); return; }
    snU_puts(b, r->bits & RANGE_ABOVE ? "[>" : "[");
    put_float(b, r->lo, false);
    snU_puts(b, r->bits & RANGE_BELOW ? ", <" : ", ");
    put_float(b, r->hi, false);
    snU_puts(b, "]");
}

static void put_input_init(Printer *p, const Leaf *l) {
    put_float(p->b, l->a, false);
    if (!l->range.bits) return;
    snU_puts(p->b, " in ");
    put_range(p->b, &l->range);
}

static void put_init(Printer *p, const Leaf *l, bool input) {
    if (l->init == INIT_NONE) return;
    snU_puts(p->b, " = ");
    if (input) { put_input_init(p, l); return; }
    switch (l->init) {
    case INIT_ZEROS: snU_puts(p->b, "zeros()"); return;
    case INIT_ONES: snU_puts(p->b, "ones()"); return;
    case INIT_FULL: snU_puts(p->b, "full("); break;
    case INIT_NORMAL: snU_puts(p->b, "normal("); break;
    default: snU_puts(p->b, "uniform("); break;
    }
    put_float(p->b, l->a, false);
    if (l->init == INIT_UNIFORM) { snU_puts(p->b, ", "); put_float(p->b, l->b, false); }
    snU_puts(p->b, ")");
}

static void put_node(Printer *p, NodeId id) {
    const Node *n = snG_node(p->g, id);
    if (n->op == OP_const) return;
    snU_puts(p->b, "  ");
    if (is_leaf(n->op)) { snU_puts(p->b, snG_op(p->c, n->op)->cname); snU_puts(p->b, " "); }
    snU_puts(p->b, snU_str(p->c, p->names[id]));
    snU_puts(p->b, ": ");
    Type t = known_dims(p->g, id);
    snG_print_type(p->b, p->c, &t);
    if (is_leaf(n->op)) {
        put_init(p, snG_leaf(p->g, id), n->op == OP_input);
    } else {
        snU_puts(p->b, " = ");
        put_call(p, id);
        if (n->group) snU_putf(p->b, " @group %u", n->group - 1);
        if (n->offset) snU_putf(p->b, " @offset %lld", (long long)n->offset - 1);
    }
    snU_puts(p->b, "\n");
}

/* "dim T = 128" lines, then "graph NAME(own dims) {", of the dims that printed types name. */
static void put_head(Printer *p) {
    const Graph *g = p->g;
    const char *open = "(";
    bool *used = NEWN(&p->c->scratch, bool, g->dims.n + 1);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Type *t = snG_type(g, id);
        for (int i = 0; i < t->rank; i++) {
            int k = find_dim(g, t->name[i], t->dim[i]);
            if (k >= 0) used[k] = true;
        }
    }
    for (uint32_t i = 0; i < g->dims.n; i++)
        if (used[i] && !g->dims.v[i].own)
            snU_putf(p->b, "dim %s = %lld\n", snU_str(p->c, g->dims.v[i].name), (long long)g->dims.v[i].value);
    snU_putf(p->b, "graph %s", snU_str(p->c, g->name));
    for (uint32_t i = 0; i < g->dims.n; i++) {
        if (!used[i] || !g->dims.v[i].own) continue;
        snU_putf(p->b, "%s%s=%lld", open, snU_str(p->c, g->dims.v[i].name), (long long)g->dims.v[i].value);
        open = ", ";
    }
    snU_puts(p->b, *open == ',' ? ") {\n" : " {\n");
}

/* Ops of the user's own files go with the graph: the text must stand alone. */
static void put_ops(Printer *p) {
    sn_ctx *c = p->c;
    unsigned n = snG_num_ops(c);
    bool *used = NEWN(&c->scratch, bool, n);
    for (NodeId id = 1; id < p->g->nodes.n; id++) used[snG_node(p->g, id)->op] = true;
    for (unsigned id = n; id-- > OP_NPRIM; ) {
        const Body *b = used[id] ? snG_op(c, id)->body : NULL;
        for (uint32_t i = b ? b->first : 0; b && i < b->last; i++) {
            const Tok *t = &b->src->toks[i];
            unsigned other = t->kind == T_NAME && t[1].kind == T_LPAREN ? snG_find_op(c, t->s) : 0;
            if (other >= OP_NPRIM && other < id) used[other] = true;
        }
    }
    for (unsigned id = OP_NPRIM; id < n; id++) {
        const Body *b = used[id] ? snG_op(c, id)->body : NULL;
        if (!b || b->scope == c->front->std) continue;
        const Tok *from = &b->src->toks[b->whole], *to = &b->src->toks[b->whole_end - 1];
        snU_put(p->b, b->src->text + from->pos, to->end - from->pos);
        snU_puts(p->b, "\n");
    }
}

static bool starts(const char *s, const char *prefix) { return !strncmp(s, prefix, strlen(prefix)); }

static void print(StrBuf *b, const Graph *g, const char *prefix) {
    sn_ctx *c = g->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    Printer p = { b, g, c, name_nodes(g) };
    if (!prefix) put_ops(&p);
    put_head(&p);
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (!prefix || starts(snU_str(c, p.names[id]), prefix) || starts(snU_str(c, g->nodes.v[id].path), prefix)) put_node(&p, id);
    for (uint32_t i = 0; i < g->updates.n && !prefix; i++) {
        const Update *u = &g->updates.v[i];
        snU_putf(b, "  update %s = ", snU_str(c, p.names[u->target]));
        put_operand(&p, u->value, (Dtype)snG_type(g, u->target)->dtype, NULL);
        snU_puts(b, "\n");
    }
    for (uint32_t i = 0; i < g->outputs.n && !prefix; i++) {
        snU_putf(b, "  output %s = ", snU_str(c, g->outputs.v[i].name));
        put_operand(&p, g->outputs.v[i].node, 0, NULL);
        snU_puts(b, "\n");
    }
    snU_puts(b, "}\n");
    snU_reset(&c->scratch, mark);
}

void snG_print(StrBuf *b, const Graph *g) { print(b, g, NULL); }
void snG_print_path(StrBuf *b, const Graph *g, const char *prefix) { print(b, g, prefix); }

bool snG_equal(const Graph *a, const Graph *b) {
    StrBuf x = {0}, y = {0};
    snG_print(&x, a);
    snG_print(&y, b);
    bool same = x.n == y.n && !memcmp(x.s, y.s, x.n);
    snU_free_buf(&x);
    snU_free_buf(&y);
    return same;
}

/* -- Other views ------------------------------------------------------------------------------------------------------ */

void snG_print_dot(StrBuf *b, const Graph *g) {
    sn_ctx *c = g->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    const Sym *names = name_nodes(g);
    snU_putf(b, "digraph \"%s\" {\n  node [shape=box, fontname=monospace];\n", snU_str(c, g->name));
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        if (n->op == OP_const) continue;
        Type t = known_dims(g, id);
        snU_putf(b, "  n%u [label=\"%s\\n%s ", id, snU_str(c, names[id]), snG_op(c, n->op)->cname);
        snG_print_type(b, c, &t);
        snU_puts(b, is_leaf(n->op) ? "\", style=filled];\n" : "\"];\n");
        for (unsigned i = 0; i < n->nin; i++)
            if (snG_node(g, snG_in(g, id, i))->op != OP_const) snU_putf(b, "  n%u -> n%u;\n", snG_in(g, id, i), id);
    }
    for (uint32_t i = 0; i < g->outputs.n; i++)
        snU_putf(b, "  n%u -> \"output %s\";\n", g->outputs.v[i].node, snU_str(c, g->outputs.v[i].name));
    snU_puts(b, "}\n");
    snU_reset(&c->scratch, mark);
}
