/* autocast.c: contractions in a half dtype (bf16, or f16), everything else as it was.

   In:  a graph of primitives and attention ops, gradients included (after `grad` and `expand`). Out: the
   same, where every contraction of f32 values reads their casts to PassOptions.autocast and sums in f32;
   without the option, the graph itself.

     y: f32[512, 768] = matmul(x, w)
   becomes
     x.h: bf16[512, 768] = cast(x, to=bf16)
     w.h: bf16[768, 768] = cast(w, to=bf16)
     y:   f32[512, 768]  = matmul(x.h, w.h, to=f32)

   It runs on the differentiated graph, so the products of the backward pass are contractions like the others;
   their operands include the incoming gradients. An attention op gets q, k, v and the gradient of its result
   as halves, and delta of that gradient; its scores and sums are f32 inside, its result is rounded once. Results of contractions stay
   f32: weights, their gradients and moments, the residual stream, softmax, norms and the loss are what they
   were, and nothing is rounded on the way to work that is done in a contraction's own kernel.

   A value has one cast, whoever reads it, because equal nodes are one: a weight is cast once per step for the
   forward pass and both products of the backward pass. The rules autocast.* then move casts to the value
   behind a view, so that it is rounded by the kernel that computes it; where contractions are its only
   readers, it is stored as half and the f32 value never is. */
#include "passes/attention.h"
#include "passes/pass.h"

static NodeId cast(Graph *g, Here at, NodeId x, Dtype to) {
    Attrs a = { .v[0] = { .kind = A_DTYPE, .i = { to } } };
    return snG_add(g, at, OP_cast, &x, 1, &a);
}

static bool is_f32(const Graph *g, NodeId id) { return snG_type(g, id)->dtype == SN_F32; }

/* The contraction over halves of its float operands. */
static NodeId contract_halves(Rebuild *r, NodeId id, Dtype half) {
    const Node *n = snG_node(r->old, id);
    Here at = { n->loc, n->path };
    Attrs attrs = *snG_attrs(r->old->ctx, n->attr);
    NodeId in[MAX_IN];
    for (unsigned i = 0; i < n->nin; i++) {
        in[i] = r->map[snG_in(r->old, id, i)];
        if (is_f32(r->g, in[i])) in[i] = cast(r->g, at, in[i], half);
    }
    const OpInfo *op = snG_op(r->old->ctx, n->op);
    Sym to = snU_symz(r->old->ctx, "to");
    for (unsigned k = 0; k < op->nattr; k++)
        if (op->attr_name[k] == to) attrs.v[k] = (AttrVal){ .kind = A_DTYPE, .i = { snG_type(r->old, id)->dtype } };
    NodeId y = snG_add(r->g, at, n->op, in, n->nin, &attrs);
    if (n->name) snG_rename(r->g, y, n->name);
    return y;
}

/* delta of an attention's gradient, where it is the sum of dy y: of dy as the products read it, for what rounding does to dy then
   cancels in dp - delta, and the f32 value of dy need not be kept. */
static NodeId delta_of_half(Rebuild *r, NodeId delta, NodeId dy, NodeId half_dy) {
    if (snG_node(r->old, delta)->op != OP_sum) return r->map[delta];
    NodeId product = snG_in(r->old, delta, 0), kept[2] = { r->map[dy], r->map[product] };
    if (snG_node(r->old, product)->op != OP_mul || !is_f32(r->old, dy)) return r->map[delta];
    r->map[dy] = cast(r->g, (Here){ snG_node(r->old, product)->loc, snG_node(r->old, product)->path }, half_dy, SN_F32);
    r->map[product] = snG_copy_node(r, product);
    NodeId y = snG_copy_node(r, delta);
    r->map[dy] = kept[0], r->map[product] = kept[1];
    return y;
}

/* An attention op over halves of what it multiplies; its result in the dtype it had. */
static NodeId attend_halves(Rebuild *r, NodeId id, Dtype half) {
    static const char *const multiplied[] = { "q", "k", "v", "dy" };
    const Node *n = snG_node(r->old, id);
    const OpInfo *op = snG_op(r->old->ctx, n->op);
    Here at = { n->loc, n->path };
    NodeId in[MAX_IN];
    for (unsigned i = 0; i < n->nin; i++) {
        NodeId x = snG_in(r->old, id, i);
        bool cut = false;
        for (unsigned k = 0; k < sizeof multiplied / sizeof *multiplied; k++)
            cut |= !strcmp(snU_str(r->old->ctx, op->in_name[i]), multiplied[k]);
        in[i] = cut && is_f32(r->old, x) ? cast(r->g, at, r->map[x], half) : r->map[x];
    }
    Attention a = snP_attention(r->old, id);
    for (unsigned i = 0; i < n->nin && a.own; i++)
        if (snG_in(r->old, id, i) == a.in[ATT_delta]) in[i] = delta_of_half(r, a.in[ATT_delta], a.in[ATT_dy], in[0]);
    NodeId y = snG_add(r->g, at, n->op, in, n->nin, snG_attrs(r->old->ctx, n->attr));
    y = cast(r->g, at, y, (Dtype)snG_type(r->old, id)->dtype);
    if (n->name) snG_rename(r->g, y, n->name);
    return y;
}

static Dtype half_dtype(sn_ctx *c, const char *name) {
    Dtype d = snG_dtype_of(name, strlen(name));
    if (d != SN_BF16 && d != SN_F16) snU_fail(c, SN_USAGE, 0, "autocast is bf16 or f16, not '%s'", name);
    return d;
}

/* needs: composites expanded.  gives: casts in front of contractions.  keeps: the dtype of every other value. */
Graph *snP_autocast(const Graph *old, const PassOptions *opt) {
    if (!opt->autocast || !strcmp(opt->autocast, "tf32")) return (Graph *)old;
    Dtype half = half_dtype(old->ctx, opt->autocast);
    Rebuild r = snG_rebuild(old);
    for (NodeId id = 1; id < old->nodes.n; id++) {
        bool contracts = snG_op(old->ctx, snG_node(old, id)->op)->cls == C_CONTRACT;
        bool wide = contracts && is_f32(old, snG_in(old, id, 0)) && is_f32(old, snG_in(old, id, 1));
        if (snP_attention_kind(old, id)) r.map[id] = attend_halves(&r, id, half);
        else r.map[id] = wide ? contract_halves(&r, id, half) : snG_copy_node(&r, id);
    }
    Graph *g = snG_finish(&r), *out = snP_rewrite(g, opt, "autocast");
    snG_free(g);
    return out;
}
