/* recompute.c: forward values computed again in the backward pass instead of being kept for it.

   In:  a loss graph with gradients (outputs grad.*) as primitives. Out: the same, where nodes of the backward
   pass read copies of forward nodes. A copy starts from values that are kept, each behind a fence, so that it
   neither merges with the first nor runs before the gradient arrives.

     h.3.n1: f32[T, D] = rmsnorm of x                            # forward
     d.h.3.matmul = matmul(h.3.n1, dy, ta=1)                     # backward, reads it
   becomes
     r.h.3.fence: f32[T, D] = fence(x, dy)
     r.h.3.n1: f32[T, D] = rmsnorm of r.h.3.fence
     d.h.3.matmul = matmul(r.h.3.n1, dy, ta=1)

   A BLOCK is an outermost instance: the path up to its first number (h.3 of h.3.attn), or up to the first dot
   where it has none. Only blocks with a contraction count. Kept are what a block reads from outside (the
   residual stream, for a transformer), values per row (last axis 1: norms, softmax), and what is elementwise
   of weights, inputs and generated values alone: casts of weights, masks.

     block   every block keeps what it reads and is computed again when its backward pass begins: one more forward
             pass, one residual per block
     full    blocks in runs of about the square root of their number: only what a run reads is kept. A run's
             backward pass begins by computing the residuals inside it again, then each block as above: two more
             forward passes, two roots of residuals

   Random numbers are functions of element indices, so a copy has the bits of the first, and so have the
   gradients as long as the kernels that a copy becomes sum in the order of the first's (tests/unit_mixed.c
   compares both arms bit by bit, compiled). */
#include <math.h>
#include "passes/pass.h"

/* A block, or a run of blocks; what lies inside is copied, what it reads from outside is fenced. */
typedef struct Region {
    int outer;                       /* the run that a block is in, -1 = none */
    NodeId first, after;             /* first backward node that wants a copy, 0 = none; what copies wait for */
    bool contracts;
    HashMap copies;                  /* forward node -> its copy */
} Region;

typedef struct Recompute {
    Rebuild r;
    const Graph *g;
    NodeId loss;                     /* the last node that outputs other than gradients need */
    bool full;
    uint8_t *leaves;                 /* per forward node: 1 = another block's forward pass reads it, 2 = another run's */
    bool *forward, *fixed;           /* per node: of the forward pass; elementwise of leaves alone */
    int *block;                      /* per node: region of its path, -1 = none */
    VEC(Region) regions;             /* blocks, then runs */
    HashMap by_path, by_name;        /* path -> 1 + block; name of a block -> the same */
} Recompute;

/* -- Blocks ------------------------------------------------------------------------------------------------ */

/* Length of a block's name at the start of a path. */
static size_t block_name(const char *path) {
    for (const char *p = path; *p; p += *p == '.') {
        size_t n = strcspn(p, "."), digits = strspn(p, "0123456789");
        if (n && digits == n) return (size_t)(p - path) + n;
        p += n;
    }
    return strcspn(path, ".");
}

static int block_of(Recompute *w, Sym path) {
    sn_ctx *c = w->g->ctx;
    const char *s = snU_str(c, path);
    if (!strncmp(s, "d.", 2)) s += 2;
    if (!*s || !strcmp(s, "d")) return -1;
    uint32_t known = snU_find(&w->by_path, path);
    if (known) return (int)known - 1;
    Sym name = snU_sym(c, s, block_name(s));
    known = snU_find(&w->by_name, name);
    if (!known) {
        PUSH(w->r.g->arena, w->regions, ((Region){ .outer = -1 }));
        known = w->regions.n;
        snU_insert(w->r.g->arena, &w->by_name, name, known);
    }
    snU_insert(w->r.g->arena, &w->by_path, path, known);
    return (int)known - 1;
}

static bool is_gradient(const Graph *g, Sym output) { return !strncmp(snU_str(g->ctx, output), "grad.", 5); }

/* Made by the pass grad, which builds everything under d. */
static bool is_made_by_grad(const Graph *g, NodeId id) {
    const char *path = snU_str(g->ctx, snG_node(g, id)->path);
    return path[0] == 'd' && (path[1] == '.' || !path[1]);
}

/* What other outputs than gradients need, and what a fusion has put beside it for the backward pass (the lse
   of an attention). */
static void find_forward(Recompute *w) {
    const Graph *g = w->g;
    for (uint32_t i = 0; i < g->outputs.n; i++)
        if (!is_gradient(g, g->outputs.v[i].name)) w->forward[g->outputs.v[i].node] = true;
    for (uint32_t i = 0; i < g->updates.n; i++) w->forward[g->updates.v[i].value] = true;
    for (NodeId id = g->nodes.n - 1; id > 0; id--) {
        if (!w->forward[id]) continue;
        if (!w->loss) w->loss = id;
        for (unsigned i = 0; i < snG_node(g, id)->nin; i++) w->forward[snG_in(g, id, i)] = true;
    }
    for (NodeId id = 1; id < g->nodes.n; id++) w->forward[id] |= !is_made_by_grad(g, id);
}

static void find_blocks(Recompute *w) {
    const Graph *g = w->g;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        const Node *n = snG_node(g, id);
        OpClass cls = snG_op(g->ctx, n->op)->cls;
        bool fixed = cls == C_LEAF || cls == C_GEN || cls == C_EWISE || cls == C_MOVE;
        for (unsigned i = 0; i < n->nin; i++) fixed &= w->fixed[snG_in(g, id, i)];
        w->fixed[id] = fixed;
        w->block[id] = block_of(w, n->path);
        if (w->block[id] >= 0 && w->forward[id] && cls == C_CONTRACT)
            w->regions.v[w->block[id]].contracts = true;
    }
    for (NodeId id = 1; id < g->nodes.n; id++)
        if (w->block[id] >= 0 && !w->regions.v[w->block[id]].contracts) w->block[id] = -1;
}

/* Is this forward node one that copies are made of? */
static bool is_recomputed(const Recompute *w, NodeId id) {
    const Type *t = snG_type(w->g, id);
    return w->forward[id] && !w->fixed[id] && w->block[id] >= 0 && t->rank && t->dim[t->rank - 1] > 1;
}

/* Does a region compute it again? Not what it gives to others: that is their input, and kept. */
static bool is_inside(const Recompute *w, int region, NodeId id) {
    int b = w->block[id];
    if (!is_recomputed(w, id)) return false;
    return b == region ? !(w->leaves[id] & 1) : w->regions.v[b].outer == region && !(w->leaves[id] & 2);
}

/* Once before runs are known, once after. */
static void find_leaving(Recompute *w) {
    const Graph *g = w->g;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        for (unsigned i = 0; i < snG_node(g, id)->nin && w->forward[id]; i++) {
            NodeId x = snG_in(g, id, i);
            int a = w->block[x], b = w->block[id];
            if (a < 0 || a == b) continue;
            int outer = w->regions.v[a].outer;
            w->leaves[x] |= outer >= 0 && b >= 0 && w->regions.v[b].outer == outer ? 1 : 3;
        }
    }
    for (uint32_t i = 0; i < g->outputs.n; i++) w->leaves[g->outputs.v[i].node] = 3;
}

/* Where the backward pass of a block begins, and the gradient that has arrived by then: the last one before
   it that the block's backward pass reads. Nothing that waits for it can come before it. */
static void find_begin(Recompute *w) {
    const Graph *g = w->g;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        int b = w->block[id];
        if (w->forward[id] || b < 0 || w->regions.v[b].first) continue;
        for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
            NodeId x = snG_in(g, id, i);
            if (is_inside(w, b, x) || (w->full && is_recomputed(w, x))) w->regions.v[b].first = id;
        }
    }
    for (uint32_t b = 0; b < w->regions.n; b++)
        if (w->loss < w->regions.v[b].first) w->regions.v[b].after = w->loss;
    for (NodeId id = 1; id < g->nodes.n; id++) {
        int b = w->block[id];
        if (w->forward[id] || b < 0) continue;
        for (unsigned i = 0; i < snG_node(g, id)->nin; i++) {
            NodeId x = snG_in(g, id, i), first = w->regions.v[b].first;
            if (!w->forward[x] && !w->fixed[x] && x < first && x > w->regions.v[b].after) w->regions.v[b].after = x;
        }
    }
    for (uint32_t b = 0; b < w->regions.n; b++)
        if (!w->regions.v[b].after) w->regions.v[b].first = 0;             /* nothing to wait for: kept */
}

/* Runs of about the square root of the number of blocks, in the order of the forward pass. */
static void find_runs(Recompute *w) {
    const Graph *g = w->g;
    uint32_t n = 0, nblocks = w->regions.n, seen = 0;
    for (uint32_t b = 0; b < nblocks; b++) n += w->regions.v[b].first != 0;
    uint32_t each = (uint32_t)ceil(sqrt((double)n));
    for (NodeId id = 1; id < g->nodes.n && each > 1; id++) {
        int b = w->block[id];
        if (b < 0 || !w->regions.v[b].first || w->regions.v[b].outer >= 0) continue;
        if (seen++ % each == 0) PUSH(w->r.g->arena, w->regions, ((Region){ .outer = -1 }));
        Region *run = &w->regions.v[w->regions.n - 1], *mine = &w->regions.v[b];
        mine->outer = (int)w->regions.n - 1;
        if (!run->first || mine->first < run->first) run->first = mine->first, run->after = mine->after;
    }
}

/* -- Copies
   ---------------------------------------------------------------------------------------------------- */

static Here here_of(Recompute *w, NodeId id) {
    const Node *n = snG_node(w->g, id);
    const char *path = snU_str(w->g->ctx, n->path);
    return (Here){ n->loc, snU_symf(w->g->ctx, "r%s%s", *path ? "." : "", path) };
}

static NodeId fence(Recompute *w, int region, NodeId id, NodeId x) {
    return snG_add(w->r.g, here_of(w, id), OP_fence, (NodeId[]){ x, w->r.map[w->regions.v[region].after] }, 2, NULL);
}

static NodeId copy_of(Recompute *w, int region, NodeId id);

/* A value from outside of a region: kept, or copied by the run around it; fenced behind its views, which cost
   nothing. */
static NodeId from_outside(Recompute *w, int region, NodeId id) {
    const Node *n = snG_node(w->g, id);
    Graph *g = w->r.g;
    if (w->fixed[id]) return w->r.map[id];
    if (n->op == OP_reshape || n->op == OP_permute || n->op == OP_expand || n->op == OP_slice) {
        NodeId x = from_outside(w, region, snG_in(w->g, id, 0));
        return snG_add(g, here_of(w, id), n->op, &x, 1, snG_attrs(g->ctx, n->attr));
    }
    int run = w->regions.v[region].outer;
    NodeId x = run >= 0 && is_inside(w, run, id) ? copy_of(w, run, id) : w->r.map[id];
    return fence(w, region, id, x);
}

static NodeId copy_of(Recompute *w, int region, NodeId id) {
    if (!is_inside(w, region, id)) return from_outside(w, region, id);
    NodeId y = snU_find(&w->regions.v[region].copies, id);
    if (y) return y;
    const Node *n = snG_node(w->g, id);
    NodeId in[MAX_IN];
    bool first = true;                   /* of the chain: reads what is kept anyway, without a fence */
    for (unsigned i = 0; i < n->nin; i++) {
        in[i] = copy_of(w, region, snG_in(w->g, id, i));
        first &= in[i] == w->r.map[snG_in(w->g, id, i)];
    }
    if (first) in[0] = fence(w, region, snG_in(w->g, id, 0), in[0]);
    y = snG_add(w->r.g, here_of(w, id), n->op, in, n->nin, n->attr ? snG_attrs(w->g->ctx, n->attr) : NULL);
    snU_insert(w->r.g->arena, &w->regions.v[region].copies, id, y);
    return y;
}

/* What operand x of a backward node becomes. */
static NodeId operand(Recompute *w, NodeId id, NodeId x) {
    int b = w->block[id];
    if (b < 0 || !is_recomputed(w, x) || !w->regions.v[b].first) return w->r.map[x];
    if (is_inside(w, b, x)) return copy_of(w, b, x);
    int run = w->regions.v[b].outer;
    return run >= 0 && is_inside(w, run, x) ? copy_of(w, run, x) : w->r.map[x];
}

static NodeId copy_backward(Recompute *w, NodeId id) {
    const Node *n = snG_node(w->g, id);
    NodeId in[MAX_IN];
    bool same = true;
    for (unsigned i = 0; i < n->nin; i++) {
        in[i] = operand(w, id, snG_in(w->g, id, i));
        same &= in[i] == w->r.map[snG_in(w->g, id, i)];
    }
    if (same) return snG_copy_node(&w->r, id);
    const Attrs *attrs = n->attr ? snG_attrs(w->g->ctx, n->attr) : NULL;
    NodeId y = snG_add(w->r.g, (Here){ n->loc, n->path }, n->op, in, n->nin, attrs);
    if (n->name) snG_rename(w->r.g, y, n->name);
    return y;
}

/* needs: primitives and outputs grad.*.  gives: fences and copies.  keeps: every value. */
Graph *snP_recompute(const Graph *g, const PassOptions *opt) {
    const char *how = opt->recompute ? opt->recompute : "none";
    if (!strcmp(how, "none")) return (Graph *)g;
    if (strcmp(how, "full") != 0 && strcmp(how, "block") != 0)
        snU_fail(g->ctx, SN_USAGE, 0, "recompute is none, block or full, not '%s'", how);
    Recompute w = { .r = snG_rebuild(g), .g = g, .full = !strcmp(how, "full") };
    Arena *a = w.r.g->arena;
    w.forward = NEWN(a, bool, g->nodes.n), w.fixed = NEWN(a, bool, g->nodes.n), w.block = NEWN(a, int, g->nodes.n);
    find_forward(&w);
    w.leaves = NEWN(a, uint8_t, g->nodes.n);
    find_blocks(&w);
    find_leaving(&w);
    find_begin(&w);
    if (w.full) {
        find_runs(&w);
        memset(w.leaves, 0, g->nodes.n);
        find_leaving(&w);
    }
    for (NodeId id = 1; id < g->nodes.n; id++)
        w.r.map[id] = w.forward[id] ? snG_copy_node(&w.r, id) : copy_backward(&w, id);
    return snG_finish(&w.r);
}
