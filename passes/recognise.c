/* recognise.c: the body of an op of std.sn is its own recogniser.

   In:  a node of a graph. Out: the composite op that the node and its operands spell out by hand.

     ss = sum(x * x, axis=[2]);  y = x * rsqrt(ss / 192 + 1e-6) * gain
   becomes
     y: f32[B, T, 192] = rmsnorm(x, gain, eps=1e-6)

   In two steps. A body elaborated for small sample types, with its inputs as wildcards, is matched loosely: ops only, any
   shape, any constant; where the sample has a default attribute's value (eps) the constant found there is the attribute.
   Then the guess is proved: the op's body is built over the operands found, and hash-consing must return the very node. */
#include "passes/pass.h"
#include "passes/rewrite.h"

typedef struct Known { unsigned op; const Graph *body; struct Known *next; } Known;   /* body: sample, canonical */

typedef struct Bodies {
    Known **by_root;                 /* per op of the body's root, larger bodies first */
    unsigned nops;
    HashMap canonical;               /* of a body -> 1 + index in the context's graphs */
    VEC(const Graph *) of;
} Bodies;

/* The body as the pass canon leaves a hand-written copy. */
static const Graph *canonical(sn_ctx *c, Bodies *b, const Graph *body) {
    uint64_t key = snU_hash(&body, sizeof body, 7);
    uint32_t i = snU_find(&b->canonical, key);
    if (i && b->of.v[i - 1] == body) return c->rules->graphs.v[i - 1];
    Graph *g = snP_canon(body, &(PassOptions){0});
    PUSH(&c->arena, c->rules->graphs, g);
    PUSH(&c->arena, b->of, body);
    snU_insert(&c->arena, &b->canonical, key, b->of.n);
    return g;
}

/* -- Samples ----------------------------------------------------------------------------------------- */

static uint32_t computing_nodes(const Graph *g) {
    uint32_t n = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        unsigned cls = snG_op(g->ctx, snG_node(g, id)->op)->cls;
        n += cls != C_LEAF && cls != C_GEN && cls != C_MOVE;
    }
    return n;
}

static void add_known(sn_ctx *c, Bodies *b, unsigned op, const Graph *body) {
    unsigned root = snG_node(body, body->outputs.v[0].node)->op;
    if (computing_nodes(body) < 2 || root == op) return;
    Known *k = NEW(&c->arena, Known), **at = &b->by_root[root];
    *k = (Known){ op, body, NULL };
    while (*at && (*at)->body->nodes.n >= body->nodes.n) at = &(*at)->next;
    k->next = *at;
    *at = k;
}

/* The body of op over operands of these types with default attributes; NULL when that does not elaborate. */
static const Graph *sample_body(sn_ctx *c, unsigned op, const Type *const *types, unsigned nin) {
    Graph *volatile tmp = snG_new(c, snU_symz(c, "sample"));
    SN_ENTER(c, {
        sn_clear(c);
        snG_free(tmp);
        return NULL;
    });
    NodeId in[MAX_NAMED];
    for (unsigned i = 0; i < nin; i++)
        in[i] = snG_add_leaf(tmp, (Here){0}, OP_input, snU_symf(c, "x%u", i), types[i], &(Leaf){0});
    NodeId id = snG_add(tmp, (Here){0}, op, in, nin, NULL);
    const Graph *body = snG_body(c, op, types, nin, snG_node(tmp, id)->attr, 0);
    SN_LEAVE(c);
    snG_free(tmp);
    return body;
}

/* First operand [2, 4, n], the others [2, 4, n], [n], i32 [2, 4] in every combination that elaborates. n = 8 and n = 6, since
   a division by a power of two is a product in canonical form. */
static void learn(sn_ctx *c, Bodies *b, unsigned op, int64_t n) {
    const Type choice[] = {
        { .dtype = SN_F32, .rank = 3, .dim = { 2, 4, n } },
        { .dtype = SN_F32, .rank = 1, .dim = { n } },
        { .dtype = SN_I32, .rank = 2, .dim = { 2, 4 } },
    };
    const OpInfo *info = snG_op(c, op);
    if (info->cls != C_COMPOSITE || info->nin < 1 || info->nin > 3 || info->flags & (F_VARIADIC | F_MULTI)) return;
    for (unsigned i = 0; i < info->nattr; i++)
        if (!info->attr_has_default[i]) return;
    int combinations = info->nin == 1 ? 1 : info->nin == 2 ? 3 : 9;
    for (int k = 0; k < combinations; k++) {
        const Type *types[3] = { &choice[0], &choice[k % 3], &choice[k / 3] };
        const Graph *body = sample_body(c, op, types, info->nin);
        if (body) add_known(c, b, op, canonical(c, b, body));
    }
}

static Bodies *bodies_of(sn_ctx *c) {
    Bodies *b = c->rules->bodies;
    unsigned nops = snG_num_ops(c), from = b ? b->nops : OP_NPRIM;
    if (!b) c->rules->bodies = b = NEW(&c->arena, Bodies);
    if (b->nops == nops) return b;
    b->by_root = snU_grow(&c->arena, b->by_root, sizeof *b->by_root * b->nops, sizeof *b->by_root * nops);
    b->nops = nops;
    for (unsigned op = from; op < nops; op++) learn(c, b, op, 8), learn(c, b, op, 6);
    return b;
}

/* -- Loose match ------------------------------------------------------------------------------------------ */

typedef struct Guess {
    const Graph *body, *g;
    const OpInfo *op;
    NodeId args[MAX_NAMED];
    Attrs attrs;
    int budget;                      /* node visits left: a wrong guess costs little */
} Guess;

static int formal_index(const Graph *body, NodeId id) {
    for (uint32_t i = 0; i < body->leaves.n; i++)
        if (body->leaves.v[i].node == id) return (int)i;
    return -1;
}

/* The sample's constant is an attribute's default: then what stands there is the attribute. */
static void guess_attr(Guess *s, double sample, double found) {
    for (unsigned k = 0; k < s->op->nattr; k++) {
        if (s->op->attr_kind[k] != A_FLOAT || (float)s->op->attr_default[k].f != (float)sample) continue;
        char buf[40];
        s->attrs.v[k] = (AttrVal){ .kind = A_FLOAT, .f = strtod(snU_num(buf, found, true), NULL) };   /* 1e-05, as it was written */
    }
}

static bool loose(Guess *s, NodeId b, NodeId x) {
    int formal = formal_index(s->body, b);
    double want, found;
    if (s->budget-- <= 0) return false;
    if (formal >= 0) {
        if (!s->args[formal]) s->args[formal] = x;
        return s->args[formal] == x;
    }
    const Node *n = snG_node(s->body, b), *m = snG_node(s->g, x);
    if (n->op != m->op || n->nin != m->nin) return false;
    if (n->op == OP_const) {
        if (snG_is_const(s->body, b, &want) && snG_is_const(s->g, x, &found)) guess_attr(s, want, found);
        return true;
    }
    const OpInfo *op = snG_op(s->g->ctx, n->op);
    for (unsigned k = 0; k < op->nattr; k++)                            /* an axis or an eps inside an inner composite */
        if (op->attr_kind[k] == A_FLOAT) guess_attr(s, snG_attr(s->body, b, k)->f, snG_attr(s->g, x, k)->f);
    Guess saved = *s;
    bool ok = true;
    for (unsigned i = 0; i < n->nin && ok; i++) ok = loose(s, snG_in(s->body, b, i), snG_in(s->g, x, i));
    if (ok || !(op->flags & F_COMM)) return ok;
    saved.budget = s->budget;
    *s = saved;
    return loose(s, snG_in(s->body, b, 0), snG_in(s->g, x, 1)) && loose(s, snG_in(s->body, b, 1), snG_in(s->g, x, 0));
}

/* -- Proof ------------------------------------------------------------------------------------------------- */

static NodeId prove(Graph *g, Bodies *b, Guess *s, unsigned op, NodeId id, Here at) {
    sn_ctx *c = g->ctx;
    SN_ENTER(c, {
        sn_clear(c);
        return 0;
    });
    NodeId out = snG_add(g, at, op, s->args, s->op->nin, s->op->nattr ? &s->attrs : NULL);
    const Type *types[MAX_NAMED];
    for (unsigned i = 0; i < s->op->nin; i++) types[i] = snG_type(g, s->args[i]);
    const Graph *body = snG_body(c, op, types, s->op->nin, snG_node(g, out)->attr, at.loc);
    NodeId spelled = snG_inline(g, at, canonical(c, b, body), s->args, false);
    SN_LEAVE(c);
    return spelled == id ? out : 0;
}

NodeId snP_recognise_body(Graph *g, NodeId id, Here at) {
    Bodies *b = bodies_of(g->ctx);
    for (Known *k = b->by_root[snG_node(g, id)->op]; k; k = k->next) {
        Guess s = { .body = k->body, .g = g, .op = snG_op(g->ctx, k->op), .budget = 200 };
        if (!loose(&s, k->body->outputs.v[0].node, id)) continue;
        bool complete = true;
        for (unsigned i = 0; i < s.op->nin; i++) complete &= s.args[i] != 0;
        NodeId out = complete ? prove(g, b, &s, k->op, id, at) : 0;
        if (out) return out;
    }
    return 0;
}
