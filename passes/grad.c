/* grad.c: reverse mode, from the gradient texts of ops.def and the `vjp:` lines of std.sn.

   In:  a graph with a scalar output `loss`. Out: the same graph and one output grad.<weight> per weight (zeros where the
   loss does not depend on it), in the weight's dtype. Composites without a `vjp:` line are inlined first; the others
   keep their identity, forward and backward.

     output loss = sum(mul(x, w))          # y = mul(x, w): "dy * b; dy * a"
   becomes
     output loss = sum(mul(x, w))
     output grad.w = mul(expand(1), x)

   Nodes are visited from last to first, so that every use of a value has been seen before the value itself; the sums
   over several uses are therefore always in the same order. */
#include "passes/pass.h"

typedef struct Back {
    Graph *g;
    NodeId *dy;                      /* gradient per forward node, 0 = none so far */
    bool *active;                    /* a wanted leaf reaches it through float values */
    Sym s_dy, s_y;
    HashMap paths;                   /* "h.3.attn" -> "d.h.3.attn" */
} Back;

static bool has_vjp(const OpInfo *op) {
    for (int i = 0; i < MAX_NAMED; i++)
        if (op->vjp[i]) return true;
    return false;
}

static bool text_flows(const char *text) {
    return text && strcmp(text, "-") != 0;
}

/* Gradient text of operand i; the last one stands for all further operands of a variadic op. */
static const char *vjp_text(const OpInfo *op, unsigned i) {
    if (op->flags & F_VARIADIC && i >= op->nin) i = op->nin - 1u;
    return i < MAX_NAMED && text_flows(op->vjp[i]) ? op->vjp[i] : NULL;
}

static bool *find_active(const Graph *g, const bool *want, Arena *a) {
    bool *active = NEWN(a, bool, g->nodes.n);
    for (uint32_t i = 0; i < g->leaves.n; i++)
        if (want[i]) active[g->leaves.v[i].node] = true;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        const OpInfo *op = snG_op(g->ctx, n->op);
        if (!snG_is_float(snG_type(g, id)->dtype)) continue;
        for (unsigned i = 0; i < n->nin && !active[id]; i++)
            active[id] = active[snG_in(g, id, i)] && vjp_text(op, i);
    }
    return active;
}

/* The gradient of a node is built "in" its path with d. in front. */
static Here here_of(Back *b, NodeId id) {
    const Node *n = snG_node(b->g, id);
    sn_ctx *c = b->g->ctx;
    uint32_t path = snU_find(&b->paths, n->path + 1);
    if (!path) {
        path = n->path ? snU_symf(c, "d.%s", snU_str(c, n->path)) : snU_symz(c, "d");
        snU_insert(&c->scratch, &b->paths, n->path + 1, path);
    }
    return (Here){ n->loc, path };
}

/* Replaces the words operand_start and operand_size of a variadic op's text by numbers. */
static const char *place_operand(Graph *g, NodeId id, unsigned i, const char *text) {
    int64_t axis = snG_attr_named(g, id, "axis")->i[0], start = 0;
    if (axis < 0) axis += snG_type(g, id)->rank;
    for (unsigned k = 0; k < i; k++) start += snG_type(g, snG_in(g, id, k))->dim[axis];
    StrBuf b = {0};
    for (const char *p = text; *p; ) {
        if (!strncmp(p, "operand_start", 13)) snU_putf(&b, "%lld", (long long)start), p += 13;
        else if (!strncmp(p, "operand_size", 12))
            snU_putf(&b, "%lld", (long long)snG_type(g, snG_in(g, id, i))->dim[axis]), p += 12;
        else snU_put(&b, p++, 1);
    }
    char *out = snU_strdup(&g->ctx->scratch, b.s, b.n);
    snU_free_buf(&b);
    return out;
}

/* The gradient that reaches operand i of node id, of the operand's own type. */
static NodeId operand_grad(Back *b, NodeId id, unsigned i, const char *text) {
    Graph *g = b->g;
    const Node n = *snG_node(g, id);
    const OpInfo *op = snG_op(g->ctx, n.op);
    Here at = here_of(b, id);
    NodeId x = snG_in(g, id, i), d;
    if (!strcmp(text, "dy")) {
        d = b->dy[id];
    } else {
        Sym names[MAX_IN + 2] = { b->s_dy, b->s_y };
        NodeId vals[MAX_IN + 2] = { b->dy[id], id };
        int k = 2;
        for (unsigned j = 0; j < n.nin && j < op->nin && j < MAX_NAMED; j++, k++) {
            names[k] = op->in_name[j];
            vals[k] = snG_in(g, id, j);
        }
        if (op->flags & F_VARIADIC) text = place_operand(g, id, i, text);
        d = snG_expr(g, at, text, names, vals, k, id);
    }
    const Type *tx = snG_type(g, x), *td = snG_type(g, d);
    if (tx->rank == 0 && td->rank > 0) d = snG_add(g, at, OP_sum, &d, 1, NULL);
    else if (snG_count(td) < snG_count(tx)) d = snG_broadcast_to(g, at, d, tx);
    else if (!snG_same_shape(td, tx)) d = snG_expr(g, at, "sum_to(dy, y)", (Sym[]){ b->s_dy, b->s_y }, (NodeId[]){ d, x }, 2, 0);
    if (snG_type(g, d)->dtype != tx->dtype) {
        Attrs to = { .v[0] = { .kind = A_DTYPE, .i = { tx->dtype } } };
        d = snG_add(g, at, OP_cast, &d, 1, &to);
    }
    return d;
}

static void back_node(Back *b, NodeId id) {
    Graph *g = b->g;
    const OpInfo *op = snG_op(g->ctx, snG_node(g, id)->op);
    unsigned nin = snG_node(g, id)->nin;
    for (unsigned i = 0; i < nin; i++) {
        NodeId x = snG_in(g, id, i);
        const char *text = vjp_text(op, i);
        if (!b->active[x] || !text) continue;
        NodeId d = operand_grad(b, id, i, text), sum[2] = { b->dy[x], d };
        b->dy[x] = b->dy[x] ? snG_add(g, here_of(b, x), OP_add, sum, 2, NULL) : d;
    }
}

void snP_backward(Graph *g, NodeId loss, NodeId seed, const bool *want, NodeId *d) {
    sn_ctx *c = g->ctx;
    if (snG_count(snG_type(g, loss)) != 1 || !snG_is_float(snG_type(g, loss)->dtype))
        snU_fail(c, SN_SHAPE, snG_node(g, loss)->loc, "the loss must be one float; reduce it with mean or sum");
    ArenaMark mark = snU_mark(&c->scratch);
    Back b = { .g = g, .s_dy = snU_symz(c, "dy"), .s_y = snU_symz(c, "y") };
    b.active = find_active(g, want, &c->scratch);
    b.dy = NEWN(&c->scratch, NodeId, g->nodes.n);
    Here at = { snG_node(g, loss)->loc, snU_symz(c, "d") };
    if (!seed) seed = snG_const(g, at, snG_type(g, loss)->dtype, 1);
    b.dy[loss] = snG_broadcast_to(g, at, seed, snG_type(g, loss));
    for (NodeId id = loss; id > 0; id--)
        if (b.dy[id] && b.active[id]) back_node(&b, id);
    for (uint32_t i = 0; i < g->leaves.n; i++)
        d[i] = want[i] && g->leaves.v[i].node <= loss ? b.dy[g->leaves.v[i].node] : 0;
    snU_reset(&c->scratch, mark);
}

/* Some axis of y is a repetition of x: x lacks it or has a 1 there. */
static bool is_broadcast(const Type *x, const Type *y) {
    int more = y->rank - x->rank;
    for (int i = 0; i < y->rank; i++)
        if (y->dim[i] > 1 && (i < more || x->dim[i - more] == 1)) return more >= 0;
    return false;
}

/* Composites to differentiate through their bodies: those without a vjp, and those whose first operand is broadcast,
   which gradient texts do not provide for. */
static bool without_vjp(const Graph *g, NodeId id, const void *user) {
    const Node *n = snG_node(g, id);
    (void)user;
    return !has_vjp(snG_op(g->ctx, n->op)) || (n->nin && is_broadcast(snG_type(g, snG_in(g, id, 0)), snG_type(g, id)));
}

static NodeId find_output(const Graph *g, const char *name) {
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!strcmp(snU_str(g->ctx, g->outputs.v[i].name), name)) return g->outputs.v[i].node;
    snU_fail(g->ctx, SN_UNKNOWN, 0, "graph %s has no output %s to differentiate", snU_str(g->ctx, g->name), name);
}

/* needs: nothing.  gives: outputs grad.*.  keeps: outputs, updates, composites with a vjp. */
Graph *snP_grad(const Graph *old, const PassOptions *opt) {
    sn_ctx *c = old->ctx;
    Graph *g = snP_inline(old, without_vjp, NULL);
    NodeId loss = find_output(g, opt->loss ? opt->loss : "loss");
    bool *want = NEWN(g->arena, bool, g->leaves.n + 1);
    NodeId *d = NEWN(g->arena, NodeId, g->leaves.n + 1);
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        NodeId id = g->leaves.v[i].node;
        unsigned op = snG_node(g, id)->op;
        want[i] = snG_is_float(snG_type(g, id)->dtype) && (op == OP_weight || (opt->grad_inputs && op == OP_input));
    }
    snP_backward(g, loss, 0, want, d);
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        if (!want[i]) continue;
        NodeId leaf = g->leaves.v[i].node;
        const Type *t = snG_type(g, leaf);
        Here at = { snG_node(g, leaf)->loc, 0 };
        if (!d[i]) d[i] = snG_broadcast_to(g, at, snG_const(g, at, t->dtype, 0), t);
        snG_set_output(g, snU_symf(c, "grad.%s", snU_str(c, g->leaves.v[i].name)), d[i], at.loc);
    }
    Graph *out = snG_dce(g);
    snG_free(g);
    return out;
}
