/* ar.c: the training graph of ar.sn, through C calls.

   In:  the sizes of the model. Out: a graph that prints the same, to the letter, as the graph
   `train` of the text: nodes, their order and names, dims, initialisers, random streams.
   tests/unit_dsl.c compares them.

     block norm(x) { ... }               static sn_val norm(Graph *g, sn_val x)
     norm(x) as n1                       sn_scope(g, "n1"); ... sn_end_scope(g);
     q = ...                             sn_name(g, "q", ...)
     split_heads(x @ wq, heads)          sn_apply(g, "split_heads", sn_text(g, "%d", heads), ...)

   A block becomes a function, its instance a scope; ops and blocks of std.sn serve both. */
#include <math.h>
#include "models/ar.h"

static sn_val norm(Graph *g, const char *name, sn_val x) {
    sn_scope(g, "%s", name);
    sn_val gain = sn_weight(g, "gain", SN_F32, SHAPE(sn_dimof(g, x, -1)), sn_ones());
    sn_val y = sn_apply(g, "rmsnorm", "eps=1e-6", x, gain);
    sn_end_scope(g);
    return y;
}

static sn_val matrix(Graph *g, const char *name, int rows, int columns, double std) {
    return sn_weight(g, name, SN_F32, SHAPE(rows, columns), sn_normal(std));
}

/* x @ w as heads: [batch, seq, heads * D] -> [batch, heads, seq, D] */
static sn_val project(Graph *g, const char *name, sn_val x, sn_val w, int heads) {
    sn_val y = sn_matmul(g, x, w, false, false);
    return sn_name(g, name, sn_apply(g, "split_heads", sn_text(g, "heads=%d", heads), y));
}

static sn_val attn(Graph *g, const ArShape *m, sn_val x, sn_val mask) {
    int D = m->width / m->heads;
    const char *repeats = sn_text(g, "n=%d", m->heads / m->kv_heads);
    sn_scope(g, "attn");
    sn_val wq = matrix(g, "wq", m->width, m->heads * D, 0.02);
    sn_val wk = matrix(g, "wk", m->width, m->kv_heads * D, 0.02);
    sn_val wv = matrix(g, "wv", m->width, m->kv_heads * D, 0.02);
    sn_val wo = matrix(g, "wo", m->heads * D, m->width, 0.02 / sqrt(2 * m->layers));
    sn_val q = project(g, "q", x, wq, m->heads);
    sn_val k = project(g, "k", x, wk, m->kv_heads);
    sn_val v = project(g, "v", x, wv, m->kv_heads);
    q = sn_name(g, "q", sn_apply(g, "rope", NULL, m->qk_norm ? norm(g, "qn", q) : q));
    k = sn_name(g, "k", sn_apply(g, "rope", NULL, m->qk_norm ? norm(g, "kn", k) : k));
    sn_val s = sn_matmul(g, q, sn_apply(g, "repeat_heads", repeats, k), false, true);
    s = sn_name(g, "s", sn_div(g, s, sn_const(g, SN_F32, sqrt(D))));
    s = sn_select(g, mask, s, sn_const(g, SN_F32, -INFINITY));
    sn_val p = sn_name(g, "p", sn_apply(g, "softmax", NULL, s));
    sn_val y = sn_matmul(g, p, sn_apply(g, "repeat_heads", repeats, v), false, false);
    y = sn_matmul(g, sn_apply(g, "merge_heads", NULL, y), wo, false, false);
    sn_end_scope(g);
    return y;
}

static sn_val mlp(Graph *g, const ArShape *m, sn_val x) {
    sn_scope(g, "mlp");
    sn_val gate = matrix(g, "gate", m->width, m->hidden, 0.02);
    sn_val up   = matrix(g, "up", m->width, m->hidden, 0.02);
    sn_val down = matrix(g, "down", m->hidden, m->width, 0.02 / sqrt(2 * m->layers));
    sn_val a = sn_matmul(g, x, gate, false, false);
    sn_val b = sn_matmul(g, x, up, false, false);
    sn_val y = sn_matmul(g, sn_apply(g, "swiglu", NULL, a, b), down, false, false);
    sn_end_scope(g);
    return y;
}

static sn_val backbone(Graph *g, const ArShape *m, sn_val embed, sn_val tokens, sn_val mask,
                       sn_val drop) {
    sn_val x = sn_name(g, "x", sn_gather(g, embed, tokens));
    for (int i = 0; i < m->layers; i++) {
        sn_scope(g, "h.%d", i);
        sn_val y = attn(g, m, norm(g, "n1", x), mask);
        x = sn_name(g, "x", sn_add(g, x, sn_apply(g, "dropout as drop1", NULL, y, drop)));
        y = sn_name(g, "y", mlp(g, m, norm(g, "n2", x)));
        x = sn_name(g, "x", sn_add(g, x, sn_apply(g, "dropout as drop2", NULL, y, drop)));
        sn_end_scope(g);
    }
    return sn_name(g, "x", norm(g, "out", x));
}

/* BOS, then the first seq - 1 tokens. */
static sn_val shifted(Graph *g, const ArShape *m, sn_val tokens) {
    sn_scope(g, "shifted");
    sn_val bos = sn_expand(g, sn_const(g, SN_I32, m->vocab - 1), SHAPE(sn_dimof(g, tokens, 0), 1));
    sn_val y = m->seq == 1 ? bos : sn_concat(g, bos, sn_slice(g, tokens, 1, 0, m->seq - 1), 1);
    sn_name(g, "x", y);
    sn_end_scope(g);
    return y;
}

static sn_val causal(Graph *g, int64_t T) {
    sn_scope(g, "causal");
    sn_val row = sn_iota(g, SHAPE(T, 1), 0), column = sn_iota(g, SHAPE(1, T), 1);
    sn_val y = sn_ge(g, row, column);
    sn_end_scope(g);
    sn_scope(g, "row_mask");                                 /* of one document a row: the mask as it is */
    sn_name(g, "m", y);
    sn_end_scope(g);
    return y;
}

Graph *model_ar(sn_ctx *c, const ArShape *m) {
    Graph *g = sn_graph(c, "train");
    int64_t B = sn_dim(g, "B", m->batch), T = sn_dim(g, "T", m->seq);
    sn_val tokens = sn_input(g, "tokens", SN_I32, SHAPE(B, T));
    sn_val sample = sn_input(g, "sample", SN_I32, SHAPE(B));
    sn_val dropout    = sn_input_within(g, "dropout", m->dropout, (InputRange){ 0, 1, RANGE_GIVEN | RANGE_BELOW });
    sn_val input_mask = sn_input_within(g, "input_mask", m->input_mask, (InputRange){ 0, 1, RANGE_GIVEN });
    sn_val hidden = sn_lt(g, sn_random(g, SHAPE(B, T), sample, -1), input_mask);
    sn_val x = sn_select(g, hidden, sn_const(g, SN_I32, m->vocab - 1), shifted(g, m, tokens));
    sn_name(g, "x", x);
    sn_val mask  = causal(g, T);
    sn_val embed = matrix(g, "embed", m->vocab, m->width, 0.02);
    x = backbone(g, m, embed, x, mask, dropout);
    sn_val head = m->tied ? sn_permute(g, embed, SHAPE(1, 0))
                          : matrix(g, "head", m->width, m->vocab, 0.02);
    sn_val losses = sn_apply(g, "xent", NULL, sn_matmul(g, x, head, false, false), tokens);
    sn_output(g, "loss", sn_apply(g, "mean", NULL, losses));
    return sn_finish(g);
}
