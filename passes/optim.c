/* optim.c: loss graph -> training step: forward, backward, AdamW.

   In:  a graph with an output `loss`, with or without the outputs grad.<w> of the pass grad.
   Out, by pass:
     optim   one graph: everything of the loss graph, updates of every weight and of its moments
             adam.m.<w>, adam.v.<w>, and the outputs grad_norm and lr_now.
     accum   one micro-step of several: gradients times accum_scale are added to the f32 states
             accum.<w>, the loss to accum.loss.
     apply   the update from accum.<w>, which it zeroes; outputs loss, grad_norm, lr_now. No data.

     output loss = f(w)
   becomes
     state adam.m.w: f32[8, 8] = zeros()
     update adam.m.w = add(mul(beta1, adam.m.w), mul(sub(1, beta1), mul(d.w, coef)))
     update w = ...

   What a sweep varies is an input with a default (HYPER below): changing it recompiles nothing. The
   formulas are blocks of std.sn. Weight decay acts on matrices only, not on embeddings (tables of a
   gather, tied ones included). */
#include "passes/pass.h"

static const struct { const char *name; double value; } HYPER[] = {
    { "step", 1 },                   /* 1-based optimizer step, fed by the runtime */
    { "lr", 1e-3 }, { "lr_min", 0 }, { "wd", 0.1 }, { "beta1", 0.9 }, { "beta2", 0.95 },
    { "adam_eps", 1e-8 },
    { "clip", 1 },                   /* global gradient norm; <= 0 = off */
    { "schedule", 0 },               /* 0 constant, 1 cosine, 2 WSD linear, 3 WSD exponential */
    { "warmup", 200 }, { "total", 0 },
    { "decay", 0 },                  /* WSD: its steps, the last of `total` or from decay_start */
    { "decay_start", -1 },
};

/* Scalars of a step, computed once for all weights; each may use the ones before it. */
static const struct { const char *name, *text; } SCALARS[] = {
    { "lr_now", "learning_rate(step, lr, lr_min, schedule, warmup, total, decay, decay_start)"
                " as _" },
    { "coef",   "clip_scale(norm, clip) as _" },
    { "rate",   "adamw_rate(lr_now, beta1, step) as _" },
    { "root",   "adamw_root(beta2, step) as _" },
    { "keep",   "adamw_keep(lr_now, wd) as _" },
};

enum {
    NHYPER = sizeof HYPER / sizeof *HYPER,
    NSCALAR = sizeof SCALARS / sizeof *SCALARS,
    NAMES = NHYPER + NSCALAR + 8,
};

typedef struct Param { NodeId w, grad; Sym name; bool decay; } Param;

typedef struct Optim {
    Graph *g;
    Here at;
    VEC(Param) params;
    Sym names[NAMES];                /* what texts may say */
    NodeId vals[NAMES];
    int n;
} Optim;

static void bind(Optim *o, const char *name, NodeId v) {
    SN_ASSERT(o->n < NAMES, "too many names");
    o->names[o->n] = snU_symz(o->g->ctx, name);
    o->vals[o->n++] = v;
}

static NodeId text(Optim *o, const char *t) {
    return snG_expr(o->g, o->at, t, o->names, o->vals, o->n, 0);
}

static NodeId to_f32(Optim *o, NodeId x) {
    if (snG_type(o->g, x)->dtype == SN_F32) return x;
    Attrs to = { .v[0] = { .kind = A_DTYPE, .i = { SN_F32 } } };
    return snG_add(o->g, o->at, OP_cast, &x, 1, &to);
}

static NodeId input(Graph *g, const char *name, double value) {
    Sym s = snU_symz(g->ctx, name);
    for (uint32_t i = 0; i < g->leaves.n; i++)
        if (g->leaves.v[i].name == s) return g->leaves.v[i].node;
    Type t = { .dtype = SN_F32 };
    return snG_add_leaf(g, (Here){0}, OP_input, s, &t, &(Leaf){ .init = INIT_FULL, .a = value });
}

/* A f32 state "<prefix><name>" of the shape of x. */
static NodeId state(Graph *g, const char *prefix, Sym name, NodeId x) {
    Type t = *snG_type(g, x);
    t.dtype = SN_F32;
    Sym s = snU_symf(g->ctx, "%s%s", prefix, snU_str(g->ctx, name));
    return snG_add_leaf(g, (Here){0}, OP_state, s, &t, &(Leaf){ .init = INIT_ZEROS });
}

/* -- Which weights, and which of them decay ---------------------------------------------------- */

/* The leaf behind casts, fences and moves. */
static NodeId source_of(const Graph *g, NodeId id) {
    for (;;) {
        const Node *n = snG_node(g, id);
        bool move = snG_op(g->ctx, n->op)->cls == C_MOVE;
        bool through = n->op == OP_cast || n->op == OP_fence || move;
        if (!through || !n->nin) return id;
        id = snG_in(g, id, 0);
    }
}

static bool *find_embeddings(const Graph *g) {
    bool *is = NEWN(g->arena, bool, g->nodes.n);
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (snG_node(g, id)->op == OP_gather) is[source_of(g, snG_in(g, id, 0))] = true;
    return is;
}

/* Takes the outputs grad.<w> out of g: one Param per weight that the loss depends on. */
static void take_gradients(Optim *o) {
    Graph *g = o->g;
    const bool *embedding = find_embeddings(g);
    HashMap grad_of = {0};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->outputs.n; i++) {
        Output out = g->outputs.v[i];
        const char *name = snU_str(g->ctx, out.name);
        if (strncmp(name, "grad.", 5) != 0) g->outputs.v[kept++] = out;
        else snU_insert(g->arena, &grad_of, snU_symz(g->ctx, name + 5), out.node);
    }
    g->outputs.n = kept;
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        Leaf l = g->leaves.v[i];
        NodeId d = snG_node(g, l.node)->op == OP_weight ? snU_find(&grad_of, l.name) : 0;
        double v;
        if (!d || (snG_is_const(g, d, &v) && v == 0)) continue;
        bool decay = snG_type(g, l.node)->rank >= 2 && !embedding[l.node];
        PUSH(g->arena, o->params, ((Param){ l.node, d, l.name, decay }));
    }
}

/* -- The update -------------------------------------------------------------------------------- */

static void bind_scalars(Optim *o) {
    Graph *g = o->g;
    for (int i = 0; i < NHYPER; i++)
        bind(o, HYPER[i].name, input(g, HYPER[i].name, HYPER[i].value));
    o->at = (Here){ .path = snU_symz(g->ctx, "adam") };
    NodeId total = 0;
    for (uint32_t i = 0; i < o->params.n; i++) {
        NodeId d = to_f32(o, o->params.v[i].grad), sq[2] = { d, d };
        NodeId s = snG_add(g, o->at, OP_mul, sq, 2, NULL);
        NodeId acc[2] = { total, snG_add(g, o->at, OP_sum, &s, 1, NULL) };
        total = total ? snG_add(g, o->at, OP_add, acc, 2, NULL) : acc[1];
    }
    if (!total) total = snG_const(g, o->at, SN_F32, 0);
    NodeId norm = snG_add(g, o->at, OP_sqrt, &total, 1, NULL);
    bind(o, "norm", norm);
    for (int i = 0; i < NSCALAR; i++) bind(o, SCALARS[i].name, text(o, SCALARS[i].text));
    snG_set_output(g, snU_symz(g->ctx, "grad_norm"), norm, 0);
    snG_set_output(g, snU_symz(g->ctx, "lr_now"), text(o, "lr_now"), 0);
}

static void update_param(Optim *o, const Param *p) {
    Graph *g = o->g;
    int n = o->n;
    o->at.path = snU_symf(g->ctx, "adam.%s", snU_str(g->ctx, p->name));
    NodeId m = state(g, "adam.m.", p->name, p->w), v = state(g, "adam.v.", p->name, p->w);
    bind(o, "w", to_f32(o, p->w));
    bind(o, "d", to_f32(o, p->grad));
    bind(o, "m", m);
    bind(o, "v", v);
    bind(o, "g", text(o, "d * coef"));
    bind(o, "m2", text(o, "adamw_m(m, g, beta1) as _"));
    bind(o, "v2", text(o, "adamw_v(v, g, beta2) as _"));
    NodeId w2 = text(o, p->decay ? "adamw_w(w, m2, v2, rate, root, keep, adam_eps) as _"
                                 : "adamw_w(w, m2, v2, rate, root, 1.0, adam_eps) as _");
    Attrs to = { .v[0] = { .kind = A_DTYPE, .i = { snG_type(g, p->w)->dtype } } };
    if (to.v[0].i[0] != SN_F32) w2 = snG_add(g, o->at, OP_cast, &w2, 1, &to);
    snG_set_update(g, m, text(o, "m2"), 0);
    snG_set_update(g, v, text(o, "v2"), 0);
    snG_set_update(g, p->w, w2, 0);
    o->n = n;
}

static Graph *finish(Optim *o) {
    Graph *out = snG_dce(o->g);
    snG_free(o->g);
    return out;
}

static bool has_gradients(const Graph *g) {
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!strncmp(snU_str(g->ctx, g->outputs.v[i].name), "grad.", 5)) return true;
    return false;
}

/* A copy with gradients: those that the pass grad has left as outputs, or its own. */
static Optim begin(const Graph *train, const PassOptions *opt) {
    Optim o = { .g = has_gradients(train) ? snG_dce((Graph *)train) : snP_grad(train, opt) };
    take_gradients(&o);
    return o;
}

Graph *snP_optim(const Graph *train, const PassOptions *opt) {
    Optim o = begin(train, opt);
    bind_scalars(&o);
    for (uint32_t i = 0; i < o.params.n; i++) update_param(&o, &o.params.v[i]);
    return finish(&o);
}

static NodeId loss_of(const Graph *g, const PassOptions *opt) {
    Sym name = snU_symz(g->ctx, opt->loss ? opt->loss : "loss");
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (g->outputs.v[i].name == name) return g->outputs.v[i].node;
    return 0;                        /* snP_grad has failed before */
}

Graph *snP_accum(const Graph *train, const PassOptions *opt) {
    Optim o = begin(train, opt);
    Graph *g = o.g;
    g->name = snU_symz(g->ctx, "accum");
    o.at = (Here){ .path = snU_symz(g->ctx, "accum") };
    bind(&o, "scale", input(g, "accum_scale", 1));
    NodeId loss = loss_of(g, opt);
    loss = to_f32(&o, snG_add(g, o.at, OP_sum, &loss, 1, NULL));
    PUSH(g->arena, o.params, ((Param){ loss, loss, snU_symz(g->ctx, "loss"), false }));
    for (uint32_t i = 0; i < o.params.n; i++) {
        const Param *p = &o.params.v[i];
        int n = o.n;
        NodeId sum = state(g, "accum.", p->name, p->grad);
        bind(&o, "acc", sum);
        bind(&o, "d", to_f32(&o, p->grad));
        snG_set_update(g, sum, text(&o, "acc + d * scale"), 0);
        o.n = n;
    }
    return finish(&o);
}

Graph *snP_apply(const Graph *train, const PassOptions *opt) {
    sn_ctx *c = train->ctx;
    Optim from = begin(train, opt), o = { .g = snG_new(c, snU_symz(c, "apply")) };
    Graph *g = o.g;
    for (uint32_t i = 0; i < train->dims.n; i++) PUSH(g->arena, g->dims, train->dims.v[i]);
    for (uint32_t i = 0; i < from.params.n; i++) {
        Param p = from.params.v[i];
        const Leaf *l = snG_leaf(from.g, p.w);
        p.w = snG_add_leaf(g, (Here){0}, OP_weight, p.name, snG_type(from.g, p.w), l);
        p.grad = state(g, "accum.", p.name, p.w);
        PUSH(g->arena, o.params, p);
    }
    Type scalar = { .dtype = SN_F32 };
    NodeId loss = snG_add_leaf(g, (Here){0}, OP_state, snU_symz(c, "accum.loss"), &scalar,
                               &(Leaf){ .init = INIT_ZEROS });
    NodeId zero = snG_const(g, (Here){0}, SN_F32, 0);
    snG_set_output(g, snU_symz(c, "loss"), loss, 0);
    bind_scalars(&o);
    for (uint32_t i = 0; i < o.params.n; i++) {
        const Param *p = &o.params.v[i];
        update_param(&o, p);
        snG_set_update(g, p->grad, snG_broadcast_to(g, o.at, zero, snG_type(g, p->grad)), 0);
    }
    snG_set_update(g, loss, zero, 0);
    snG_free(from.g);
    return finish(&o);
}
