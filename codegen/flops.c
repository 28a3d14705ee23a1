/* flops.c: FLOPs of a graph.

   In:  any graph; of a training graph the backward products are nodes like the others. Out: model FLOPs, 2 m n k summed over the
   matrix products (of a matmul_some as if all of it counted), bodies of composites included, elementwise work left out, as is
   usual for a share of peak; and the elementwise work of a group, for its place under a roofline. */
#include "codegen/flops.h"
#include "passes/attention.h"

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

/* -- Attention: which blocks a mask leaves -------------------------------------------------------------------------- */

enum { BLOCK = 64, MOST_PAIRS = 1 << 24 };

/* What a broadcast mask repeats. */
static NodeId behind_expand(const Graph *g, NodeId id) {
    while (snG_node(g, id)->op == OP_expand || snG_node(g, id)->op == OP_reshape) id = snG_in(g, id, 0);
    return id;
}

/* Node id of g again in `to`; 0 when it depends on anything but indices. */
static NodeId copy_indices(Graph *to, const Graph *g, NodeId id, NodeId *map) {
    const Node *n = snG_node(g, id);
    const OpInfo *op = snG_op(g->ctx, n->op);
    NodeId in[MAX_IN];
    if (map[id]) return map[id];
    if (op->cls == C_LEAF || n->op == OP_random || op->cls == C_COMPOSITE || op->cls == C_CONTRACT) return 0;
    for (unsigned i = 0; i < n->nin; i++) if (!(in[i] = copy_indices(to, g, snG_in(g, id, i), map))) return 0;
    return map[id] = snG_add(to, (Here){ 0 }, n->op, in, n->nin, op->nattr ? snG_attrs(g->ctx, n->attr) : NULL);
}

/* v: [rows, cols] of 0 and 1. */
static double share_of_blocks(const double *v, int64_t rows, int64_t cols) {
    double sum = 0;
    for (int64_t r = 0; r < rows; r += BLOCK)
        for (int64_t c = 0; c < cols; c += BLOCK) {
            int64_t h = rows - r < BLOCK ? rows - r : BLOCK, w = cols - c < BLOCK ? cols - c : BLOCK;
            bool any = false;
            for (int64_t i = 0; i < h * w && !any; i++) any = v[(r + i / w) * cols + c + i % w] != 0;
            if (any) sum += (double)(h * w);
        }
    return sum / ((double)rows * (double)cols);
}

static double share_of_mask(const Graph *g, NodeId mask) {
    NodeId core = behind_expand(g, mask), out;
    const Type *full = snG_type(g, mask), *t = snG_type(g, core);
    if (full->rank < 2) return 1;
    int64_t rows = full->dim[full->rank - 2], cols = full->dim[full->rank - 1];
    if (snG_count(t) != rows * cols || rows * cols > MOST_PAIRS) return 1;
    Arena a = { 0 };
    Graph *s = snG_new(g->ctx, snU_symz(g->ctx, "mask"));
    double share = 1;
    if ((out = copy_indices(s, g, core, NEWN(&a, NodeId, g->nodes.n)))) {
        snG_set_output(s, snU_symz(g->ctx, "mask"), out, 0);
        EvalVal *vals = NEWN(&a, EvalVal, s->nodes.n);
        snG_eval(s, EVAL_F64, &(EvalEnv){ 0 }, &a, vals);
        share = share_of_blocks(vals[out].v, rows, cols);
    }
    snG_free(s);
    snU_free_arena(&a);
    return share;
}

double snK_visited_share(const Graph *g, const Group *grp) {
    return snP_attention_kind(g, grp->anchor) ? share_of_mask(g, snP_attention(g, grp->anchor).in[ATT_mask]) : 1;
}
