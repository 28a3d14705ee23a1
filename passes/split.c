/* split.c: long sums over leading axes (column sums, full sums), and products far deeper than wide, in two stages.

   In:  any graph. Out: the same, where a sum that folds many rows into few results, which one worker would have to do alone,
   is a sum of partial sums. The number of chunks depends on the shape only, never on the number of threads or on the device,
   so that the result has the same bits everywhere.

     y: f32[1, 512] = sum(x, axis=[0])              # x: f32[4096, 512]
   becomes
     a: f32[64, 64, 512] = reshape(x, [64, 64, 512])
     b: f32[64, 1, 512]  = sum(a, axis=[1])
     c: f32[1, 1, 512]   = sum(b, axis=[0])
     y: f32[1, 512]      = reshape(c, [1, 512])
   and a row without rows of its own is cut into pieces of about 4096 elements. A product of few rows and columns over a long depth, such
   as the gradient of what goes into a projection to the vocabulary, is the sum of products of pieces of the depth: there are enough
   programs then that each reads its part of both operands once. */
#include "passes/pass.h"

enum { MIN_ELEMENTS = 1 << 15, MIN_ROWS = 256, MAX_CHUNKS = 64, MANY_CHUNKS = 512, MIN_CHUNK = 16, PIECE = 4096 };

/* Rows to be summed when the sum runs over the leading axes only, else 0. *cols: what is kept. */
static int64_t leading_rows(const Graph *g, NodeId id, int64_t *cols) {
    const Type *t = snG_type(g, snG_in(g, id, 0));
    const AttrVal *axis = snG_attr(g, id, 0);
    bool summed[MAX_RANK] = {0};
    for (unsigned i = 0; i < axis->n; i++) summed[axis->i[i] < 0 ? axis->i[i] + t->rank : axis->i[i]] = true;
    int64_t rows = 1;
    int k = 0;
    *cols = 1;
    for (; k < t->rank && (!axis->n || summed[k] || t->dim[k] == 1); k++) rows *= t->dim[k];
    for (; k < t->rank; k++) {
        if (summed[k] && t->dim[k] > 1) return 0;
        *cols *= t->dim[k];
    }
    return rows;
}

/* The largest divisor of rows up to MAX_CHUNKS that leaves MIN_CHUNK rows a chunk; 1 = leave it. Of many rows up to MANY_CHUNKS,
   of MAX_CHUNKS rows or more each: a card has hundreds of places, and the partial sums stay small beside the rows. */
static int64_t chunks_for(int64_t rows) {
    int64_t most = rows / MAX_CHUNKS < MANY_CHUNKS ? rows / MAX_CHUNKS : MANY_CHUNKS;
    for (int64_t s = most > MAX_CHUNKS ? most : MAX_CHUNKS; s > 1; s--)
        if (rows % s == 0 && rows / s >= MIN_CHUNK) return s;
    return 1;
}

static NodeId list_op(Graph *g, Here at, unsigned op, NodeId x, const int64_t *list, int n) {
    Attrs a = { .v[0] = { .kind = A_LIST, .n = (uint8_t)n } };
    for (int i = 0; i < n; i++) a.v[0].i[i] = list[i];
    return snG_add(g, at, op, &x, 1, &a);
}

/* A full sum keeps the tensor's own rows: trailing axes first, so that what computes the operand row by row also sums it. */
static int64_t whole_rows(const Type *t, int64_t elements) {
    int64_t c = 1;
    for (int i = t->rank - 1; i > 0 && c < MIN_ROWS; i--) c *= t->dim[i];
    return c > 1 && elements / c >= MIN_CHUNK ? elements / c : 1;
}

static NodeId slice_of(Graph *g, Here at, NodeId x, int64_t start, int64_t size) {
    Attrs a = { .v = { { .kind = A_INT, .i = { 0 } }, { .kind = A_INT, .i = { start } }, { .kind = A_INT, .i = { size } } } };
    return snG_add(g, at, OP_slice, &x, 1, &a);
}

/* The length of a piece of n elements: a divisor of n near PIECE, or PIECE, which leaves a rest. */
static int64_t piece_of(int64_t n) {
    for (int64_t c = PIECE; c <= 4 * PIECE; c++)
        if (n % c == 0) return c;
    for (int64_t c = PIECE; c >= PIECE / 4; c--)
        if (n % c == 0) return c;
    return PIECE;
}

/* All elements of a row: pieces, then the sum of their sums; the rest is added last. */
static NodeId split_row(Graph *g, Here at, NodeId x, int64_t n, const Type *t) {
    int64_t c = piece_of(n), most = n / c * c;
    x = list_op(g, at, OP_reshape, x, &n, 1);
    NodeId y = list_op(g, at, OP_reshape, slice_of(g, at, x, 0, most), (int64_t[]){ n / c, c }, 2);
    y = list_op(g, at, OP_sum, y, (int64_t[]){ 1 }, 1);
    y = list_op(g, at, OP_reshape, list_op(g, at, OP_sum, y, (int64_t[]){ 0 }, 1), t->dim, t->rank);
    if (most == n) return y;
    NodeId rest = list_op(g, at, OP_sum, slice_of(g, at, x, most, n - most), (int64_t[]){ 0 }, 1);
    return snG_add(g, at, OP_add, (NodeId[]){ y, list_op(g, at, OP_reshape, rest, t->dim, t->rank) }, 2, NULL);
}

static NodeId split_sum(Rebuild *r, NodeId id) {
    int64_t cols, rows = leading_rows(r->old, id, &cols), s = chunks_for(rows);
    if (rows < MIN_ROWS || rows * cols < MIN_ELEMENTS || (s == 1 && cols > 1)) return 0;
    const Node *n = snG_node(r->old, id);
    const Type *t = snG_type(r->old, id);
    NodeId x = r->map[snG_in(r->old, id, 0)];
    Here at = { n->loc, n->path };
    if (cols == 1) s = whole_rows(snG_type(r->old, snG_in(r->old, id, 0)), rows);
    if (s == 1) {
        x = split_row(r->g, at, x, rows, t);
    } else {
        x = list_op(r->g, at, OP_reshape, x, (int64_t[]){ s, rows / s, cols }, 3);
        x = list_op(r->g, at, OP_sum, x, (int64_t[]){ 1 }, 1);
        x = list_op(r->g, at, OP_sum, x, (int64_t[]){ 0 }, 1);
        x = list_op(r->g, at, OP_reshape, x, t->dim, t->rank);
    }
    if (n->name) snG_rename(r->g, x, n->name);
    return x;
}

/* The pieces of a product's depth k, m rows and n columns; 1 = it stays whole. */
static int64_t depth_pieces(int64_t m, int64_t n, int64_t k) {
    enum { DEEP = 1 << 13, DEEPER = 32, LEAST = 1 << 12, MOST = 8 };
    if (k < DEEP || k < DEEPER * m || k < DEEPER * n || m < 2 || n < 2) return 1;
    for (int64_t s = MOST; s > 1; s--)
        if (k % s == 0 && k / s >= LEAST) return s;
    return 1;
}

/* An operand [rows, depth], or with the depth first, as `pieces` of them, one after the other. */
static NodeId depth_piece(Graph *g, Here at, NodeId x, bool depth_first, int64_t pieces) {
    const Type t = *snG_type(g, x);
    int64_t k = t.dim[depth_first ? 0 : 1];
    if (depth_first) return list_op(g, at, OP_reshape, x, (int64_t[]){ pieces, k / pieces, t.dim[1] }, 3);
    x = list_op(g, at, OP_reshape, x, (int64_t[]){ t.dim[0], pieces, k / pieces }, 3);
    return list_op(g, at, OP_permute, x, (int64_t[]){ 1, 0, 2 }, 3);
}

static NodeId split_product(Rebuild *r, NodeId id) {
    const Graph *g = r->old;
    const Node *n = snG_node(g, id);
    const Type *t = snG_type(g, id), *a = snG_type(g, snG_in(g, id, 0));
    bool some = n->op == OP_matmul_some, ta = snG_attr_int(g, id, 0), tb = snG_attr_int(g, id, 1);
    if (t->rank != 2 || t->dtype != SN_F32 || (some && snG_attr_int(g, id, 2))) return 0;
    int64_t pieces = depth_pieces(t->dim[0], t->dim[1], a->dim[ta ? 0 : 1]);
    if (pieces == 1) return 0;
    Here at = { n->loc, n->path };
    NodeId in[3] = { depth_piece(r->g, at, r->map[snG_in(g, id, 0)], ta, pieces), depth_piece(r->g, at, r->map[snG_in(g, id, 1)], !tb, pieces) };
    if (some) in[2] = r->map[snG_in(g, id, 2)];
    NodeId y = snG_add(r->g, at, n->op, in, n->nin, snG_attrs(g->ctx, n->attr));
    y = list_op(r->g, at, OP_sum, y, (int64_t[]){ 0 }, 1);
    y = list_op(r->g, at, OP_reshape, y, t->dim, t->rank);
    if (n->name) snG_rename(r->g, y, n->name);
    return y;
}

/* needs: nothing.  gives: two-stage sums.  keeps: everything else. */
Graph *snP_split(const Graph *old, const PassOptions *opt) {
    (void)opt;
    Rebuild r = snG_rebuild(old);
    for (NodeId id = 1; id < old->nodes.n; id++) {
        unsigned op = snG_node(old, id)->op;
        if (op == OP_sum) r.map[id] = split_sum(&r, id);
        if (op == OP_matmul || op == OP_matmul_some) r.map[id] = split_product(&r, id);
        if (!r.map[id]) r.map[id] = snG_copy_node(&r, id);
    }
    return snG_finish(&r);
}
