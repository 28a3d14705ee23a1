/* sn.c: the context, and the C DSL of sn.h.

   In:  calls. Out: nodes, through the same constructor and the same std.sn as the text. Every builder is an entry: it sets the
   error jump, so a failure inside gives "no value" and a sticky message. */
#include "graph/parse.h"
#include "graph/sn.h"

/* -- Context --------------------------------------------------------------------------------------------- */

/* A graph under construction: its open scopes, and the instances made in it so far. */
typedef struct Draft {
    Graph *g;
    bool owned;                                    /* made by sn_graph: freed with the context */
    VEC(Sym) scopes;
    Instances instances;
} Draft;

struct Dsl {
    VEC(Draft *) drafts;
    VEC(Module *) modules;
};

sn_ctx *sn_ctx_new(void) {
    sn_ctx *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->scratch.pool = &c->blocks;
    c->dsl = NEW(&c->arena, struct Dsl);
    snG_init_words(c);
    snG_init_ops(c);
    snG_load_std(c);
    return c;
}

void sn_ctx_free(sn_ctx *c) {
    if (!c) return;
    for (uint32_t i = 0; i < c->front->bodies.n; i++) snG_free(c->front->bodies.v[i].g);
    for (uint32_t i = 0; i < c->front->text_bodies.n; i++) snG_free(c->front->text_bodies.v[i].g);
    for (uint32_t i = 0; i < c->dsl->drafts.n; i++)
        if (c->dsl->drafts.v[i]->owned) snG_free(c->dsl->drafts.v[i]->g);
    for (uint32_t i = 0; i < c->dsl->modules.n; i++) snG_free_module(c->dsl->modules.v[i]);
    for (uint32_t i = 0; c->rules && i < c->rules->graphs.n; i++) snG_free(c->rules->graphs.v[i]);
    snU_free_arena(&c->scratch);
    snU_free_arena(&c->arena);
    snU_free_pool(&c->blocks);
    free(c);
}

void sn_clear(sn_ctx *c) {
    c->code = SN_OK;
    c->message = NULL;
    c->front->depth = 0;
}

sn_ctx *sn_open(const sn_ctx_desc *desc) {
    sn_ctx *c = sn_ctx_new();
    if (c && desc) {
        c->log = desc->log;
        c->log_user = desc->log_user;
    }
    return c;
}

void sn_close(sn_ctx *c) { sn_ctx_free(c); }
const char *sn_error(const sn_ctx *c) { return c->code ? c->message : NULL; }
int sn_code(const sn_ctx *c) { return c->code; }

/* -- Graphs and scopes ---------------------------------------------------------------------------------------- */

static Draft *add_draft(Graph *g, bool owned) {
    Arena *a = &g->ctx->arena;
    Draft *d = NEW(a, Draft);
    d->g = g;
    d->owned = owned;
    d->instances.arena = a;
    PUSH(a, g->ctx->dsl->drafts, d);
    return d;
}

/* The newest first: most contexts build one graph at a time. */
static Draft *draft_of(Graph *g) {
    const struct Dsl *d = g->ctx->dsl;
    for (uint32_t i = d->drafts.n; i-- > 0; )
        if (d->drafts.v[i]->g == g) return d->drafts.v[i];
    return add_draft(g, false);
}

Graph *sn_graph(sn_ctx *c, const char *name) {
    return add_draft(snG_new(c, snU_symz(c, name)), true)->g;
}

Graph *sn_finish(Graph *g) {
    if (g->ctx->code) return NULL;
    Draft *d = draft_of(g);
    d->scopes.n = 0;
    return d->g = snG_drop_dead(g);
}

Module *sn_load_model(sn_ctx *c, const char *path, const Define *defs, int ndefs) {
    Module *m = snG_load(c, path, defs, ndefs);
    if (m) PUSH(&c->arena, c->dsl->modules, m);
    return m;
}

Graph *sn_get(const Module *m, const char *graph_name) { return snG_get(m, graph_name); }
void sn_print(StrBuf *b, const Graph *g) { snG_print(b, g); }

static Sym path_of(Graph *g) {
    const Draft *d = draft_of(g);
    return d->scopes.n ? d->scopes.v[d->scopes.n - 1] : 0;
}

static Sym under_path(Graph *g, const char *name) {
    Sym path = path_of(g);
    return path ? snU_symf(g->ctx, "%s.%s", snU_str(g->ctx, path), name) : snU_symz(g->ctx, name);
}

static Here here(Graph *g) { return (Here){ 0, path_of(g) }; }

void sn_scope(Graph *g, const char *fmt, ...) {
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    Sym inner = under_path(g, name);
    PUSH(&g->ctx->arena, draft_of(g)->scopes, inner);
}

void sn_end_scope(Graph *g) {
    Draft *d = draft_of(g);
    if (d->scopes.n) d->scopes.n--;
}

const char *sn_text(Graph *g, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = snU_alloc(&g->ctx->arena, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

/* -- Builders --------------------------------------------------------------------------------------------------- */

/* The body of every builder: after an error nothing happens; a failure in `expr` gives the value 0. */
#define BUILD(g, expr)                                                                              \
    do {                                                                                            \
        sn_ctx *c_ = (g)->ctx;                                                                      \
        if (c_->code) return (sn_val){ 0 };                                                         \
        SN_ENTER(c_, return (sn_val){ 0 });                                                         \
        NodeId id_ = (expr);                                                                        \
        SN_LEAVE(c_);                                                                               \
        return (sn_val){ id_ };                                                                     \
    } while (0)

static NodeId use(Graph *g, sn_val v) {
    if (!v.id || v.id >= g->nodes.n) snU_fail(g->ctx, SN_USAGE, 0, "a value that graph %s does not have", snU_str(g->ctx, g->name));
    return v.id;
}

/* -- Extents: a plain number; or a named dim: above the bits of its value, which one ----------------- */

enum { MAX_DIMS = 1 << 12, NAMED = 1 << 13 };    /* a sum of two is no tag either */

static int64_t tagged(uint32_t dim, int64_t value) {
    return (int64_t)(NAMED + dim) << SN_EXTENT_BITS | value;
}

int64_t sn_dim(Graph *g, const char *name, int64_t value) {
    sn_ctx *c = g->ctx;
    if (c->code) return 0;
    SN_ENTER(c, return 0);
    if (value <= 0 || value > (int64_t)1 << 40)
        snU_fail(c, SN_SHAPE, 0, "%s cannot be %lld", name, (long long)value);
    if (g->dims.n == MAX_DIMS) snU_fail(c, SN_UNSUPPORTED, 0, "at most %d dims", MAX_DIMS);
    PUSH(g->arena, g->dims, ((DimName){ .name = snU_symz(c, name), .value = value }));
    SN_LEAVE(c);
    return tagged(g->dims.n - 1, value);
}

/* The name of an extent, 0 when it is a plain number. */
static Sym name_of(const Graph *g, int64_t extent) {
    int64_t high = extent >> SN_EXTENT_BITS, k = high - NAMED;
    if (high == 0 || high == -1) return 0;
    if (k < 0 || k >= g->dims.n || g->dims.v[k].value != sn_size(extent))
        snU_fail(g->ctx, SN_USAGE, 0, "arithmetic on a named extent: take its sn_size first");
    return g->dims.v[k].name;
}

static int64_t dimof(Graph *g, sn_val x, int axis) {
    const Type *t = snG_type(g, use(g, x));
    if (axis < -t->rank || axis >= t->rank)
        snU_fail(g->ctx, SN_SHAPE, 0, "axis %d of a tensor with %d axes", axis, t->rank);
    int i = axis < 0 ? axis + t->rank : axis;
    for (uint32_t k = 0; k < g->dims.n; k++)
        if (t->name[i] && g->dims.v[k].name == t->name[i] && g->dims.v[k].value == t->dim[i])
            return tagged(k, t->dim[i]);
    return t->dim[i];
}

int64_t sn_dimof(Graph *g, sn_val x, int axis) {
    sn_ctx *c = g->ctx;
    if (c->code) return 0;
    SN_ENTER(c, return 0);
    int64_t n = dimof(g, x, axis);
    SN_LEAVE(c);
    return n;
}

static Type type_of(Graph *g, Dtype d, sn_shape s) {
    Type t = { .dtype = (uint8_t)d, .rank = (uint8_t)s.rank };
    if (s.rank < 0 || s.rank > MAX_RANK) snU_fail(g->ctx, SN_SHAPE, 0, "a tensor has at most %d axes", MAX_RANK);
    for (int i = 0; i < s.rank; i++) {
        t.dim[i] = sn_size(s.dim[i]);
        t.name[i] = name_of(g, s.dim[i]);
        if (t.dim[i] <= 0 || t.dim[i] > (int64_t)1 << 40)
            snU_fail(g->ctx, SN_SHAPE, 0, "a dimension cannot be %lld", (long long)t.dim[i]);
    }
    return t;
}

/* Gives a node that was just made the names of the shape it was asked for. */
static NodeId named(Graph *g, NodeId id, sn_shape s) {
    Type t = *snG_type(g, id);
    bool any = false;
    if (id != g->nodes.n - 1 || t.rank != s.rank) return id;
    for (int i = 0; i < s.rank; i++) {
        t.name[i] = name_of(g, s.dim[i]);
        any |= t.name[i] != 0;
    }
    if (any) g->nodes.v[id].type = snG_intern_type(g->ctx, &t);
    return id;
}

/* -- Leaves and ends --------------------------------------------------------------------------- */

static NodeId add_leaf(Graph *g, unsigned op, Sym name, Dtype d, sn_shape s, sn_initial init) {
    Type t = type_of(g, d, s);
    Leaf l = { .init = (uint8_t)init.kind, .a = init.a, .b = init.b, .range = init.range };
    for (uint32_t i = 0; i < g->leaves.n; i++)
        if (g->leaves.v[i].name == name) snU_fail(g->ctx, SN_USAGE, 0, "%s is declared twice", snU_str(g->ctx, name));
    return snG_add_leaf(g, here(g), op, name, &t, &l);
}

sn_val sn_input(Graph *g, const char *name, Dtype d, sn_shape s) {
    BUILD(g, add_leaf(g, OP_input, snU_symz(g->ctx, name), d, s, (sn_initial){0}));
}

sn_val sn_input_scalar(Graph *g, const char *name, double value) {
    static const sn_shape rank0;
    BUILD(g, add_leaf(g, OP_input, snU_symz(g->ctx, name), SN_F32, rank0, sn_full(value)));
}

sn_val sn_input_within(Graph *g, const char *name, double value, InputRange range) {
    static const sn_shape rank0;
    sn_initial init = sn_full(value);
    init.range = range;
    BUILD(g, add_leaf(g, OP_input, snU_symz(g->ctx, name), SN_F32, rank0, init));
}

sn_val sn_weight(Graph *g, const char *name, Dtype d, sn_shape s, sn_initial init) {
    BUILD(g, add_leaf(g, OP_weight, under_path(g, name), d, s, init));
}

sn_val sn_state(Graph *g, const char *name, Dtype d, sn_shape s, sn_initial init) {
    BUILD(g, add_leaf(g, OP_state, under_path(g, name), d, s, init));
}

sn_val sn_name(Graph *g, const char *name, sn_val v) {
    if (g->ctx->code || !v.id || v.id >= g->nodes.n) return v;
    const Node *n = snG_node(g, v.id);
    if (!n->name && n->op != OP_const) snG_rename(g, v.id, under_path(g, name));
    return v;
}

void sn_output(Graph *g, const char *name, sn_val v) {
    sn_ctx *c = g->ctx;
    if (c->code) return;
    SN_ENTER(c, return);
    NodeId id = use(g, v);
    const Node *n = snG_node(g, id);
    if (!n->name && n->op != OP_const) snG_rename(g, id, snU_symz(c, name));
    snG_set_output(g, snU_symz(c, name), id, 0);
    SN_LEAVE(c);
}

void sn_update(Graph *g, sn_val weight_or_state, sn_val v) {
    sn_ctx *c = g->ctx;
    if (c->code) return;
    SN_ENTER(c, return);
    snG_set_update(g, use(g, weight_or_state), use(g, v), 0);
    SN_LEAVE(c);
}

static NodeId ewise(Graph *g, unsigned op, const sn_val *v, unsigned n) {
    NodeId in[3];
    for (unsigned i = 0; i < n; i++) in[i] = use(g, v[i]);
    return snG_ewise(g, here(g), op, in, n);
}

#define X(op) sn_val sn_##op(Graph *g, sn_val a) { BUILD(g, ewise(g, OP_##op, &a, 1)); }
SN_ONE(X)
#undef X
#define X(op) sn_val sn_##op(Graph *g, sn_val a, sn_val b) { BUILD(g, ewise(g, OP_##op, (sn_val[]){ a, b }, 2)); }
SN_TWO(X)
#undef X

sn_val sn_select(Graph *g, sn_val cond, sn_val a, sn_val b) { BUILD(g, ewise(g, OP_select, (sn_val[]){ cond, a, b }, 3)); }
sn_val sn_const(Graph *g, Dtype d, double v) { BUILD(g, snG_const(g, here(g), d, v)); }

static NodeId add(Graph *g, unsigned op, const sn_val *v, unsigned n, const Attrs *at) {
    NodeId in[2] = {0};
    for (unsigned i = 0; i < n; i++) in[i] = use(g, v[i]);
    return snG_add(g, here(g), op, in, n, at);
}

static AttrVal int_attr(int64_t i) { return (AttrVal){ .kind = A_INT, .i = { i } }; }

static AttrVal list_attr(sn_shape s) {
    AttrVal a = { .kind = A_LIST, .n = (uint8_t)(s.rank > 8 ? 8 : s.rank) };
    for (int i = 0; i < a.n; i++) a.i[i] = sn_size(s.dim[i]);
    return a;
}

#define ATTRS(...) (&(Attrs){ .v = { __VA_ARGS__ } })

sn_val sn_cast(Graph *g, sn_val x, Dtype to) { BUILD(g, add(g, OP_cast, &x, 1, ATTRS({ .kind = A_DTYPE, .i = { to } }))); }
sn_val sn_sum(Graph *g, sn_val x, int axis) { BUILD(g, add(g, OP_sum, &x, 1, ATTRS({ .kind = A_LIST, .n = 1, .i = { axis } }))); }
sn_val sn_sum_all(Graph *g, sn_val x) { BUILD(g, add(g, OP_sum, &x, 1, NULL)); }
sn_val sn_amax(Graph *g, sn_val x, int axis) { BUILD(g, add(g, OP_amax, &x, 1, ATTRS(int_attr(axis)))); }
sn_val sn_argmax(Graph *g, sn_val x, int axis) { BUILD(g, add(g, OP_argmax, &x, 1, ATTRS(int_attr(axis)))); }
sn_val sn_permute(Graph *g, sn_val x, sn_shape perm) { BUILD(g, add(g, OP_permute, &x, 1, ATTRS(list_attr(perm)))); }
sn_val sn_gather(Graph *g, sn_val table, sn_val idx) { BUILD(g, add(g, OP_gather, (sn_val[]){ table, idx }, 2, NULL)); }
sn_val sn_part(Graph *g, sn_val x, int i) { BUILD(g, snG_part(g, here(g), use(g, x), i)); }

sn_val sn_iota(Graph *g, sn_shape s, int axis) {
    BUILD(g, named(g, add(g, OP_iota, NULL, 0, ATTRS(list_attr(s), int_attr(axis))), s));
}

sn_val sn_reshape(Graph *g, sn_val x, sn_shape s) {
    BUILD(g, named(g, add(g, OP_reshape, &x, 1, ATTRS(list_attr(s))), s));
}

sn_val sn_slice(Graph *g, sn_val x, int axis, int64_t start, int64_t size) {
    BUILD(g, add(g, OP_slice, &x, 1,
                 ATTRS(int_attr(axis), int_attr(start), int_attr(sn_size(size)))));
}

sn_val sn_concat(Graph *g, sn_val a, sn_val b, int axis) {
    BUILD(g, add(g, OP_concat, (sn_val[]){ a, b }, 2, ATTRS(int_attr(axis))));
}

sn_val sn_matmul(Graph *g, sn_val a, sn_val b, bool ta, bool tb) {
    BUILD(g, snG_matmul(g, here(g), use(g, a), use(g, b), ta, tb, 0));
}

static NodeId expand(Graph *g, sn_val x, sn_shape s) {
    NodeId id = use(g, x);
    Type t = type_of(g, (Dtype)snG_type(g, id)->dtype, s);
    return named(g, snG_broadcast_to(g, here(g), id, &t), s);
}

sn_val sn_expand(Graph *g, sn_val x, sn_shape s) { BUILD(g, expand(g, x, s)); }

static NodeId draw(Graph *g, sn_shape s, sn_val key, int64_t stream) {
    if (stream < 0) stream = snG_next_stream(g->ctx, &draft_of(g)->instances, path_of(g));
    NodeId id = add(g, OP_random, &key, key.id ? 1 : 0, ATTRS(list_attr(s), int_attr(stream)));
    return named(g, id, s);
}

sn_val sn_random(Graph *g, sn_shape s, sn_val key, int64_t stream) { BUILD(g, draw(g, s, key, stream)); }

static NodeId apply(Graph *g, const char *name, const char *attrs, const sn_val *args, int n) {
    NodeId in[MAX_IN];
    if (n < 0 || n > MAX_IN) snU_fail(g->ctx, SN_USAGE, 0, "%s: at most %d arguments", name, MAX_IN);
    for (int i = 0; i < n; i++) in[i] = use(g, args[i]);
    return snG_call(g, here(g), name, in, n, attrs, &draft_of(g)->instances);
}

sn_val sn_apply_n(Graph *g, const char *name, const char *attrs, const sn_val *args, int n) {
    BUILD(g, apply(g, name, attrs, args, n));
}
