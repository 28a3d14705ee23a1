/* attention.c: operands and domain of the attention ops, see attention.h.

   In: a node of one of the ops. Out: its operands by role, and affine coordinates of each over one domain.

     y: f32[2, 8, 128, 64] = attention(q, k.r, v.r, mask, 0.0, 1.0)     k.r repeats each of 2 heads 4 times:
     domain (2, 2, 4, 128, 128, 64, 64): batch, key head, head of its group, query, key, D, Dv */
#include "passes/attention.h"

static const struct { const char *op; AttKind kind; uint8_t row, col; } ops[] = {     /* col ATT_AXES: size 1 */
    { "attention", ATT_OUT, ATT_T, ATT_DV_ },   { "attention_lse", ATT_LSE, ATT_T, ATT_AXES }, { "attention_dq", ATT_DQ, ATT_T, ATT_D },
    { "attention_dk", ATT_DK, ATT_S, ATT_D },   { "attention_dv", ATT_DV, ATT_S, ATT_DV_ },
};
static const struct { const char *name; uint8_t row, col; } roles[ATT_ROLES] = {
    [ATT_q] = { "q", ATT_T, ATT_D },             [ATT_k] = { "k", ATT_S, ATT_D },           [ATT_v] = { "v", ATT_S, ATT_DV_ },
    [ATT_dy] = { "dy", ATT_T, ATT_DV_ },         [ATT_lse] = { "lse", ATT_T, ATT_AXES },    [ATT_delta] = { "delta", ATT_T, ATT_AXES },
    [ATT_mask] = { "mask", ATT_T, ATT_S },       [ATT_bias] = { "bias", ATT_T, ATT_S },     [ATT_gain] = { "gain", ATT_T, ATT_S },
};

AttKind snP_attention_kind(const Graph *g, NodeId id) {
    const OpInfo *op = snG_op(g->ctx, snG_node(g, id)->op);
    if (op->cls != C_COMPOSITE) return ATT_NONE;
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++)
        if (!strcmp(op->cname, ops[i].op)) return ops[i].kind;
    return ATT_NONE;
}

/* Cuts the leading dims where the reshapes on top of an operand need it. */
static void refine_lead(const Graph *g, NodeId x, Dom *lead) {
    for (; snG_node(g, x)->op == OP_reshape; x = snG_in(g, x, 0)) {
        const Type *from = snG_type(g, snG_in(g, x, 0)), *to = snG_type(g, x);
        int n = from->rank - 2, m = to->rank;
        if (n < 0 || m < 2 || from->dim[n] != to->dim[m - 2] || from->dim[n + 1] != to->dim[m - 1]) return;
        Type cut = *from;
        Dom d = *lead;
        cut.rank = (uint8_t)n;
        if (!snP_refine(&d, &cut) || d.n > MAX_DOM - ATT_AXES) return;
        *lead = d;
    }
}

static int64_t extent(const Graph *g, NodeId x, int from_end) {
    const Type *t = snG_type(g, x);
    return t->dim[t->rank - from_end];
}

Attention snP_attention(const Graph *g, NodeId id) {
    const OpInfo *op = snG_op(g->ctx, snG_node(g, id)->op);
    Attention a = { .kind = snP_attention_kind(g, id) };
    for (unsigned i = 0; i < op->nin; i++)
        for (int r = 0; r < ATT_ROLES; r++)
            if (!strcmp(snU_str(g->ctx, op->in_name[i]), roles[r].name)) a.in[r] = snG_in(g, id, i);
    a.scale = snG_attr_named(g, id, "scale")->f;
    a.cap = snG_attr_named(g, id, "cap")->f;
    a.own = a.kind >= ATT_DQ && snG_attr_named(g, id, "own")->i[0];
    Type lead = *snG_type(g, a.in[ATT_q]);
    lead.rank -= 2;
    a.dom = snP_dom(&lead);
    for (int r = 0; r < ATT_ROLES; r++) if (a.in[r]) refine_lead(g, a.in[r], &a.dom);
    a.lead = a.dom.n;
    int64_t *ext = a.dom.ext + a.lead;
    ext[ATT_T] = extent(g, a.in[ATT_q], 2), ext[ATT_D] = extent(g, a.in[ATT_q], 1);
    ext[ATT_S] = extent(g, a.in[ATT_k], 2), ext[ATT_DV_] = a.in[ATT_v] ? extent(g, a.in[ATT_v], 1) : 1;
    a.dom.n += ATT_AXES;
    return a;
}

/* Leading axes, then the dims row and col. */
static void coordinates(const Graph *g, const Attention *a, NodeId x, int row, int col, Lin *at) {
    Type lead = *snG_type(g, x);
    Lin e = { 0 };
    int64_t stride = 1;
    if (lead.rank == 0) return;
    lead.rank -= 2;
    for (int i = a->lead - 1; i >= 0; i--) e.k[i] = stride, stride *= a->dom.ext[i];
    if (!snP_coords(&a->dom, e, &lead, at)) SN_ASSERT(false, "leading axes of %s", snG_node_name(g, x));
    at[lead.rank] = snP_dim(a->lead + row);
    at[lead.rank + 1] = col == ATT_AXES ? snP_lin(0) : snP_dim(a->lead + col);
}

void snP_role_at(const Graph *g, const Attention *a, AttRole r, Lin *at) {
    coordinates(g, a, a->in[r], roles[r].row, roles[r].col, at);
}

void snP_result_at(const Graph *g, const Attention *a, NodeId id, Lin *at) {
    AttKind k = snP_attention_kind(g, id);
    for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++)
        if (ops[i].kind == k) coordinates(g, a, id, ops[i].row, ops[i].col, at);
}

bool snP_attention_alike(const Attention *a, const Attention *b) {
    if ((a->kind < ATT_DQ) != (b->kind < ATT_DQ) || a->scale != b->scale || a->cap != b->cap) return false;
    for (int r = 0; r < ATT_ROLES; r++)
        if (a->in[r] && b->in[r] && a->in[r] != b->in[r]) return false;
    return true;
}
