/* parse.c: statements, instances of blocks, bodies of ops, expression texts.

   In:  token ranges. Out: nodes in the Elab's graph.

     x = x + attn(norm(x) as n1)      # nodes named x; attn's under the path h.3.attn
     weight wq: f32[4, 8] = zeros()   # a leaf named h.3.attn.wq
     for h[i] in 0..4 { ... }         # the same tokens four times, under h.0 ... h.3

   A block has its own frame of names; loops share the frame they stand in, so that `x = x + ...` carries. An instance's path is the
   caller's path and the block's name, or what `as` says ("_": nothing); a repeat is numbered, and then may hold no weights. */
#include "graph/parse.h"

enum { MAX_CALLS = 48, MAX_LOOP = 1 << 20, MAX_NODES = 4 << 20 };

#define FAIL(e, code, ...) snU_fail((e)->c, SN_##code, snG_here(e).loc, __VA_ARGS__)

PathInfo *snG_path_info(Instances *in, Sym path) {
    uint32_t i = snU_find(&in->at, (uint64_t)path + 1);
    if (!i) {
        PUSH(in->arena, in->v, (PathInfo){ .path = path });
        i = in->v.n;
        snU_insert(in->arena, &in->at, (uint64_t)path + 1, i);
    }
    return &in->v.v[i - 1];
}

/* -- Leaves ---------------------------------------------------------------------------------------------- */

static void parse_init(Elab *e, Leaf *l) {
    static const struct { uint8_t word, kind, nargs; } INITS[] = {
        { W_zeros, INIT_ZEROS, 0 }, { W_ones, INIT_ONES, 0 }, { W_full, INIT_FULL, 1 }, { W_normal, INIT_NORMAL, 1 },
        { W_uniform, INIT_UNIFORM, 2 },
    };
    Sym s = e->t->kind == T_NAME ? e->t->s : 0;
    for (size_t i = 0; i < sizeof INITS / sizeof *INITS; i++) {
        if (INITS[i].word != s) continue;
        e->t++;
        snG_take(e, T_LPAREN);
        if (INITS[i].nargs > 0) l->a = snG_need_number(e, "an initialiser's argument");
        if (INITS[i].nargs > 1) { snG_take(e, T_COMMA); l->b = snG_need_number(e, "an initialiser's argument"); }
        snG_take(e, T_RPAREN);
        l->init = INITS[i].kind;
        return;
    }
    snG_syntax(e, "zeros(), ones(), full(v), normal(std) or uniform(lo, hi)");
}

static bool is_dim(const Elab *e, Sym name) {
    for (uint32_t i = 0; i < e->g->dims.n; i++)
        if (e->g->dims.v[i].name == name) return true;
    return false;
}

static void add_leaf(Elab *e, unsigned op, Sym name, const Type *t, const Leaf *l) {
    Sym full = op == OP_input ? name : snU_join(e->c, e->path, name);
    const char *text = snU_str(e->c, full);
    if (e->in_op) FAIL(e, PARSE, "an op is a pure function: %s belongs in a block", text);
    if (op != OP_input && e->autonum)
        FAIL(e, PARSE, "the weight %s is in a repeated instance; name it with as: ...(...) as NAME", text);
    if (is_dim(e, full)) FAIL(e, PARSE, "%s is a dim; choose another name", text);
    if (snU_find(&e->leaf_of, (uint64_t)full + 1)) FAIL(e, PARSE, "%s is declared twice", text);
    NodeId id = snG_add_leaf(e->g, snG_here(e), op, full, t, l);
    snU_insert(&e->c->scratch, &e->leaf_of, (uint64_t)full + 1, id);
    snG_assign(e, name, (Val){ .kind = V_NODE, .node = id });
}

/* After `in`: [lo, hi], with > before lo and < before hi where the end itself is out; or lo..hi, the whole numbers from lo to hi - 1. */
static void parse_range(Elab *e, InputRange *r) {
    r->bits = RANGE_GIVEN;
    if (!snG_accept(e, T_LBRACK)) {
        r->lo = (double)snG_need_int(e, "a range's first number");
        snG_take(e, T_DOTDOT);
        r->hi = (double)snG_need_int(e, "a range's end") - 1;
        r->bits |= RANGE_WHOLE;
        return;
    }
    if (snG_accept(e, T_GT)) r->bits |= RANGE_ABOVE;
    r->lo = snG_need_number(e, "a range's end");
    snG_take(e, T_COMMA);
    if (snG_accept(e, T_LT)) r->bits |= RANGE_BELOW;
    r->hi = snG_need_number(e, "a range's end");
    snG_take(e, T_RBRACK);
}

/* An input's default, and what else it may be. */
static void parse_default(Elab *e, Sym name, const Type *t, Leaf *l) {
    l->init = INIT_FULL;
    l->a = snG_need_number(e, "an input's default");
    if (e->t->kind != T_NAME || e->t->s != W_in) return;
    e->t++;
    if (t->rank) FAIL(e, TYPE, "a range is of a single number; %s has axes", snU_str(e->c, name));
    parse_range(e, &l->range);
    if (snG_in_range(&l->range, (Dtype)t->dtype, l->a)) return;
    char text[SN_RANGE_TEXT];
    snG_range_text(&l->range, text);
    FAIL(e, TYPE, "the default of %s is %g: it must be %s", snU_str(e->c, name), l->a, text);
}

static void leaf_statement(Elab *e, unsigned op) {
    e->t++;
    Sym name = snG_take_name(e, "the name of the tensor");
    if (!e->g) FAIL(e, PARSE, "tensors are declared in graphs and blocks");
    snG_take(e, T_COLON);
    Type t = snG_parse_type(e);
    Leaf l = {0};
    if (snG_accept(e, T_ASSIGN)) {
        if (op == OP_input) parse_default(e, name, &t, &l);
        else parse_init(e, &l);
    }
    add_leaf(e, op, name, &t, &l);
}

/* -- Assignment ----------------------------------------------------------------------------------------------- */

static void check_type(Elab *e, NodeId id, const Type *want) {
    const Type *is = snG_type(e->g, id);
    if (is->dtype != want->dtype || !snG_same_shape(is, want)) {
        StrBuf b = {0};
        snG_print_type(&b, e->c, is);
        snU_puts(&b, ", not ");
        snG_print_type(&b, e->c, want);
        char *text = snU_strdup(&e->c->scratch, b.s, b.n);
        snU_free_buf(&b);
        FAIL(e, SHAPE, "this value is %s", text);
    }
    if (snG_node(e->g, id)->op != OP_const) snG_name_dims(e, id, want);
}

static void name_value(Elab *e, Sym name, Val v) {
    if (v.kind == V_NODE && !snG_node(e->g, v.node)->name && snG_node(e->g, v.node)->op != OP_const)
        snG_rename(e->g, v.node, snU_join(e->c, e->path, name));
    snG_assign(e, name, v);
}

static void parse_notes(Elab *e, const Val *v) {
    while (e->t->kind == T_NOTE) {
        Sym note = (e->t++)->s;
        int64_t k = e->t->i;
        snG_take(e, T_INT);
        if (v->kind != V_NODE || k > UINT32_MAX - 1) FAIL(e, PARSE, "@%s needs a node and a small number", snU_str(e->c, note));
        Node *n = &e->g->nodes.v[v->node];
        if (note == W_group) n->group = (uint32_t)k + 1;
        else n->offset = k + 1;
    }
}

static void assign_several(Elab *e, const Sym *names, unsigned n, Val v) {
    if (v.kind == V_NODE) {
        if (!(snG_op(e->c, snG_node(e->g, v.node)->op)->flags & F_MULTI)) FAIL(e, TYPE, "this op has one result, not %u", n);
        for (unsigned i = 0; i < n; i++)
            name_value(e, names[i], (Val){ .kind = V_NODE, .node = snG_part(e->g, snG_here(e), v.node, (int)i) });
        return;
    }
    if (v.kind != V_LIST || v.n != n) FAIL(e, TYPE, "%u names for %s of %u", n, snG_kind_name(&v), v.kind == V_LIST ? v.n : 1);
    for (unsigned i = 0; i < n; i++) name_value(e, names[i], v.list[i]);
}

static void assignment(Elab *e) {
    Sym names[16];
    unsigned n = 0;
    const Tok *at = e->t;
    do {
        if (n == 16) FAIL(e, PARSE, "at most 16 names on the left");
        names[n] = snG_take_name(e, "a name");
        if ((names[n] >= W_and && names[n] <= W_nan) || snG_word_dtype(names[n])) FAIL(e, PARSE, "%s is a word of the language", snU_str(e->c, names[n]));
        n++;
    } while (snG_accept(e, T_COMMA));
    Type t = {0};
    if (n == 1 && snG_accept(e, T_COLON)) t = snG_parse_type(e);
    snG_take(e, T_ASSIGN);
    Val v = snG_expression(e);
    if (v.kind == V_NONE) FAIL(e, TYPE, "this block returns nothing");
    const Tok *end = e->t;
    e->t = at;
    if (t.dtype) {
        v = (Val){ .kind = V_NODE, .node = snG_to_node(e, v, (Dtype)t.dtype) };
        check_type(e, v.node, &t);
    }
    if (n > 1) assign_several(e, names, n, v);
    else name_value(e, names[0], v);
    e->t = end;
    parse_notes(e, &v);
}

/* -- Other statements ----------------------------------------------------------------------------------------------- */

static void output_statement(Elab *e) {
    e->t++;
    Sym name = snG_take_name(e, "the name of the output");
    snG_take(e, T_ASSIGN);
    if (!e->g || e->in_op) FAIL(e, PARSE, "outputs belong in graphs");
    NodeId id = snG_need_node(e);
    if (snU_find(&e->out_of, (uint64_t)name + 1)) FAIL(e, PARSE, "two outputs are named %s", snU_str(e->c, name));
    snU_insert(&e->c->scratch, &e->out_of, (uint64_t)name + 1, 1);
    const Node *n = snG_node(e->g, id);
    if (!n->name && n->op != OP_const) snG_rename(e->g, id, name);
    snG_set_output(e->g, name, id, snG_here(e).loc);
    if (!snG_lookup(e, name)) snG_assign(e, name, (Val){ .kind = V_NODE, .node = id });
}

static void update_statement(Elab *e) {
    e->t++;
    const Tok *at = e->t;
    Sym name = snG_take_name(e, "a weight or state");
    const Val *target = snG_lookup(e, name);
    NodeId id = target && target->kind == V_NODE ? target->node : 0;
    unsigned op = id ? snG_node(e->g, id)->op : OP_none;
    if (op != OP_weight && op != OP_state) {
        e->t = at;
        FAIL(e, UNKNOWN, "%s is no weight or state that could be updated", snU_str(e->c, name));
    }
    snG_take(e, T_ASSIGN);
    NodeId v = snG_to_node(e, snG_expression(e), (Dtype)snG_type(e->g, id)->dtype);
    const Type *want = snG_type(e->g, id);
    if (snG_type(e->g, v)->rank == 0 && want->rank) v = snG_broadcast_to(e->g, snG_here(e), v, want);
    if (snG_type(e->g, v)->dtype != want->dtype || !snG_same_shape(snG_type(e->g, v), want))
        FAIL(e, SHAPE, "the update of %s has another type than it", snU_str(e->c, name));
    snG_set_update(e->g, id, v, snG_here(e).loc);
}

/* "; T = 128, block_size = 7": the numbers and strings that a condition names, each once. */
static const char *named_values(Elab *e, const Tok *from, const Tok *to) {
    StrBuf b = {0};
    char num[40];
    snU_puts(&b, "");
    for (const Tok *t = from; t < to && b.n < 200; t++) {
        bool before = t->kind != T_NAME || (t + 1 < to && t[1].kind == T_LPAREN);
        for (const Tok *o = from; o < t && !before; o++) before = o->kind == T_NAME && o->s == t->s;
        const Val *v = before ? NULL : snG_lookup(e, t->s);
        if (!v || (v->kind != V_INT && v->kind != V_FLOAT && v->kind != V_STRING)) continue;
        snU_putf(&b, "%s%s = ", b.n ? ", " : "; ", snU_str(e->c, t->s));
        if (v->kind == V_STRING) snU_putf(&b, "\"%s\"", snU_str(e->c, v->s));
        else if (v->kind == V_INT) snU_putf(&b, "%lld", (long long)v->i);
        else snU_puts(&b, snU_num(num, v->f, false));
    }
    const char *text = snU_strdup(&e->c->scratch, b.s, b.n);
    snU_free_buf(&b);
    return text;
}

void snG_assert(Elab *e) {
    e->t++;
    const Tok *at = e->t;
    Val v = snG_expression(e);
    Sym text = 0;
    if (e->t->kind == T_STRING) text = (e->t++)->s;
    if (snG_truth(e, v)) return;
    const Tok *last = text ? e->t - 2 : e->t - 1;
    int n = (int)(last->end - at->pos);
    e->t = at;
    FAIL(e, SHAPE, "assert: %s%s(%.*s%s)", snU_str(e->c, text), text ? " " : "", n > 200 ? 200 : n, e->src->text + at->pos,
         named_values(e, at, last + 1));
}

/* Behind the "}" that closes the body at e->t. */
static void skip_body(Elab *e) {
    for (int open = 1; open; e->t++) {
        if (e->t->kind == T_LBRACE) open++;
        else if (e->t->kind == T_RBRACE) open--;
        else if (e->t->kind == T_END) snG_syntax(e, "}");
    }
}

static void for_statement(Elab *e) {
    e->t++;
    Sym name = snG_take_name(e, "the loop's name"), var;
    snG_take(e, T_LBRACK);
    var = snG_take_name(e, "the loop's index");
    snG_take(e, T_RBRACK);
    if (e->t->kind != T_NAME || e->t->s != W_in) snG_syntax(e, "in");
    e->t++;
    int64_t from = snG_need_int(e, "a loop's start");
    snG_take(e, T_DOTDOT);
    int64_t to = snG_need_int(e, "a loop's end");
    if (to - (double)from > MAX_LOOP) FAIL(e, UNSUPPORTED, "a loop runs at most %d times", MAX_LOOP);
    if (++e->depth > 190) FAIL(e, PARSE, "loops are nested too deep");
    snG_take(e, T_LBRACE);
    const Tok *body = e->t;
    Sym path = e->path;
    for (int64_t i = from; i < to && !e->returned; i++) {
        e->t = body;
        if (name != W__) e->path = snU_symf(e->c, "%s%s%s.%lld", snU_str(e->c, path), path ? "." : "", snU_str(e->c, name), (long long)i);
        snG_assign(e, var, (Val){ .kind = V_INT, .i = i });
        snG_statements(e);
        if (!e->returned) snG_take(e, T_RBRACE);
    }
    e->path = path;
    e->depth--;
    if (from >= to) skip_body(e);
}

static void return_statement(Elab *e) {
    if (!e->in_block && !e->in_op) FAIL(e, PARSE, "a graph has outputs, it does not return");
    e->t++;
    Val v = snG_expression(e);
    if (e->t->kind == T_COMMA) {
        Val list[16] = { v };
        unsigned n = 1;
        while (snG_accept(e, T_COMMA)) {
            if (n == 16) FAIL(e, PARSE, "at most 16 results");
            list[n++] = snG_expression(e);
        }
        v = (Val){ .kind = V_LIST, .n = n };
        v.list = snU_copy(&e->c->scratch, list, sizeof *list * n);
    }
    e->result = v;
    e->returned = true;
}

static void statement(Elab *e) {
    if (e->t->kind != T_NAME) snG_syntax(e, "a statement");
    int next = e->t[1].kind;
    if (next == T_ASSIGN || next == T_COLON || next == T_COMMA) { assignment(e); return; }
    switch (e->t->s) {
    case W_input: leaf_statement(e, OP_input); break;
    case W_weight: leaf_statement(e, OP_weight); break;
    case W_state: leaf_statement(e, OP_state); break;
    case W_output: output_statement(e); break;
    case W_update: update_statement(e); break;
    case W_assert: snG_assert(e); break;
    case W_for: for_statement(e); break;
    case W_return: return_statement(e); break;
    default:
        if (next != T_LPAREN) snG_syntax(e, "a statement");
        if (snG_expression(e).kind != V_NONE) FAIL(e, PARSE, "the value of this call is not used");
    }
}

void snG_statements(Elab *e) {
    while (!e->returned) {
        while (e->t->kind == T_NL || e->t->kind == T_SEMI) e->t++;
        if (e->t->kind == T_RBRACE || e->t->kind == T_END) return;
        statement(e);
        if (e->returned) return;
        if (e->t->kind != T_NL && e->t->kind != T_SEMI && e->t->kind != T_RBRACE) snG_syntax(e, "the end of the statement");
        if (++e->steps, e->g && e->g->nodes.n > MAX_NODES) FAIL(e, UNSUPPORTED, "a graph has at most %d nodes", MAX_NODES);
    }
}

/* -- Instances of blocks ------------------------------------------------------------------------------------------------ */

static void enter_path(Elab *e, Sym name) {
    if (name == W__ || !e->g) return;
    Sym path = snU_join(e->c, e->path, name), numbered = path;
    PathInfo *p = snG_path_info(e->instances, path);
    if (p->uses++) {
        for (uint32_t k = p->uses - 1; ; k++) {
            numbered = snU_symf(e->c, "%s.%u", snU_str(e->c, path), k);
            if (!snG_path_info(e->instances, numbered)->uses++) break;
        }
        e->autonum = numbered;
    }
    e->path = numbered;
}

static int find_formal(const Body *b, Sym name) {
    for (int i = 0; i < b->nformals; i++)
        if (b->formals[i].name == name) return i;
    return -1;
}

static void match_formals(Elab *e, const Body *b, uint32_t base, uint32_t n, Val *out) {
    const char *name = snU_str(e->c, b->name);
    int next = 0;
    for (uint32_t i = 0; i < n; i++) {
        Sym s = e->f->stack_names.v[base + i];
        int k = s ? find_formal(b, s) : next++;
        if (k < 0) FAIL(e, UNKNOWN, "%s has no argument %s", name, snU_str(e->c, s));
        if (k >= b->nformals) FAIL(e, PARSE, "%s takes %d arguments", name, b->nformals);
        if (out[k].kind) FAIL(e, PARSE, "%s gets its argument %s twice", name, snU_str(e->c, b->formals[k].name));
        out[k] = e->f->stack.v[base + i];
    }
    for (int k = 0; k < b->nformals; k++)
        if (!out[k].kind && !b->formals[k].def) FAIL(e, PARSE, "%s needs its argument %s", name, snU_str(e->c, b->formals[k].name));
}

static void run_body(Elab *e, const Body *b, const Val *args) {
    e->src = b->src;
    for (int k = 0; k < b->nformals; k++) {
        Val v = args[k];
        if (!v.kind) {
            e->t = &b->src->toks[b->formals[k].def];
            v = snG_expression(e);
        }
        snG_assign(e, b->formals[k].name, v);
    }
    e->t = &b->src->toks[b->first];
    e->returned = false;
    e->result = (Val){0};
    snG_statements(e);
}

Val snG_call_block(Elab *e, const Body *b, uint32_t base, uint32_t n, Sym as) {
    if (++e->calls > MAX_CALLS) FAIL(e, PARSE, "blocks call each other more than %d deep: does %s call itself?", MAX_CALLS, snU_str(e->c, b->name));
    Val args[MAX_FORMALS] = {{0}};
    match_formals(e, b, base, n, args);
    const Source *src = e->src;
    const Tok *t = e->t;
    Names *names = e->names;
    Sym path = e->path, autonum = e->autonum;
    Loc from = e->from, here = snG_here(e).loc;
    bool in_block = e->in_block;
    uint32_t frame;
    if (!e->fixed) e->from = here;
    e->in_block = true;
    if (!e->in_op) e->names = b->scope;
    enter_path(e, as ? as : b->name);
    snG_enter_frame(e, &frame);
    run_body(e, b, args);
    snG_leave_frame(e, frame);
    Val v = e->result;
    e->src = src;
    e->t = t;
    e->names = names;
    e->path = path;
    e->autonum = autonum;
    e->from = from;
    e->in_block = in_block;
    e->returned = false;
    e->calls--;
    return v;
}

/* -- Bodies of ops --------------------------------------------------------------------------------------------------------- */

static Val attr_val(sn_ctx *c, const AttrVal *a) {
    switch (a->kind) {
    case A_INT: return (Val){ .kind = V_INT, .i = a->i[0] };
    case A_FLOAT: return (Val){ .kind = V_FLOAT, .f = a->f };
    case A_DTYPE: return (Val){ .kind = V_DTYPE, .i = a->i[0] };
    case A_STR: return (Val){ .kind = V_STRING, .s = a->s };
    case A_LIST: {
        Val v = { .kind = V_LIST, .n = a->n };
        v.list = NEWN(&c->scratch, Val, a->n + 1);
        for (int i = 0; i < a->n; i++) v.list[i] = (Val){ .kind = V_INT, .i = a->i[i] };
        return v;
    }
    default: return (Val){0};
    }
}

static Graph *elaborate_body(sn_ctx *c, const OpInfo *op, const Type *const *in, AttrId attr, Loc at, Graph *g) {
    const Body *b = op->body;
    Elab e;
    snG_elab_begin(&e, c, g, b->scope);
    Front *f = e.f;
    int depth = e.depth = f->depth + 4;
    if (depth > 180) snU_fail(c, SN_PARSE, at, "ops are nested too deep: does %s call itself?", op->cname);
    if (b->scope == f->std) e.fixed = at;
    e.from = at;
    e.in_op = true;
    e.path = 0;
    e.src = b->src;
    e.t = &b->src->toks[b->first];
    Val args[MAX_FORMALS] = {{0}};
    Attrs attrs = {0};
    if (op->nattr) attrs = *snG_attrs(c, attr);
    for (int i = 0; i < op->nin; i++)
        args[i] = (Val){ .kind = V_NODE, .node = snG_add_leaf(g, snG_here(&e), OP_input, op->in_name[i], in[i], &(Leaf){0}) };
    for (int i = 0; i < op->nattr; i++)
        args[op->nin + i] = attr_val(c, attrs.v[i].kind ? &attrs.v[i] : &op->attr_default[i]);
    run_body(&e, b, args);
    if (!e.returned) snU_fail(c, SN_PARSE, b->loc, "the op %s returns nothing", op->cname);
    NodeId y = snG_to_node(&e, e.result, 0);
    snG_set_output(g, W_y, y, at);
    snG_elab_end(&e);
    f->depth = depth - 4;
    return g;
}

const Graph *snG_body(sn_ctx *c, unsigned op, const Type *const *in, unsigned nin, AttrId attr, Loc at) {
    const OpInfo info = *snG_op(c, op);
    Front *f = c->front;
    SN_ASSERT(info.body && nin == info.nin && nin <= MAX_NAMED, "snG_body: %s is no composite of %u operands", info.cname, nin);
    BodyCache key = { .op = op, .nin = (uint8_t)nin, .attr = attr };
    for (unsigned i = 0; i < nin; i++) key.in[i] = snG_intern_type(c, in[i]);
    uint64_t h = snU_hash(key.in, sizeof key.in, op * 0x10001ull + attr * 0x9e3779b97f4a7c15ull);
    uint32_t i = snU_first(&f->body_map, h), k;
    while ((k = snU_at(&f->body_map, h, &i)) != 0) {
        const BodyCache *b = &f->bodies.v[k - 1];
        if (b->op == op && b->attr == attr && !memcmp(b->in, key.in, sizeof key.in)) return b->g;
    }
    Type types[MAX_NAMED];
    const Type *refs[MAX_NAMED];
    for (unsigned j = 0; j < nin; j++) { types[j] = *in[j]; refs[j] = &types[j]; }
    ArenaMark mark = snU_mark(&c->scratch);
    key.g = snG_new(c, info.name);
    PUSH(&c->arena, f->bodies, key);                     /* before it is filled, so that it is freed after an error too */
    k = f->bodies.n;
    elaborate_body(c, &info, refs, attr, at, key.g);
    snU_reset(&c->scratch, mark);
    snU_insert(&c->arena, &f->body_map, h, k);
    return key.g;
}

/* -- Expression texts ------------------------------------------------------------------------------------------------------- */

static const Source *lex_cached(sn_ctx *c, const char *text, size_t n) {
    Front *f = c->front;
    uint64_t h = snU_hash(text, n, 1);
    uint32_t i = snU_first(&f->texts, h), k;
    while ((k = snU_at(&f->texts, h, &i)) != 0) {
        const Source *s = f->exprs.v[k - 1];
        if (s->size == n && !memcmp(s->text, text, n)) return s;
    }
    Source *s = snG_lex(c, snU_symz(c, "expression"), text, n);
    PUSH(&c->arena, f->exprs, s);
    snU_insert(&c->arena, &f->texts, h, f->exprs.n);
    return s;
}

static void begin_text(Elab *e, Graph *g, Here at, const char *text, size_t n) {
    sn_ctx *c = g->ctx;
    const Source *s = lex_cached(c, text, n);
    snG_elab_begin(e, c, g, c->front->std);
    e->src = s;
    e->t = s->toks;
    e->fixed = at.loc;
    e->path = at.path;
    c->front->depth = 0;
}

/* Elaborates the text over `vals`; attributes of a node of op `op` are names in it, literals take dtype `follow`. */
static NodeId elaborate_text(Graph *g, Here at, const char *text, const Sym *names, const NodeId *vals, int n, unsigned op, AttrId attr,
                             Dtype follow) {
    sn_ctx *c = g->ctx;
    Elab e;
    begin_text(&e, g, at, text, strlen(text));
    e.in_op = true;
    const OpInfo *info = op ? snG_op(c, op) : NULL;
    for (unsigned i = 0; info && i < info->nattr; i++) snG_assign(&e, info->attr_name[i], attr_val(c, &snG_attrs(c, attr)->v[i]));
    for (int i = 0; i < n; i++)
        if (names[i]) snG_assign(&e, names[i], (Val){ .kind = V_NODE, .node = vals[i] });
    NodeId out = snG_to_node(&e, snG_expression(&e), snG_is_float(follow) ? follow : 0);
    if (e.t->kind != T_NL) snG_syntax(&e, "the end of the expression");
    snG_elab_end(&e);
    return out;
}

/* What part(x, i) may read is not known from x's type. */
static bool has_parts(const Graph *g, const NodeId *vals, int n) {
    for (int i = 0; i < n; i++)
        if (snG_op(g->ctx, snG_node(g, vals[i])->op)->flags & F_MULTI) return true;
    return false;
}

/* The text as a graph over inputs of these types: a gradient text is elaborated once for all nodes of one op, types and attributes. NULL:
   what it draws depends on where it stands. */
static const Graph *text_body(Graph *g, Here at, const char *text, const Sym *names, const NodeId *vals, int n, NodeId attrs_of) {
    sn_ctx *c = g->ctx;
    Front *f = c->front;
    const Node *of = snG_node(g, attrs_of);
    TextCache key = { .text = lex_cached(c, text, strlen(text)), .op = of->op, .attr = of->attr, .type = of->type, .n = n };
    for (int i = 0; i < n; i++) key.in[i] = snG_node(g, vals[i])->type;
    uint64_t h = snU_hash(key.in, sizeof key.in, snU_hash(&key.text, sizeof key.text, key.op * 0x10001ull + key.attr * 0x9e3779b97f4a7c15ull));
    uint32_t i = snU_first(&f->text_map, h), k;
    while ((k = snU_at(&f->text_map, h, &i)) != 0) {
        const TextCache *t = &f->text_bodies.v[k - 1];
        bool same = t->text == key.text && t->op == key.op && t->attr == key.attr && t->type == key.type && t->n == n;
        if (same && !memcmp(t->in, key.in, sizeof key.in)) return t->draws ? NULL : t->g;
    }
    NodeId in[MAX_TEXT_ARGS];
    key.g = snG_new(c, W_y);
    PUSH(&c->arena, f->text_bodies, key);                /* before it is filled, so that it is freed after an error too */
    k = f->text_bodies.n;
    for (int j = 0; j < n; j++)
        in[j] = snG_add_leaf(key.g, at, OP_input, snU_symf(c, "in %d", j), snG_type(g, vals[j]), &(Leaf){0});
    snG_set_output(key.g, W_y, elaborate_text(key.g, (Here){ at.loc, 0 }, text, names, in, n, of->op, of->attr, (Dtype)snG_type(g, attrs_of)->dtype),
                   at.loc);
    Graph *body = f->text_bodies.v[k - 1].g = snG_drop_dead(key.g);
    for (NodeId id = 1; id < body->nodes.n; id++) f->text_bodies.v[k - 1].draws |= snG_node(body, id)->op == OP_random;
    snU_insert(&c->arena, &f->text_map, h, k);
    return f->text_bodies.v[k - 1].draws ? NULL : body;
}

NodeId snG_expr(Graph *g, Here at, const char *text, const Sym *names, const NodeId *vals, int n, NodeId attrs_of) {
    ArenaMark mark = snU_mark(&g->ctx->scratch);
    const Graph *body = attrs_of && n <= MAX_TEXT_ARGS && !has_parts(g, vals, n) ? text_body(g, at, text, names, vals, n, attrs_of) : NULL;
    unsigned op = attrs_of ? snG_node(g, attrs_of)->op : OP_none;
    AttrId attr = attrs_of ? snG_node(g, attrs_of)->attr : 0;
    Dtype follow = attrs_of ? (Dtype)snG_type(g, attrs_of)->dtype : 0;
    NodeId out = body ? snG_inline(g, at, body, vals, true) : elaborate_text(g, at, text, names, vals, n, op, attr, follow);
    snU_reset(&g->ctx->scratch, mark);
    return out;
}

NodeId snG_call(Graph *g, Here at, const char *name, const NodeId *args, int nargs, const char *attr_text,
                Instances *instances) {
    sn_ctx *c = g->ctx;
    ArenaMark mark = snU_mark(&c->scratch);
    const char *text = snU_fmt(&c->scratch, "(%s)", attr_text ? attr_text : "");
    const char *as = strstr(name, " as ");
    Elab e;
    begin_text(&e, g, at, text, strlen(text));
    e.instances = instances;
    e.t++;
    for (uint32_t i = 0; i < g->leaves.n; i++)
        snU_insert(&c->scratch, &e.leaf_of, (uint64_t)g->leaves.v[i].name + 1, g->leaves.v[i].node);
    uint32_t base = e.f->stack.n;
    for (int i = 0; i < nargs; i++) {
        PUSH(&c->arena, e.f->stack, ((Val){ .kind = V_NODE, .node = args[i] }));
        PUSH(&c->arena, e.f->stack_names, 0);
    }
    uint32_t n = (uint32_t)nargs + snG_arguments(&e);
    Sym callee = as ? snU_sym(c, name, (size_t)(as - name)) : snU_symz(c, name);
    Val v = snG_call_named(&e, callee, base, n, as ? snU_symz(c, as + 4) : 0);
    e.f->stack.n = e.f->stack_names.n = base;
    NodeId out = snG_to_node(&e, v, 0);
    snG_elab_end(&e);
    snU_reset(&c->scratch, mark);
    return out;
}
