/* index.c: affine coordinates through views, see index.h.

   In: coordinates of a view in terms of domain dims. Out: coordinates of its operand, or "not affine".

     y: [2048, 192] = reshape(x: [16, 128, 192])      over dims (b, t, c), y at (128 b + t, c)
     element 192 (128 b + t) + c  ->  c: remainder of 192; t: remainder of 128; b: the rest */
#include "passes/index.h"

Lin snP_lin(int64_t c) { return (Lin){ .c = c }; }

Lin snP_dim(int i) {
    Lin l = { 0 };
    l.k[i] = 1;
    return l;
}

Lin snP_axpy(int64_t a, Lin x, Lin y) {
    y.c += a * x.c;
    for (int i = 0; i < MAX_DOM; i++) y.k[i] += a * x.k[i];
    return y;
}

bool snP_same_lin(const Lin *a, const Lin *b) { return memcmp(a, b, sizeof *a) == 0; }

Lin snP_linear(const Type *t, const Lin *at) {
    Lin e = { 0 };
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        e = snP_axpy(stride, at[i], e);
        stride *= t->dim[i];
    }
    return e;
}

/* e = s q + r with 0 <= r < s for every point of the domain: terms whose factor s divides go to q. */
static bool divide(const Dom *dom, const Lin *e, int64_t s, Lin *q, Lin *r) {
    *q = *r = (Lin){ 0 };
    if (e->c < 0) return false;
    q->c = e->c / s;
    r->c = e->c % s;
    int64_t most = r->c;
    for (int i = 0; i < dom->n; i++) {
        int64_t k = e->k[i];
        if (!k || dom->ext[i] == 1) continue;
        if (k < 0) return false;
        if (k % s == 0) q->k[i] = k / s;
        else r->k[i] = k, most += k * (dom->ext[i] - 1);
    }
    return most < s;
}

bool snP_coords(const Dom *dom, Lin e, const Type *t, Lin *at) {
    for (int i = t->rank - 1; i > 0; i--) {
        Lin q;
        if (t->dim[i] == 1) { at[i] = snP_lin(0); continue; }
        if (!divide(dom, &e, t->dim[i], &q, &at[i])) return false;
        e = q;
    }
    if (t->rank) at[0] = e;
    return true;
}

bool snP_through(const Graph *g, NodeId view, const Dom *dom, const Lin *at, Lin *to) {
    const Type *y = snG_type(g, view), *x = snG_type(g, snG_in(g, view, 0));
    switch (snG_node(g, view)->op) {
    case OP_reshape: return snP_coords(dom, snP_linear(y, at), x, to);
    case OP_permute:
        for (int i = 0; i < y->rank; i++) to[snG_attr(g, view, 0)->i[i]] = at[i];
        return true;
    case OP_expand:
        for (int i = 0; i < x->rank; i++) to[i] = x->dim[i] == 1 ? snP_lin(0) : at[i];
        return true;
    case OP_fence:
        for (int i = 0; i < x->rank; i++) to[i] = at[i];
        return true;
    case OP_slice: {
        int64_t axis = snG_attr_int(g, view, 0);
        if (axis < 0) axis += x->rank;
        for (int i = 0; i < x->rank; i++) to[i] = at[i];
        to[axis].c += snG_attr_int(g, view, 1);
        return true;
    }
    }
    SN_ASSERT(false, "not a view");
    return false;
}

bool snP_onto(const Graph *g, NodeId view, const Dom *dom, const Lin *at, Lin *to) {
    const Type *y = snG_type(g, view), *x = snG_type(g, snG_in(g, view, 0));
    if (snG_node(g, view)->op == OP_reshape) return snP_coords(dom, snP_linear(x, at), y, to);
    if (snG_node(g, view)->op != OP_permute) return false;
    for (int i = 0; i < y->rank; i++) to[i] = at[snG_attr(g, view, 0)->i[i]];
    return true;
}

/* Boundaries of a shape: the products of its trailing axes. Two shapes of one count refine to the union of
   their boundaries, if each divides the next. */
static int boundaries(const int64_t *ext, int n, int64_t *b) {
    int m = 0;
    int64_t p = 1;
    for (int i = n - 1; i >= 0; i--) if (ext[i] != 1) b[m++] = p, p *= ext[i];
    b[m] = p;
    return m;
}

bool snP_refine(Dom *dom, const Type *t) {
    int64_t a[MAX_DOM + 1], b[MAX_RANK + 1], all[2 * MAX_DOM + 2];
    int na = boundaries(dom->ext, dom->n, a), nb = boundaries(t->dim, t->rank, b), n = 0, i = 0, j = 0;
    if (a[na] != b[nb]) return false;
    while (i <= na || j <= nb) {
        int64_t v = j > nb || (i <= na && a[i] <= b[j]) ? a[i] : b[j];
        if (i <= na && a[i] == v) i++;
        if (j <= nb && b[j] == v) j++;
        if (n && (v % all[n - 1] || n > MAX_DOM)) return false;
        all[n++] = v;
    }
    dom->n = n - 1;
    for (int k = 0; k < n - 1; k++) dom->ext[n - 2 - k] = all[k + 1] / all[k];
    return true;
}

Dom snP_dom(const Type *t) {
    Dom d = { 0 };
    for (int i = 0; i < t->rank; i++) if (t->dim[i] != 1) d.ext[d.n++] = t->dim[i];
    return d;
}

Lin snP_whole(const Dom *dom) {
    Lin e = { 0 };
    int64_t s = 1;
    for (int i = dom->n - 1; i >= 0; i--) e.k[i] = s, s *= dom->ext[i];
    return e;
}

int64_t snP_points(const Dom *dom) {
    int64_t n = 1;
    for (int i = 0; i < dom->n; i++) n *= dom->ext[i];
    return n;
}

/* Through the reshapes on top of a value: beyond a permute or a slice the order of elements is another. */
static void refine_reshapes(const Graph *g, NodeId id, Dom *dom) {
    for (; snG_node(g, id)->op == OP_reshape || snG_node(g, id)->op == OP_fence; id = snG_in(g, id, 0)) {
        Dom d = *dom;
        if (!snP_refine(&d, snG_type(g, snG_in(g, id, 0)))) return;
        *dom = d;
    }
}

bool snP_moved_axis(const Graph *g, NodeId id, int *axis) {
    const Node *n = snG_node(g, id);
    if (n->op != OP_amax && n->op != OP_amin && n->op != OP_argmax && n->op != OP_argmin && n->op != OP_cumsum) return false;
    const Type *x = snG_type(g, snG_in(g, id, 0));
    int64_t after = 1, a = snG_attr_int(g, id, 0);
    *axis = (int)(a < 0 ? a + x->rank : a);
    for (int i = *axis + 1; i < x->rank; i++) after *= x->dim[i];
    return after > 1;
}

static const Type *elements(const Graph *g, NodeId id) {
    OpClass cls = snG_op(g->ctx, snG_node(g, id)->op)->cls;
    if (snG_node(g, id)->op == OP_scatter_add) return snG_type(g, snG_in(g, id, 2));
    return snG_type(g, cls == C_REDUCE || cls == C_SCAN ? snG_in(g, id, 0) : id);
}

void snP_node_at(const Graph *g, NodeId id, const Dom *dom, Lin *at) {
    const Type *t = elements(g, id);
    int axis;
    if (!snP_moved_axis(g, id, &axis)) {
        if (!snP_coords(dom, snP_whole(dom), t, at)) SN_ASSERT(false, "domain of %s", snG_node_name(g, id));
        return;
    }
    for (int i = 0, d = 0; i < t->rank; i++) at[i] = snP_dim(i == axis ? dom->n - 1 : d++);
}

Dom snP_node_dom(const Graph *g, NodeId id) {
    const Node *n = snG_node(g, id);
    const Type *t = snG_type(g, id);
    OpClass cls = snG_op(g->ctx, n->op)->cls;
    if (cls == C_CONTRACT) {
        Dom d = { .n = t->rank };
        for (int i = 0; i < t->rank; i++) d.ext[i] = t->dim[i];
        return d;
    }
    int axis;
    if (snP_moved_axis(g, id, &axis)) {
        Dom d = { .n = t->rank };
        t = elements(g, id);
        for (int i = 0, k = 0; i < t->rank; i++) d.ext[i == axis ? t->rank - 1 : k++] = t->dim[i];
        return d;
    }
    Dom d = snP_dom(elements(g, id));
    Dom plain = d;
    refine_reshapes(g, id, &d);
    if (cls != C_MOVE) for (unsigned i = 0; i < n->nin; i++) refine_reshapes(g, snG_in(g, id, i), &d);
    bool rows = cls == C_REDUCE || cls == C_SCAN;              /* a row that is reduced stays one dim */
    return rows && plain.n && d.ext[d.n - 1] != plain.ext[plain.n - 1] ? plain : d;
}

Dom snP_part_dom(const Graph *g, NodeId part) {
    Dom d = snP_dom(snG_type(g, part));
    refine_reshapes(g, part, &d);
    return d;
}
