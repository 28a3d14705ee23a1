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
     w.1: f32[72] = concat(reshape(w, [64]), gain)                 # and so m, v and the gradients
     m.1: f32[72] = add(mul(beta1, m), mul(sub(1, beta1), mul(g, coef)))
     update adam.m.w = reshape(slice(m.1, start=0, size=64), [8, 8])

   The update is written once for all weights that decay and once for those that do not, over all their elements in a row: one
   kernel each. The concats cost nothing: weights and moments lie in that order, gradients are computed into their places, and
   the results are written over the old values (place.c).

   A loss graph with the output `ema_decay`, which is an input (models: -D ema=0.999), also keeps an average of every weight, the state
   ema.<w> (std.sn: ema_w): after the first step it is the weight, then it fades by that factor a step.

   What a sweep varies is an input with a default (HYPER below): changing it recompiles nothing. The
   formulas are blocks of std.sn. Weight decay acts on matrices only, not on embeddings (tables of a
   gather, tied ones included). */
#include "passes/pass.h"

#include <math.h>

#define FROM(lo)       { lo, INFINITY, RANGE_GIVEN }
#define ABOVE(lo)      { lo, INFINITY, RANGE_GIVEN | RANGE_ABOVE }
#define SHARE          { 0, 1, RANGE_GIVEN | RANGE_BELOW }
static const struct { const char *name; double value; InputRange range; } HYPER[] = {
    { "step", 1, FROM(1) },          /* 1-based optimizer step, fed by the runtime */
    { "lr", 1e-3, FROM(0) }, { "lr_min", 0, FROM(0) }, { "wd", 0.1, FROM(0) }, { "beta1", 0.9, SHARE }, { "beta2", 0.95, SHARE },
    { "adam_eps", 1e-8, ABOVE(0) },
    { "clip", 1, { 0 } },            /* global gradient norm; <= 0 = off */
    { "schedule", 0, { 0, 3, RANGE_GIVEN | RANGE_WHOLE } },      /* 0 constant, 1 cosine, 2 WSD linear, 3 WSD exponential */
    { "warmup", 200, FROM(0) }, { "total", 0, FROM(0) },
    { "decay", 0, FROM(0) },         /* WSD: its steps, the last of `total` or from decay_start */
    { "decay_start", -1, { 0 } },
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
    NAMES = NHYPER + NSCALAR + 12,
    ALIGN = 64,                      /* bytes: weights of a multiple of it come first, so that they all start at one */
};

typedef struct Param { NodeId w, grad; Sym name; bool decay; } Param;
typedef VEC(NodeId) NodeList;

/* Weights of one dtype that decay, or do not; w, grad: all of their elements in a row; none: zeros, once the gradients have been used. */
typedef struct Family {
    Dtype dtype;
    bool decay;
    VEC(Param) params;
    NodeId w, grad, none;
} Family;

typedef struct Optim {
    Graph *g;
    Here at;
    VEC(Param) params;
    VEC(Family) families;
    Sym names[NAMES];                /* what texts may say */
    NodeId vals[NAMES];
    int n;
    Sym ema;                         /* the input that is the decay of averages; 0: none are kept */
    double ema_default;
    InputRange ema_range;
    bool clears;                     /* the gradients are states, to be zero after the step */
} Optim;

static void bind(Optim *o, const char *name, NodeId v) {
    SN_ASSERT(o->n < NAMES, "too many names");
    o->names[o->n] = snU_symz(o->g->ctx, name);
    o->vals[o->n++] = v;
}

const InputRange *snP_optim_range(const char *input) {
    for (int i = 0; i < NHYPER; i++)
        if (!strcmp(HYPER[i].name, input)) return &HYPER[i].range;
    return NULL;
}

static NodeId text(Optim *o, const char *t) {
    return snG_expr(o->g, o->at, t, o->names, o->vals, o->n, 0);
}

static NodeId to_f32(Optim *o, NodeId x) {
    if (snG_type(o->g, x)->dtype == SN_F32) return x;
    Attrs to = { .v[0] = { .kind = A_DTYPE, .i = { SN_F32 } } };
    return snG_add(o->g, o->at, OP_cast, &x, 1, &to);
}

static NodeId input(Graph *g, const char *name, double value, InputRange range) {
    Sym s = snU_symz(g->ctx, name);
    for (uint32_t i = 0; i < g->leaves.n; i++)
        if (g->leaves.v[i].name == s) return g->leaves.v[i].node;
    Type t = { .dtype = SN_F32 };
    return snG_add_leaf(g, (Here){0}, OP_input, s, &t, &(Leaf){ .init = INIT_FULL, .a = value, .range = range });
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

/* -- All elements of many tensors in a row ------------------------------------------------------- */

static NodeId reshape(Optim *o, NodeId x, const int64_t *dim, int rank) {
    Attrs a = { .v[0] = { .kind = A_LIST, .n = (uint8_t)rank } };
    memcpy(a.v[0].i, dim, sizeof *dim * (size_t)rank);
    return snG_add(o->g, o->at, OP_reshape, &x, 1, &a);
}

/* Concat takes MAX_IN operands: more become concats of concats. */
static NodeId in_a_row(Optim *o, NodeList v) {
    Graph *g = o->g;
    for (uint32_t i = 0; i < v.n; i++) v.v[i] = reshape(o, v.v[i], (int64_t[]){ snG_count(snG_type(g, v.v[i])) }, 1);
    while (v.n > 1) {
        NodeList next = {0};
        for (uint32_t i = 0; i < v.n; i += MAX_IN) {
            unsigned n = v.n - i < MAX_IN ? v.n - i : MAX_IN;
            Attrs axis = { .v[0] = { .kind = A_INT, .i = { 0 } } };
            PUSH(g->arena, next, snG_add(g, o->at, OP_concat, v.v + i, n, &axis));
        }
        v = next;
    }
    return v.v[0];
}

/* `like`'s elements from a row, from element `at` on. */
static NodeId out_of_row(Optim *o, NodeId row, int64_t at, NodeId like) {
    const Type *t = snG_type(o->g, like);
    Attrs a = { .v = { { .kind = A_INT, .i = { 0 } }, { .kind = A_INT, .i = { at } }, { .kind = A_INT, .i = { snG_count(t) } } } };
    return reshape(o, snG_add(o->g, o->at, OP_slice, &row, 1, &a), t->dim, t->rank);
}

static int64_t bytes_of(const Graph *g, NodeId id) {
    const Type *t = snG_type(g, id);
    return snG_count(t) * snG_dtype_size(t->dtype);
}

static void add_to_family(Optim *o, const Param *p) {
    Dtype d = (Dtype)snG_type(o->g, p->w)->dtype;
    uint32_t i = 0;
    while (i < o->families.n && (o->families.v[i].dtype != d || o->families.v[i].decay != p->decay)) i++;
    if (i == o->families.n) PUSH(o->g->arena, o->families, ((Family){ .dtype = d, .decay = p->decay }));
    PUSH(o->g->arena, o->families.v[i].params, *p);
}

static void find_families(Optim *o) {
    for (int odd = 0; odd < 2; odd++)
        for (uint32_t i = 0; i < o->params.n; i++)
            if ((bytes_of(o->g, o->params.v[i].w) % ALIGN != 0) == odd) add_to_family(o, &o->params.v[i]);
    for (uint32_t k = 0; k < o->families.n; k++) {
        Family *f = &o->families.v[k];
        NodeList w = {0}, d = {0};
        o->at.path = snU_symz(o->g->ctx, f->decay ? "adam.decay" : "adam.keep");
        for (uint32_t i = 0; i < f->params.n; i++) {
            PUSH(o->g->arena, w, f->params.v[i].w);
            PUSH(o->g->arena, d, f->params.v[i].grad);
        }
        f->w = in_a_row(o, w);
        f->grad = to_f32(o, in_a_row(o, d));
    }
}

/* -- The update -------------------------------------------------------------------------------- */

static void bind_scalars(Optim *o) {
    Graph *g = o->g;
    for (int i = 0; i < NHYPER; i++)
        bind(o, HYPER[i].name, input(g, HYPER[i].name, HYPER[i].value, HYPER[i].range));
    o->at = (Here){ .path = snU_symz(g->ctx, "adam") };
    NodeId total = 0;
    for (uint32_t i = 0; i < o->families.n; i++) {
        NodeId d = o->families.v[i].grad, sq[2] = { d, d };
        NodeId s = snG_add(g, o->at, OP_mul, sq, 2, NULL);
        NodeId acc[2] = { total, snG_add(g, o->at, OP_sum, &s, 1, NULL) };
        total = total ? snG_add(g, o->at, OP_add, acc, 2, NULL) : acc[1];
    }
    if (!total) total = snG_const(g, o->at, SN_F32, 0);
    NodeId norm = snG_add(g, o->at, OP_sqrt, &total, 1, NULL);
    bind(o, "norm", norm);
    for (int i = 0; i < NSCALAR; i++) bind(o, SCALARS[i].name, text(o, SCALARS[i].text));
    if (o->ema) {
        bind(o, "ema", input(g, snU_str(g->ctx, o->ema), o->ema_default, o->ema_range));
        bind(o, "fades", text(o, "ema_keep(ema, step) as _"));
    }
    snG_set_output(g, snU_symz(g->ctx, "grad_norm"), norm, 0);
    snG_set_output(g, snU_symz(g->ctx, "lr_now"), text(o, "lr_now"), 0);
}

/* The states "<prefix><weight>" of a family, in a row. */
static NodeId states_of(Optim *o, const Family *f, const char *prefix) {
    NodeList v = {0};
    for (uint32_t i = 0; i < f->params.n; i++) PUSH(o->g->arena, v, state(o->g, prefix, f->params.v[i].name, f->params.v[i].w));
    return in_a_row(o, v);
}

static void update_family(Optim *o, Family *f) {
    Graph *g = o->g;
    int n = o->n;
    int64_t start = 0;
    o->at.path = snU_symz(g->ctx, f->decay ? "adam.decay" : "adam.keep");
    bind(o, "w", to_f32(o, f->w));
    bind(o, "d", f->grad);
    bind(o, "m", states_of(o, f, "adam.m."));
    bind(o, "v", states_of(o, f, "adam.v."));
    bind(o, "g", text(o, "d * coef"));
    NodeId m2 = text(o, "adamw_m(m, g, beta1) as _"), v2 = text(o, "adamw_v(v, g, beta2) as _");
    bind(o, "m2", m2);
    bind(o, "v2", v2);
    NodeId w2 = text(o, f->decay ? "adamw_w(w, m2, v2, rate, root, keep, adam_eps) as _"
                                 : "adamw_w(w, m2, v2, rate, root, 1.0, adam_eps) as _");
    NodeId e2 = 0;
    if (o->ema) {
        bind(o, "w2", w2);
        bind(o, "e", states_of(o, f, "ema."));
        e2 = text(o, "ema_w(e, w2, fades) as _");
    }
    Attrs to = { .v[0] = { .kind = A_DTYPE, .i = { f->dtype } } };
    if (f->dtype != SN_F32) w2 = snG_add(g, o->at, OP_cast, &w2, 1, &to);
    NodeId cleared[2] = { snG_broadcast_to(g, o->at, snG_const(g, o->at, SN_F32, 0), snG_type(g, f->grad)), w2 };
    if (o->clears) f->none = snG_add(g, o->at, OP_fence, cleared, 2, NULL);
    for (uint32_t i = 0; i < f->params.n; i++) {
        const Param *p = &f->params.v[i];
        snG_set_update(g, state(g, "adam.m.", p->name, p->w), out_of_row(o, m2, start, p->w), 0);
        snG_set_update(g, state(g, "adam.v.", p->name, p->w), out_of_row(o, v2, start, p->w), 0);
        snG_set_update(g, p->w, out_of_row(o, w2, start, p->w), 0);
        if (e2) snG_set_update(g, state(g, "ema.", p->name, p->w), out_of_row(o, e2, start, p->w), 0);
        start += snG_count(snG_type(g, p->w));
    }
    o->n = n;
}

/* Updates of all weights and moments. */
static void update_all(Optim *o) {
    find_families(o);
    bind_scalars(o);
    for (uint32_t i = 0; i < o->families.n; i++) update_family(o, &o->families.v[i]);
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

static void find_averages(Optim *o, const Graph *train) {
    Sym name = snU_symz(train->ctx, "ema_decay");
    for (uint32_t i = 0; i < train->outputs.n; i++) {
        NodeId v = train->outputs.v[i].node;
        if (train->outputs.v[i].name != name) continue;
        if (snG_node(train, v)->op != OP_input || snG_type(train, v)->rank || snG_type(train, v)->dtype != SN_F32)
            snU_fail(train->ctx, SN_TYPE, snG_node(train, v)->loc, "the output ema_decay must be an input f32[], the decay of averaged weights");
        o->ema = snG_leaf(train, v)->name;
        o->ema_default = snG_leaf(train, v)->a;
        o->ema_range = snG_leaf(train, v)->range;
    }
}

/* A copy with gradients: those that the pass grad has left as outputs, or its own. */
static Optim begin(const Graph *train, const PassOptions *opt) {
    Optim o = { .g = has_gradients(train) ? snG_dce((Graph *)train) : snP_grad(train, opt) };
    take_gradients(&o);
    find_averages(&o, o.g);
    return o;
}

Graph *snP_optim(const Graph *train, const PassOptions *opt) {
    Optim o = begin(train, opt);
    update_all(&o);
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
    bind(&o, "scale", input(g, "accum_scale", 1, (InputRange)ABOVE(0)));
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

static void clear_gradients(Optim *o, const Family *f) {
    int64_t start = 0;
    for (uint32_t i = 0; i < f->params.n; i++) {
        NodeId grad = f->params.v[i].grad;
        snG_set_update(o->g, grad, out_of_row(o, f->none, start, grad), 0);
        start += snG_count(snG_type(o->g, grad));
    }
}

Graph *snP_apply(const Graph *train, const PassOptions *opt) {
    sn_ctx *c = train->ctx;
    Optim from = begin(train, opt), o = { .g = snG_new(c, snU_symz(c, "apply")), .ema = from.ema, .ema_default = from.ema_default, .ema_range = from.ema_range, .clears = true };
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
    update_all(&o);
    for (uint32_t k = 0; k < o.families.n; k++) clear_gradients(&o, &o.families.v[k]);
    snG_set_update(g, loss, zero, 0);
    snG_free(from.g);
    return finish(&o);
}
