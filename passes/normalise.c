/* normalise.c: the graph as grouping wants it: one axis a sum, and a node of its own for every output and update.

   In: a graph of primitives. Out: the same values; a sum over any axes is one over a run of neighbouring axes at a time, as the middle
   of [before, n, after]; outputs that are leaves or constants, updates that are constants, and operands that cannot lie in the row they
   belong to, are copies:

     s: f32[8] = sum(x, axis=[0, 2])    becomes    sum over the last axis of [4 * 8, 16], then over the middle of [1, 4, 8] */
#include "passes/fuse.h"
#include "passes/pass.h"

int snP_summed_axis(const Graph *g, NodeId id) {
    int64_t axis = snG_attr(g, id, 0)->i[0];
    return (int)(axis < 0 ? axis + snG_type(g, snG_in(g, id, 0))->rank : axis);
}

static NodeId with_shape(Graph *g, Here at, NodeId x, const int64_t *dim, int rank) {
    Attrs a = { 0 };
    a.v[0].kind = A_LIST, a.v[0].n = (uint8_t)rank;
    memcpy(a.v[0].i, dim, sizeof(int64_t) * (size_t)rank);
    return snG_add(g, at, OP_reshape, &x, 1, &a);
}

/* sum over any axes = sums over one run of neighbouring axes at a time, each as the middle of [before, n, after]. */
static NodeId split_sum(Rebuild *r, NodeId id) {
    const Graph *g = r->old;
    const Type *x = snG_type(g, snG_in(g, id, 0)), *y = snG_type(g, id);
    const AttrVal *v = snG_attr(g, id, 0);
    const Node *n = snG_node(g, id);
    Here at = { n->loc, n->path };
    bool over[MAX_RANK] = { 0 };
    for (int i = 0; i < v->n; i++) over[v->i[i] < 0 ? v->i[i] + x->rank : v->i[i]] = true;
    for (int i = 0; i < x->rank; i++) over[i] = over[i] || v->n == 0;
    int64_t dim[MAX_RANK];
    memcpy(dim, x->dim, sizeof dim);
    NodeId s = r->map[snG_in(g, id, 0)];
    for (int hi = x->rank - 1; hi >= 0; hi--) {
        if (!over[hi] || dim[hi] == 1) continue;
        int lo = hi;
        while (lo > 0 && (over[lo - 1] || dim[lo - 1] == 1)) lo--;
        int64_t three[3] = { 1, 1, 1 };
        for (int i = 0; i < x->rank; i++) three[i < lo ? 0 : i <= hi ? 1 : 2] *= dim[i];
        bool last = three[2] == 1;
        s = with_shape(r->g, at, s, three, last ? 2 : 3);
        Attrs a = { 0 };
        a.v[0] = (AttrVal){ .kind = A_LIST, .n = 1, .i = { 1 } };
        s = snG_add(r->g, at, OP_sum, &s, 1, &a);
        for (int i = lo; i <= hi; i++) dim[i] = 1;
        hi = lo;
    }
    return with_shape(r->g, at, s, y->dim, y->rank);
}

static bool one_axis(const Graph *g, NodeId id) {
    const Type *x = snG_type(g, snG_in(g, id, 0));
    if (snG_attr(g, id, 0)->n != 1) return false;
    int axis = snP_summed_axis(g, id);
    int64_t after = 1;
    for (int i = axis + 1; i < x->rank; i++) after *= x->dim[i];
    return (after == 1 && axis == x->rank - 1) || x->rank == 3;
}

static NodeId own_node(Graph *g, NodeId v) {
    const Node *n = snG_node(g, v);
    return snG_is_leaf(g, v) || n->op == OP_const ? snG_add(g, (Here){ n->loc, n->path }, OP_stop_gradient, &v, 1, NULL) : v;
}

/* A row with copies of the operands that cannot lie in it. */
static NodeId own_parts(Rebuild *r, NodeId id, const uint8_t *copy) {
    const Node *n = snG_node(r->old, id);
    Here at = { n->loc, n->path };
    NodeId in[MAX_IN];
    for (unsigned i = 0; i < n->nin; i++) {
        in[i] = r->map[snG_in(r->old, id, i)];
        if (copy[n->in + i]) in[i] = snG_add(r->g, at, OP_stop_gradient, &in[i], 1, NULL);
    }
    return snG_add(r->g, at, n->op, in, n->nin, snG_attrs(r->old->ctx, n->attr));
}

Graph *snP_normalise(const Graph *g) {
    Arena a = { 0 };
    Rows rows = snP_rows(g, &a);
    Rebuild r = snG_rebuild(g);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        if (rows.kind[id] == ROW_VALUES && memchr(rows.copy + n->in, 1, n->nin)) r.map[id] = own_parts(&r, id, rows.copy);
        else r.map[id] = n->op == OP_sum && !one_axis(g, id) ? split_sum(&r, id) : snG_copy_node(&r, id);
        if (n->name && snG_node(r.g, r.map[id])->name == 0) snG_rename(r.g, r.map[id], n->name);
    }
    Graph *out = snG_finish(&r);
    snU_free_arena(&a);
    for (uint32_t i = 0; i < out->outputs.n; i++) out->outputs.v[i].node = own_node(out, out->outputs.v[i].node);
    for (uint32_t i = 0; i < out->updates.n; i++) {
        NodeId v = out->updates.v[i].value;
        if (snG_node(out, v)->op == OP_const) out->updates.v[i].value = own_node(out, v);
    }
    return out;
}
