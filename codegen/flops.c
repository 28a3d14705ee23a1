/* flops.c: FLOPs of a graph.

   In:  any graph; of a training graph the backward products are nodes like the others. Out: model FLOPs, 2 m n k summed over the
   matrix products (of a matmul_some as if all of it counted), bodies of composites included, elementwise work left out, as is
   usual for a share of peak; and the elementwise work of a group, for its place under a roofline. */
#include "codegen/flops.h"

static double matmul_flops(const Graph *g, NodeId id) {
    const Type *a = snG_type(g, snG_in(g, id, 0));
    bool ta = snG_attr_int(g, id, 0) != 0;
    int64_t k = a->dim[ta ? a->rank - 2 : a->rank - 1];
    return 2.0 * (double)snG_count(snG_type(g, id)) * (double)k;
}

static double body_flops(const Graph *g, NodeId id) {
    const Node *n = snG_node(g, id);
    const Type *types[MAX_IN];
    for (unsigned i = 0; i < n->nin; i++) types[i] = snG_type(g, snG_in(g, id, i));
    return snK_model_flops(snG_body(g->ctx, n->op, types, n->nin, n->attr, n->loc));
}

double snK_model_flops(const Graph *g) {
    double sum = 0;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        if (snG_op(g->ctx, n->op)->cls == C_CONTRACT) sum += matmul_flops(g, id);
        else if (snG_op(g->ctx, n->op)->cls == C_COMPOSITE) sum += body_flops(g, id);
    }
    return sum;
}

/* -- Elementwise work ------------------------------------------------------------------------------------------ */

static double node_flops(const Graph *g, NodeId id) {
    const OpInfo *op = snG_op(g->ctx, snG_node(g, id)->op);
    double steps = 0;
    if (op->cls == C_REDUCE || op->cls == C_SCAN) return (double)snG_count(snG_type(g, snG_in(g, id, 0)));
    for (int i = 0; op->scalar && i < op->scalar->n; i++)
        steps += op->scalar->ins[i].op != S_ARG && op->scalar->ins[i].op != S_CONST;
    return steps * (double)snG_count(snG_type(g, id));
}

/* The node and what it reads that is stored nowhere, each once. */
static double cone_flops(const Graph *g, NodeId id, uint8_t *seen) {
    double sum = node_flops(g, id);
    seen[id] = 1;
    for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
        NodeId x = snG_in(g, id, i);
        if (!seen[x] && !snG_node(g, x)->group) sum += cone_flops(g, x, seen);
    }
    return sum;
}

double snK_ewise_flops(const Graph *g, const Group *grp) {
    Arena a = { 0 };
    uint8_t *seen = NEWN(&a, uint8_t, g->nodes.n);
    double sum = 0;
    for (uint32_t i = 0; i < grp->nodes.n; i++) sum += cone_flops(g, grp->nodes.v[i], seen);
    snU_free_arena(&a);
    return sum;
}
