/* product.c: the domain of a matmul, see product.h.

   In: a matmul, the nodes that its program computes after it, what is in memory. Out: dims and coordinates.

     n: f32[4, 128, 192]                            rows of the product are cut into (4, 128) because its operand is computed as
     matmul(reshape(n, [512, 192]), w)              it is packed, from values that lie as [4, 128, 192] and [4, 128, 1] */
#include "passes/product.h"

enum { MOST_VISITS = 64 };                                     /* of a cone; beyond, what is left cuts nothing */

typedef struct Cut {
    const Graph *g;
    InMemory memory;
    const void *user;
    Dom dom;                                                   /* of the operand's axes */
    int visits;
} Cut;

/* Dims of `axes`, one after the other. */
static Dom dims_of(const Product *p, const int *axes, int n) {
    Dom d = { 0 };
    for (int i = 0; i < n; i++) for (int k = p->first[axes[i]]; k < p->end[axes[i]]; k++) d.ext[d.n++] = p->dom.ext[k];
    return d;
}

/* The other way: dom's dims are those of `axes`, each a run that multiplies to its extent. False: too many dims in all. */
static bool put_dims(Product *p, const int *axes, int n, const Dom *dom) {
    Product out = *p;
    Dom axis[MAX_RANK + 1];
    for (int i = 0; i <= p->n; i++) axis[i] = dims_of(p, &i, 1);
    int at = dom->n;
    for (int i = n - 1; i >= 0; i--) {
        Dom *d = &axis[axes[i]];
        int64_t size = 1;
        int lo = at;
        while (size < p->ext[axes[i]]) size *= dom->ext[--lo];
        if (lo == at) continue;                                /* size 1 */
        d->n = at - lo;
        memcpy(d->ext, dom->ext + lo, sizeof(int64_t) * (size_t)d->n);
        at = lo;
    }
    out.dom.n = 0;
    for (int i = 0; i <= p->n; i++) {
        if (out.dom.n + axis[i].n > MAX_DOM) return false;
        memcpy(out.dom.ext + out.dom.n, axis[i].ext, sizeof(int64_t) * (size_t)axis[i].n);
        out.first[i] = out.dom.n, out.end[i] = out.dom.n += axis[i].n;
    }
    *p = out;
    return true;
}

/* Cuts where the reshapes on the way to memory need it, as far as elements stay in order. */
static void cut_cone(Cut *c, NodeId id) {
    const Graph *g = c->g;
    const Node *n = snG_node(g, id);
    if (c->memory(c->user, id) || c->visits++ >= MOST_VISITS) return;
    bool view = n->op == OP_reshape || n->op == OP_fence;
    if (!view && snG_op(g->ctx, n->op)->cls != C_EWISE) return;
    for (unsigned i = 0; i < (view ? 1 : n->nin); i++) {
        NodeId x = snG_in(g, id, i);
        if (snG_count(snG_type(g, x)) != snG_count(snG_type(g, id))) continue;
        Dom d = c->dom;
        if (n->op == OP_reshape && !c->memory(c->user, x) && snP_refine(&d, snG_type(g, x))) c->dom = d;
        cut_cone(c, x);
    }
}

static int operand_axes(const Graph *g, const Product *p, int o, int *axes) {
    int b = p->n - 2;
    int k_axis = b + (snG_attr_int(g, p->id, (unsigned)o) != (o == 0));
    for (int i = 0; i < b; i++) axes[i] = i;
    axes[2 * b + 1 - k_axis] = b + o;
    axes[k_axis] = p->n;
    return p->n;
}

Product snP_product_plain(const Graph *g, NodeId id) {
    const Type *t = snG_type(g, id), *left = snG_type(g, snG_in(g, id, 0));
    Product p = { .id = id, .n = t->rank };
    for (int i = 0; i <= t->rank; i++) {
        p.ext[i] = i < t->rank ? t->dim[i] : left->dim[t->rank - (snG_attr_int(g, id, 0) ? 2 : 1)];
        p.first[i] = p.dom.n;
        if (p.ext[i] != 1 || i == t->rank) p.dom.ext[p.dom.n++] = p.ext[i];
        p.end[i] = p.dom.n;
    }
    return p;
}

static bool is_view(const Graph *g, NodeId id) {
    unsigned op = snG_node(g, id)->op;
    return op == OP_reshape || op == OP_permute || op == OP_expand || op == OP_slice || op == OP_fence;
}

Product snP_product(const Graph *g, NodeId id, const NodeId *epilogue, uint32_t n, InMemory memory, const void *user) {
    Product p = snP_product_plain(g, id);
    int axes[MAX_RANK + 1];
    for (int i = 0; i < p.n; i++) axes[i] = i;
    for (uint32_t i = 0; i < n; i++) {
        Dom d = snP_node_dom(g, epilogue[i]), all = dims_of(&p, axes, p.n);
        Type cut = { .rank = 0 };
        if (d.n > MAX_RANK || is_view(g, epilogue[i])) continue;
        for (int k = 0; k < d.n; k++) cut.dim[cut.rank++] = d.ext[k];
        if (snP_refine(&all, &cut)) put_dims(&p, axes, p.n, &all);
    }
    for (int o = 0; o < 2; o++) {
        int count = operand_axes(g, &p, o, axes);
        Cut c = { .g = g, .memory = memory, .user = user, .dom = dims_of(&p, axes, count) };
        int was = c.dom.n;
        cut_cone(&c, snG_in(g, id, (unsigned)o));
        if (c.dom.n > was && put_dims(&p, axes, count, &c.dom)) p.cut = true;
    }
    return p;
}

Lin snP_axis(const Product *p, int axis) {
    Lin l = { 0 };
    int64_t step = 1;
    for (int d = p->end[axis] - 1; d >= p->first[axis]; d--) l.k[d] = step, step *= p->dom.ext[d];
    return l;
}

void snP_operand_at(const Graph *g, const Product *p, int o, Lin *at) {
    int axes[MAX_RANK + 1], n = operand_axes(g, p, o, axes);
    for (int i = 0; i < n; i++) at[i] = snP_axis(p, axes[i]);
}

bool snP_even(const Product *p, const Lin *l) {
    for (int i = 0; i <= p->n; i++)
        for (int d = p->end[i] - 1; d > p->first[i]; d--) if (l->k[d - 1] != l->k[d] * p->dom.ext[d]) return false;
    return true;
}
