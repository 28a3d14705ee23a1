/* flops.c: model FLOPs of a graph.

   In:  any graph; of a training graph the backward products are nodes like the others. Out: 2 m n k summed over the matrix
   products (of a matmul_some as if all of it counted), bodies of composites included. Elementwise work is left out, as is usual for a share of peak. */
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
