/* bench_regions.c: where the time of a side goes, kernel by kernel, and what each fused kernel replaces.

   In:  a timed pair. Out: rows per kernel (layers taken together), bars in order, the memory of a run.

   Which unfused kernels does a fused kernel replace? Both graphs come from one source, so a node of the unfused side has its twin on
   the fused side: same op, type, instance path and source line, the k-th of these. The time of the unfused kernel goes to the kernel
   that computes the twin; of a twin that is stored nowhere, in equal parts to the kernels that compute it for themselves. Where a
   fusion rewrote the graph (attention, the loss, the optimizer) there is no twin. What was rewritten is a connected piece of either
   graph, so nodes without twins that read each other, in one direction, form a piece. Its time goes to the piece of the fused side,
   of the same direction, that reads the same values and else comes from the nearest place (instance path, then source line), to all its
   kernels in proportion to their own time. */
#include "tools/bench.h"
#include "codegen/flops.h"

#include <ctype.h>
#include <math.h>

/* -- Groups of one side ------------------------------------------------------------------------------------------------ */

typedef struct GroupCost { const char *family; double seconds, flops, bytes; int launches; } GroupCost;   /* [groups]: copies at the end */

static const char *path_of(const Graph *g, NodeId id) { return snU_str(g->ctx, snG_node(g, id)->path); }

static bool under(const char *path, const char *top) {
    size_t n = strlen(top);
    return !strncmp(path, top, n) && (!path[n] || path[n] == '.');
}

static const char *direction(const char *path) {
    return under(path, "d") ? "bwd" : under(path, "adam") || under(path, "accum") ? "optim" : "fwd";
}

const char *node_direction(const Graph *g, NodeId id) { return direction(path_of(g, id)); }

static int group_count(const Side *s) { return (int)s->built->groups.group.n; }

static double visited(const Side *s, int k) {
    const Group *grp = &s->built->groups.group.v[k];
    return grp->kind == G_ATTENTION ? snK_visited_share(s->built->g, grp) : 1;
}

static GroupCost *group_costs(const Side *s) {
    int n = group_count(s);
    GroupCost *c = calloc((size_t)n + 1, sizeof *c);
    for (int i = 0; i < s->g->nlaunches; i++) {
        int k = s->built->group_of.v[i] >= 0 ? s->built->group_of.v[i] : n;
        c[k].family = s->now[i].family;
        c[k].seconds += s->best[i];
        c[k].flops += s->now[i].flops / (double)s->now[i].launches;
        c[k].bytes += s->now[i].bytes / (double)s->now[i].launches;
        c[k].launches++;
    }
    for (int k = 0; k < n; k++) c[k].flops = c[k].flops * visited(s, k) + snK_ewise_flops(s->built->g, &s->built->groups.group.v[k]);
    return c;
}

/* -- Twins ------------------------------------------------------------------------------------------------------------------ */

typedef struct Twins {
    const Graph *fused, *unfused;
    Arena a;
    NodeId *of;                      /* per unfused node: its twin, 0 = none */
    uint8_t *has;                    /* per fused node: it is one */
} Twins;

/* What a node and its twin have in common. Paths and locations are of one source, but of two contexts. */
static uint64_t signature(const Graph *g, NodeId id) {
    const Node *n = snG_node(g, id);
    const Type *t = snG_type(g, id);
    const LocInfo *l = snU_locinfo(g->ctx, n->loc);
    const char *op = snG_op(g->ctx, n->op)->cname, *path = path_of(g, id);
    uint64_t h = snU_hash(op, strlen(op), t->dtype);
    h = snU_hash(path, strlen(path), h);
    h = snU_hash(t->dim, sizeof t->dim[0] * t->rank, h);
    const char *file = snU_str(g->ctx, l->file);
    h = snU_hash(file, strlen(file), h);
    return snU_hash(&l->line, sizeof l->line, h);
}

/* By signature and how many of these came before. */
static void find_twins(Twins *t) {
    HashMap by = {0};
    for (int side = 0; side < 2; side++) {
        const Graph *g = side ? t->unfused : t->fused;
        uint32_t *count = NEWN(&t->a, uint32_t, g->nodes.n + 1), kinds = 0;
        HashMap seen = {0};
        for (NodeId id = 1; id < g->nodes.n; id++) {
            uint64_t h = signature(g, id);
            uint32_t k = snU_find(&seen, h);
            if (!k) k = ++kinds, snU_insert(&t->a, &seen, h, k);
            uint64_t key = snU_hash(&count[k], sizeof count[k], h);
            count[k]++;
            if (!side) { snU_insert(&t->a, &by, key, id); continue; }
            t->of[id] = snU_find(&by, key);
            if (t->of[id]) t->has[t->of[id]] = 1;
        }
    }
}

/* -- Shares ----------------------------------------------------------------------------------------------------------------- */

typedef struct Home { VEC(int) groups; } Home;   /* of a piece: fused groups */

typedef struct Regions {
    const Side *f, *u;
    Twins t;
    GroupCost *cost, *own;           /* of the unfused and of the fused side */
    int *piece;                      /* per unfused node without a twin: another of its piece; the root's is itself */
    int *family;                     /* per fused group without twin: its piece */
    Home *home;                      /* per root of a piece */
    double *seconds, *parts;         /* per fused group: what it replaces; at the end what copies do */
    VEC(int) readers;                /* groups that compute a node */
    uint32_t *uses, *user;           /* fused side: users in CSR form */
} Regions;

static void find_users(Regions *r) {
    const Graph *g = r->f->built->g;
    r->uses = NEWN(&r->t.a, uint32_t, g->nodes.n + 2);
    uint32_t *at = NEWN(&r->t.a, uint32_t, g->nodes.n + 2);
    for (NodeId i = 1; i < g->nodes.n; i++) for (unsigned k = 0; k < snG_node(g, i)->nin; k++) r->uses[snG_in(g, i, k) + 1]++;
    for (NodeId i = 1; i <= g->nodes.n; i++) r->uses[i] += r->uses[i - 1];
    r->user = NEWN(&r->t.a, uint32_t, r->uses[g->nodes.n] + 1);
    for (NodeId i = 1; i < g->nodes.n; i++)
        for (unsigned k = 0; k < snG_node(g, i)->nin; k++) {
            NodeId x = snG_in(g, i, k);
            r->user[r->uses[x] + at[x]++] = i;
        }
}

/* The groups that compute node id: its own, or those that read it where it is stored nowhere. */
static void collect_groups(Regions *r, NodeId id, int depth) {
    const Graph *g = r->f->built->g;
    uint32_t grp = snG_node(g, id)->group;
    if (grp && r->f->built->groups.group.v[grp - 1].kind != G_PLACE) {
        for (uint32_t i = 0; i < r->readers.n; i++) if (r->readers.v[i] == (int)grp - 1) return;
        PUSH(&r->t.a, r->readers, (int)grp - 1);
        return;
    }
    for (uint32_t u = r->uses[id]; depth < 24 && r->readers.n < 64 && u < r->uses[id + 1]; u++) collect_groups(r, r->user[u], depth + 1);
}

/* -- Pieces without twins ------------------------------------------------------------------------------------------------ */

static int piece_of(Regions *r, int x) {
    while (r->piece[x] != x) x = r->piece[x] = r->piece[r->piece[x]];
    return x;
}

static bool alone(const Regions *r, NodeId id) {
    const Graph *g = r->u->built->g;
    return !r->t.of[id] && snG_op(g->ctx, snG_node(g, id)->op)->cls != C_LEAF;
}

/* A fused group whose anchor has no twin. */
static bool lonely(const Regions *r, int k) {
    const Group *grp = &r->f->built->groups.group.v[k];
    return !r->t.has[grp->anchor];
}

static void find_pieces(Regions *r) {
    const Graph *g = r->u->built->g;
    r->piece = NEWN(&r->t.a, int, g->nodes.n);
    r->home = NEWN(&r->t.a, Home, g->nodes.n);
    for (NodeId id = 1; id < g->nodes.n; id++) {
        r->piece[id] = (int)id;
        for (unsigned i = 0; alone(r, id) && i < snG_node(g, id)->nin; i++) {
            NodeId x = snG_in(g, id, i);
            while (snP_is_view(g, x)) x = snG_in(g, x, 0);     /* what is stored, not constants that all share */
            if (!snG_node(g, x)->group || !alone(r, x)) continue;
            if (!strcmp(node_direction(g, x), node_direction(g, id))) r->piece[piece_of(r, (int)x)] = piece_of(r, (int)id);
        }
    }
}

static bool same_line(const Graph *a, NodeId x, const Graph *b, NodeId y) {
    const LocInfo *l = snU_locinfo(a->ctx, snG_node(a, x)->loc), *m = snU_locinfo(b->ctx, snG_node(b, y)->loc);
    return l->line == m->line && !strcmp(snU_str(a->ctx, l->file), snU_str(b->ctx, m->file));
}

/* How many operands of node u of the unfused side, behind views, have a twin that the fused group reads. */
static int shared_inputs(const Regions *r, NodeId u, const Group *grp) {
    const Graph *g = r->u->built->g;
    int n = 0;
    for (unsigned i = 0; i < snG_node(g, u)->nin; i++) {
        NodeId x = snG_in(g, u, i);
        while (snP_is_view(g, x)) x = snG_in(g, x, 0);
        for (uint32_t k = 0; r->t.of[x] && k < grp->inputs.n; k++) n += grp->inputs.v[k] == r->t.of[x];
    }
    return n;
}

/* How near a node of the unfused side is to a fused group without twin, of its direction; -1: not of these. */
static int group_nearness(const Regions *r, NodeId u, int k) {
    enum { LINE = 1, LETTER = 2, INPUT = 1000 };
    const Graph *gu = r->u->built->g, *gf = r->f->built->g;
    const Group *grp = &r->f->built->groups.group.v[k];
    if (!lonely(r, k) || strcmp(node_direction(gf, grp->anchor), node_direction(gu, u))) return -1;
    const char *a = path_of(gu, u), *b = path_of(gf, grp->anchor);
    int n = 0;
    while (a[n] && a[n] == b[n]) n++;
    return LETTER * n + LINE * same_line(gu, u, gf, grp->anchor) + INPUT * shared_inputs(r, u, grp);
}

static void join_groups(Regions *r, int k, int with) {
    int a = r->family[k], b = r->family[with];
    for (int m = 0; a != b && m < group_count(r->f); m++) if (r->family[m] == b) r->family[m] = a;
}

/* Fused groups without twin that read each other, or one value without twin, in one direction: one piece, named by one of them. */
static void find_fused_pieces(Regions *r) {
    const Graph *g = r->f->built->g;
    const Groups *all = &r->f->built->groups;
    int *reader[2] = { NEWN(&r->t.a, int, g->nodes.n), NEWN(&r->t.a, int, g->nodes.n) };      /* forward, backward: 1 + the last seen */
    r->family = NEWN(&r->t.a, int, all->group.n + 1);
    for (uint32_t k = 0; k < all->group.n; k++) r->family[k] = (int)k;
    for (uint32_t k = 0; k < all->group.n; k++) {
        const Group *grp = &all->group.v[k];
        const char *dir = node_direction(g, grp->anchor);
        for (uint32_t i = 0; lonely(r, (int)k) && i < grp->inputs.n; i++) {
            NodeId x = grp->inputs.v[i];
            int from = (int)snG_node(g, x)->group - 1, *last = &reader[!strcmp(dir, "bwd")][x];
            if (from < 0 || !lonely(r, from)) continue;
            if (!strcmp(dir, node_direction(g, all->group.v[from].anchor))) join_groups(r, (int)k, from);
            if (*last && !strcmp(dir, node_direction(g, all->group.v[*last - 1].anchor))) join_groups(r, (int)k, *last - 1);
            *last = (int)k + 1;
        }
    }
}

/* All groups of the fused piece that group k belongs to, once. */
static void add_home(Regions *r, Home *h, int k) {
    for (uint32_t i = 0; i < h->groups.n; i++) if (h->groups.v[i] == k) return;
    for (int m = 0; m < group_count(r->f); m++)
        if (lonely(r, m) && r->family[m] == r->family[k]) PUSH(&r->t.a, h->groups, m);
}

/* For every piece the fused pieces with a group that no other is nearer than to any of its nodes: the chunks of a loss are several. */
static void find_homes(Regions *r) {
    const Graph *g = r->u->built->g;
    int *most = NEWN(&r->t.a, int, g->nodes.n);
    for (int pass = 0; pass < 2; pass++)
        for (NodeId id = 1; id < g->nodes.n; id++) {
            int p = piece_of(r, (int)id);
            for (int k = 0; alone(r, id) && snG_node(g, id)->group && k < group_count(r->f); k++) {
                int n = group_nearness(r, id, k) + 1;
                if (!pass) most[p] = n > most[p] ? n : most[p];
                else if (n && n == most[p]) add_home(r, &r->home[p], k);
            }
        }
}

static void give(Regions *r, int to, double seconds, double parts) {
    if (to < 0) to = group_count(r->f);
    r->seconds[to] += seconds;
    r->parts[to] += parts;
}

/* To the home of a piece: in proportion to what its kernels take. */
static void give_home(Regions *r, const Home *h, double seconds, double parts) {
    double sum = 0;
    for (uint32_t i = 0; i < h->groups.n; i++) sum += r->own[h->groups.v[i]].seconds;
    if (!h->groups.n) give(r, -1, seconds, parts);
    for (uint32_t i = 0; i < h->groups.n; i++) {
        double share = sum > 0 ? r->own[h->groups.v[i]].seconds / sum : 1.0 / h->groups.n;
        give(r, h->groups.v[i], seconds * share, parts * share);
    }
}

/* The time of unfused group k to the fused groups that replace it, node by node. */
static void attribute(Regions *r, int k) {
    const Group *grp = &r->u->built->groups.group.v[k];
    double seconds = r->cost[k].seconds / grp->nodes.n, parts = (double)r->cost[k].launches / grp->nodes.n;
    for (uint32_t i = 0; i < grp->nodes.n; i++) {
        NodeId id = grp->nodes.v[i], twin = r->t.of[id];
        r->readers.n = 0;
        if (twin) collect_groups(r, twin, 0);
        if (!r->readers.n) give_home(r, &r->home[piece_of(r, (int)id)], seconds, parts);
        for (uint32_t m = 0; m < r->readers.n; m++) give(r, r->readers.v[m], seconds / r->readers.n, parts / r->readers.n);
    }
}

static Regions find_regions(const Pair *p) {
    Regions r = { .f = &p->side[0], .u = &p->side[1] };
    r.t.fused = r.f->built->g, r.t.unfused = r.u->built->g;
    r.t.of = NEWN(&r.t.a, NodeId, r.t.unfused->nodes.n), r.t.has = NEWN(&r.t.a, uint8_t, r.t.fused->nodes.n);
    r.seconds = NEWN(&r.t.a, double, group_count(r.f) + 1), r.parts = NEWN(&r.t.a, double, group_count(r.f) + 1);
    r.cost = group_costs(r.u), r.own = group_costs(r.f);
    find_twins(&r.t);
    find_users(&r);
    find_pieces(&r);
    find_fused_pieces(&r);
    find_homes(&r);
    for (int k = 0; k < group_count(r.u); k++) attribute(&r, k);
    give(&r, -1, r.cost[group_count(r.u)].seconds, r.cost[group_count(r.u)].launches);
    return r;
}

static void free_regions(Regions *r) {
    free(r->cost);
    free(r->own);
    snU_free_arena(&r->t.a);
}

/* -- Rows ------------------------------------------------------------------------------------------------------------------- */

/* "h.3.attn.matmul" -> "h.*.attn.matmul" */
static void layerless(char out[64], const char *name) {
    size_t n = 0;
    for (const char *p = name; *p && n < 63; ) {
        bool number = isdigit((unsigned char)*p) && p > name && p[-1] == '.' && p[strspn(p, "0123456789")] == '.';
        if (number) out[n++] = '*', p += strspn(p, "0123456789");
        else out[n++] = *p++;
    }
    out[n] = 0;
}

static int by_time(const void *a, const void *b) {
    double x = ((const KernelRow *)a)->seconds, y = ((const KernelRow *)b)->seconds;
    return (x < y) - (x > y);
}

static KernelRow *row_for(KernelRows *rows, const char *name, const char *family, const char *dir) {
    char key[64];
    layerless(key, name);
    for (int i = 0; i < rows->n; i++)
        if (!strcmp(rows->v[i].name, key) && !strcmp(rows->v[i].family, family)) return &rows->v[i];
    KernelRow *r = &rows->v[rows->n++];
    *r = (KernelRow){ .family = family, .dir = dir };
    memcpy(r->name, key, sizeof key);
    return r;
}

KernelRows side_rows(const Pair *p, int side) {
    const Side *s = &p->side[side];
    const Graph *g = s->built->g;
    GroupCost *cost = group_costs(s);
    KernelRows rows = { calloc((size_t)group_count(s) + 1, sizeof *rows.v), 0 };
    Regions r = {0};
    if (p->sides == 2 && side == 0) r = find_regions(p);
    for (int k = 0; k <= group_count(s); k++) {
        if (!cost[k].launches && !(r.seconds && r.seconds[k] > 0)) continue;
        NodeId anchor = k < group_count(s) ? s->built->groups.group.v[k].anchor : 0;
        KernelRow *row = anchor ? row_for(&rows, snG_node_name(g, anchor), cost[k].family ? cost[k].family : "", node_direction(g, anchor))
                                : row_for(&rows, "copies and what is left", "copy", "optim");
        row->kernels++;
        row->bound |= anchor && snG_node(g, anchor)->op == OP_matmul_some;
        row->launches += cost[k].launches;
        row->seconds += cost[k].seconds, row->flops += cost[k].flops, row->bytes += cost[k].bytes;
        if (r.seconds) row->unfused += r.seconds[k], row->parts += r.parts[k];
    }
    if (r.seconds) free_regions(&r);
    free(cost);
    qsort(rows.v, (size_t)rows.n, sizeof *rows.v, by_time);
    return rows;
}

KernelBars side_bars(const Pair *p, int side) {
    const Side *s = &p->side[side];
    KernelBars bars = { calloc((size_t)s->g->nlaunches + 1, sizeof *bars.v), s->g->nlaunches };
    int before = -1;
    for (int i = 0; i < bars.n; i++) {
        int k = s->built->group_of.v[i];
        NodeId anchor = k >= 0 ? s->built->groups.group.v[k].anchor : 0;
        double runs = (double)s->now[i].launches, share = k >= 0 ? visited(s, k) : 1, ewise = k >= 0 && k != before ? snK_ewise_flops(s->built->g, &s->built->groups.group.v[k]) : 0;
        bars.v[i] = (KernelBar){ anchor ? snG_node_name(s->built->g, anchor) : s->now[i].name, s->now[i].family,
                                 anchor ? node_direction(s->built->g, anchor) : "optim", s->best[i], s->now[i].flops / runs * share + ewise,
                                 s->now[i].bytes / runs };
        before = k;
    }
    return bars;
}

/* -- Memory ----------------------------------------------------------------------------------------------------------------- */

typedef struct Life { int64_t at, bytes; int first, last; bool counted; } Life;

static int by_offset(const void *a, const void *b) {
    const Life *x = *(Life *const *)a, *y = *(Life *const *)b;
    return (x->at > y->at) - (x->at < y->at);
}

/* The most of the arena that is in use at once by the buffers that count; those that share a place count once. */
static int64_t peak_of(Life *life, int n, int launches) {
    Life **on = calloc((size_t)n + 1, sizeof *on);
    int64_t peak = 0;
    for (int step = 0; step < launches; step++) {
        int m = 0;
        for (int i = 0; i < n; i++)
            if (life[i].first <= step && step <= life[i].last && life[i].counted) on[m++] = &life[i];
        qsort(on, (size_t)m, sizeof *on, by_offset);
        int64_t end = 0, sum = 0;
        for (int i = 0; i < m; i++) {
            int64_t from = on[i]->at > end ? on[i]->at : end, to = on[i]->at + on[i]->bytes;
            if (to > from) sum += to - from, end = to;
        }
        peak = sum > peak ? sum : peak;
    }
    free(on);
    return peak;
}

/* A gradient of a weight, or the optimizer's own: what the optimizer makes, and what it reads of the backward pass. */
static void mark_optimizer(const Side *s, Life *life) {
    const Graph *g = s->built->g;
    for (uint32_t k = 0; k < s->built->groups.group.n; k++) {
        const Group *grp = &s->built->groups.group.v[k];
        if (strcmp(node_direction(g, grp->anchor), "optim")) continue;
        for (uint32_t i = 0; i < grp->inputs.n + grp->outputs.n; i++) {
            NodeId id = i < grp->inputs.n ? grp->inputs.v[i] : grp->outputs.v[i - grp->inputs.n];
            if (s->built->buffer_of[id]) life[s->built->buffer_of[id] - 1].counted = false;
        }
    }
}

/* A running sum that the last of its additions turns into a gradient, in place, is that gradient's memory all along. */
static void mark_sums(const Side *s, Life *life, int launches) {
    for (int i = launches - 1; i >= 0; i--) {
        const SnLaunch *l = &s->g->launches[i];
        for (int k = 0; k < l->nargs * l->nargs; k++) {
            Life *x = &life[l->args[k / l->nargs]], *y = &life[l->args[k % l->nargs]];
            bool in_place = x->counted && !y->counted && x->last == i && y->first == i && x->at == y->at && x->bytes == y->bytes;
            if (in_place) x->counted = false;
        }
    }
}

/* Storage: what this graph uses of it; the program's other graphs may have more. */
Memory side_memory(const Side *s) {
    int n = s->g->nbuffers, launches = s->g->nlaunches;
    Life *life = calloc((size_t)n + 1, sizeof *life);
    Memory m = { .arena = s->g->arena_bytes };
    for (int i = 0; i < n; i++) {
        bool arena = s->g->buffers[i].kind == SN_BUF_ARENA;
        life[i] = (Life){ s->g->buffers[i].offset, s->g->buffers[i].bytes, launches, -1, arena };
    }
    for (int i = 0; i < launches; i++)
        for (int k = 0; k < s->g->launches[i].nargs; k++) {
            Life *l = &life[s->g->launches[i].args[k]];
            if (i < l->first) l->first = i;
            l->last = i;
        }
    for (int i = 0; i < s->g->noutputs; i++) life[s->g->outputs[i].buffer].last = launches;
    mark_optimizer(s, life);
    mark_sums(s, life, launches);
    m.activations = peak_of(life, n, launches);
    const Graph *g = s->built->g;
    for (uint32_t i = 0; i < g->leaves.n; i++) {
        const Type *t = snG_type(g, g->leaves.v[i].node);
        if (snG_node(g, g->leaves.v[i].node)->op != OP_input) m.storage += snG_count(t) * snG_dtype_size((Dtype)t->dtype);
    }
    free(life);
    return m;
}
