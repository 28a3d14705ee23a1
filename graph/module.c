/* module.c: files: imports, params, dims, blocks, ops, rules, graphs.

   In:  a file or a text, and -D overrides. Out: a Module: every graph of the file elaborated. Declarations are collected
   first, in order, imports in place; graphs come last, so that blocks may stand anywhere.

     import "transformer.sn"
     param width = 192                    # -D width=768
     dim T = 128                          # a param whose name is kept in printed types
     graph decode(B=1, T=1) { ... }       # dims of this graph only; -D decode.T=4

   std.sn is embedded and loaded once per context; its names are the outer scope of every module. */
#include <errno.h>
#include "graph/parse.h"

enum { MAX_IMPORTS = 256, MAX_IMPORT_DEPTH = 16 };

#define FAIL(e, code, ...) snU_fail((e)->c, SN_##code, snG_here(e).loc, __VA_ARGS__)

typedef struct Loader {
    Elab e;                              /* for compile-time expressions: no graph */
    Module *m;
    Names *names, *pure;                 /* pure: what bodies of ops see: blocks and ops, no params */
    const Define *defs;
    bool *used;
    int ndefs, depth;
    char *text;                          /* an import being lexed; freed after an error */
    VEC(Sym) imported;
    VEC(Body *) graphs;
} Loader;

/* -- Names --------------------------------------------------------------------------------------------- */

Body *snG_find_body(const Names *n, Sym name) {
    for (; n; n = n->outer) {
        uint32_t i = snU_find(&n->body_of, (uint64_t)name + 1);
        if (i) return n->bodies.v[i - 1];
    }
    return NULL;
}

static void add_val(Loader *l, Sym name, Val v) {
    sn_ctx *c = l->e.c;
    if (v.kind == V_LIST) v.list = snU_copy(&c->arena, v.list, sizeof(Val) * v.n);
    PUSH(&c->arena, l->names->vals, ((NameVal){ name, v }));
    snU_insert(&c->arena, &l->names->val_of, (uint64_t)name + 1, l->names->vals.n);
}

static void put_val(sn_ctx *c, StrBuf *b, const Val *v) {
    char buf[40];
    switch (v->kind) {
    case V_INT: snU_putf(b, "%lld", (long long)v->i); break;
    case V_BOOL: snU_puts(b, v->i ? "true" : "false"); break;
    case V_FLOAT:
        snU_puts(b, snU_num(buf, v->f, false));
        if (!strpbrk(buf, ".ein")) snU_puts(b, ".0");
        break;
    case V_STRING: snU_puts(b, snU_str(c, v->s)); break;
    case V_DTYPE: snU_puts(b, snG_dtype_name((Dtype)v->i)); break;
    case V_LIST:
        snU_puts(b, "[");
        for (uint32_t i = 0; i < v->n && v->list[i].kind != V_LIST; i++) {
            if (i) snU_puts(b, ", ");
            put_val(c, b, &v->list[i]);
        }
        snU_puts(b, "]");
        break;
    default: break;
    }
}

static void note_param(Loader *l, Sym name, const Val *v) {
    if (!l->m || v->kind == V_LIST) return;      /* what a run keeps of its configuration are the numbers that come from it */
    sn_ctx *c = l->e.c;
    StrBuf b = {0};
    snU_puts(&b, "");
    put_val(c, &b, v);
    PUSH(&c->arena, l->m->params, ((Define){ snU_str(c, name), snU_strdup(&c->arena, b.s, b.n) }));
    snU_free_buf(&b);
}

/* -- -D ---------------------------------------------------------------------------------------------------- */

static const Define *find_define(Loader *l, const char *name) {
    for (int i = l->ndefs - 1; i >= 0; i--)
        if (!strcmp(l->defs[i].name, name)) {
            for (int k = 0; k <= i; k++) l->used[k] |= !strcmp(l->defs[k].name, name);
            return &l->defs[i];
        }
    return NULL;
}

static Val parse_define(Loader *l, const Define *d, const Val *otherwise) {
    Elab *e = &l->e;
    if (otherwise->kind == V_STRING) return (Val){ .kind = V_STRING, .s = snU_symz(e->c, d->value) };
    const Source *src = e->src;
    const Tok *t = e->t;
    e->src = snG_lex(e->c, snU_symz(e->c, "-D"), d->value, strlen(d->value));
    e->t = e->src->toks;
    Val v = snG_expression(e);
    if (e->t->kind != T_NL) snG_syntax(e, "the end of the value");
    if (otherwise->kind == V_FLOAT && v.kind == V_INT) v = (Val){ .kind = V_FLOAT, .f = (double)v.i };
    bool truth = (otherwise->kind == V_INT || otherwise->kind == V_BOOL) && (v.kind == V_INT || v.kind == V_BOOL);
    if (v.kind != otherwise->kind && !truth)
        FAIL(e, USAGE, "-D %s=%s is %s, the file has %s", d->name, d->value, snG_kind_name(&v), snG_kind_name(otherwise));
    e->src = src;
    e->t = t;
    return v;
}

static void check_defines(Loader *l) {
    for (int i = 0; i < l->ndefs; i++) {
        if (l->used[i]) continue;
        StrBuf b = {0};
        snU_puts(&b, "");
        for (uint32_t k = 0; k < l->names->vals.n && b.n < 600; k++)
            snU_putf(&b, "%s%s", k ? ", " : "", snU_str(l->e.c, l->names->vals.v[k].name));
        char *text = snU_strdup(&l->e.c->scratch, b.s, b.n);
        snU_free_buf(&b);
        snU_fail(l->e.c, SN_USAGE, 0, "-D %s: no param or dim of that name; there are: %s", l->defs[i].name, *text ? text : "none");
    }
}

/* -- Declarations ---------------------------------------------------------------------------------------------- */

static void end_declaration(Elab *e) {
    if (e->t->kind != T_NL && e->t->kind != T_SEMI && e->t->kind != T_END) snG_syntax(e, "the end of the line");
}

static void param_declaration(Loader *l, bool dim) {
    Elab *e = &l->e;
    const Tok *at = ++e->t;
    Sym name = snG_take_name(e, "the name of the param");
    snG_take(e, T_ASSIGN);
    Val v = snG_expression(e);
    end_declaration(e);
    const Tok *end = e->t;
    e->t = at;
    const Define *d = find_define(l, snU_str(e->c, name));
    if (d) v = parse_define(l, d, &v);
    v.dim = 0;
    if (dim) {
        if (v.kind != V_INT || v.i <= 0) FAIL(e, SHAPE, "the dim %s must be a positive integer", snU_str(e->c, name));
        v.dim = name;
    }
    if (snG_word_dtype(name) || (name >= W_and && name <= W_nan)) FAIL(e, PARSE, "%s is a word of the language", snU_str(e->c, name));
    uint32_t old = snU_find(&l->names->val_of, (uint64_t)name + 1);
    if (old) {
        const Val *o = &l->names->vals.v[old - 1].val;
        if (!dim || o->dim != name || o->i != v.i) FAIL(e, PARSE, "%s is declared twice", snU_str(e->c, name));
        e->t = end;
        return;
    }
    add_val(l, name, v);
    note_param(l, name, &v);
    if (dim) PUSH(&e->c->arena, l->names->dims, ((DimName){ .name = name, .value = v.i }));
    e->t = end;
}

static int attr_kind_of_word(Sym s) {
    switch (s) {
    case W_int: return A_INT;
    case W_float: return A_FLOAT;
    case W_list: return A_LIST;
    case W_dtype: return A_DTYPE;
    case W_string: return A_STR;
    default: return 0;
    }
}

static void skip_default(Elab *e) {
    const Tok *at = e->t;
    snG_skip_expression(e);
    if (e->t == at) snG_syntax(e, "a value");
}

static void parse_formals(Elab *e, Body *b) {
    snG_take(e, T_LPAREN);
    while (e->t->kind != T_RPAREN) {
        if (b->nformals == MAX_FORMALS) FAIL(e, UNSUPPORTED, "at most %d arguments", MAX_FORMALS);
        Formal *f = &b->formals[b->nformals++];
        f->name = snG_take_name(e, "the name of an argument");
        for (int i = 0; i < b->nformals - 1; i++)
            if (b->formals[i].name == f->name) FAIL(e, PARSE, "two arguments are named %s", snU_str(e->c, f->name));
        if (snG_accept(e, T_COLON)) {
            f->attr_kind = (uint8_t)attr_kind_of_word(snG_take_name(e, "int, float, list, dtype or string"));
            if (!f->attr_kind) FAIL(e, PARSE, "an argument is int, float, list, dtype or string; tensors need no annotation");
        }
        if (snG_accept(e, T_ASSIGN)) {
            f->def = (uint32_t)(e->t - e->src->toks);
            skip_default(e);
        }
        if (!snG_accept(e, T_COMMA)) break;
    }
    snG_take(e, T_RPAREN);
}

/* "{ ... }": notes the range and steps over it. */
static void parse_range(Elab *e, Body *b) {
    while (e->t->kind == T_NL) e->t++;
    snG_take(e, T_LBRACE);
    b->first = (uint32_t)(e->t - e->src->toks);
    for (int open = 1; open; e->t++) {
        if (e->t->kind == T_LBRACE) open++;
        else if (e->t->kind == T_RBRACE) open--;
    }
    b->last = (uint32_t)(e->t - e->src->toks) - 1;
}

static Body *begin_body(Loader *l, BodyKind kind) {
    Elab *e = &l->e;
    Body *b = NEW(&e->c->arena, Body);
    b->kind = (uint8_t)kind;
    b->whole = (uint32_t)(e->t - e->src->toks);
    b->loc = snG_here(e).loc;
    b->src = e->src;
    b->scope = kind == BODY_OP ? l->pure : l->names;
    e->t++;
    b->name = snG_take_name(e, "a name");
    return b;
}

static void register_body(Loader *l, Body *b) {
    sn_ctx *c = l->e.c;
    uint32_t old = snU_find(&l->names->body_of, (uint64_t)b->name + 1);
    if (old && b->kind == BODY_OP && l->names->bodies.v[old - 1]->op == b->op) return;    /* the same text again */
    if (old)
        snU_fail(c, SN_PARSE, b->loc, "%s is declared twice", snU_str(c, b->name));
    for (int i = 0; i < 2; i++) {
        Names *n = i ? l->pure : l->names;
        if (i && n == l->names) break;
        PUSH(&c->arena, n->bodies, b);
        snU_insert(&c->arena, &n->body_of, (uint64_t)b->name + 1, n->bodies.n);
    }
}

static void block_declaration(Loader *l) {
    Elab *e = &l->e;
    Body *b = begin_body(l, BODY_BLOCK);
    parse_formals(e, b);
    parse_range(e, b);
    b->whole_end = (uint32_t)(e->t - e->src->toks);
    register_body(l, b);
}

/* -- Ops ------------------------------------------------------------------------------------------------------------ */

/* The tokens [from, to) as one line of text, without comments. */
static const char *text_of(sn_ctx *c, const Source *src, const Tok *from, const Tok *to) {
    StrBuf b = {0};
    snU_puts(&b, "");
    for (const Tok *t = from; t < to; t++) {
        if (t->kind == T_NL) continue;
        bool apart = b.n && t > from && t->pos != t[-1].end;
        snU_puts(&b, apart ? " " : "");
        snU_put(&b, src->text + t->pos, t->end - t->pos);
    }
    char *s = snU_strdup(&c->arena, b.s, b.n);
    snU_free_buf(&b);
    return s;
}

static void default_attr(Loader *l, OpInfo *op, unsigned k, const Formal *f) {
    Elab *e = &l->e;
    static const uint8_t KINDS[] = { [V_INT] = A_INT, [V_BOOL] = A_INT, [V_FLOAT] = A_FLOAT, [V_LIST] = A_LIST, [V_DTYPE] = A_DTYPE, [V_STRING] = A_STR, [V_NODE] = 0 };
    const Tok *t = e->t;
    e->t = &e->src->toks[f->def];
    Val v = snG_expression(e);
    AttrVal *a = &op->attr_default[k];
    a->kind = KINDS[v.kind];
    if (f->attr_kind == A_FLOAT && v.kind == V_INT) { v = (Val){ .kind = V_FLOAT, .f = (double)v.i }; a->kind = A_FLOAT; }
    if (!a->kind || (f->attr_kind && f->attr_kind != a->kind)) FAIL(e, TYPE, "%s cannot be the default here", snG_kind_name(&v));
    if (a->kind == A_FLOAT) a->f = v.f;
    else if (a->kind == A_STR) a->s = v.s;
    else if (a->kind != A_LIST) a->i[0] = v.i;
    for (uint32_t i = 0; a->kind == A_LIST && i < v.n; i++) {
        if (i >= 8 || v.list[i].kind != V_INT) FAIL(e, TYPE, "a list attribute holds at most 8 integers");
        a->i[a->n++] = v.list[i].i;
    }
    op->attr_kind[k] = a->kind;
    op->attr_has_default[k] = true;
    e->t = t;
}

static void op_formals(Loader *l, OpInfo *op, const Body *b) {
    Elab *e = &l->e;
    for (int i = 0; i < b->nformals; i++) {
        const Formal *f = &b->formals[i];
        bool attr = f->attr_kind || f->def;
        if (!attr && op->nattr) FAIL(e, PARSE, "op %s: operands come before attributes", op->cname);
        if (attr ? op->nattr == MAX_ATTRS : op->nin == MAX_NAMED) FAIL(e, UNSUPPORTED, "op %s: too many arguments", op->cname);
        if (!attr) {
            op->in_name[op->nin++] = f->name;
            continue;
        }
        op->attr_name[op->nattr] = f->name;
        op->attr_kind[op->nattr] = f->attr_kind;
        if (f->def) default_attr(l, op, op->nattr, f);
        op->nattr++;
    }
}

/* vjp: text; text ... one per operand, to the end of the line (a line may end after ";"). */
static void op_gradients(Elab *e, OpInfo *op) {
    const Tok *t = e->t;
    while (t->kind == T_NL) t++;
    if (t->kind != T_NAME || t->s != W_vjp || t[1].kind != T_COLON) return;
    e->t = t + 2;
    for (unsigned k = 0; ; k++) {
        while (e->t->kind == T_NL) e->t++;
        const Tok *from = e->t;
        while (e->t->kind != T_SEMI && e->t->kind != T_NL && e->t->kind != T_END) e->t++;
        if (k >= op->nin || from == e->t) FAIL(e, PARSE, "op %s: one gradient per operand, separated by ;", op->cname);
        const char *text = text_of(e->c, e->src, from, e->t);
        op->vjp[k] = text;
        if (e->t->kind != T_SEMI) {
            if (k + 1u != op->nin) FAIL(e, PARSE, "op %s has %u operands but %u gradients", op->cname, op->nin, k + 1);
            return;
        }
        e->t++;
    }
}

/* The op of that name that was declared by the very same text, or 0. */
static unsigned same_op(sn_ctx *c, const Body *b) {
    size_t n = b->src->toks[b->whole_end].pos - b->src->toks[b->whole].pos;
    const char *text = b->src->text + b->src->toks[b->whole].pos;
    for (unsigned id = snG_num_ops(c) - 1; id >= OP_NPRIM; id--) {
        const Body *o = snG_op(c, id)->body;
        if (!o || o->name != b->name) continue;
        if (o->src->toks[o->whole_end].pos - o->src->toks[o->whole].pos != n) continue;
        if (!memcmp(o->src->text + o->src->toks[o->whole].pos, text, n)) return id;
    }
    return 0;
}

static void op_declaration(Loader *l) {
    Elab *e = &l->e;
    Body *b = begin_body(l, BODY_OP);
    OpInfo op = { .name = b->name, .cname = snU_str(e->c, b->name), .cls = C_COMPOSITE, .body = b, .doc = "", .scalar_text = "" };
    unsigned old = snG_find_op(e->c, b->name);
    if (old && (old < OP_NPRIM || snG_op(e->c, old)->body->scope == e->f->std)) FAIL(e, PARSE, "%s is an op already", op.cname);
    parse_formals(e, b);
    if (e->t->kind == T_STRING) op.doc = snU_str(e->c, (e->t++)->s);
    op_formals(l, &op, b);
    parse_range(e, b);
    op_gradients(e, &op);
    b->whole_end = (uint32_t)(e->t - e->src->toks);
    b->op = same_op(e->c, b);
    if (!b->op) b->op = snG_add_op(e->c, &op);
    register_body(l, b);
}

/* -- Rules, graphs, imports ----------------------------------------------------------------------------------------------- */

static void rule_declaration(Loader *l) {
    Elab *e = &l->e;
    sn_ctx *c = e->c;
    Rule r = { .loc = snG_here(e).loc };
    e->t++;
    r.name = snG_take_name(e, "the name of the rule");
    snG_take(e, T_COLON);
    const Tok *lhs = e->t, *arrow = NULL, *cond = NULL;
    for (; e->t->kind != T_END && e->t->kind != T_SEMI; e->t++) {
        if (e->t->kind == T_ARROW && !arrow) arrow = e->t;
        if (e->t->kind == T_NAME && e->t->s == W_if) { if (!cond) cond = e->t; }
        else if (e->t->kind == T_NL && !(e->t[1].kind == T_NAME && e->t[1].s == W_if) && arrow != e->t - 1) break;
    }
    if (!arrow || arrow == lhs || arrow + 1 >= (cond ? cond : e->t) || (cond && cond < arrow))
        FAIL(e, PARSE, "a rule is NAME: pattern => replacement [if condition]");
    r.lhs = text_of(c, e->src, lhs, arrow);
    r.rhs = text_of(c, e->src, arrow + 1, cond ? cond : e->t);
    if (cond) r.cond = text_of(c, e->src, cond + 1, e->t);
    if (!c->rules) c->rules = NEW(&c->arena, RuleSet);
    for (uint32_t i = 0; i < c->rules->rules.n; i++) {
        const Rule *o = &c->rules->rules.v[i];
        if (o->name == r.name && !strcmp(o->lhs, r.lhs) && !strcmp(o->rhs, r.rhs)) return;
    }
    PUSH(&c->arena, c->rules->rules, r);
}

static void graph_declaration(Loader *l) {
    Elab *e = &l->e;
    Body *b = begin_body(l, BODY_GRAPH);
    if (e->t->kind == T_LPAREN) parse_formals(e, b);
    parse_range(e, b);
    for (uint32_t i = 0; i < l->graphs.n; i++)
        if (l->graphs.v[i]->name == b->name) snU_fail(e->c, SN_PARSE, b->loc, "two graphs are named %s", snU_str(e->c, b->name));
    PUSH(&e->c->arena, l->graphs, b);
}

static void declarations(Loader *l, const Source *src);

static void import_declaration(Loader *l) {
    Elab *e = &l->e;
    sn_ctx *c = e->c;
    e->t++;
    if (e->t->kind != T_STRING) snG_syntax(e, "a file name in quotes");
    const char *name = snU_str(c, e->t->s), *here = snU_str(c, e->src->file), *slash = strrchr(here, '/');
    if (!strcmp(name, "std.sn")) { e->t++; return; }
    Sym path = *name == '/' || !slash ? snU_symz(c, name) : snU_symf(c, "%.*s/%s", (int)(slash - here), here, name);
    for (uint32_t i = 0; i < l->imported.n; i++)
        if (l->imported.v[i] == path) { e->t++; return; }
    if (l->imported.n == MAX_IMPORTS || l->depth == MAX_IMPORT_DEPTH) FAIL(e, UNSUPPORTED, "too many imports");
    PUSH(&c->arena, l->imported, path);
    size_t n = 0;
    char *text = snU_read_file(c, snU_str(c, path), &n);
    if (!text) FAIL(e, IO, "cannot read %s: %s", snU_str(c, path), strerror(errno));
    l->text = text;
    const Source *src = e->src;
    const Tok *t = e->t + 1;
    const Source *imported = snG_lex(c, path, text, n);
    free(text);
    l->text = NULL;
    l->depth++;
    declarations(l, imported);
    l->depth--;
    e->src = src;
    e->t = t;
}

static void declarations(Loader *l, const Source *src) {
    Elab *e = &l->e;
    e->src = src;
    e->t = src->toks;
    for (;;) {
        while (e->t->kind == T_NL || e->t->kind == T_SEMI) e->t++;
        if (e->t->kind == T_END) return;
        switch (e->t->kind == T_NAME ? e->t->s : 0) {
        case W_import: import_declaration(l); break;
        case W_param: param_declaration(l, false); break;
        case W_dim: param_declaration(l, true); break;
        case W_block: block_declaration(l); break;
        case W_op: op_declaration(l); break;
        case W_graph: graph_declaration(l); break;
        case W_rule: rule_declaration(l); break;
        case W_assert: snG_assert(e); break;
        default: snG_syntax(e, "import, param, dim, block, op, graph, rule or assert");
        }
        end_declaration(e);
    }
}

/* -- Graphs ------------------------------------------------------------------------------------------------------------------ */

/* Dims of one graph: graph decode(B=1, T=1). */
static void own_dims(Loader *l, Elab *e, const Body *b) {
    sn_ctx *c = e->c;
    for (int i = 0; i < b->nformals; i++) {
        const Formal *f = &b->formals[i];
        if (!f->def) snU_fail(c, SN_PARSE, b->loc, "graph %s: the dim %s needs a value", snU_str(c, b->name), snU_str(c, f->name));
        e->t = &b->src->toks[f->def];
        Val v = snG_expression(e);
        char name[256];
        snprintf(name, sizeof name, "%s.%s", snU_str(c, b->name), snU_str(c, f->name));
        const Define *d = find_define(l, name);
        if (d) v = parse_define(l, d, &v);
        if (v.kind != V_INT || v.i <= 0) FAIL(e, SHAPE, "the dim %s must be a positive integer", snU_str(c, f->name));
        DimName own = { f->name, v.i, true };
        e->own_dims[e->nown++] = own;
        uint32_t k = 0;
        while (k < e->g->dims.n && e->g->dims.v[k].name != f->name) k++;
        if (k < e->g->dims.n) e->g->dims.v[k] = own;
        else PUSH(e->g->arena, e->g->dims, own);
    }
}

/* True when a node is neither a leaf that stays nor read by an output or an update. */
static bool has_dead_nodes(const Graph *g) {
    sn_ctx *c = g->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    bool *live = NEWN(&c->scratch, bool, g->nodes.n), dead = false;
    for (uint32_t i = 0; i < g->outputs.n; i++) live[g->outputs.v[i].node] = true;
    for (uint32_t i = 0; i < g->updates.n; i++) live[g->updates.v[i].value] = live[g->updates.v[i].target] = true;
    for (NodeId id = g->nodes.n; --id > 0; ) {
        const Node *n = snG_node(g, id);
        if (!live[id]) dead |= n->op != OP_const && n->op != OP_input && n->op != OP_state;
        else for (unsigned i = 0; i < n->nin; i++) live[snG_in(g, id, i)] = true;
    }
    snU_reset(&c->scratch, mark);
    return dead;
}

Graph *snG_drop_dead(Graph *g) {
    if (!has_dead_nodes(g)) return g;
    Graph *live = snG_dce(g);
    snG_free(g);
    return live;
}

static void elaborate_graph(Loader *l, const Body *b) {
    sn_ctx *c = l->e.c;
    Graph *g = snG_new(c, b->name);
    PUSH(&c->arena, l->m->graphs, g);
    uint32_t at = l->m->graphs.n - 1;
    for (uint32_t i = 0; i < l->names->dims.n; i++) PUSH(g->arena, g->dims, l->names->dims.v[i]);
    Elab e;
    snG_elab_begin(&e, c, g, l->names);
    e.src = b->src;
    own_dims(l, &e, b);
    e.t = &b->src->toks[b->first];
    snG_statements(&e);
    snG_elab_end(&e);
    l->m->graphs.v[at] = snG_drop_dead(g);
}

/* A weight or state of one name is one storage in all graphs of a file. */
static void check_shared(Loader *l) {
    sn_ctx *c = l->e.c;
    HashMap seen = {0};
    VEC(const Graph *) owner = {0};
    VEC(NodeId) node = {0};
    for (uint32_t k = 0; k < l->m->graphs.n; k++) {
        const Graph *g = l->m->graphs.v[k];
        for (uint32_t i = 0; i < g->leaves.n; i++) {
            const Leaf *leaf = &g->leaves.v[i];
            const Node *n = snG_node(g, leaf->node);
            if (n->op == OP_input) continue;
            uint32_t j = snU_find(&seen, (uint64_t)leaf->name + 1);
            if (!j) {
                PUSH(&c->scratch, owner, g);
                PUSH(&c->scratch, node, leaf->node);
                snU_insert(&c->scratch, &seen, (uint64_t)leaf->name + 1, owner.n);
                continue;
            }
            const Type *a = snG_type(g, leaf->node), *b = snG_type(owner.v[j - 1], node.v[j - 1]);
            if (a->dtype != b->dtype || !snG_same_shape(a, b))
                snU_fail(c, SN_SHAPE, n->loc, "%s has another type in graph %s", snU_str(c, leaf->name), snU_str(c, owner.v[j - 1]->name));
        }
    }
}

/* -- Entries ---------------------------------------------------------------------------------------------------------------------- */

static Names *new_names(sn_ctx *c) {
    Names *n = NEW(&c->arena, Names);
    n->outer = c->front->std;
    return n;
}

static void load(Loader *l, const char *file, const char *text, size_t n) {
    sn_ctx *c = l->e.c;
    ArenaMark mark = snU_mark(&c->scratch);
    c->front->depth = 0;
    l->names = new_names(c);
    l->pure = new_names(c);
    l->used = NEWN(&c->scratch, bool, l->ndefs + 1);
    snG_elab_begin(&l->e, c, NULL, l->names);
    Sym name = snU_symz(c, file);
    PUSH(&c->arena, l->imported, name);
    declarations(l, snG_lex(c, name, text, n));
    for (uint32_t i = 0; i < l->graphs.n; i++) elaborate_graph(l, l->graphs.v[i]);
    check_shared(l);
    check_defines(l);
    snG_elab_end(&l->e);
    snU_reset(&c->scratch, mark);
}

static Module *run(sn_ctx *c, const char *file, const char *text, size_t n, const Define *defs, int ndefs) {
    Loader *l = NEW(&c->arena, Loader);
    Module *m = l->m = NEW(&c->arena, Module);
    m->ctx = c;
    l->e.c = c;
    l->defs = defs;
    l->ndefs = ndefs;
    SN_ENTER(c, free(l->text); snG_free_module(m); return NULL);
    load(l, file, text, n);
    SN_LEAVE(c);
    return m;
}

Module *snG_parse(sn_ctx *c, const char *file_name, const char *text, size_t n, const Define *defs, int ndefs) {
    return c->code ? NULL : run(c, file_name, text, n, defs, ndefs);
}

Module *snG_load(sn_ctx *c, const char *path, const Define *defs, int ndefs) {
    if (c->code) return NULL;
    size_t n = 0;
    char *text = snU_read_file(c, path, &n);
    if (!text) {
        int why = errno;
        SN_ENTER(c, return NULL);
        snU_fail(c, SN_IO, 0, "cannot read %s: %s", path, strerror(why));
    }
    Module *m = run(c, path, text, n, defs, ndefs);
    free(text);
    return m;
}

Graph *snG_get(const Module *m, const char *graph_name) {
    for (uint32_t i = 0; i < m->graphs.n; i++)
        if (!*graph_name || !strcmp(snU_str(m->ctx, m->graphs.v[i]->name), graph_name)) return m->graphs.v[i];
    return NULL;
}

void snG_free_module(Module *m) {
    if (!m) return;
    for (uint32_t i = 0; i < m->graphs.n; i++) snG_free(m->graphs.v[i]);
    m->graphs.n = 0;
}

void snG_load_std(sn_ctx *c) {
    static const char text[] =
#include "std_sn.inc"
        ;
    c->front = NEW(&c->arena, Front);
    Loader *l = NEW(&c->arena, Loader);
    l->e.c = c;
    c->front->std = l->names = l->pure = NEW(&c->arena, Names);
    SN_ENTER(c, snU_abort(__FILE__, __LINE__, "std.sn: %s", c->message));
    snG_elab_begin(&l->e, c, NULL, l->names);
    declarations(l, snG_lex(c, snU_symz(c, "std.sn"), text, sizeof text - 1));
    snG_elab_end(&l->e);
    SN_LEAVE(c);
}
